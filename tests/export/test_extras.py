"""What lies beside the weights, and weights without a place in the model's class, are in an export as well, or told."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_job
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model

from mwanda.errors import ModelError
from mwanda.job.run import run
from mwanda.models.source import PretrainedModel


EXTRA = {
    "mtp.layers.0.weight": torch.arange(6.0).reshape(2, 3),
    "mtp.norm.weight": torch.ones(4, dtype=torch.bfloat16),
    "mtp.layers.0.mlp.experts.0.w1.weight": torch.full((2, 2), 3.0),
}


def with_extras(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """Add tensors, files of a processor and a licence to a model."""
    weights = load_file(folder / "model.safetensors")
    save_file(weights | tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "preprocessor_config.json").write_text('{"size": 4}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "LICENSE").write_text("yours")
    (folder / "README.md").write_text("the dense model")
    (folder / "model.safetensors.sha256").write_text("0")
    (folder / ".hidden").touch()
    return folder


def exported(model: Path, folder: Path, *settings: str) -> Path:
    typed = tiny_job.without_evaluation(model, "export=hf", *settings)
    run(tiny_job.spec(folder, typed))
    return folder / "model"


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a checkpoint, found as a loader finds them."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = {file: load_file(folder / file) for file in set(index["weight_map"].values())}
    assert sum(len(content) for content in files.values()) == len(index["weight_map"])
    return {name: files[file][name] for name, file in index["weight_map"].items()}


@pytest.mark.parametrize("offload", ["none", "disk"])
@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_tensors_and_files_without_a_place_in_the_model_are_kept(
    family: str, offload: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = with_extras(save_tiny_model(family, tmp_path / "whole"), EXTRA)
    with caplog.at_level(logging.INFO):
        folder = exported(model, tmp_path / "run", f"model.offload={offload}")
    found = stored(folder)
    for name, value in EXTRA.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
    for name in ("preprocessor_config.json", "chat_template.jinja", "LICENSE"):
        assert (folder / name).read_bytes() == (model / name).read_bytes()
    assert not {".hidden", "model.safetensors.sha256", "model.safetensors"} & {path.name for path in folder.iterdir()}
    card = (folder / "README.md").read_text()
    kept = f"kept dense, as {type(transformers.AutoModelForCausalLM.from_pretrained(model)).__name__} has no place"
    for text in (card, caplog.text):
        assert f"{kept} for them: 3 tensors, mtp.layers.0." in text
        assert "copied from the original: LICENSE" in text
        assert "preprocessor_config.json" in text
    again, loading = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"]
    pruned = again.model.layers[0].self_attn.q_proj.weight
    assert float((pruned == 0).float().mean()) == pytest.approx(0.5)


def test_an_export_of_a_plain_model_is_as_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        folder = exported(save_tiny_model("llama", tmp_path / "whole"), tmp_path / "run")
    assert (folder / "model.safetensors").is_file()
    assert not (folder / "model.safetensors.index.json").exists()
    assert "export: " not in caplog.text


def test_a_layer_that_the_class_leaves_aside_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As DeepSeek-V3's last one, which predicts a further token."""
    further = {"model.layers.2.mlp.up_proj.weight": torch.ones(24, 16), "model.layers.2.eh_proj.weight": torch.ones(3)}
    model = with_extras(save_tiny_model("llama", tmp_path / "whole"), further)
    with pytest.raises(ModelError, match=r"model\.layers has 2 blocks, and the checkpoint has 3"):
        PretrainedModel(str(model)).load()
    ignored = [r"model\.layers\.2.*"]
    monkeypatch.setattr(transformers.LlamaForCausalLM, "_keys_to_ignore_on_load_unexpected", ignored)
    found = stored(exported(model, tmp_path / "run"))
    assert all(torch.equal(found[name], value) for name, value in further.items())


def test_what_a_model_makes_anew_is_no_extra(tmp_path: Path) -> None:
    junk = {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4), "transformer.h.1.attn.masked_bias": torch.ones(())}
    model = with_extras(save_tiny_model("gpt2", tmp_path / "whole"), junk)
    assert PretrainedModel(str(model), device="cpu").load().unused == {}


def test_tensors_that_cannot_be_kept_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = save_tiny_model("llama", tmp_path / "whole")
    torch.save(load_file(model / "model.safetensors") | EXTRA, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    with caplog.at_level(logging.INFO):
        folder = exported(model, tmp_path / "run")
    told = "left out, as LlamaForCausalLM has no place for them: 3 tensors, mtp.layers.0."
    assert told in caplog.text
    assert told in (folder / "README.md").read_text()


def test_a_vision_language_model_keeps_its_processor_and_its_tower(tmp_path: Path) -> None:
    model = with_extras(save_tiny_model("gemma3", tmp_path / "whole"), {})
    folder = exported(model, tmp_path / "run")
    assert (folder / "preprocessor_config.json").read_text() == '{"size": 4}'
    before, after = (load_file(place / "model.safetensors") for place in (model, folder))
    assert before.keys() == after.keys()
    tower = [name for name in before if "vision" in name]
    assert tower
    assert all(torch.equal(before[name], after[name]) for name in tower)


def test_an_extra_with_the_name_of_nothing_is_still_found_in_shards(tmp_path: Path) -> None:
    whole = save_tiny_model("llama", tmp_path / "whole")
    transformers.AutoModelForCausalLM.from_pretrained(whole).save_pretrained(whole, max_shard_size="10KB")
    index: dict[str, Any] = json.loads((whole / "model.safetensors.index.json").read_text())
    (whole / "model.safetensors").unlink(missing_ok=True)
    save_file(EXTRA, whole / "extra.safetensors")
    index["weight_map"].update(dict.fromkeys(EXTRA, "extra.safetensors"))
    (whole / "model.safetensors.index.json").write_text(json.dumps(index))
    loaded = PretrainedModel(str(whole), device="cpu").load()
    assert loaded.unused == dict.fromkeys(sorted(EXTRA), "extra.safetensors")
    assert loaded.folder == whole
    shutil.rmtree(whole)
