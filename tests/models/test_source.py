"""Models from folders; `test_hub.py` has those from a hub."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model, tiny_model, tiny_tokenizer

from mwanda.errors import ConfigurationError, ModelError
from mwanda.models.source import DtypeChoice, PretrainedModel, cache_folder
from mwanda.system import device as devices
from mwanda.system.content import sha256_of


@contextmanager
def changed_weights(folder: Path) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the weights of a checkpoint and write them back as they are at the end."""
    weights = load_file(folder / "model.safetensors")
    yield weights
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("llama", tmp_path_factory.mktemp("model"))


def test_a_folder_gives_weights_tokenizer_and_configuration(folder: Path) -> None:
    source = PretrainedModel(str(folder), device="cpu")
    loaded = source.load()
    expected = tiny_model("llama").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.model.state_dict().items())
    assert source.load_tokenizer().get_vocab() == tiny_tokenizer().get_vocab()
    assert source.load_config().model_type == "llama"
    assert (loaded.id, loaded.device) == (str(folder), torch.device("cpu"))
    assert not loaded.model.training


def test_a_folder_has_no_revision(folder: Path) -> None:
    assert PretrainedModel(str(folder), revision="v2", device="cpu").load().revision is None


@pytest.mark.parametrize("dtype", get_args(DtypeChoice))
def test_weights_come_in_the_dtype_asked_for(folder: Path, dtype: DtypeChoice) -> None:
    expected = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    loaded = PretrainedModel(str(folder), dtype=dtype, device="cpu").load()
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {expected}


@pytest.mark.parametrize(
    ("device", "expected"), [("cpu", torch.float32), ("cuda", torch.bfloat16)], ids=["cpu", "cuda"]
)
def test_the_automatic_dtype_depends_on_the_device(device: str, expected: torch.dtype) -> None:
    assert PretrainedModel("any", device="cpu").torch_dtype(torch.device(device)) == expected


@pytest.mark.parametrize("path", ["/no/such/folder", "./nothing", "~/nothing-of-this-name", "one/two/three"])
def test_a_folder_that_is_not_there_is_an_error_that_names_it(path: str) -> None:
    for load in (PretrainedModel(path).load_config, PretrainedModel(path).load_tokenizer, PretrainedModel(path).load):
        with pytest.raises(ConfigurationError, match="no such folder") as caught:
            load()
        assert (caught.value.key, caught.value.value) == ("model.path", path)


def test_a_folder_without_a_model_is_an_error_in_one_line_that_names_it(tmp_path: Path) -> None:
    for load in (PretrainedModel(str(tmp_path)).load_config, PretrainedModel(str(tmp_path)).load):
        with pytest.raises(ModelError) as caught:
            load()
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there_is_an_error_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "available", lambda device: device != "cuda")
    with pytest.raises(ConfigurationError, match=r"model\.device=cuda"):
        PretrainedModel("any", device="cuda")
    assert PretrainedModel("any", device="auto").device == "auto"


def test_a_digest_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_cache_is_where_the_user_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MWANDA_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "all"))
    assert cache_folder() == tmp_path / "ours"
    monkeypatch.delenv("MWANDA_CACHE")
    assert cache_folder() == tmp_path / "all" / "mwanda"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "mwanda"


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", transformers.LlamaForCausalLM),
        ("mt5", transformers.MT5ForConditionalGeneration),
        ("m2m_100", transformers.M2M100ForConditionalGeneration),
        ("xlm-roberta", transformers.XLMRobertaForMaskedLM),
        ("qwen3_moe", transformers.Qwen3MoeForCausalLM),
    ],
)
def test_the_configuration_says_which_class_loads_a_model(family: str, expected: type, tmp_path: Path) -> None:
    assert type(PretrainedModel(str(save_tiny_model(family, tmp_path)), device="cpu").load().model) is expected


@pytest.mark.parametrize(
    ("family", "weight"),
    [
        ("llama", "model.layers.0.mlp.up_proj.weight"),
        ("mt5", "shared.weight"),
        ("m2m_100", "model.decoder.layers.0.fc1.bias"),
        ("xlm-roberta", "lm_head.bias"),
    ],
)
def test_a_checkpoint_that_lacks_a_weight_is_refused(family: str, weight: str, tmp_path: Path) -> None:
    """The loader itself would fill the gap with random numbers."""
    folder = save_tiny_model(family, tmp_path / "model")
    with changed_weights(folder) as weights:
        del weights[weight]
    with pytest.raises(ModelError, match=r"the checkpoint lacks \d weight\(s\) of"):
        PretrainedModel(str(folder)).load()


def test_a_weight_of_another_shape_is_refused_by_its_name(folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "model"))
    with changed_weights(other) as weights:
        weights["model.norm.weight"] = torch.ones(3)
    with pytest.raises(ModelError, match=r"lacks 1 weight\(s\).*another shape, the first of them model\.norm\.weight;"):
        PretrainedModel(str(other)).load()


@pytest.mark.parametrize("matrix", ["w1", "w2"])
def test_a_mixture_that_lacks_one_expert_is_refused(matrix: str, tmp_path: Path) -> None:
    folder = save_tiny_model("mixtral", tmp_path / "model")
    with changed_weights(folder) as weights:
        del weights[f"model.layers.1.block_sparse_moe.experts.2.{matrix}.weight"]
    with pytest.raises(ModelError, match=r"download it again") as caught:
        PretrainedModel(str(folder)).load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["mt5", "m2m_100", "xlm-roberta"])
def test_a_checkpoint_may_hold_tied_weights_once_or_each_time(family: str, tmp_path: Path) -> None:
    folder = save_tiny_model(family, tmp_path / "model")
    every = {name: value.clone() for name, value in tiny_model(family).state_dict().items()}
    with changed_weights(folder) as weights:
        assert len(weights) < len(every)
        weights.update(every)
    loaded = PretrainedModel(str(folder)).load().model
    assert all(torch.equal(value, every[name]) for name, value in loaded.state_dict().items())


def test_a_head_of_its_own_stays_so(tmp_path: Path) -> None:
    """The published mT5 has one although its configuration cannot say it."""
    folder = save_tiny_model("mt5", tmp_path / "model")
    with changed_weights(folder) as weights:
        weights["lm_head.weight"] = weights["shared.weight"] * 2
    loaded = PretrainedModel(str(folder)).load().model
    assert torch.equal(loaded.lm_head.weight, loaded.shared.weight * 2)


def test_a_model_is_loaded_straight_to_the_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was loaded into the computer's memory and moved."""
    asked, own = [], transformers.LlamaForCausalLM.from_pretrained.__func__  # type: ignore[attr-defined]

    def from_pretrained(cls: type, *args: object, device_map: object = None, **kwargs: object) -> object:
        asked.append(device_map)
        return own(cls, *args, **kwargs)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "from_pretrained", classmethod(from_pretrained))
    monkeypatch.setattr(devices, "choose", lambda _: torch.device("cuda", 1))
    PretrainedModel(str(folder)).load()
    assert asked == [{"": torch.device("cuda", 1)}]
