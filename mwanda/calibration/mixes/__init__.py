"""Published language distributions of pretraining corpora, a file for each, with its source."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

import yaml

from mwanda.errors import ConfigurationError


@dataclass(frozen=True)
class Mix:
    """The distribution of a model's training text over languages.

    Args:
        name: the file's name, which is what the user types.
        source: where the figures stand.
        paths: hub ids of the models that were trained on it; `*` stands for anything.
        shares: per FLORES+ code its part, all parts being above 0 and summing to 1.
    """

    name: str
    source: str
    paths: tuple[str, ...]
    shares: dict[str, float]


@cache
def mixes() -> dict[str, Mix]:
    """Return every published mix by name."""
    folder = files("mwanda.calibration.mixes")
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(".yaml"))
    return {name.removesuffix(".yaml"): _read(name) for name in names}


def mix_of(name: str | None, path: str, sampling: str) -> Mix:
    """Return the mix of that name, or without a name the one that the model `path` was trained on.

    Raises:
        ConfigurationError: there is none.
    """
    if name is not None:
        if name not in mixes():
            raise ConfigurationError("calibration.mix", name, "is no published training mix", mixes())
        return mixes()[name]
    for mix in mixes().values():
        if any(fnmatchcase(path, pattern) for pattern in mix.paths):
            return mix
    reason = f"no training mix of {path} is known: take calibration.sampling=corpus, or calibration.mix=NAME"
    raise ConfigurationError("calibration.sampling", sampling, reason, mixes())


def _read(name: str) -> Mix:
    node = yaml.safe_load((files("mwanda.calibration.mixes") / name).read_text(encoding="utf-8"))
    weights = {code: float(value) ** node["exponent"] for code, value in node["shares"].items()}
    total = sum(weights.values())
    shares = {code: weight / total for code, weight in weights.items()}
    return Mix(name.removesuffix(".yaml"), node["source"], tuple(node["paths"]), shares)
