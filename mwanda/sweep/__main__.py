"""`python -m mwanda.sweep JOB_FOLDER` runs one planned job, here and now."""

import sys
from collections.abc import Sequence
from pathlib import Path

from mwanda.errors import MwandaError
from mwanda.sweep.worker import run_job
from mwanda.system.secrets import hide_in_terminal
from mwanda.system.terminal import complain


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one planned job."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    if len(typed) != 1 or typed[0].startswith("-"):
        print("usage: python -m mwanda.sweep JOB_FOLDER", file=sys.stderr)
        return 2
    try:
        return run_job(Path(typed[0]))
    except MwandaError as error:
        complain(error)
        return error.exit_code


if __name__ == "__main__":
    hide_in_terminal()
    sys.exit(main())
