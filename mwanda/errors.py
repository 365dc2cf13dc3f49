"""Errors that a user can act on; each message is one line that says what to do next."""

import difflib
from collections.abc import Iterable


LONGEST_VALUE = 300
"""Characters of a value that a message quotes."""


class MwandaError(Exception):
    """Anything this project reports to its user without a traceback."""

    exit_code = 1


class InputError(MwandaError):
    """What the user asked for cannot be done as asked."""

    exit_code = 2


class ConfigurationError(InputError):
    """A configuration key holds a value that cannot be used."""

    def __init__(self, key: str, value: object, reason: str, choices: Iterable[object] = ()) -> None:
        self.key, self.value, self.choices = key, value, [str(choice) for choice in choices]
        nearest = nearest_choices(str(value)[:LONGEST_VALUE], self.choices)
        hint = f"; choices: {', '.join(nearest)}" if nearest else ""
        super().__init__(f"{key}={_shortened(str(value))}: {reason}{hint}")


class UnknownKeyError(InputError):
    """A configuration key does not exist."""

    def __init__(self, key: str, value: object, valid: Iterable[str]) -> None:
        self.key, self.value = key, value
        parent, _, leaf = key.rpartition(".")
        nearest = nearest_choices(leaf, valid)
        where = f" in '{parent}'" if parent else ""
        super().__init__(
            f"{key}={_shortened(str(value))}: there is no key '{leaf}'{where}; choices: {', '.join(nearest) or 'none'}"
        )


class ModelError(InputError):
    """A model cannot be loaded or pruned."""


class CorpusError(InputError):
    """Text is missing, too short, or used on both sides of the split."""


class SparsityError(InputError):
    """A target cannot be met by the chosen model, schedule or pattern."""


class ComparisonError(InputError):
    """Results were not measured alike and cannot stand in one table."""


class RecordError(InputError, ValueError):
    """What a run or a sweep has left cannot be read; the message names the file."""


class CalibrationError(MwandaError):
    """The calibration pass did not see what it should have seen."""


class DamagedFileError(MwandaError):
    """A file that a run has written is not what it wrote."""

    def __init__(self, path: object, reason: str) -> None:
        self.path = path
        super().__init__(f"{path} is damaged: {reason}")


class EvaluationError(MwandaError):
    """A model gives what is no number, and nothing that was measured of it means anything."""


class AuditError(MwandaError):
    """The pruned weights are not what the plan says."""


def nearest_choices(value: str, choices: Iterable[str], shown: int = 12) -> list[str]:
    """Return `choices`, those that look like `value` first, cut to what fits in a line."""
    every = list(dict.fromkeys(choices))
    close = difflib.get_close_matches(value, every, n=5, cutoff=0.5)
    ordered = close + [choice for choice in every if choice not in close]
    return ordered if len(ordered) <= shown else [*ordered[:shown], f"… ({len(ordered)} in all)"]


class MemoryShortageError(InputError):
    """The run cannot fit into memory; the message names a setting with which it would."""


def _shortened(value: str) -> str:
    return value if len(value) <= LONGEST_VALUE else f"{value[:LONGEST_VALUE]}… ({len(value):,} characters)"
