"""One run's summary again: `python -m mwanda.show RUN_DIR` prints the tables that the run ended with."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mwanda.errors import ConfigurationError, InputError, RecordError
from mwanda.system.secrets import hide_in_terminal
from mwanda.system.terminal import complain


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the summary of a finished run; exit with 2 where the folder holds none."""
    parser = argparse.ArgumentParser(
        prog="python -m mwanda.show", description="Print the summary of a finished run again."
    )
    parser.add_argument("folder", type=Path, metavar="RUN_DIR", help="the folder that holds its results.json")
    folder = parser.parse_args(arguments).folder
    from mwanda.job.reading import check_summary
    from mwanda.job.results import RESULTS, read_results
    from mwanda.job.summary import summary
    from mwanda.languages import find

    try:
        results = read_results(folder)
        if results is None:
            raise ConfigurationError("RUN_DIR", folder, f"there is no {RESULTS}; mwanda.status lists runs")
        if results["status"] != "complete":
            raise ConfigurationError("RUN_DIR", folder, f"the run is {results['status']}; resume it first")
        check_summary(results, folder / RESULTS)
        if not results.get("languages"):
            raise RecordError(f"{folder / RESULTS}: languages is missing")
        summary(results, folder, find(results["languages"]["codes"]))
    except InputError as error:
        complain(error)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    hide_in_terminal()
    main()
