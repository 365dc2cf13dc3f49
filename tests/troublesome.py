"""Criteria that bring trouble on purpose, and the choices by which a job of a sweep asks for them."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mwanda.criteria.wanda import Wanda
from mwanda.statistics import LanguageStatistics


@dataclass(frozen=True)
class Troublesome(Wanda):
    """Wanda, which at the n-th matrix does something else, unless a file called `peace` lies in the folder.

    Args:
        folder: where it looks for that file, and leaves one called after its trouble.
        trouble: `killed`, `raises` or `sleeps`.
        at: n.
    """

    folder: str = ""
    trouble: str = "killed"
    at: int = 9

    def score(self, weight: Float[Tensor, "out in"], statistics: LanguageStatistics) -> Float[Tensor, "out in"]:
        """Return the scores of Wanda."""
        SEEN.append(weight.shape)
        if len(SEEN) == self.at and not (Path(self.folder) / "peace").exists():
            (Path(self.folder) / self.trouble).touch()
            if self.trouble == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.trouble == "raises":
                raise ValueError("the weights\nare cursed")
            time.sleep(300)
        return super().score(weight, statistics)


SEEN: list[torch.Size] = []

ALLOWED = [f"plugins=[{__name__}]"]
"""The user's word, without which nothing here is imported."""


def choices(folder: Path) -> list[str]:
    """Write `criterion=killed`, `raises` and `sleeps` into a folder; return what makes Hydra find them."""
    for trouble in ("killed", "raises", "sleeps"):
        file = folder / "choices" / "criterion" / f"{trouble}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"_target_: troublesome.Troublesome\nfolder: {folder}\ntrouble: {trouble}\n")
    return ["--config-dir", str(folder / "choices")]
