"""Every damaged model is refused by its source, in one line that names the folder and, where one is at fault, the file.

`python tests/damage.py` tries all of them by the real command line.
"""

import shutil
from pathlib import Path

import damage
import pytest
from tiny_models import save_tiny_model, tiny_model, tiny_tokenizer
from typed import typed

from mwanda.errors import MwandaError
from mwanda.models import blocks_of
from mwanda.models.source import PretrainedModel
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner.audit import check_blocks


BY_TEXT = {
    "config: max_position_embeddings shorter than a sequence",
    "tokenizer: letters missing",
    "tokenizer: tokens beyond the embedding",
    "tokenizer: added tokens beyond the embedding",
    "too few positions for calibration",
    "too few positions for evaluation",
}
"""What only text can tell; tests/models/test_limits.py has these."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("llama", tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    tiny_model("llama").save_pretrained(folder, max_shard_size="10KB")
    tiny_tokenizer().save_pretrained(folder)
    return folder


def refusal(folder: Path) -> str:
    """Return what is said of a model, up to the point at which it would be measured."""
    source = PretrainedModel(str(folder), device="cpu")
    with pytest.raises(MwandaError) as caught:
        source.load_tokenizer()
        blocks_of(source.skeleton(source.load_config()))
        check_blocks(blocks_of(source.load().model), Unstructured(), "row", 0.5)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", [name for name in damage.SINGLE if name not in BY_TEXT])
def test_a_damaged_model_is_refused_in_one_line(name: str, whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    damage.SINGLE[name](folder)
    said = refusal(folder)
    kind, file = name.partition(":")[0], None
    if kind in ("config", "quantised"):
        file = "config.json"
    if kind == "tokenizer configuration":
        file = "tokenizer_config.json"
    if kind == "tokenizer":
        file = "tokenizer.json"
    if kind == "pickle":
        file = "pytorch_model.bin"
    if file is not None and "the checkpoint lacks" not in said and "own code" not in said:
        assert file in said
    assert str(folder) in said or "holds weights that are not finite" in said or "zero already" in said


@pytest.mark.parametrize("name", damage.SHARDED)
def test_a_damaged_index_or_shard_is_refused_in_one_line_that_names_it(
    name: str, sharded: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(sharded, tmp_path / "model"))
    damage.SHARDED[name](folder)
    assert "model.safetensors.index.json" in (said := refusal(folder)) or "-of-" in said


@pytest.mark.parametrize("name", [name for name in damage.OTHERS if name not in BY_TEXT])
def test_a_model_that_cannot_be_pruned_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    refusal(damage.OTHERS[name](tmp_path / "model"))


@pytest.mark.parametrize("name", ["weights: half", "quantised: GPTQ", "config: num_hidden_layers zero"])
def test_the_command_line_ends_with_one_line_and_two_and_leaves_nothing(name: str, whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    damage.SINGLE[name](folder)
    settings = ("langs=[eng_Latn]", "calibration.sequences=2", "calibration.length=16", "evaluation=none")
    outcome = typed("model=bloom", f"model.path={folder}", "tracking=none", "artifacts=false", *settings)
    assert outcome.is_refusal, outcome.said


def test_there_are_more_than_a_hundred_of_them() -> None:
    assert len(damage.SINGLE) + len(damage.SHARDED) + len(damage.OTHERS) >= 150
