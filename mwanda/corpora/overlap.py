"""Calibration and evaluation text never meet: no line of the one may be seen in the other, in whatever language.

Two lines are the same when they have the same letters, marks, digits and symbols in the same order, whatever their
case, composition and width (Unicode NFKC and case folding), white space, punctuation, and what is invisible. Lines
without a letter are the same when they also agree in punctuation.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from mwanda.errors import CorpusError


Text = Mapping[str, Sequence[str]]
"""Lines by language code."""

AT_ONCE = 4096
"""Lines that are normalised together."""

NO_LETTERS = ("P", "Z", "Cc", "Cf", "Sk")
"""Unicode categories that do not count: punctuation, white space, controls, invisible characters, loose accents."""

NOR_THESE = (
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180e\u180f\u2800\u3164\uffa0"  # invisible
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))  # variants of the character before
    + "\u02b9\u02ba\u02bb\u02bc\u02bd\u02be\u02bf\u055a\ua78b\ua78c"  # apostrophes that are called letters
    + "\u0640\u2212"  # the stroke that lengthens Arabic words, the minus that stands for a hyphen
)
LONGEST_QUOTE, LANGUAGES_NAMED = 60, 3


def check_disjoint(calibration: Text, evaluation: Text) -> None:
    """Refuse calibration text that evaluation text holds as well, in the same language or another.

    Raises:
        CorpusError: there is some; the message names the languages and the first such line, and says what to do.
    """
    found = list(_shared(calibration, evaluation))
    if not found:
        return
    code, number = found[0]
    line = calibration[code][number]
    (mark,) = fingerprints([line])
    others = [each for each, lines in evaluation.items() if mark in fingerprints(lines)]
    others.sort(key=lambda each: each != code)
    named = ", ".join(others[:LANGUAGES_NAMED]) + (", …" if len(others) > LANGUAGES_NAMED else "")
    languages = len({each for each, _ in found})
    within = f" in {languages} languages" if languages > 1 else ""
    more = f" (and {len(found) - 1} more{within})" if len(found) > 1 else ""
    raise CorpusError(
        f"the calibration text of {code} and the evaluation text of {named} share the line '{_quoted(line)}'{more}; "
        "corpus.drop_overlap=true leaves such lines out of the calibration text, or choose another corpus or split "
        "for one of the two (evaluation.corpus=…)"
    )


def without_overlap(calibration: Text, evaluation: Text) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Return calibration text without the lines that evaluation text holds, and how many were left out by language.

    It is the calibration side that gives way: evaluation text stays the same for every run, and aligned over languages.
    """
    dropped = set(_shared(calibration, evaluation))
    kept = {
        code: [line for number, line in enumerate(lines) if (code, number) not in dropped]
        for code, lines in calibration.items()
    }
    counts = Counter(code for code, _ in dropped)
    return kept, {code: counts[code] for code in calibration if code in counts}


def fingerprints(lines: Sequence[str]) -> list[bytes]:
    """Return a digest of each line: the same for lines that are the same."""
    found: list[bytes] = []
    for begin in range(0, len(lines), AT_ONCE):
        part = [_folded(line).replace("\0", " ") for line in lines[begin : begin + AT_ONCE]]
        points = np.frombuffer("\0".join(part).encode("utf-32-le", "surrogatepass"), dtype="<u4")
        kept = points[_counts()[points]].tobytes().decode("utf-32-le", "surrogatepass")
        for line, letters in zip(part, kept.split("\0"), strict=True):
            plain = letters or f"\0{' '.join(line.split())}"
            found.append(hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest())
    return found


def _shared(calibration: Text, evaluation: Text) -> Iterator[tuple[str, int]]:
    """Yield language and number of each calibration line that evaluation text holds."""
    held = {mark for lines in evaluation.values() for mark in fingerprints(lines)}
    for code, lines in calibration.items():
        for number, mark in enumerate(fingerprints(lines)):
            if mark in held:
                yield code, number


def _folded(line: str) -> str:
    """Return a line in one case and composition; line by line, as most are composed already, which is soon seen."""
    if line.isascii():
        return line.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", line).casefold())


@cache
def _counts() -> Bool[ndarray, " characters"]:
    """Return, for each character, whether it counts; the one that stands between lines does."""
    table = np.ones(0x110000, dtype=bool)
    for point in (*range(1, 0x20000), *range(0xE0000, 0xE0200)):  # elsewhere all are letters, or nothing
        table[point] = not unicodedata.category(chr(point)).startswith(NO_LETTERS)
    table[[ord(character) for character in NOR_THESE]] = False
    return table


def _quoted(line: str) -> str:
    """Return the beginning of a line, without what would break the one line of a message."""
    shown = " ".join(line.split())
    return shown if len(shown) <= LONGEST_QUOTE else f"{shown[: LONGEST_QUOTE - 1]}…"
