"""Where the configuration's files are, in a checkout and in an installed package, and the choices of each group."""

import os
from pathlib import Path


PACKAGE = Path(__file__).resolve().parents[1]

CHECKOUT = None if (PACKAGE / "conf").is_dir() else PACKAGE.parent
"""The folder with run.py and conf/; None where the package is installed, and has conf/ inside (see setup.py)."""

CONF = (CHECKOUT or PACKAGE) / "conf"


def choices(group: str) -> list[str]:
    """Return the names of a group's choices."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def program() -> list[str]:
    """Return what starts a run in a shell, from the folder that this process is in."""
    return ["mwanda-run"] if CHECKOUT is None else ["python", os.path.relpath(CHECKOUT / "run.py")]
