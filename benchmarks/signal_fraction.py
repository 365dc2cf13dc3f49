"""How much calibration text does a schedule have to look at? Sparsities from a part of it against those from all.

    python benchmarks/signal_fraction.py

Gemma 3 270M (extra 'gemma') on the embedded corpus, 30 languages, 120 sequences of 128 tokens, target 0.5.
"""

import argparse

import torch
import yaml

from mwanda.calibration import Calibration, CalibrationSet
from mwanda.corpora.embedded import Embedded
from mwanda.languages import find
from mwanda.models import LoadedModel, blocks_of
from mwanda.models.gemma import PackagedGemma
from mwanda.pruner import Pruner
from mwanda.pruner.engine import dense_pre_pass
from mwanda.schedules import Schedule
from mwanda.schedules.cwl import CWL
from mwanda.schedules.owl import OWL
from mwanda.schedules.owl_cwl import OWLCWL
from mwanda.system.conf import CONF


def calibration_of(loaded: LoadedModel, seed: int) -> CalibrationSet:
    """Return the calibration set of the default run."""
    codes = yaml.safe_load((CONF / "langs" / "flores30.yaml").read_text(encoding="utf-8"))["codes"]
    text = {language.code: list(Embedded().sentences(language, "calibration")) for language in find(codes)}
    return Calibration(sequences=120, length=128, seed=seed).build(loaded.tokenizer, text)


@torch.no_grad()
def main() -> None:
    """Print, for each fraction, the largest and the mean change of a block's sparsity, and the order of signals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.5, 0.25, 0.125, 0.0625])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    loaded = PackagedGemma().load()
    blocks = blocks_of(loaded.model)
    shares = [block.size / sum(other.size for other in blocks) for block in blocks]
    schedules: dict[str, Schedule] = {"owl": OWL(), "cwl": CWL(), "owl_cwl": OWLCWL()}

    def sparsities(calibration: CalibrationSet, fraction: float) -> dict[str, torch.Tensor]:
        signals = dense_pre_pass(loaded.model, calibration, OWLCWL(signal_fraction=fraction), Pruner())
        columns = {"owl": [(owl,) for owl, _ in signals], "cwl": [(cwl,) for _, cwl in signals], "owl_cwl": signals}
        lower = [0.0] * len(blocks)
        return {
            name: torch.tensor(schedule.allocate(columns[name], shares, 0.5, lower))
            for name, schedule in schedules.items()
        }

    print("schedule  fraction  seed  largest change  mean change  correlation")
    for seed in arguments.seeds:
        calibration = calibration_of(loaded, seed)
        whole = sparsities(calibration, 1.0)
        for fraction in arguments.fractions:
            for name, values in sparsities(calibration, fraction).items():
                change = (values - whole[name]).abs()
                together = float(torch.corrcoef(torch.stack([values, whole[name]]))[0, 1])
                print(f"{name:8}  {fraction:8}  {seed:4}  {change.max():14.4f}  {change.mean():11.4f}  {together:.3f}")


if __name__ == "__main__":
    main()
