"""The state of runs: `python -m mwanda.status DIR …` lists all runs below DIR, at any time, also while they run.

mwanda.job.status says what `status.json` holds.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mwanda.errors import InputError
from mwanda.sweep.overview import commands_for_failed, counts, has_failed, rows, table
from mwanda.system.secrets import hide_in_terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the runs below folders; return 1 when one failed, is lost or cannot be read, else 0."""
    from mwanda.sweep.plan import plans
    from mwanda.system.terminal import console

    parser = argparse.ArgumentParser(
        prog="python -m mwanda.status",
        description="What became of the runs below a folder: complete, failed (stage and error), running, waiting …",
    )
    parser.add_argument("folder", nargs="*", type=Path, default=[Path("outputs")], metavar="DIR")
    failed = False
    for folder in parser.parse_args(arguments).folder:
        if not folder.is_dir():
            parser.error(f"{folder}: there is no such folder")
        found = rows(folder)
        out = console()
        out.print(table(found))
        out.print(counts(found), markup=False, highlight=False)
        damaged: list[InputError] = []
        for command in (command for plan in plans(folder, damaged) for command in commands_for_failed(plan)):
            out.print(f"again, those that failed: {command}", markup=False, highlight=False, soft_wrap=True)
        for error in damaged:
            out.print(f"unreadable: {error}", markup=False, highlight=False, soft_wrap=True)
        failed = failed or has_failed(found) or bool(damaged)
    return int(failed)


if __name__ == "__main__":
    hide_in_terminal()
    sys.exit(main())
