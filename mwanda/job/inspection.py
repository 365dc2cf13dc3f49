"""The report of `mode=inspect`: which weights would be pruned, which not and why, and the memory it takes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from mwanda.system.terminal import console


if TYPE_CHECKING:
    from mwanda.job.memory import Plan
    from mwanda.models import Block, ModelSource


GIB = 2**30


def inspection(source: "ModelSource", plan: "Plan") -> None:
    """Print what would be pruned, what would not and why, and what memory a run takes."""
    from mwanda.models import blocks_of
    from mwanda.models.family import family_of

    model = source.skeleton(source.load_config())
    blocks = blocks_of(model)
    out = console()
    heading = f"{source.path}: {type(model).__name__}, family {family_of(model).name}, {len(blocks)} blocks"
    out.print(heading, markup=False, soft_wrap=True)
    out.print(_matrix_table(blocks))
    out.print(_left_dense_table(model, blocks))
    for line in _memory(model, blocks, plan):
        out.print(line)


def _matrix_table(blocks: "Sequence[Block]") -> Table:
    """One row for each matrix, blocks that look alike together."""
    table = Table(title="Prunable matrices")
    for heading in ("blocks", "matrix", "out × in", "weights"):
        table.add_column(heading, justify="right" if heading in ("out × in", "weights") else "left")
    alike: dict[tuple[tuple[str, tuple[int, int], int], ...], list[int]] = {}
    for block in blocks:
        alike.setdefault(tuple(_kinds(block)), []).append(block.index)
    for kinds, indices in alike.items():
        first = True
        for name, (rows, columns), count in kinds:
            label = f"{indices[0]}–{indices[-1]} ({len(indices)})" if first else ""
            table.add_row(label, name, f"{rows} × {columns}", f"{rows * columns * count * len(indices):,}")
            first = False
        table.add_section()
    table.add_row("", "[bold]in all[/]", "", f"[bold]{sum(block.size for block in blocks):,}[/]")
    return table


def _kinds(block: "Block") -> list[tuple[str, tuple[int, int], int]]:
    """Return name, shape and number of a block's matrices, the experts of a mixture counted as one kind."""
    kinds: dict[str, tuple[str, tuple[int, int], int]] = {}
    for matrix in block.matrices:
        _, shape, before = kinds.get(matrix.parameter_name, ("", matrix.shape, 0))
        name = matrix.name.removeprefix(f"{block.name}.")
        label = name if matrix.expert is None else f"{name.rpartition('.')[0]}, {before + 1} experts"
        kinds[matrix.parameter_name] = (label, shape, before + 1)
    return list(kinds.values())


def _left_dense_table(model: Any, blocks: "Sequence[Block]") -> Table:
    from mwanda.models.left_dense import left_dense

    table = Table(title="Left dense")
    table.add_column("what and why")
    table.add_column("weights", justify="right")
    table.add_column("of the model", justify="right")
    whole = sum(parameter.numel() for parameter in model.parameters())
    for reason, count in left_dense(model, blocks).items():
        table.add_row(reason, f"{count:,}", f"{count / whole:.1%}")
    return table


def _memory(model: Any, blocks: "Sequence[Block]", plan: "Plan") -> list[str]:
    from mwanda.job.memory import LIBRARIES, estimate

    parts = estimate(model, blocks, plan) | {"libraries": LIBRARIES}
    return [
        f"Memory of a run (estimate): order {plan.order}, {plan.languages} languages, {plan.tokens:,} calibration "
        f"tokens, {str(plan.dtype).removeprefix('torch.')}, offload {plan.offload}",
        *(f"  {name}: {size / GIB:.3f} GiB" for name, size in parts.items()),
        f"  in all: {sum(parts.values()) / GIB:.2f} GiB",
    ]
