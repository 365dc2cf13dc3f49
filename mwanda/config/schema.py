"""The typed configuration: every key and value is checked before anything is loaded.

The top level is `Settings`. A group's choice names its class by `_target_`; its keys are checked against the
annotations of that class, so that a new choice needs no schema of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Gt, Le, Lt, MinLen
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from mwanda.config.bounds import check_values
from mwanda.config.registry import class_of
from mwanda.errors import ConfigurationError, InputError, UnknownKeyError
from mwanda.languages.selection import Selection


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

PRESETS = ("method",)
"""Groups whose choices choose in other groups, and have no section of their own."""

MAY_BE_NOTHING = ("evaluation", "inside", "export")

ADDED: dict[str, Any] = {
    "solver": {"_target_": "mwanda.solvers.threshold.Threshold"},
    "calibration.weights": "uniform",
    "calibration.unit_tokens": False,
    "calibration.moment_share": 1.0,
    "corpus.drop_overlap": False,
    "schedule.level": "block",
    "schedule.row_power": 0,
    "schedule.least_row_density": 0.5,
}
"""Keys that configurations did not always have, with the value under which a run does what it did without them. Hashes
leave that value out, so that what is old and complete is known as the same run."""

WEIGHTING = ("weights", "unit_tokens", "moment_share")
"""Keys of the calibration that say how much its text counts, and not which text it is: methods choose them."""

Mode = Literal["run", "inspect", "prepare", "plan"]

Rerun = Literal["unfinished", "failed", "none", "all"]


class Sweep(BaseModel):
    """How a sweep is run; see mwanda.sweep."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None
    folder: Annotated[str, MinLen(1)]
    parallel: Annotated[int, Gt(0)]
    fail_fast: bool


class Plan(BaseModel):
    """What `mode=plan` predicts; see mwanda.job.plan."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)
    sparsities: Annotated[list[Annotated[float, Gt(0), Lt(1)]], MinLen(1)] = [0.3, 0.4, 0.5, 0.6, 0.7]
    limit: Annotated[float, Gt(0)] = 0.5
    language: str | None = None
    fraction: Annotated[float, Gt(0), Le(1)] = 1.0
    draws: Annotated[int, Gt(0)] = 1


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
    plan: Plan = Plan()  # runs of earlier versions have none
    artifacts: bool
    plugins: list[Annotated[str, Field(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*$")]]
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


NESTED: dict[str, type[BaseModel]] = {"sweep": Sweep, "plan": Plan}


def read(config: Mapping[str, Any]) -> Settings:
    """Return the checked top level of a resolved configuration.

    Raises:
        UnknownKeyError: a key does not exist.
        ConfigurationError: a value cannot be used.
    """
    check_values(config)
    settings: Settings = _checked(Settings, "", config)
    corpus = settings.evaluation.get("corpus")
    if corpus is not None and not isinstance(corpus, dict):
        raise ConfigurationError("evaluation.corpus", corpus, "must be the name of a choice, or a mapping of its keys")
    if not 0 <= settings.sparsity < 1:
        raise ConfigurationError("sparsity", settings.sparsity, "must be at least 0 and below 1")
    selection(settings.langs)
    return settings


def build(section: str, node: Mapping[str, Any], plugins: Sequence[str] = ()) -> Any:
    """Return the object that a group's choice describes, or None where its `_target_` is null.

    Args:
        section: of the configuration.
        node: what stands there.
        plugins: packages whose classes the user allows besides those of this project.

    Raises:
        UnknownKeyError: a key is no argument of the target.
        ConfigurationError: a value does not suit the argument, or the target is none of the group's.
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
    factory = class_of(section, target, plugins)
    try:
        arguments = _arguments_of(factory)
    except Exception as error:  # of a class of the user's, whose annotations may be anything
        raise ConfigurationError(f"{section}._target_", target, f"its fields cannot be checked ({error})") from None
    checked = _checked(arguments, section, given)
    try:
        return _made(factory, {key: getattr(checked, key) for key in type(checked).model_fields})
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


def parts_of(factory: Any) -> list[Any]:
    """Return the classes whose keys a choice takes side by side: those that its class is made of, or the class."""
    if not getattr(factory, "keys_of_parts", False):
        return [factory]
    hints = get_type_hints(factory)
    return [hints[one.name] for one in fields(factory)]


def _made(factory: Any, values: Mapping[str, Any]) -> Any:
    """Return an object of the factory; where it is made of parts, each takes its own keys."""
    made = [part(**{key: values[key] for key in _own(part)}) for part in parts_of(factory)]
    return made[0] if parts_of(factory) == [factory] else factory(*made)


def _own(factory: Any) -> dict[str, Any]:
    """Return type and default of each of a class's arguments."""
    hints = get_type_hints(factory, include_extras=True)
    arguments: dict[str, Any] = {}
    for one in fields(factory):
        if one.init:
            default = one.default_factory() if one.default_factory is not MISSING else one.default
            arguments[one.name] = (hints[one.name], ... if default is MISSING else default)
    return arguments


@cache
def _arguments_of(factory: Any) -> type[BaseModel]:
    """Return a model of the factory's arguments, with their types, bounds and defaults."""
    arguments: dict[str, Any] = {}
    for part in parts_of(factory):
        arguments |= _own(part)
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
