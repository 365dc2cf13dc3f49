"""What can be said of pictures without looking at them: inks that are read, numbers that fit, names with room."""

import math
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from mwanda.comparison import plots


def luminance(colour: np.ndarray) -> float:
    """Return the relative luminance of WCAG 2."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("name", ["PuOr_r", "cividis"])
def test_numbers_can_be_read_on_every_colour(name: str) -> None:
    for colour in mpl.colormaps[name](np.linspace(0, 1, 256)):
        ground = luminance(colour[:3])
        ratio = 1.05 / (ground + 0.05) if plots._ink(colour) == "white" else (ground + 0.05) / 0.05
        assert ratio >= 4.5


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0603, "0.06"), (-46.62, "−46.6"), (7, "7.00"), (1234.5, "1234"), (math.inf, "∞"), (math.nan, "")],
)
def test_numbers_of_a_heat_map(value: float, text: str) -> None:
    assert plots._digits(value) == text


def test_names_that_are_wider_than_the_picture_leave_room_for_the_lines(tmp_path: Path) -> None:
    lines = {f"{'a very long name of a method, ' * 8}{number}": {0.0: 1.0, 1.0: number} for number in range(6)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's, where names leave the axes no room
        plots.curves({"": lines}, "title", "x", "y", tmp_path, "lines")
    assert (tmp_path / "lines.png").is_file()
