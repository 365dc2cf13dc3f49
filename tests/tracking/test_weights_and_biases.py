"""Weights & Biases: what a run holds, which mode is chosen, and that no trouble reaches the job."""

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined] # it picks a generated module at run time

from mwanda.tracking import RunIdentity, Tracker, weights_and_biases
from mwanda.tracking.weights_and_biases import WeightsAndBiases


LONG = 60.0
"""Only waited for when a test is about to fail."""
KEY = "0123456789abcdef0123456789abcdef01234567"
ROOT = Path(__file__).parents[2]

CONFIG = {
    "sparsity": 0.5,
    "langs": {"codes": ["swh_Latn", "eng_Latn"]},
    "criterion": {"_target_": "mwanda.criteria.mwanda.MWanda", "variance_weight": 0.5},
    "export": None,
    "comment": f"made with {KEY}",
}
RESULTS = {
    "status": "complete",
    "sparsity": {
        "target": 0.5,
        "achieved": 0.49,
        "per_layer": [
            {"layer": 0, "target": 0.4, "achieved": 0.41},
            {"layer": 1, "target": 0.6, "achieved": 0.57},
        ],
    },
    "perplexity": {
        "dense": {
            "swh_Latn": {"perplexity": 10.0, "bits_per_byte": 1.0, "tokens": 100, "bytes": 400},
            "eng_Latn": {"perplexity": 8.0, "bits_per_byte": 0.5, "tokens": 90, "bytes": 410},
        },
        "pruned": {
            "swh_Latn": {"perplexity": 15.0, "bits_per_byte": 1.25, "tokens": 100, "bytes": 400},
            "eng_Latn": {"perplexity": float("inf"), "bits_per_byte": float("nan"), "tokens": 90, "bytes": 410},
        },
        "aggregate": {"geometric_mean": 12.0, "by_script": {"Latn": 12.0}},
    },
    "tasks": {"pruned": {"xnli_sw": {"acc": 0.4, "stderr": 0.01}}},
    "export": "masks.safetensors",
}


KEPT = {
    "results-0f3a": ("results", ["results.json"]),
    "config-0f3a": ("config", ["config.yaml"]),
    "masks-0f3a": ("masks", ["masks.safetensors"]),
    "allocation-0f3a": ("allocation", ["allocation.json"]),
}


def identity(folder: Path, **changes: Any) -> RunIdentity:
    values: dict[str, Any] = {
        "run_id": "0f3a",
        "name": "bloom 50%",
        "group": "ablation",
        "job_type": "run",
        "tags": ("mwanda", "uniform"),
        "folder": folder,
    }
    return RunIdentity(**values | changes)


def isolate(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Hide the user's wandb settings, keys and proxies, and put its caches into `home`."""
    for name in os.environ:
        if name.startswith("WANDB_") or name.lower().endswith("_proxy"):
            patch.delenv(name)
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        patch.setenv(name, str(home))
    patch.setenv("NETRC", str(home / "netrc"))
    # wandb puts its own in place of these.
    patch.setattr(sys, "exit", sys.exit)
    patch.setattr(sys, "excepthook", sys.excepthook)


@pytest.fixture
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty home folder, and a wandb that starts from scratch."""
    home = tmp_path / "home"
    home.mkdir()
    isolate(monkeypatch, home)
    yield home
    wandb.teardown()


@dataclass
class StoredRun:
    """What wandb has written for one run."""

    folder: Path
    working_folder: Path
    records: list[Record]

    def of_kind(self, kind: str) -> list[Any]:
        return [getattr(record, kind) for record in self.records if record.WhichOneof("record_type") == kind]

    def only(self, kind: str) -> Any:
        (record,) = self.of_kind(kind)
        return record

    def summary(self) -> dict[str, Any]:
        """The last value of every name; parts of a nested value come one by one."""
        summary: dict[str, Any] = {}
        for record in self.of_kind("summary"):
            for item in record.update:
                keys = list(item.nested_key) or [item.key]
                place = summary
                for key in keys[:-1]:
                    place = place.setdefault(key, {})
                place[keys[-1]] = json.loads(item.value_json)
        return summary

    def history(self) -> list[dict[str, Any]]:
        return [
            {"/".join(item.nested_key): json.loads(item.value_json) for item in record.item}
            for record in self.of_kind("history")
        ]

    def table(self, name: str) -> dict[str, Any]:
        (file,) = self.folder.glob(f"wandb/offline-run-*/files/{self.summary()[name]['path']}")
        content: dict[str, Any] = json.loads(file.read_text())
        return content


def read_records(file: Path) -> Iterator[Record]:
    """Read a `.wandb` file: seven bytes of header, then LevelDB's log format with one protocol buffer per entry."""
    header, fragment, block = struct.Struct("<4s3x"), struct.Struct("<IHB"), 32768
    whole_or_last = (1, 4)
    data = file.read_bytes()
    assert header.unpack_from(data) == (b":W&B",)
    position, content = header.size, b""
    while position < len(data):
        if block - position % block < fragment.size:
            position += block - position % block
            continue
        _, length, kind = fragment.unpack_from(data, position)
        position += fragment.size + length
        content += data[position - length : position]
        if kind in whole_or_last:
            yield Record.FromString(content)
            content = b""


def track(tracker: Tracker, run: RunIdentity, failed: bool = False) -> None:
    """What a job does with its tracker."""
    tracker.start(run, CONFIG)
    tracker.log_stage("load", 1.5)
    tracker.log_stage("prune", 2.5)
    tracker.log_results(RESULTS)
    tracker.finish(failed)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoredRun]:
    """A job that has failed at the end, tracked by the real wandb, offline, with a key in the environment."""
    folder, home, working_folder = (tmp_path_factory.mktemp(name) for name in ("job", "home", "work"))
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, home)
        patch.setenv("WANDB_API_KEY", KEY)
        patch.chdir(working_folder)
        for name in ("results.json", "config.yaml", "masks.safetensors"):
            (folder / name).write_text("{}", encoding="utf-8")
        track(WeightsAndBiases(mode="offline", tags=["extra"], finish_timeout=LONG), identity(folder), failed=True)
        wandb.teardown()
        (file,) = folder.glob("wandb/offline-run-*/run-0f3a.wandb")
        yield StoredRun(folder, working_folder, list(read_records(file)))


def test_the_run_opens_with_the_complete_configuration(stored: StoredRun) -> None:
    config = {item.key: json.loads(item.value_json) for item in stored.only("run").config.update}
    del config["_wandb"]
    assert config == CONFIG | {"comment": "made with ${oc.env:WANDB_API_KEY}"}


def test_the_configuration_is_never_changed_later(stored: StoredRun) -> None:
    later = {(item.key or item.nested_key[0]) for record in stored.of_kind("config") for item in record.update}
    assert later <= {"_wandb"}


def test_the_run_can_be_found_and_grouped(stored: StoredRun) -> None:
    run = stored.only("run")
    assert (run.run_id, run.display_name, run.project) == ("0f3a", "bloom 50%", "mwanda")
    assert (run.run_group, run.job_type, list(run.tags)) == ("ablation", "run", ["mwanda", "uniform", "extra"])
    assert run.resume


def test_the_summary_holds_every_number_by_name(stored: StoredRun) -> None:
    expected = {
        "status": "complete",
        "sparsity/achieved": 0.49,
        "perplexity/dense/swh_Latn": 10.0,
        "perplexity/pruned/swh_Latn": 15.0,
        "perplexity/pruned/eng_Latn": float("inf"),
        "bits_per_byte/pruned/swh_Latn": 1.25,
        "ratio/swh_Latn": 1.5,
        "aggregate/geometric_mean": 12.0,
        "aggregate/by_script/Latn": 12.0,
        "tasks/pruned/xnli_sw/acc": 0.4,
        "seconds/load": 1.5,
        "seconds/prune": 2.5,
    }
    assert stored.summary().items() >= expected.items()


def test_stages_are_logged_as_they_end(stored: StoredRun) -> None:
    steps = [{key: row[key] for key in row if key.startswith("seconds/")} for row in stored.history()]
    assert steps[:2] == [{"seconds/load": 1.5}, {"seconds/prune": 2.5}]


def test_languages_are_a_table(stored: StoredRun) -> None:
    table = stored.table("languages")
    assert table["columns"][:5] == ["language", "name", "dense perplexity", "pruned perplexity", "ratio"]
    assert table["data"][0] == ["swh_Latn", "Swahili", 10.0, 15.0, 1.5, None, None, None, 1.0, 1.25, 100, 400]
    assert [row[0] for row in table["data"]] == ["swh_Latn", "eng_Latn"]


def test_layers_are_a_table(stored: StoredRun) -> None:
    table = stored.table("layers")
    assert table["columns"] == ["layer", "target", "achieved"]
    assert table["data"] == [[0, 0.4, 0.41], [1, 0.6, 0.57]]


@pytest.mark.parametrize("chart", ["sparsity_per_layer", "ratio_per_language"])
def test_there_is_a_chart(stored: StoredRun, chart: str) -> None:
    shown = [list(item.nested_key) for record in stored.of_kind("config") for item in record.update]
    assert ["_wandb", "visualize", chart] in shown
    assert stored.table(f"{chart}_table")["data"]


def test_the_sparsity_of_blocks_is_a_curve_over_blocks(stored: StoredRun) -> None:
    rows = [row for row in stored.history() if "block/index" in row]
    assert [[row[f"block/{key}"] for key in ("index", "target", "achieved")] for row in rows] == [
        [0, 0.4, 0.41],
        [1, 0.6, 0.57],
    ]
    defined = {(metric.name or metric.glob_name): metric.step_metric for metric in stored.of_kind("metric")}
    assert defined["block/*"] == "block/index"


def test_what_the_run_has_made_is_kept(stored: StoredRun) -> None:
    requests = [request.log_artifact.artifact for request in stored.of_kind("request") if request.log_artifact]
    made = {each.name: each for each in [*stored.of_kind("artifact"), *requests]}
    kinds = {name: (made[name].type, [entry.path for entry in made[name].manifest.contents]) for name in KEPT}
    assert kinds == KEPT


def test_the_client_itself_reads_what_is_stored(stored: StoredRun, isolated: Path) -> None:
    (file,) = stored.folder.glob("wandb/offline-run-*/run-0f3a.wandb")
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", str(file), "--json"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=True).stdout
    kinds = [json.loads(line)["type"] for line in shown.splitlines()]
    assert {"run", "history", "summary", "metric", "exit"} <= set(kinds)


def test_a_failed_job_is_a_failed_run(stored: StoredRun) -> None:
    assert stored.only("exit").exit_code == 1


def test_the_key_is_in_no_file(stored: StoredRun) -> None:
    files = [file for file in stored.folder.rglob("*") if file.is_file()]
    assert any(file.suffix == ".wandb" for file in files)
    assert [file for file in files if KEY.encode() in file.read_bytes()] == []


def test_everything_is_in_the_job_s_folder(stored: StoredRun) -> None:
    assert list(stored.working_folder.iterdir()) == []
    assert {entry.name for entry in stored.folder.iterdir()} == {"wandb", *(files[0] for _, files in KEPT.values())} - {
        "allocation.json"
    }


def test_the_host_name_is_not_sent(stored: StoredRun) -> None:
    assert {environment.host for environment in stored.of_kind("environment")} == {""}


@dataclass
class FakeRun:
    """Stands where wandb's run stands, and notes what is done to it."""

    folder: Path
    logged: list[Mapping[str, Any]] = field(default_factory=list)
    exit_codes: list[int] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    url: str = "https://example.org/run"
    offline: bool = False

    @property
    def dir(self) -> str:
        return str(self.folder / "files")

    def log(self, values: Mapping[str, Any], step: int) -> None:
        assert step == len(self.logged)
        self.logged.append(values)

    def define_metric(self, name: str, **options: Any) -> None:
        assert name.startswith("block/")

    def log_artifact(self, artifact: wandb.Artifact) -> None:
        self.made.append(artifact.name)

    def use_artifact(self, artifact: wandb.Artifact) -> None:
        self.used.append(artifact.name)

    def finish(self, exit_code: int) -> None:
        self.exit_codes.append(exit_code)


@dataclass
class FakeInit:
    """Stands where `wandb.init` stands: notes its arguments and gives a `FakeRun`, or does `instead`."""

    instead: Callable[[], None] = lambda: None
    calls: list[dict[str, Any]] = field(default_factory=list)
    runs: list[FakeRun] = field(default_factory=list)

    def __call__(self, **arguments: Any) -> FakeRun:
        self.calls.append(arguments)
        self.instead()
        self.runs.append(FakeRun(Path(arguments["dir"])))
        return self.runs[-1]


@pytest.fixture
def fake_init(monkeypatch: pytest.MonkeyPatch) -> FakeInit:
    """A `wandb.init` that does nothing, with no process started beforehand."""
    fake = FakeInit()
    monkeypatch.setattr(wandb, "init", fake)
    monkeypatch.setattr(wandb, "setup", lambda settings: SimpleNamespace(settings=settings))
    return fake


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [wandb.Error("no such entity"), SystemExit("no such entity"), OSError("no space")])
def test_a_run_that_cannot_be_opened_is_one_warning(
    fake_init: FakeInit, tmp_path: Path, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    fake_init.instead = raising(error)
    track(WeightsAndBiases(mode="offline", finish_timeout=LONG), identity(tmp_path))
    (warning,) = warnings(caplog)
    assert str(error) in warning
    assert "tracking=none" in warning
    assert len(fake_init.calls) == 1


def test_a_warning_is_one_short_line_without_the_key(
    fake_init: FakeInit, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    fake_init.instead = raising(ValueError(f"\n {160 * 'a'} {KEY} is no key\n" + 100 * "more\n"))
    track(WeightsAndBiases(mode="offline", finish_timeout=LONG), identity(tmp_path))
    (warning,) = warnings(caplog)
    assert "aa ${oc.env:WANDB_API_KEY} is" in warning
    assert KEY[:8] not in warning
    assert "\n" not in warning
    assert "more" not in warning


def test_without_wandb_a_job_runs_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    track(WeightsAndBiases(mode="offline", finish_timeout=LONG), identity(tmp_path))
    (warning,) = warnings(caplog)
    assert "wandb" in warning


def test_a_run_that_cannot_take_results_is_still_closed(
    fake_init: FakeInit, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeRun, "log", lambda self, values, step: raising(ValueError("too large"))())
    track(WeightsAndBiases(mode="offline", finish_timeout=LONG), identity(tmp_path))
    assert len(warnings(caplog)) == 1
    assert fake_init.runs[0].exit_codes == [0]


def test_a_hanging_server_is_left_behind_with_one_warning(
    fake_init: FakeInit, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, threads = threading.Event(), []

    def hang() -> None:
        threads.append(threading.current_thread())
        released.wait(LONG)

    fake_init.instead = hang
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    track(WeightsAndBiases(mode="online", finish_timeout=0.2), identity(tmp_path))
    (warning,) = warnings(caplog)
    assert "within 0.2 s" in warning
    assert f"mwanda.sync {tmp_path}'" in warning
    released.set()
    for thread in threads:
        thread.join(LONG)
    assert len(warnings(caplog)) == 1
    assert [run.logged for run in fake_init.runs] in ([], [[]])


def test_a_job_that_ends_well_closes_its_run_with_zero(fake_init: FakeInit, tmp_path: Path) -> None:
    track(WeightsAndBiases(mode="offline", finish_timeout=LONG), identity(tmp_path))
    assert fake_init.runs[0].exit_codes == [0]


def test_results_without_tables_log_no_tables(fake_init: FakeInit, tmp_path: Path) -> None:
    tracker = WeightsAndBiases(mode="offline", finish_timeout=LONG)
    tracker.start(identity(tmp_path), {})
    tracker.log_results({"status": "failed"})
    tracker.finish()
    assert fake_init.runs[0].summary == {"status": "failed"}
    assert fake_init.runs[0].logged == []


def test_each_job_has_its_own_run(fake_init: FakeInit, tmp_path: Path) -> None:
    tracker = WeightsAndBiases(mode="offline", finish_timeout=LONG)
    track(tracker, identity(tmp_path, run_id="one"))
    track(tracker, identity(tmp_path, run_id="two"))
    assert [call["id"] for call in fake_init.calls] == ["one", "two"]
    assert [run.exit_codes for run in fake_init.runs] == [[0], [0]]
    assert all(call["resume"] == "allow" and call["reinit"] == "create_new" for call in fake_init.calls)


def test_a_tracker_that_was_never_started_or_is_finished_does_nothing(
    fake_init: FakeInit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = WeightsAndBiases(mode="offline", finish_timeout=LONG)
    tracker.log_stage("load", 1.0)
    tracker.log_results(RESULTS)
    tracker.finish()
    assert fake_init.calls == []
    track(tracker, identity(tmp_path))
    logged = list(fake_init.runs[0].logged)
    tracker.log_stage("late", 1.0)
    tracker.finish()
    assert fake_init.runs[0].logged == logged
    assert fake_init.runs[0].exit_codes == [0]
    assert warnings(caplog) == []


def test_options_say_where_a_run_goes(fake_init: FakeInit, tmp_path: Path) -> None:
    tracker = WeightsAndBiases(
        project="p", entity="e", mode="offline", group="mine", tags=["b", "a"], finish_timeout=LONG
    )
    track(tracker, identity(tmp_path, run_id="a/b:c", tags=("a", "", "x" * 70)))
    (call,) = fake_init.calls
    assert (call["project"], call["entity"], call["group"]) == ("p", "e", "mine")
    assert call["tags"] == ["a", "x" * 64, "b"]
    assert call["id"] == "a-b-c"


def test_wandb_neither_prints_nor_sends_code_or_git_state(fake_init: FakeInit, tmp_path: Path) -> None:
    track(WeightsAndBiases(mode="offline", finish_timeout=LONG), identity(tmp_path))
    settings = fake_init.calls[0]["settings"]
    assert (settings.silent, settings.quiet, settings.console) == (True, True, "off")
    assert (settings.disable_git, settings.disable_code, settings.save_code) == (True, True, False)


def test_who_wants_git_state_on_the_dashboard_says_so_in_the_environment(
    fake_init: FakeInit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DISABLE_GIT", "false")
    track(WeightsAndBiases(mode="offline", finish_timeout=LONG), identity(tmp_path))
    settings = fake_init.calls[0]["settings"]
    assert "disable_git" not in settings.model_fields_set
    assert settings.silent


ANSWERS = {
    "nothing": None,
    "500": b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    "503": b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n",
    "429": b"HTTP/1.1 429 Slowly\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n",
    "garbage": b"\x00\xff" * 400 + b"\r\n",
    "the end": b"",
}
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that give one answer to everything, or to everything but `/`, and close them at the end."""
    sockets: list[socket.socket] = []
    over = threading.Event()

    def answer(connection: socket.socket, content: bytes | None, root: bytes | None, pause: float) -> None:
        with connection, contextlib.suppress(OSError):
            first = connection.recv(1 << 16).split()[1] == b"/" and root is not None
            content = root if first else content
            if content is None:
                over.wait(LONG)
            elif not pause or first:
                connection.sendall(content)
            else:
                for byte in content:
                    connection.sendall(bytes([byte]))
                    if over.wait(pause):
                        return

    def start(content: bytes | None, root: bytes | None = None, pause: float = 0.0) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        sockets.append(listening)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=answer, args=(connection, content, root, pause), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    over.set()
    for each in sockets:
        each.shutdown(socket.SHUT_RDWR)
        each.close()


@pytest.fixture
def server(serve: Serve) -> str:
    """The address of a server that answers."""
    return serve(GOOD)


@pytest.fixture
def no_server() -> str:
    """An address that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"http://127.0.0.1:{closed.getsockname()[1]}"


@pytest.fixture
def chosen_mode(isolated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], list[str]]:
    """Track a job with everything but `wandb.init` real, and return the modes it was called with."""
    fake = FakeInit()
    monkeypatch.setattr(wandb, "init", fake)

    def choose(mode: Any) -> list[str]:
        track(WeightsAndBiases(mode=mode, finish_timeout=LONG), identity(tmp_path))
        return [call["mode"] for call in fake.calls]

    return choose


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_a_run_is_online_with_a_key_in_the_environment(
    chosen_mode: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, server: str, mode: str
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert chosen_mode(mode) == ["online"]


def test_a_run_is_online_with_a_stored_login(
    chosen_mode: Callable[[str], list[str]], isolated: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server)
    host = server.removeprefix("http://")
    (isolated / "netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    assert chosen_mode("auto") == ["online"]


def test_a_run_is_offline_without_a_key(
    chosen_mode: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    server: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server)
    assert chosen_mode("auto") == ["offline"]
    assert warnings(caplog) == []


def test_a_run_is_offline_when_the_server_cannot_be_reached(
    chosen_mode: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    no_server: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", no_server)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert chosen_mode("auto") == ["offline"]
    (warning,) = warnings(caplog)
    assert f"no answer from {no_server}" in warning


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_run_is_offline_when_the_server_gives_no_answer_that_helps(
    chosen_mode: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    monkeypatch.setattr(weights_and_biases, "CONNECTION_SECONDS", 0.2)
    address = serve(ANSWERS[kind])
    monkeypatch.setenv("WANDB_BASE_URL", address)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert chosen_mode("auto") == ["offline"]
    (warning,) = warnings(caplog)
    assert f"no answer from {address}" in warning


def test_a_server_that_sends_a_byte_at_a_time_gives_no_answer(
    chosen_mode: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    monkeypatch.setattr(weights_and_biases, "CONNECTION_SECONDS", 0.2)
    monkeypatch.setenv("WANDB_BASE_URL", serve(GOOD, pause=0.1))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert chosen_mode("auto") == ["offline"]


def test_a_refusal_is_an_answer(
    chosen_mode: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", serve(b"HTTP/1.1 404 Not here\r\nContent-Length: 0\r\n\r\n"))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert chosen_mode("auto") == ["online"]


def test_behind_a_proxy_the_server_counts_as_reachable(
    chosen_mode: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, no_server: str
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", no_server)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert chosen_mode("auto") == ["online"]


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_auto_follows_the_environment(
    chosen_mode: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, server: str, mode: str
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", mode)
    assert chosen_mode("auto") == [mode]


def test_offline_wins_over_a_key(
    chosen_mode: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert chosen_mode("offline") == ["offline"]


def test_online_without_a_key_is_refused_instead_of_asked_for(
    chosen_mode: Callable[[str], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    assert chosen_mode("online") == []
    (warning,) = warnings(caplog)
    assert "WANDB_API_KEY" in warning


def test_a_disabled_wandb_writes_nothing(isolated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    folder = tmp_path / "job"
    track(WeightsAndBiases(finish_timeout=LONG), identity(folder))
    assert [entry for entry in folder.rglob("*") if not entry.is_dir()] == []


JOB = """
import sys
from pathlib import Path
from mwanda.tracking import RunIdentity
from mwanda.tracking.weights_and_biases import WeightsAndBiases

folder, mode, finish_timeout, raises = sys.argv[1:]
tracker = WeightsAndBiases(mode=mode, finish_timeout=float(finish_timeout))
tracker.start(RunIdentity("id", "name", None, "run", (), Path(folder)), {"seed": 1})
tracker.log_results({"status": "complete"})
tracker.finish()
if raises == "raises":
    raise SystemExit(3)
"""


def run_job(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a tracked job in an interpreter of its own; one that does not end is an error."""
    command = [sys.executable, "-c", JOB, str(folder), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONG, check=False)


def test_disabled_in_the_configuration_wins_over_a_key_and_loads_nothing(
    isolated: Path, fake_init: FakeInit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "online")
    track(WeightsAndBiases(mode="disabled"), identity(tmp_path))
    assert (fake_init.calls, list(tmp_path.glob("wandb"))) == ([], [])


def test_an_offline_job_prints_nothing_and_keeps_its_exit_code(isolated: Path, tmp_path: Path) -> None:
    ended = run_job(tmp_path, "offline", str(LONG), "raises")
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "", "")
    assert list(tmp_path.glob("wandb/offline-run-*/run-id.wandb"))


@pytest.mark.parametrize("kind", ["nothing", "500", "429", "garbage", "the end", "a byte a second"])
def test_a_server_that_fails_after_its_first_answer_costs_the_limit_and_no_more(
    isolated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, serve: Serve, kind: str
) -> None:
    slowly = kind == "a byte a second"
    monkeypatch.setenv("WANDB_BASE_URL", serve(GOOD if slowly else ANSWERS[kind], GOOD, float(slowly)))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    # Left to itself, wandb would go on trying until long after `run_job` has given up.
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "600")
    ended = run_job(tmp_path, "auto", "0.5", "returns")
    assert ended.returncode == 0
    assert ended.stderr.splitlines() == [
        "Weights & Biases did not finish within 0.5 s (tracking.finish_timeout); "
        f"'python -m mwanda.sync {tmp_path}' sends the run from its result files"
    ]


def test_a_job_waits_for_a_server_no_longer_than_five_seconds_in_all() -> None:
    assert WeightsAndBiases().finish_timeout + 1 <= 5
    assert WeightsAndBiases().finish_timeout > weights_and_biases.CONNECTION_SECONDS


def test_no_secret_is_in_what_wandb_stores_of_the_job(
    fake_init: FakeInit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "sekrit1234")
    monkeypatch.setattr(sys, "argv", ["run.py", "tracking.tags=[sekrit1234]"])
    tracker = WeightsAndBiases(
        project="p-sekrit1234", entity="sekrit1234", group="g sekrit1234", tags=["sekrit1234"], mode="offline"
    )
    track(tracker, identity(tmp_path, name="n sekrit1234", tags=("t sekrit1234",)))
    (call,) = fake_init.calls
    assert "sekrit" not in repr(call) + repr(sys.argv)
    assert call["tags"] == ["t ${oc.env:MY_TOKEN}", "${oc.env:MY_TOKEN}"]
    assert sys.argv == ["run.py", "tracking.tags=[${oc.env:MY_TOKEN}]"]
