"""Files of the configuration are read once, and again when they have changed."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mwanda.config import compose


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a configuration of one file and one group, with which nothing of the project's is composed."""
    monkeypatch.setattr(compose, "CONF", tmp_path)
    (tmp_path / "config.yaml").write_text("defaults: [_self_, criterion: first]\nsparsity: 0.5\n")
    (tmp_path / "criterion").mkdir()
    (tmp_path / "criterion" / "first.yaml").write_text("scale: [1, {power: 2}]\n")
    return tmp_path


def test_a_file_is_read_again_only_when_it_has_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    load = OmegaConf.load
    monkeypatch.setattr(OmegaConf, "load", staticmethod(lambda file: read.append(file) or load(file)))
    before = compose.compose([])
    assert before == {"sparsity": 0.5, "criterion": {"scale": [1, {"power": 2}]}}
    once = len(read)
    assert once
    assert compose.compose([]) == before
    assert len(read) == once
    (folder / "criterion" / "first.yaml").write_text("scale: [3]\n")
    assert compose.compose([]) == {"sparsity": 0.5, "criterion": {"scale": [3]}}
    assert len(read) == once + 1


def test_what_one_composition_changes_is_not_seen_by_the_next(folder: Path) -> None:
    assert compose.compose(["criterion.scale=[7]", "sparsity=0.1"]) == {"sparsity": 0.1, "criterion": {"scale": [7]}}
    assert compose.compose([]) == {"sparsity": 0.5, "criterion": {"scale": [1, {"power": 2}]}}
