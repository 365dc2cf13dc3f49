"""The picture of where zeros are shows what the record says."""

from pathlib import Path

import tiny_job
import zeros
from tiny_models import save_tiny_model


def test_every_matrix_is_drawn_with_its_sparsity(tmp_path: Path) -> None:
    model = save_tiny_model("llama", tmp_path / "model")
    record = tiny_job.run(model, tmp_path / "run", "criterion=magnitude")
    names, found = zeros.sparsities(record)
    blocks = len(record["sparsity"]["per_layer"])
    assert found.shape == (len(names), blocks)
    first = record["sparsity"]["per_matrix"][0]
    assert first["name"].endswith(names[0])
    assert found[0, 0] == first["zeros"] / (first["shape"][0] * first["shape"][1])
    zeros.draw(record, tmp_path / "zeros.svg")
    drawn = (tmp_path / "zeros.svg").read_text(encoding="utf-8")
    assert all(f">{name}<" in drawn for name in names)
