"""Which block a matrix belongs to."""

from collections.abc import Sequence

from mwanda.errors import RecordError


def block_numbers(names: Sequence[str], count: int) -> dict[str, int]:
    """Return the number of each matrix's block: a block's name is its list's, and the first number after it.

    Matrices are in the order of blocks, and a block's name ends in the first number of its matrices' names.

    Raises:
        RecordError: names and blocks do not fit together.
    """
    blocks: dict[str, int] = {}
    found = {}
    for name in names:
        parts = name.split(".")
        number = next((place for place, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
        found[name] = blocks.setdefault(".".join(parts[: number + 1]), len(blocks))
    if len(blocks) != count:
        raise RecordError(f"the names of its matrices tell {len(blocks)} blocks, and there are {count}")
    return found
