"""A view of a Weights & Biases project: `python -m mwanda.dashboard ENTITY/PROJECT` makes or updates it."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mwanda.errors import ConfigurationError, InputError, RecordError
from mwanda.system.files import disk_problem, read_json, write_json
from mwanda.system.secrets import hidden, hide_in_terminal
from mwanda.system.terminal import complain


TITLE = "M-Wanda"
RATIO, WORST, HURT = "aggregate/paired/ratio", "aggregate/paired/worst_ratio", "aggregate/paired/share_hurt"
"""Names in a run's summary: the geometric mean over languages, the worst of them, the share that is hurt."""

GONE = re.compile(r"not found|no such|does not exist|deleted|'NoneType' object", re.IGNORECASE)
"""What is said of a view that is there no more: by the server, or by the client when the server answers null."""

COLUMNS = ["run:displayName", "run:tags", f"summary:{RATIO}", f"summary:{WORST}", f"summary:{HURT}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Save the workspace and the report; return 2 on bad input, 1 where the server does not take them."""
    parser = argparse.ArgumentParser(
        prog="python -m mwanda.dashboard",
        description="Make or update a saved workspace and a Report of a Weights & Biases project. Their ids are "
        "remembered, so that the same two are updated every time.",
    )
    parser.add_argument("project", metavar="ENTITY/PROJECT")
    parser.add_argument(
        "--baseline", default="wanda,uniform", metavar="TAG,…", help="tags of the baseline's runs (wanda,uniform)"
    )
    parser.add_argument("--remember", type=Path, default=_remembered(), metavar="FILE", help="where ids are kept")
    given = parser.parse_args(arguments)
    try:
        entity, slash, project = given.project.partition("/")
        if not (entity and slash and project) or "/" in project:
            raise ConfigurationError("ENTITY/PROJECT", given.project, "must be a user or team, a slash, and a project")
        save(entity, project, [tag for tag in given.baseline.split(",") if tag], given.remember)
    except InputError as error:
        complain(error)
        return error.exit_code
    except Exception as error:  # of the client, which has many
        problem = disk_problem(error) or f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(hidden(f"not saved: {problem}"), file=sys.stderr)
        return 1
    return 0


def save(entity: str, project: str, baseline: Sequence[str], remember: Path) -> None:
    """Save the workspace and the report of a project, in place of those of the last time.

    Raises:
        ConfigurationError: wandb-workspaces is not installed.
        RecordError: what is remembered cannot be read.
    """
    known = _read(remember)
    try:
        import wandb
        from wandb_workspaces import workspaces
        from wandb_workspaces.reports.v2 import interface as v2
    except ImportError:
        raise ConfigurationError(
            "mwanda.dashboard", project, "needs wandb-workspaces; pip install 'mwanda[dashboard]'"
        ) from None
    wandb.setup(wandb.Settings(silent=True))
    place = f"{os.environ.get('WANDB_BASE_URL', 'https://api.wandb.ai')}/{entity}/{project}"
    ids = known.setdefault(place, {})

    view = workspaces.Workspace(
        entity=entity,
        project=project,
        name=TITLE,
        sections=[
            workspaces.Section(name=name, panels=list(panels), is_open=True) for name, panels in _panels(v2).items()
        ],
        runset_settings=workspaces.RunsetSettings(pinned_columns=COLUMNS),
    )
    view._internal_id, view._internal_name = ids.get("workspace", ""), ids.get("workspace_name", "")

    def forget_workspace() -> None:
        view._internal_id = view._internal_name = ""

    try:
        _save(view, forget_workspace)
    finally:  # it may fail after the server has taken it, and the next try must know of this
        ids |= {"workspace": view._internal_id, "workspace_name": view._internal_name}
        _write(remember, known)

    report = v2.Report(
        entity=entity, project=project, title=TITLE, width="fluid", blocks=_blocks(v2, entity, project, baseline)
    )
    report.id = ids.get("report", "")

    def forget_report() -> None:
        report.id = ""

    try:
        _save(report, forget_report)
    finally:
        ids["report"] = report.id
        _write(remember, known)
    print(f"workspace: {view.url}\nreport: {report.url}")


def _save(view: Any, forget: Callable[[], None]) -> None:
    """Save a view in place of the last one; anew where that has been deleted on the server."""
    try:
        view.save()
    except Exception as error:  # the client has many, and none of its own for this
        # Anything else may have been taken by the server, and would be there twice.
        if not GONE.search(str(error)):
            raise
        forget()
        view.save()


def _panels(v2: Any) -> dict[str, list[Any]]:
    """Return the panels by section."""
    return {
        "Headline": [
            v2.ScalarChart(
                title="Perplexity, pruned over dense (mean over runs)",
                metric=RATIO,
                groupby_aggfunc="mean",
            ),
            v2.BarPlot(title="Ratio by run", metrics=[RATIO]),
            v2.BarPlot(title="Worst language by run", metrics=[WORST]),
        ],
        "Curves": [
            v2.ScatterPlot(title="Ratio by sparsity", x=v2.Config("sparsity"), y=v2.SummaryMetric(RATIO)),
            v2.LinePlot(title="Sparsity by block", x="block/index", y=["block/achieved"]),
        ],
        "Languages": [v2.WeavePanelSummaryTable(table_name="languages")],
        "Runs compared": [v2.RunComparer(diff_only="split")],
    }


def _blocks(v2: Any, entity: str, project: str, baseline: Sequence[str]) -> list[Any]:
    from wandb_workspaces import expr

    runs = [
        v2.Runset(entity=entity, project=project, name="all runs", pinned_columns=COLUMNS),
        v2.Runset(
            entity=entity,
            project=project,
            name=f"baseline: {', '.join(baseline)}",
            filters=[expr.Tags().isin([tag]) for tag in baseline],
            pinned_columns=COLUMNS,
        ),
    ]
    blocks: list[Any] = [
        v2.P(
            "Perplexity of the pruned model over that of the dense one, by language: 1 is no harm. "
            "The record is each run's results.json."
        )
    ]
    for name, panels in _panels(v2).items():
        blocks += [v2.H2(name), v2.PanelGrid(runsets=runs, panels=panels)]
    return blocks


def _remembered() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "mwanda" / "dashboards.json"


def _read(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: cannot be read ({error}); with another one, views are made anew") from None
    if not isinstance(found, dict) or not all(isinstance(ids, dict) for ids in found.values()):
        raise RecordError(f"{path}: holds no ids of views; with another one, views are made anew")
    return found


def _write(path: Path, known: dict[str, dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, known)


if __name__ == "__main__":
    hide_in_terminal()
    sys.exit(main())
