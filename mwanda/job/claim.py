"""One process at a time has the folder of a run, and no folder is taken that holds anything else.

A lock file in the folder says that it is a run's. Its lock is the system's: it is released with the process, however
that ends, and holds on every machine that sees the folder, where the file system has locks; where it has none,
status.json decides alone. Who does not get the lock has touched nothing.
"""

import errno
import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from mwanda.errors import ConfigurationError, InputError
from mwanda.job import status
from mwanda.job.folder import LOG, remove_everything_of_ours, remove_scratch
from mwanda.job.results import is_ours
from mwanda.job.status import TakenError
from mwanda.system.ownership import UNFINISHED, named


LOCK = ".mwanda-run"

CONTENT = "mwanda.run/1: this folder is that of a run, and this file says which process has it\n"

BEFORE_A_RUN = (LOG,)
"""What a sweep puts into the folder of a job before it runs."""

TRIES = 100
"""How often a folder is taken up again that another process has just given up and removed."""

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What a file system without locks answers."""


@dataclass
class Claim:
    """The folder of a run while this process has it; to be used as a context.

    An `InputError` that ends the context takes away what the run has put into a folder that was empty before, and what
    was made of the folder itself.

    Args:
        folder: of the run.
        descriptor: of the lock file.
        made: folders that were not there before, the innermost first.
        fresh: whether there was nothing in it before.
        stays: whether what a refused run has written is kept, as for a job of a sweep.
    """

    folder: Path
    descriptor: int
    made: Sequence[Path]
    fresh: bool
    stays: bool = False

    def __enter__(self) -> "Claim":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the folder back."""
        try:
            if isinstance(error, InputError) and self.fresh and not self.stays and not isinstance(error, TakenError):
                remove_everything_of_ours(self.folder)
                (self.folder / LOCK).unlink(missing_ok=True)  # last, while it is still locked
                _remove_empty(self.made)
        finally:
            os.close(self.descriptor)


def claim(folder: Path, *, stays: bool = False) -> Claim:
    """Take the folder of a run, making it where it is not there.

    Raises:
        TakenError: another process is at work there.
        ConfigurationError: it holds other things, or cannot be written.
    """
    reason: str | None = None
    for _ in range(TRIES):
        try:
            return _try(folder, stays)
        except FileNotFoundError as error:  # perhaps removed just now, by a process that was refused
            reason = error.strerror
        except OSError as error:
            reason = error.strerror
            break
    raise ConfigurationError("output_dir", folder, f"cannot be written ({reason}); choose another folder")


def _try(folder: Path, stays: bool) -> Claim:
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    _look(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError:
        _remove_empty(made)
        raise
    try:
        if not _lock(folder, descriptor):
            raise TakenError(folder)
        if not os.path.samestat((folder / LOCK).stat(), os.fstat(descriptor)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        _look(folder)  # again: another process may have come and gone
        fresh = not [name for name in _names(folder) if name != LOCK]
        if not os.fstat(descriptor).st_size:
            os.write(descriptor, CONTENT.encode())
        remove_scratch(folder)
        return Claim(folder, descriptor, made, fresh, stays)
    except FileNotFoundError:
        os.close(descriptor)
        raise
    except OSError:
        _undo(folder, descriptor, made)
        raise
    except BaseException:
        os.close(descriptor)
        raise


def _undo(folder: Path, descriptor: int, made: Sequence[Path]) -> None:
    """Remove a lock file that could not be written, and what was made for it."""
    if not os.fstat(descriptor).st_size:
        with suppress(OSError):
            (folder / LOCK).unlink()
        _remove_empty(made)
    os.close(descriptor)


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):  # something else has come into one, or it has never been made
        for each in folders:
            each.rmdir()


def _lock(folder: Path, descriptor: int) -> bool:
    """Return whether this process may go on: it has the lock, or the file system has none, or SLURM says so."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        before = status.read(folder)
        return before is not None and status.is_over(before)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


def _look(folder: Path) -> None:
    """Refuse, without touching it, a folder of another process or of something else than a run."""
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError("output_dir", folder, "is a file; choose another name, of a folder")
    names = _names(folder)
    if LOCK not in names and not _is_older_run(folder):
        others = [name for name in names if name not in BEFORE_A_RUN]
        if others:
            raise ConfigurationError(
                "output_dir", folder, f"holds {named(others)}, which no run has made; choose an empty or a new folder"
            )
    status.refuse_if_taken(folder)


def _names(folder: Path) -> list[str]:
    """Return what is in a folder, without what a killed process has left half made."""
    if not folder.is_dir():
        return []
    return sorted(each.name for each in folder.iterdir() if not each.name.endswith(UNFINISHED))


def _is_older_run(folder: Path) -> bool:
    """Return whether a run has been here from before there were lock files."""
    return status.read(folder) is not None or is_ours(folder)
