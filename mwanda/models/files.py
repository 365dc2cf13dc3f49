"""The files of a model's folder, looked at before a library reads them, so that a damaged one is called by its name."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from mwanda.errors import ModelError


CONFIG = "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
PROCESSOR = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
    "chat_template.jinja",
)
"""Files that say how images and sound become the input of a model that reads more than text."""

OBJECTS = (
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    *PROCESSOR[:4],
    INDEX,
    PICKLES[1],
)
"""Files that hold a JSON object where they are there at all."""

IGNORED = "_keys_to_ignore_on_load_unexpected"
"""Where a class of transformers says which tensors of a checkpoint it has no use for, as DeepSeek's further block."""

MADE_ANEW = re.compile(r"(inv_freq|masked_bias|attn\.bias|attention\.bias|position_ids|\.version)$")
"""Tensors of old checkpoints that a model makes by itself."""

POINTER = b"version https://git-lfs"
AGAIN = "download it again, or choose another model"


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model.

    Args:
        folder: where they are.
        path: what the user called it.
    """

    folder: Path
    path: str

    def check(self) -> None:
        """Refuse a folder of which a file cannot be what it should be.

        Raises:
            ModelError: there is one; the message names it.
        """
        if not (self.folder / CONFIG).exists() and not (self.folder / CONFIG).is_symlink():
            raise self._error(CONFIG, "is missing", self._instead())
        for name in OBJECTS:
            if (self.folder / name).exists() or (self.folder / name).is_symlink():
                self._object(name)
        if self.have_weights:
            _ = self.tensors

    @property
    def have_weights(self) -> bool:
        """Whether there is any file of weights: to look at a model none is needed, and loading says what is missing."""
        return any(self._is_there(name) for name in (WEIGHTS, INDEX, *PICKLES)) or any(
            self.folder.glob("model-*-of-*.safetensors")
        )

    @cached_property
    def tensors(self) -> Mapping[str, str]:
        """The file of each tensor of the checkpoint, by its name; none where weights are in another format.

        Raises:
            ModelError: a file is missing, or cannot be read.
        """
        if self.weights == WEIGHTS:
            return dict.fromkeys(self._names(WEIGHTS), WEIGHTS)
        if self.weights == INDEX:
            return self._indexed()
        self._readable(self.weights)
        return {}

    @property
    def weights(self) -> str:
        """The name of the file by which a loader finds the weights.

        Raises:
            ModelError: there is none.
        """
        for name in (WEIGHTS, INDEX, *PICKLES):
            if self._is_there(name):
                return name
        shards = any(self.folder.glob("model-*-of-*.safetensors"))
        raise self._error(INDEX if shards else WEIGHTS, "is missing", "" if shards else self._instead())

    def _indexed(self) -> Mapping[str, str]:
        places = self._object(INDEX).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise self._error(INDEX, "has no weight_map")
        for name, file in places.items():
            if not isinstance(file, str) or Path(file).name != file:
                raise self._error(INDEX, f"names {file!r} as the file of {name}, which is none of this folder")
        held = {file: set(self._names(file)) for file in sorted(set(places.values()))}
        for name, file in places.items():
            if name not in held[file]:
                raise self._error(file, f"has no tensor {name}, which {INDEX} says is there")
        return places

    def _names(self, file: str) -> Iterable[str]:
        """Return the names of the tensors in a file, which is as long as its header says."""
        self._readable(file)
        try:
            with safe_open(self.folder / file, framework="pt") as tensors:
                names = list(tensors.keys())
        except (OSError, SafetensorError) as error:
            raise self._error(file, f"cannot be read ({_line(error)})") from error
        if not names:
            raise self._error(file, "holds no tensor")
        return names

    def _object(self, name: str) -> dict[str, Any]:
        self._readable(name)
        try:
            content = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self._error(name, f"is no JSON ({_line(error)})") from error
        if not isinstance(content, dict):
            raise self._error(name, f"holds no JSON object but a {type(content).__name__}")
        return content

    def _readable(self, name: str) -> None:
        path = self.folder / name
        try:
            with path.open("rb") as file:
                start = file.read(len(POINTER))
        except FileNotFoundError as error:
            link = path.is_symlink()
            raise self._error(name, "is a link to a file that is not there" if link else "is missing") from error
        except OSError as error:
            raise self._error(name, f"cannot be read ({error.strerror})") from error
        if not start:
            raise self._error(name, "is empty")
        if start == POINTER:
            raise self._error(name, "is a pointer to a file of Git LFS", "run git lfs pull there")

    def _is_there(self, name: str) -> bool:
        return (self.folder / name).exists() or (self.folder / name).is_symlink()

    def _instead(self) -> str:
        """Say what the folder holds, where that is a model in a form that cannot be pruned."""
        if (self.folder / "adapter_config.json").exists():
            return "this is an adapter: merge it into its base model first (merge_and_unload of peft)"
        if any(self.folder.glob("*.gguf")):
            return "GGUF is for inference: choose the folder of the model in its original form"
        return ""

    def _error(self, name: str, reason: str, advice: str = "") -> ModelError:
        return ModelError(f"model.path={self.path}: {name} {reason}; {advice or AGAIN}")


def unused_tensors(model: nn.Module, stored: Mapping[str, str], unexpected: Iterable[str]) -> dict[str, str | None]:
    """Return the tensors of a checkpoint that a model has no place for, each with its file; None where that is unknown.

    Args:
        model: that was loaded.
        stored: the file of each tensor of the checkpoint.
        unexpected: what the loader found too much, by names that it may have changed: experts that are stored one by
            one are one tensor to it.
    """
    found: dict[str, str | None] = {}
    for name in unexpected:
        parent = f"{name.rpartition('.')[0]}."
        same = [name] if name in stored else [each for each in stored if each.startswith(parent)]
        found.update({each: stored[each] for each in same} if same else {name: None})
    ours, prefix = set(model.state_dict()), getattr(model, "base_model_prefix", "")
    aside = _left_aside(model)
    for name, file in stored.items():
        known = {name, f"{prefix}.{name}", name.removeprefix(f"{prefix}.")} & ours
        if aside.search(name) and not known:
            found[name] = file
    return {name: found[name] for name in sorted(found) if not MADE_ANEW.search(name)}


def check_depth(model: nn.Module, path: str, tensors: Iterable[str]) -> None:
    """Refuse a model with fewer blocks than its checkpoint has, but for those that its class leaves aside itself.

    Args:
        model: may be on the meta device.
        path: of the model.
        tensors: names of the checkpoint, which may leave out the first part of a path.

    Raises:
        ModelError: it has fewer.
    """
    aside = _left_aside(model)
    stored = [name for name in tensors if not aside.search(name)]
    outer: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{other}.") for other in outer):
            outer.append(name)
            depth = _blocks_stored(stored, name)
            if depth > len(module):
                raise ModelError(
                    f"model.path={path}: {CONFIG} says that {name} has {len(module)} blocks, and the checkpoint has "
                    f"{depth}; set its number of layers right, or choose another model"
                )


def _left_aside(model: nn.Module) -> re.Pattern[str]:
    """Return what matches the names of tensors that the model's class has no use for, in its own opinion."""
    return re.compile("|".join(f"({each})" for each in getattr(model, IGNORED, None) or ["(?!)"]))


def _blocks_stored(tensors: Iterable[str], stack: str) -> int:
    names = {stack, stack.partition(".")[2]} - {""}
    numbered = re.compile(rf"^(?:{'|'.join(re.escape(name) for name in names)})\.(\d+)\.")
    matches = (numbered.match(tensor) for tensor in tensors)
    return max((int(match.group(1)) + 1 for match in matches if match), default=0)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
