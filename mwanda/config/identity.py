"""The identity of a run: its resolved configuration and the hashes of it, made once and passed down."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mwanda.config import schema
from mwanda.config.resolve import with_languages
from mwanda.config.schema import Settings
from mwanda.system.conf import CONF
from mwanda.system.content import folder_digest
from mwanda.system.secrets import hidden_path, hidden_within


EVALUATION_CORPUS = "corpus@evaluation.corpus"
"""The group of the evaluation's corpus, as Hydra calls it."""

NOT_SEMANTIC = (
    "mode",
    "name",
    "output_dir",
    "resume",
    "rerun",
    "sweep",
    "plan",
    "plugins",
    "artifacts",
    "tracking",
    "export",
)
"""Keys that change no number in results.json."""

NOT_SEMANTIC_WITHIN = {
    "model": ("offload", "device_map"),
    "pruner": ("batch_size", "activations", "checkpoint"),
    "evaluation": ("batch_tokens", "batch_size"),
    "inside": ("batch_size",),
}
"""Keys within groups that change how much memory and time a run takes, and no number beyond rounding."""


@dataclass(frozen=True)
class RunSpec:
    """One run as it was asked for; nothing below composes, resolves or hashes a second time.

    Args:
        config: resolved, with the codes that its sets of languages come to.
        settings: the same, checked at its top level.
        choices: the name of each group's choice, as far as it is known, and as its class is still that of the choice.
        overrides: what was typed for it.
        folder: where it writes.
        study: the sweep that it belongs to, or None.
        named_languages: how many languages its set names, those without text included.
        config_hash: of all that can change the numbers: two runs with the same one do the same.
        config_hash_without_seed: runs with the same one are repetitions of one experiment.
        exact_hash: also tells apart what changes no more than rounding, such as the size of batches.
    """

    config: Mapping[str, Any]
    settings: Settings
    choices: Mapping[str, str]
    overrides: tuple[str, ...]
    folder: Path
    study: str | None
    named_languages: int
    config_hash: str
    config_hash_without_seed: str
    exact_hash: str

    @classmethod
    def of(
        cls, config: Mapping[str, Any], choices: Mapping[str, str] | None = None, overrides: Sequence[str] = ()
    ) -> "RunSpec":
        """Return the run that a composed configuration describes.

        Raises:
            InputError: its languages come to nothing, or the configuration cannot be used.
        """
        # Folders and files are called by these, which people read, copy and send to each other.
        hiding = {"name": hidden_within, "output_dir": hidden_path}
        config = {**config, **{key: hide(config[key]) for key, hide in hiding.items() if key in config}}
        named = schema.selection(schema.read(config).langs).named()
        whole = with_languages(config)
        settings = schema.read(whole)
        return cls(
            config=whole,
            settings=settings,
            choices={group: name for group, name in (choices or {}).items() if _is_of_class(whole, group, name)},
            overrides=tuple(overrides),
            folder=Path(settings.output_dir).expanduser().absolute(),
            study=None,
            named_languages=len(named),
            config_hash=config_hash(whole),
            config_hash_without_seed=config_hash(whole, seed=False),
            exact_hash=exact_hash(whole),
        )

    def in_sweep(self, folder: Path) -> "RunSpec":
        """Return the same run as a job of a sweep: in its folder, where it takes up what is there."""
        changes = {"output_dir": str(folder), "resume": True}
        settings = self.settings.model_copy(update=changes)
        return replace(
            self, config={**self.config, **changes}, settings=settings, folder=folder, study=folder.parent.name
        )

    def choice(self, group: str, fallback: object) -> str:
        """Return the name of a group's choice; where it is not known, that of the class of `fallback`."""
        return self.choices.get(group) or type(fallback).__name__.lower()


def _is_of_class(config: Mapping[str, Any], group: str, name: str) -> bool:
    """Return whether a group has the class of its choice: `criterion._target_=…` makes it something else."""
    section, target = config.get(group), _target(group, name)
    return target is None or not isinstance(section, Mapping) or section.get("_target_") == target[0]


@cache
def _target(group: str, name: str) -> tuple[str | None] | None:
    """Return the `_target_` that a choice's file gives, which may be null; None where it gives none."""
    path = CONF / group / f"{name}.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return (content["_target_"],) if "_target_" in content else None


def config_hash(config: Mapping[str, Any], *, seed: bool = True) -> str:
    """Return a digest of all that can change the numbers.

    Args:
        config: resolved, its sets of languages replaced by their codes.
        seed: also of the seeds.
    """
    kept = {key: _without(value, NOT_SEMANTIC_WITHIN.get(key, ())) for key, value in _numeric(config).items()}
    return _digest(kept if seed else _without_seeds(kept))


def exact_hash(config: Mapping[str, Any]) -> str:
    """Return a digest that also tells apart what changes no more than rounding."""
    return _digest(_numeric(config))


def _numeric(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what can change the numbers, without the keys that were added later and change nothing."""
    kept = {key: value for key, value in config.items() if key not in NOT_SEMANTIC}
    for key, value in schema.ADDED.items():
        group, _, name = key.partition(".")
        section = kept.get(group)
        if not name and section == value:
            del kept[group]
        elif isinstance(section, Mapping) and section.get(name) == value:
            kept[group] = _without(section, [name])
    return kept


def _digest(content: Mapping[str, Any]) -> str:
    content = {key: _without_places(value) for key, value in content.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _without(section: Any, keys: Sequence[str]) -> Any:
    if not keys or not isinstance(section, Mapping):
        return section
    return {name: each for name, each in section.items() if name not in keys}


def _without_places(section: Any) -> Any:
    """Return a section in which a `path` that is a folder is named by what the folder holds, not by where it is."""
    if not isinstance(section, Mapping):
        return section
    plain = {key: _without_places(value) for key, value in section.items()}
    path = plain.get("path")
    folder = Path(path).expanduser() if isinstance(path, str) else None
    if folder is not None and folder.is_dir():
        plain["path"] = {"content": folder_digest(folder)}
    return plain


def _without_seeds(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: _without_seeds(part) for key, part in value.items() if key != "seed"}
