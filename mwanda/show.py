"""One run's summary again: `python -m mwanda.show RUN_DIR` prints the tables that the run ended with."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mwanda.errors import ConfigurationError, InputError


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the summary of a finished run; exit with 2 where the folder holds none."""
    parser = argparse.ArgumentParser(
        prog="python -m mwanda.show", description="Print the summary of a finished run again."
    )
    parser.add_argument("folder", type=Path, metavar="RUN_DIR", help="the folder that holds its results.json")
    folder = parser.parse_args(arguments).folder
    from mwanda.job.results import RESULTS, read_results
    from mwanda.job.summary import summary
    from mwanda.languages import find

    try:
        results = read_results(folder)
        if results is None:
            raise ConfigurationError("RUN_DIR", folder, f"there is no {RESULTS}; mwanda.status lists runs")
        if results["status"] != "complete":
            raise ConfigurationError("RUN_DIR", folder, f"the run is {results['status']}; resume it first")
        summary(dict(results), folder, find(results["languages"]["codes"]))
    except InputError as error:
        print("error:", *str(error).split(), file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
