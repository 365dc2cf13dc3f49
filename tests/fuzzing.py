"""Configurations with values of any kind in any place, and how what is asked for by them ends."""

import json
import signal
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import tiny_job
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from mwanda.command_line import check
from mwanda.config.compose import composed
from mwanda.config.identity import RunSpec
from mwanda.errors import InputError
from mwanda.job.run import run


SECONDS = 60
"""For which an accepted configuration may run: a valid one can ask for more work than a test has time for."""

NOT_CHANGED = ("output_dir", "sweep")

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 7, 64, 2**31, 2**63, 10**30]),
    st.sampled_from([-1.0, -0.0, 1e-300, 0.3, 0.999999, 1.0, 1e308, float("nan"), float("inf"), float("-inf")]),
    st.sampled_from(
        ["", " ", "0.5", "null", "true", "eng_Latn", "xxx_Xxxx", "/no/such", "../..", "~", "none", "ümlaut"]
    ),
    st.sampled_from(
        [
            "os.system",
            "mwanda.criteria.wanda.Wanda",
            "transformers.TrainingArguments",
            "a\nb",
            "\0",
            "\ud83d",
            "~nobody-here",
            "a" * 5000,
        ]
    ),
    st.text(max_size=12),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(st.sampled_from(["_target_", "path", "codes", "a", ""]), SCALARS, max_size=2),
)

Change = list[tuple[tuple[str, ...], Any]]
"""Places and what is to stand there."""


def places(config: Mapping[str, Any], before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return where values and sections stand in a configuration."""
    found = []
    for key, value in config.items():
        if before or key not in NOT_CHANGED:
            found.append((*before, key))
            found += places(value, (*before, key)) if isinstance(value, Mapping) else []
    return found


def changed(config: Any, place: tuple[str, ...], value: Any) -> Any:
    """Return a configuration with another value in one place."""
    if not place:
        return value
    inner = config if isinstance(config, Mapping) else {}
    return {**inner, place[0]: changed(inner.get(place[0], {}), place[1:], value)}


def drawn(config: Mapping[str, Any]) -> st.SearchStrategy[Change]:
    """Return one or two changes anywhere, also at keys that are not there."""
    known = st.sampled_from(places(config))
    unknown = st.builds(lambda place, key: (*place[:-1], key), known, st.text(max_size=5))
    return st.lists(st.tuples(st.one_of(known, known, known, unknown), VALUES), min_size=1, max_size=2)


def changes(model: Path, number: int, start: int = 0) -> Iterator[Change]:
    """Yield a number of changes that hypothesis draws."""
    found: list[Change] = []

    @seed(start)
    @settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn(_composed(model)[0]))
    def draw(change: Change) -> None:
        found.append(change)

    draw()
    yield from found[:number]


class OutOfTime(BaseException):
    """An accepted configuration works for longer than a test has time for."""


@cache
def _composed(model: Path) -> tuple[dict[str, Any], dict[str, str]]:
    return composed(tiny_job.overrides(model))


def asked_for(model: Path, folder: Path, change: Change, *, typed: bool) -> RunSpec:
    """Return the run of a changed configuration, which was typed or comes from elsewhere.

    Raises:
        InputError: it is none.
    """
    last = ["sweep.name=null", f"output_dir={folder}"]
    if typed:
        asked = check([*tiny_job.overrides(model), *map(_override, change), *last])
        assert asked is not None
        return asked.runs[0]
    config, choices = _composed(model)
    for place, value in change:
        config = changed(config, place, value)
    return RunSpec.of(config | {"output_dir": str(folder)}, choices, ["fuzzing=true"])


def _override(change: tuple[tuple[str, ...], Any]) -> str:
    place, value = change
    return f"{'.'.join(place)}={json.dumps(value) if isinstance(value, str) else value}"


def ended(model: Path, folder: Path, change: Change, *, typed: bool = False) -> str | None:
    """Run what a changed configuration asks for; return what was wrong with how that ended."""
    before = signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(SECONDS)
    try:
        run(asked_for(model, folder, change, typed=typed))
    except InputError as error:
        if error.exit_code != 2 or not str(error).strip():
            return f"exit code {error.exit_code}, {error!r}"
        return f"refused ({error}), and {folder.name} is left" if folder.exists() else None
    except OutOfTime:
        return None
    except BaseException as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return None


def _out_of_time(*_: Any) -> None:
    raise OutOfTime
