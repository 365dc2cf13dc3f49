"""The environment that results depend on besides the configuration: code, packages, machine."""

import hashlib
import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

import mwanda
from mwanda.system import conf
from mwanda.system.files import write_text
from mwanda.system.secrets import hidden


DIFFERENCE = "git.diff"

LONGEST_DIFFERENCE = 1 << 20
"""Bytes of it that are written."""


def environment(device: str) -> dict[str, Any]:
    """Return what the numbers may depend on besides the configuration."""
    written = code()
    return {
        "mwanda": mwanda.__version__,
        "python": platform.python_version(),
        "torch": _version("torch"),
        "transformers": _version("transformers"),
        "lm_eval": _version("lm_eval"),
        "git_commit": written["commit"],
        "git_dirty": written["dirty"],
        "git_difference": written["difference"],
        "device": device,
        "arithmetic": arithmetic(),
        "packages": packages(),
        "hostname_hash": hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12],
    }


def packages() -> dict[str, str]:
    """Return the version of every installed package."""
    found = {str(each.name).lower().replace("_", "-"): str(each.version) for each in distributions() if each.name}
    return dict(sorted(found.items()))


def arithmetic() -> str:
    """Return what of this machine sums depend on to the last bit."""
    import torch

    return f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def write_difference(folder: Path) -> None:
    """Write to `git.diff` how this project's tracked files differ from the commit; nothing where they do not.

    No more than `LONGEST_DIFFERENCE` bytes of it; files that git does not track may be private, and are left out.
    """
    difference = hidden(_difference()).encode()  # before it is cut, which might leave half a secret
    if len(difference) > LONGEST_DIFFERENCE:
        cut = f"\n… cut: {len(difference)} bytes in all\n".encode()
        difference = difference[:LONGEST_DIFFERENCE] + cut
    if difference:
        write_text(folder / DIFFERENCE, difference.decode(errors="ignore"))
    else:  # of an earlier attempt
        (folder / DIFFERENCE).unlink(missing_ok=True)


def code() -> dict[str, Any]:
    """Return the commit of this project, whether files differ from it, and a digest of how; None without git."""
    status = _git("status", "--porcelain")
    difference = _difference() if status else None
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "difference": hashlib.sha256(difference.encode()).hexdigest()[:12] if difference else None,
    }


def _difference() -> str:
    found = _git("diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv")
    return f"{found}\n" if found else ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Return git's answer about the folder of this project, or None where it is no checkout.

    An installed package may lie in a checkout of something else, in whose .venv it is.
    """
    if conf.CHECKOUT is None:
        return None
    command = ["git", "-C", str(conf.CHECKOUT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True, timeout=10)
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
