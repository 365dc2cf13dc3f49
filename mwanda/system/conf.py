"""Where the configuration's files are, and the choices of each group."""

from pathlib import Path


CONF = Path(__file__).resolve().parents[2] / "conf"


def choices(group: str) -> list[str]:
    """Return the names of a group's choices."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))
