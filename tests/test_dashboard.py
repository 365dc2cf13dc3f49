"""`python -m mwanda.dashboard` against a server on this machine, with the real wandb-workspaces."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from wandb_server import Service, serving

from mwanda import dashboard


pytest.importorskip("wandb_workspaces")

KEY = "0123456789abcdef0123456789abcdef01234567"
ROOT = Path(__file__).parent.parent


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as found:
        yield found


def make(home: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "XDG_"))}
    own = dict.fromkeys(("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"), str(home))
    own |= {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mwanda.dashboard", *arguments]
    return subprocess.run(command, cwd=home, env=kept | own, capture_output=True, text=True, timeout=120, check=False)


def test_a_workspace_and_a_report_are_made_once_and_updated_after(service: Service, tmp_path: Path) -> None:
    for _ in range(2):
        ended = make(tmp_path, service.url, "me/study", "--baseline=magnitude")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert [line.split(":")[0] for line in ended.stdout.splitlines()] == ["workspace", "report"]
    assert {view["type"] for view in service.views.values()} == {"project-view", "runs"}
    assert len(service.views) == 2
    assert [name for name, _ in service.operations if name.lower().startswith("upsertview")] == [
        "UpsertView2",
        "upsertView",
    ] * 2
    workspace, report = sorted(service.views.values(), key=lambda view: str(view["type"]))
    for view in (workspace, report):
        assert (view["entityName"], view["projectName"], view["displayName"]) == ("me", "study", "M-Wanda")
        for shown in ("Headline", "Curves", "Languages", "aggregate/paired/ratio", "block/index", '"diffOnly":"split"'):
            assert shown in view["spec"].replace('": "', '":"'), shown
    assert "magnitude" in report["spec"]
    remembered = json.loads((tmp_path / ".config" / "mwanda" / "dashboards.json").read_text())
    (ids,) = remembered.values()
    assert {ids["workspace"], ids["report"]} == set(service.views)
    assert KEY not in json.dumps(remembered)


@pytest.mark.parametrize("kind", ["project-view", "runs"])
def test_a_view_that_was_deleted_on_the_server_is_made_anew(kind: str, service: Service, tmp_path: Path) -> None:
    assert make(tmp_path, service.url, "me/study").returncode == 0
    (gone,) = (name for name, view in service.views.items() if view["type"] == kind)
    (kept,) = service.views.keys() - {gone}
    del service.views[gone]
    for _ in range(2):  # made anew, then updated
        ended = make(tmp_path, service.url, "me/study")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert len(service.views) == 2
    assert kept in service.views
    (ids,) = json.loads((tmp_path / ".config" / "mwanda" / "dashboards.json").read_text()).values()
    assert {ids["workspace"], ids["report"]} == set(service.views)


@pytest.mark.parametrize("project", ["study", "me/", "/study", "a/b/c"])
def test_what_is_no_project_is_refused(project: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dashboard.main([project, f"--remember={tmp_path / 'ids'}"]) == 2
    assert "ENTITY/PROJECT" in capsys.readouterr().err


def test_a_damaged_memory_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ids").write_text("{")
    assert dashboard.main(["me/study", f"--remember={tmp_path / 'ids'}"]) == 2
    assert str(tmp_path / "ids") in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert dashboard.main(["me/study", f"--remember={tmp_path / 'ids'}"]) == 2
    assert "mwanda[dashboard]" in capsys.readouterr().err
