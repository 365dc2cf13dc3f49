"""`python -m mwanda.comparison DIR [DIR …]`: one report of all runs below these folders."""

import argparse
import gc
import sys
from collections.abc import Sequence
from pathlib import Path

from mwanda.comparison.tables import GROUPINGS
from mwanda.errors import ConfigurationError, InputError
from mwanda.system.files import disk_problem
from mwanda.system.ownership import MADE, named, sign
from mwanda.system.secrets import hide_in_terminal
from mwanda.system.terminal import complain


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the report and say where it is; exit with 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m mwanda.comparison",
        description="Compare all runs below folders: tables (CSV, Markdown, LaTeX) and pictures (PNG, SVG).",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a run, a sweep, or a folder of them")
    parser.add_argument("--output", type=Path, help="the report's folder; DIR/comparison if not given")
    parser.add_argument(
        "--baseline",
        metavar="KEY=VALUE,…",
        help="what the others are compared with; if not given: criterion=wanda,solver=threshold,schedule=uniform",
    )
    parser.add_argument("--columns", choices=list(GROUPINGS), help="how languages are grouped into columns")
    parser.add_argument("--no-plots", action="store_true", help="tables only")
    parser.add_argument("--terminal", action="store_true", help="print tables and sparklines, write nothing")
    given = parser.parse_args(arguments)

    try:
        if given.terminal:
            from mwanda.comparison.terminal import show

            show(given.folders, _settings(given.baseline), given.columns)
            return
        from mwanda.comparison.report import write

        output = given.output or given.folders[0] / "comparison"
        _check_output(output)
        done = write(given.folders, output, _settings(given.baseline), given.columns, plots=not given.no_plots)
        sign(output)
    except InputError as error:
        complain(error)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        problem = disk_problem(error)
        if problem is None:
            raise
        complain(f"{problem}; choose another --output, or make room there")
        raise SystemExit(1) from None
    for warning in done.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{done.runs} runs, {done.unfinished} unfinished: {done.path}")


def _check_output(folder: Path) -> None:
    """Refuse a folder whose files a report could write over."""
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError("--output", folder, "is a file; choose another name, of a folder")
    others = sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
    if others and MADE not in others:
        reason = f"holds {named(others)}, which is not known to be of a report; move it, or choose another folder"
        raise ConfigurationError("--output", folder, reason)


def _settings(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    pairs = [each.partition("=") for each in text.split(",")]
    for key, separator, value in pairs:
        if not (key and separator and value):
            raise ConfigurationError("--baseline", text, "is written KEY=VALUE,KEY=VALUE")
    return {key.strip(): value.strip() for key, _, value in pairs}


if __name__ == "__main__":
    gc.disable()  # nothing of thousands of runs is let go before the end, and looking for it takes a third of the time
    hide_in_terminal()
    main()
