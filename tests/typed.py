"""The real command line, typed many times, each time in a process forked from one that has imported the libraries."""

import os
import runpy
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mwanda.sweep import preload  # noqa: F401


ROOT = Path(__file__).parents[1]
LONGEST = 300
"""Seconds that a process may take."""


@dataclass(frozen=True)
class Typed:
    """What a command came to.

    Args:
        code: that it exited with; negative: the signal that ended it.
        said: what it wrote to the terminal.
        left: names of what it left in the folder that it was given for its output.
    """

    code: int
    said: str
    left: tuple[str, ...]

    @property
    def errors(self) -> list[str]:
        """The lines that say what went wrong."""
        return [line for line in self.said.splitlines() if line.startswith("error: ")]

    @property
    def is_refusal(self) -> bool:
        """Whether it ended as a bad input should: one clear line, no traceback, exit code 2, nothing left behind."""
        return self.code == 2 and len(self.errors) == 1 and "Traceback" not in self.said and not self.left


def typed(*arguments: str) -> Typed:
    """Return what `python run.py ARGUMENTS` comes to; `output_dir` is added, and removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="typed-"))
    try:
        out, said = folder / "out", folder / "said"
        code = run(["run.py", f"output_dir={out}", *arguments], said)
        left = tuple(sorted(path.name for path in out.iterdir())) if out.is_dir() else ()
        return Typed(code, said.read_text(encoding="utf-8", errors="replace"), left)
    finally:
        shutil.rmtree(folder)


def run(command: Sequence[str], said: Path) -> int:
    """Run `python COMMAND`, a script of this checkout or `-m` and a module, and return its exit code.

    What it writes to the terminal goes into the file `said`.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        _in_child(command, said)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


def _in_child(command: Sequence[str], said: Path) -> None:
    import signal
    import traceback

    code = 1
    try:
        signal.alarm(LONGEST)
        target = os.open(said, os.O_WRONLY | os.O_CREAT)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        os.chdir(ROOT)
        sys.path.insert(0, str(ROOT))
        if command[0] == "-m":
            sys.argv = list(command[1:])
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(command)
            runpy.run_path(str(ROOT / command[0]), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
