"""Statistics of matrices as tensors by name, which is how files hold them."""

from collections.abc import Mapping

from torch import Tensor

from mwanda.statistics import UNIFORM, LanguageStatistics, LanguageWeights


def flat(statistics: Mapping[str, LanguageStatistics]) -> dict[str, Tensor]:
    """Return the sums of matrices as tensors by `MATRIX/FIELD`."""
    return {
        f"{name}/{field}": tensor
        for name, each in statistics.items()
        for field, tensor in vars(each).items()
        if isinstance(tensor, Tensor)
    }


def deep(tensors: Mapping[str, Tensor], weighting: LanguageWeights = UNIFORM) -> dict[str, LanguageStatistics]:
    """Return the statistics that `flat` has taken apart."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, part = key.rpartition("/")
        parts.setdefault(name, {})[part] = value
    return {name: LanguageStatistics(**mine, weighting=weighting) for name, mine in parts.items()}
