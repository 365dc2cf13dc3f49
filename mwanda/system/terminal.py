"""The terminal: the console for results, our own stages on standard error, and quiet libraries."""

import logging
import math
import os
import sys

from rich.console import Console
from rich.logging import RichHandler

from mwanda.system.secrets import hidden


LARGEST = 1e9
"""Above which a number is written with an exponent."""


def console() -> Console:
    """Return the console for results; in a pipe or a file it neither colours nor cuts."""
    return Console() if sys.stdout.isatty() else Console(width=120)


def quiet_libraries() -> None:
    """Show our own stages on standard error, and of the libraries only what matters."""
    logger = logging.getLogger("mwanda")
    if not any(isinstance(handler, RichHandler) for handler in logger.handlers):
        errors = Console(stderr=True) if sys.stderr.isatty() else Console(stderr=True, width=120)
        logger.addHandler(_Hiding(console=errors, show_path=False, show_level=False, log_time_format="%H:%M:%S"))
    logger.setLevel(logging.INFO)
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)  # it would tell what was left on disk
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
        transformers_logging.disable_progress_bar()
        disable_progress_bars()


def complain(problem: object) -> None:
    """Say on standard error, in one line and without secrets, why something has not been done."""
    print("error:", *hidden(str(problem)).split(), file=sys.stderr)


class _Hiding(RichHandler):
    """Shows what is logged without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """Return what is shown of a record."""
        return hidden(super().format(record))


def number(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """Return a number as people read it; a dash where the record has none, as for an infinite perplexity."""
    if value is None:
        return "–"
    return f"{value:{'+' if signed else ''}.{digits}{'f' if abs(value) < LARGEST or math.isinf(value) else 'e'}}"
