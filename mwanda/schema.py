"""The typed configuration: every key and value is checked before anything is loaded.

The top level is `Settings`. A group's choice names its class by `_target_`; its keys are checked against the
annotations of that class, so that a new choice needs no schema of its own.
"""

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import yaml
from annotated_types import Gt, MinLen
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from mwanda.content import folder_digest
from mwanda.errors import ConfigurationError, InputError, UnknownKeyError
from mwanda.languages import Language
from mwanda.languages.selection import Selection


CONF = Path(__file__).resolve().parent.parent / "conf"
GROUPS = (
    "model",
    "corpus",
    "calibration",
    "criterion",
    "solver",
    "schedule",
    "pattern",
    "pruner",
    "evaluation",
    "inside",
    "tracking",
    "export",
)
MAY_BE_NOTHING = ("evaluation", "inside", "export")
NOT_SEMANTIC = ("mode", "name", "output_dir", "resume", "rerun", "sweep", "artifacts", "tracking", "export")
"""Keys that change no number in results.json."""

NOT_SEMANTIC_WITHIN = {
    "model": ("offload", "device_map"),
    "pruner": ("batch_size", "activations", "checkpoint"),
    "evaluation": ("batch_tokens", "batch_size"),
    "inside": ("batch_size",),
}
"""Keys within groups that change how much memory and time a run takes, and no number beyond rounding."""

ADDED: dict[str, Any] = {"solver": {"_target_": "mwanda.solvers.threshold.Threshold"}, "calibration.weights": "uniform"}
"""Keys that configurations did not always have, with the value under which a run does what it did without them. Hashes
leave that value out, so that what is old and complete is known as the same run."""

Mode = Literal["run", "inspect", "prepare"]
Rerun = Literal["unfinished", "failed", "none", "all"]


class Sweep(BaseModel):
    """How a sweep is run; see mwanda.sweep."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None
    folder: Annotated[str, MinLen(1)]
    parallel: Annotated[int, Gt(0)]
    fail_fast: bool


class Settings(BaseModel):
    """A run's whole configuration; components are still mappings with a `_target_`."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)

    mode: Mode
    sparsity: float
    seed: int
    name: str
    resume: bool
    rerun: Rerun
    sweep: Sweep
    artifacts: bool
    output_dir: Annotated[str, MinLen(1)]
    langs: dict[str, Any]
    model: dict[str, Any]
    corpus: dict[str, Any]
    calibration: dict[str, Any]
    criterion: dict[str, Any]
    solver: dict[str, Any] = Field(default_factory=lambda: dict(ADDED["solver"]))
    schedule: dict[str, Any]
    pattern: dict[str, Any]
    pruner: dict[str, Any]
    evaluation: dict[str, Any]
    inside: dict[str, Any]
    tracking: dict[str, Any]
    export: dict[str, Any]


NESTED: dict[str, type[BaseModel]] = {"sweep": Sweep}


def read(config: Mapping[str, Any]) -> Settings:
    """Return the checked top level of a resolved configuration.

    Raises:
        UnknownKeyError: a key does not exist.
        ConfigurationError: a value cannot be used.
    """
    settings: Settings = _checked(Settings, "", config)
    if not 0 <= settings.sparsity < 1:
        raise ConfigurationError("sparsity", settings.sparsity, "must be at least 0 and below 1")
    selection(settings.langs)
    return settings


def build(section: str, node: Mapping[str, Any]) -> Any:
    """Return the object that a group's choice describes, or None where its `_target_` is null.

    Raises:
        UnknownKeyError: a key is no argument of the target.
        ConfigurationError: a value does not suit the argument, or the target does not exist.
    """
    given = dict(node)
    target = given.pop("_target_", None)
    if target is None:
        if section not in MAY_BE_NOTHING:
            raise ConfigurationError(f"{section}._target_", target, "must be given")
        if given:
            key, value = next(iter(given.items()))
            raise UnknownKeyError(f"{section}.{key}", value, [])
        return None
    factory = _import(section, str(target))
    checked = _checked(_arguments_of(factory), section, given)
    try:
        return factory(**{key: getattr(checked, key) for key in type(checked).model_fields})
    except ConfigurationError as error:
        parent, _, group = section.rpartition(".")
        if parent and error.key.startswith(f"{group}."):
            raise InputError(f"{parent}.{error}") from None  # the class knows its group, not who else uses it
        raise


def selection(section: Mapping[str, Any]) -> Selection:
    """Return the set of languages that the section `langs` describes.

    Raises:
        UnknownKeyError: a key does not exist.
        ConfigurationError: a value cannot be used.
    """
    checked = _checked(_arguments_of(Selection), "langs", section)
    return Selection(**{key: getattr(checked, key) for key in type(checked).model_fields})


def languages(config: Mapping[str, Any]) -> list[Language]:
    """Return the languages of a run: those of its set, without those that lack text where the user asks for that.

    Raises:
        ConfigurationError: nothing is left.
    """
    chosen = selection(config["langs"])
    named = chosen.named()
    if not chosen.available:
        return chosen.drawn(named)
    of_evaluation = _evaluation_corpus(config["evaluation"], config["corpus"])
    corpora = [build("corpus", config["corpus"]), build("evaluation.corpus", of_evaluation)]
    kept = [language for language in named if all(corpus.has(language) for corpus in corpora)]
    if not kept:
        raise ConfigurationError("langs.available", "true", f"corpus={corpora[0].name} has none of the languages")
    return chosen.drawn(kept)


def with_languages(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with the codes that its sets of languages come to instead of the sets.

    Raises:
        InputError: they come to nothing, or the configuration cannot be used.
    """
    changed = dict(config)
    langs, calibration = config.get("langs"), config.get("calibration")
    if isinstance(langs, Mapping) and not langs.keys() <= {"codes"}:
        changed["langs"] = {"codes": [language.code for language in languages(config)]}
    named = calibration.get("languages") if isinstance(calibration, Mapping) else None
    if isinstance(named, str):
        codes = [language.code for language in language_set("calibration.languages", named).named()]
        changed["calibration"] = config["calibration"] | {"languages": codes}
    return changed


def language_set(key: str, name: str) -> Selection:
    """Return a shipped set of languages; `key` is what an error names.

    Raises:
        ConfigurationError: there is no such set.
    """
    if name not in choices("langs"):
        raise ConfigurationError(key, name, "is no set of languages", choices("langs"))
    node = yaml.safe_load((CONF / "langs" / f"{name}.yaml").read_text(encoding="utf-8"))
    return Selection(**{name: value for name, value in node.items() if name not in ("defaults", "seed")})


def choices(group: str) -> list[str]:
    """Return the names of a group's choices."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def evaluation_corpus(settings: Settings) -> dict[str, Any]:
    """Return the corpus node that `corpus` of the evaluation section stands for.

    It is null (the run's corpus), the name of a choice of the group `corpus`, or a mapping with `choice` and keys to
    change, e.g. `evaluation.corpus={choice: local, path: FOLDER}`.

    Raises:
        ConfigurationError: there is no such choice.
    """
    return _evaluation_corpus(settings.evaluation, settings.corpus)


def _evaluation_corpus(evaluation: Mapping[str, Any], corpus: dict[str, Any]) -> dict[str, Any]:
    named = evaluation.get("corpus")
    if named is None:
        return corpus
    changes = dict(named) if isinstance(named, Mapping) else {"choice": named}
    choice = str(changes.pop("choice", None))
    if choice not in choices("corpus"):
        raise ConfigurationError("evaluation.corpus", choice, "is no choice of the group corpus", choices("corpus"))
    node: dict[str, Any] = yaml.safe_load((CONF / "corpus" / f"{choice}.yaml").read_text(encoding="utf-8"))
    node.update(changes)
    if "???" in node.values():
        missing = next(key for key, value in node.items() if value == "???")
        example = f"'evaluation.corpus={{choice: {choice}, {missing}: …}}'"
        raise ConfigurationError("evaluation.corpus", choice, f"needs '{missing}': write {example}")
    return node


def config_hash(config: Mapping[str, Any], *, seed: bool = True) -> str:
    """Return a digest of all that can change the numbers: two runs with the same one do the same.

    Args:
        config: resolved.
        seed: also of the seeds; runs with the same digest without them are repetitions of one experiment.
    """
    kept = semantic(config)
    return _digest(kept if seed else _without_seeds(kept))


def exact_hash(config: Mapping[str, Any]) -> str:
    """Return a digest that also tells apart what changes no more than rounding, such as the size of batches."""
    return _digest({key: value for key, value in _as_before(config).items() if key not in NOT_SEMANTIC})


def semantic(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a configuration can change the numbers."""
    kept = {}
    for key, value in _as_before(config).items():
        skipped = NOT_SEMANTIC_WITHIN.get(key, ())
        if key not in NOT_SEMANTIC:
            whole = not isinstance(value, Mapping)
            kept[key] = value if whole else {name: each for name, each in value.items() if name not in skipped}
    return kept


def _as_before(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with its languages, and without the keys that were added and change nothing."""
    kept = with_languages(config)
    for key, value in ADDED.items():
        group, _, name = key.partition(".")
        section = kept.get(group)
        if not name and section == value:
            del kept[group]
        elif isinstance(section, Mapping) and section.get(name) == value:
            kept[group] = {other: each for other, each in section.items() if other != name}
    return kept


def _digest(content: Mapping[str, Any]) -> str:
    content = {key: _without_places(value) for key, value in content.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


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


def _import(section: str, target: str) -> Any:
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"{section}._target_", target, f"cannot be imported ({error})") from None
    if not (isinstance(found, type) and is_dataclass(found)):
        raise ConfigurationError(f"{section}._target_", target, "is no dataclass")
    return found


def _arguments_of(factory: Any) -> type[BaseModel]:
    """Return a model of the factory's arguments, with their types, bounds and defaults."""
    hints = get_type_hints(factory, include_extras=True)
    arguments: dict[str, Any] = {}
    for one in fields(factory):
        if one.init:
            default = one.default_factory() if one.default_factory is not MISSING else one.default
            arguments[one.name] = (hints[one.name], ... if default is MISSING else default)
    options = ConfigDict(
        extra="forbid",
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        arbitrary_types_allowed=True,
    )
    return create_model(factory.__name__, __config__=options, **arguments)


def _checked(model: type[Any], section: str, values: Mapping[str, Any]) -> Any:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    path = [
        part for part in problem["loc"] if isinstance(part, str) and not part.startswith(("literal", "constrained"))
    ]
    names = list(model.model_fields)
    known = path[:1] if path and path[0] in names else path
    nested = NESTED.get(path[0]) if path and not section else None
    key = ".".join([section, *(path[:2] if nested else known)]).strip(".")
    value = problem["input"]
    if problem["type"] == "extra_forbidden":
        valid = list(nested.model_fields) if nested else names
        raise UnknownKeyError(".".join(filter(None, [section, *path])), value, valid)
    if problem["type"] == "missing":
        raise ConfigurationError(key, "(nothing)", "must be given")
    choices = _literals(model.model_fields[known[0]].annotation) if problem["type"] == "literal_error" else []
    reason = "is none of its choices" if choices else problem["msg"][0].lower() + problem["msg"][1:]
    raise ConfigurationError(key, value, reason, choices)


def _literals(annotation: Any) -> list[Any]:
    """Return what a Literal allows, also one of several types."""
    inside = get_args(annotation)
    if get_origin(annotation) is Literal:
        return list(inside)
    return [value for each in inside for value in _literals(each)]
