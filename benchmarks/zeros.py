"""Draw where a run has put its zeros: the sparsity of every matrix of every block.

python benchmarks/zeros.py RUN_DIR --output docs/zeros.svg
"""

import argparse
import json
import re
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from mwanda.comparison.plots import STYLE
from mwanda.system.files import atomic


def sparsities(record: dict[str, Any]) -> tuple[list[str], np.ndarray]:
    """Return the names of a block's matrices, and sparsities as matrices × blocks; NaN where a block lacks one."""
    placed = [(re.search(r"\.(\d+)\.(.+)$", each["name"]), each) for each in record["sparsity"]["per_matrix"]]
    cells = {(at[2], int(at[1])): each["zeros"] / prod(each["shape"]) for at, each in placed if at}
    names = list(dict.fromkeys(name for name, _ in cells))
    found = np.full((len(names), 1 + max(block for _, block in cells)), np.nan)
    for (name, block), sparsity in cells.items():
        found[names.index(name), block] = sparsity
    return names, found


def draw(record: dict[str, Any], output: Path) -> None:
    """Write the picture; its numbers stand in it, so that colour alone says nothing."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names, found = sparsities(record)
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = plt.subplots(figsize=(1.2 + 0.45 * found.shape[1], 0.9 + 0.36 * len(names)))
        image = axes.imshow(found, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(found):
            if np.isfinite(value):
                shade = "black" if value > 0.55 else "white"
                axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=shade, fontsize=7)
        axes.set_yticks(range(len(names)), names)
        axes.set_xticks(range(found.shape[1]))
        axes.set_xlabel("block")
        axes.set_title(f"zeros in each matrix, % ({100 * record['sparsity']['achieved']:.0f} % in all)")
        figure.colorbar(image, ax=axes, pad=0.01)
        figure.tight_layout()
        with atomic(output) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    """Draw the picture of one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="RUN_DIR")
    parser.add_argument("--output", type=Path, default=Path("zeros.svg"))
    options = parser.parse_args()
    draw(json.loads((options.folder / "results.json").read_text(encoding="utf-8")), options.output)


if __name__ == "__main__":
    main()
