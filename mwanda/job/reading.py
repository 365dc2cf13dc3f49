"""What every reader of results.json may rely on, checked where it is read: a damaged record is told from a sound one.

Keys that are not named here are let through: a later version may have more of them.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from annotated_types import Gt
from pydantic import BaseModel, ConfigDict, ValidationError

from mwanda.errors import RecordError


FAMILY = "mwanda.results/"
MOST_PARTS = 1_000_000
"""Values that a configuration may hold, which YAML can repeat without end."""

SECTIONS = re.compile(r"(?:\w+:(?: [^&*\n]*)?\n(?:(?: |- )[^&*\n]*\n)*)+")
"""YAML whose sections, a key at the margin each, can be read one by one: nothing in it refers to another place."""

Number = float | None
Positive = Annotated[float, Gt(0)] | None
Text = str | None


class Part(BaseModel):
    """A part of a record: numbers are numbers and finite, and text is text."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False, protected_namespaces=())


class _Named(Part):
    name: str


class _Model(Part):
    id: str
    prunable_parameters: Annotated[int, Gt(0)] = 1
    zeros_before: int = 0


class _Layer(Part):
    layer: int
    target: float
    achieved: float


class _Matrix(Part):
    name: str
    shape: list[int]


class _Sparsity(Part):
    target: float
    achieved: float
    pattern: str
    per_layer: list[_Layer]
    per_matrix: list[_Matrix]


class _Calibration(Part):
    tokens_per_language: dict[str, int] = {}


class _Measured(Part):
    perplexity: Positive
    bits_per_byte: Number
    bits_per_character: Number = None
    tokens: int
    bytes: int
    low: Number = None
    high: Number = None
    bits_per_byte_low: Number = None
    bits_per_byte_high: Number = None
    bits_per_character_low: Number = None
    bits_per_character_high: Number = None


class _Pair(Part):
    log_ratio: Number
    low: Number
    high: Number
    p: Number
    p_holm: Number
    significant: bool


class _Protocol(Part):
    name: str
    hash: str
    corpus: str


class _Perplexity(Part):
    protocol: _Protocol
    dense: dict[str, _Measured]
    pruned: dict[str, _Measured]
    paired: dict[str, _Pair] | None = None
    aggregate: dict[str, Any] = {}
    overflowed: list[str] = []


class _AboutTask(Part):
    suite: str
    language: Text = None
    documents: int | None = None
    chance: Number = None


class _Tasks(Part):
    about: dict[str, _AboutTask]
    dense: dict[str, dict[str, Number]]
    pruned: dict[str, dict[str, Number]]
    difference: dict[str, dict[str, Number]]


class _LayerInside(Part):
    layer: int
    energy_lost: Number
    drift: Number
    rank_correlation: Number
    intersection_over_union: Number


class _LanguageInside(Part):
    neurons: int
    neurons_weights_lost: Number


class _Neurons(Part):
    weights_lost: Number
    specific: int
    own: int
    specific_weights_lost: Number
    own_weights_lost: Number


class _Inside(Part):
    per_layer: list[_LayerInside]
    per_language: dict[str, _LanguageInside]
    neurons: _Neurons | None


class _Failure(Part):
    type: str = ""
    message: str = ""


class _Frame(Part):
    schema_: str
    status: str
    seed: int | str | None = None
    config_hash: Text = None
    error: _Failure | None = None


class _Complete(Part):
    model: _Model
    criterion: _Named
    schedule: _Named
    sparsity: _Sparsity
    calibration: _Calibration = _Calibration()
    perplexity: _Perplexity | None = None
    tasks: _Tasks | None = None
    inside: _Inside | None = None


class _Total(Part):
    geometric_mean: Number
    mean: Number
    worst: Number
    worst_language: str


class _Group(Part):
    languages: int
    ratio: Number
    low: Number
    high: Number


class _Spread(Part):
    log_ratio: Number
    low: Number
    high: Number


class _Change(_Group):
    share_hurt: float
    share_helped: float
    worst_language: str
    worst_ratio: Number
    best_language: str
    best_ratio: Number
    spread: _Spread
    by_calibration: dict[str, _Group]


class _Aggregate(Part):
    dense: _Total
    pruned: _Total
    paired: _Change | None = None


class _ShownPair(_Pair):
    units: int


class _ShownPerplexity(_Perplexity):
    paired: dict[str, _ShownPair] = {}  # type: ignore[assignment]
    aggregate: _Aggregate  # type: ignore[assignment]


class _LeftDense(Part):
    what: str
    weights: int


class _ShownModel(_Model):
    parameters: Annotated[int, Gt(0)]
    left_dense: list[_LeftDense] = []


class _Speed(Part):
    tokens_per_second: float


class _Timing(Part):
    total: float


class _Languages(Part):
    codes: list[str]


class _Shown(_Complete):
    """What the summary of a run shows besides."""

    model: _ShownModel
    perplexity: _ShownPerplexity | None = None
    evaluation: dict[str, _Speed] = {}
    timing: _Timing
    languages: _Languages | None = None


T = TypeVar("T")


def read_json(path: Path) -> Any:
    """Return what a file of JSON holds.

    Raises:
        RecordError: it cannot be read; the message names the file.
    """
    if not path.is_file():  # a pipe would keep us waiting
        raise RecordError(f"{path}: is no file")
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        if "\\u" in text:  # JSON can hold half a character, which no file of text can
            json.dumps(content, ensure_ascii=False).encode()
        return content
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: cannot be read ({_line(error)})") from None


def read_yaml(path: Path, kind: type[T]) -> T:
    """Return what a file of YAML holds.

    Raises:
        RecordError: it cannot be read, or holds something else than `kind`; the message names the file.
    """
    if not path.is_file():
        raise RecordError(f"{path}: is no file")
    try:
        content = _parsed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise RecordError(f"{path}: cannot be read ({_line(error)})") from None
    if not isinstance(content, kind):
        raise RecordError(f"{path}: holds {_kind(content)}, not what a run writes")
    return content


def _parsed(text: str) -> Any:
    """Return what YAML says, section by section: thousands of runs share most of theirs, which is read once."""
    if SECTIONS.fullmatch(text):
        with suppress(yaml.YAMLError):
            sections = [_loaded(each) for each in re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]]
            return {key: value for each in sections for key, value in each.items()}
    return _loaded(text)


@lru_cache(maxsize=4096)
def _loaded(text: str) -> Any:
    # libyaml where PyYAML was built with it: ten times as fast
    content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    _check_sound(content)
    return content


def checked(content: Any, path: Path) -> dict[str, Any]:
    """Return the contents of a results.json, which are what a run writes.

    Raises:
        RecordError: they are not.
    """
    if not isinstance(content, dict):
        raise RecordError(f"{path}: holds {_kind(content)}, not the results of a run")
    frame = {("schema_" if key == "schema" else key): value for key, value in content.items()}
    _check(_Frame, frame, path)
    if not content["schema"].startswith(FAMILY):
        raise RecordError(f"{path}: its schema is {content['schema'][:40]!r}, not {FAMILY}1")
    if content["status"] == "complete":
        _check(_Complete, _measured(content), path)
    return content


def check_summary(content: Mapping[str, Any], path: Path) -> None:
    """Refuse complete results that lack what a summary of the run shows.

    Raises:
        RecordError: they do.
    """
    _check(_Shown, _measured(content), path)
    perplexity = content.get("perplexity") or {"dense": {}, "pruned": {}}
    lacking = sorted(perplexity["dense"].keys() ^ perplexity["pruned"].keys())
    if lacking:
        raise RecordError(f"{path}: perplexity of {lacking[0]} is of one model only")


def _measured(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return results without the sections of what was not measured: empty, they are the same as none."""
    optional = ("perplexity", "tasks", "inside")
    return {key: value for key, value in content.items() if value or key not in optional}


def _check(model: type[Part], content: Mapping[str, Any], path: Path) -> None:
    problem = problem_of(model, content)
    if problem is not None:
        raise RecordError(f"{path}: {problem}")


def problem_of(model: type[Part], content: Any) -> str | None:
    """Return what of `content` is not as a model says, by its place, or None."""
    try:
        model.model_validate(content)
    except (ValidationError, RecursionError) as error:
        if not isinstance(error, ValidationError):
            return "is nested too deeply"
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join("schema" if part == "schema_" else str(part) for part in first["loc"])
        return f"{place} {_in_words(first)}"[:200]
    return None


def _in_words(problem: Mapping[str, Any]) -> str:
    kind, message = problem["type"], problem["msg"]
    if kind == "missing":
        return "is missing"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return "must be a mapping"
    return str(message[0].lower() + message[1:]).replace("input should be", "must be", 1)


def _check_sound(content: Any) -> None:
    """Refuse text that is none, and content that holds itself, or parts of itself so often that it never ends.

    Raises:
        ValueError: it does.
    """
    waiting, count = [content], 0
    while waiting:
        part, count = waiting.pop(), count + 1
        if count > MOST_PARTS:
            raise ValueError(f"holds more than {MOST_PARTS} values")
        if isinstance(part, str):
            part.encode()
        elif isinstance(part, Mapping):
            waiting += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            waiting += part


def _kind(content: Any) -> str:
    kinds = {list: "a list", dict: "a mapping", str: "a text", bool: "a truth value", type(None): "nothing"}
    return kinds.get(type(content), "a number")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
