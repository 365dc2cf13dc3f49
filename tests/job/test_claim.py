"""A folder has one run at a time, and only ever what runs have put there."""

import errno
import fcntl
import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import tiny_job
from tiny_models import save_tiny_model

from mwanda.errors import ConfigurationError, CorpusError, InputError, SparsityError
from mwanda.job import claim as claims
from mwanda.job import status
from mwanda.job.claim import LOCK, claim
from mwanda.job.folder import CHECKPOINT, WORK
from mwanda.job.status import TakenError
from mwanda.pruner import Pruner
from mwanda.system.ownership import UNFINISHED


STARTS, ROUNDS, JOBS = 8, 3, 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("llama", tmp_path_factory.mktemp("llama"))


def content(folder: Path) -> dict[str, bytes | None]:
    """Return all that lies in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


# ---- many at once


def start(model: Path, folder: Path, more: tuple[str, ...], gate: Any, ends: Any) -> None:
    """Run a job as soon as all others are ready to."""
    gate.wait()
    try:
        tiny_job.run(model, folder, *more)
        ends.put("complete")
    except InputError as error:
        ends.put(f"{type(error).__name__}: {error}")


def at_once(model: Path, folder: Path, jobs: list[tuple[str, ...]]) -> list[str]:
    """Start jobs in one folder at the same moment; return how each has ended."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mwanda.sweep.preload", "mwanda.job.run", "tiny_job", "tiny_models"])
    gate, ends = context.Barrier(len(jobs)), context.Queue()
    processes = [context.Process(target=start, args=(model, folder, more, gate, ends)) for more in jobs]
    for process in processes:
        process.start()
    found = [ends.get(timeout=120) for _ in jobs]
    for process in processes:
        process.join()
    return sorted(found)


def test_of_many_jobs_that_start_at_once_one_runs_and_no_refused_one_takes_from_it(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    ends = at_once(model, folder, [(), ("calibration.sequences=4000",)] * (JOBS // 2))
    if "complete" not in ends:  # the refused ones have had it all the time
        assert nothing_in(folder)
        return
    assert ends.count("complete") == 1, ends
    allowed = ("another process is at work there", "holds a finished run", "would fit")
    assert all(any(part in end for part in allowed) for end in ends if end != "complete"), ends
    assert json.loads((folder / "results.json").read_text())["status"] == "complete"
    written = json.loads((folder / "status.json").read_text())
    assert (written["state"], written["attempt"]) == ("complete", 1)
    assert (folder / "run.log").read_text(encoding="utf-8").count("calibrating and pruning") == 1
    assert not {path.name for path in folder.iterdir()} & {CHECKPOINT, WORK}


def nothing_in(folder: Path) -> bool:
    """Return whether a folder is gone, or empty: it may have been made by one that came second and touches nothing."""
    return not folder.exists() or not list(folder.iterdir())


def hold(folder: Path, refused: bool, gate: Any, ends: Any) -> None:
    """Take a folder and look, for a while, whether it stays as it is."""
    gate.wait()
    try:
        with claim(folder):
            status.Reporter(folder, "hash", [], str(os.getpid()))
            for _ in range(20):
                time.sleep(0.001)
                assert json.loads((folder / status.FILE).read_text())["name"] == str(os.getpid())
            if refused:
                raise CorpusError("refused")
            ends.put("held")
    except TakenError:
        ends.put("taken")
    except CorpusError:
        ends.put("refused")
    except BaseException as error:
        ends.put(repr(error))
        raise


@pytest.mark.parametrize("refused", [0, 4, 8])
def test_of_many_processes_one_has_the_folder(refused: int, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for number in range(ROUNDS):
        folder, gate, ends = tmp_path / str(number) / "run", context.Barrier(STARTS), context.Queue()
        processes = [
            context.Process(target=hold, args=(folder, index < refused, gate, ends)) for index in range(STARTS)
        ]
        for process in processes:
            process.start()
        found = Counter(ends.get(timeout=60) for _ in processes)
        for process in processes:
            process.join()
        assert found.keys() <= {"held", "taken", "refused"}, found
        assert found["held"] + found["refused"] >= 1
        if found["held"]:
            assert {path.name for path in folder.iterdir()} == {LOCK, status.FILE}
        else:
            assert nothing_in(folder)


def test_who_comes_second_touches_nothing(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    tiny_job.run(model, folder)
    with claim(folder):
        before = content(folder)
        for more in ((), ("resume=true",), ("calibration.sequences=4000",), ("resume=true", "sparsity=0.7")):
            with pytest.raises(TakenError, match="another process is at work there; wait for it, or stop it"):
                tiny_job.run(model, folder, *more)
            assert content(folder) == before


def test_a_run_on_another_machine_is_seen_by_what_it_has_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:  # a file system whose locks the other machine does not share
        patch.setattr(status, "host", lambda: "elsewhere")
        status.Reporter(_made(folder), "hash", [], "name")
    before = content(folder)
    with pytest.raises(TakenError):
        tiny_job.run(model, folder)
    assert content(folder) == before
    silent = json.loads((folder / status.FILE).read_text())
    silent["updated"] = (datetime.now(UTC) - timedelta(seconds=status.STALE + 1)).isoformat()
    (folder / status.FILE).write_text(json.dumps(silent))
    assert tiny_job.run(model, folder)["status"] == "complete"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_the_lock_goes_with_the_process(tmp_path: Path) -> None:
    process = os.fork()
    if process == 0:
        claim(tmp_path / "run")
        os._exit(0)  # without giving anything back
    os.waitpid(process, 0)
    with claim(tmp_path / "run"):
        pass


def test_a_file_system_without_locks_is_one_where_status_decides(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", lock)
    assert tiny_job.run(model, tmp_path / "run")["status"] == "complete"


# ---- what is the user's


@pytest.mark.parametrize("name", ["weights", "model", "checkpoint", "wandb", "inside", ".git"])
def test_a_folder_that_holds_the_users_own_is_refused_and_kept(name: str, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / name / "activations-2024").mkdir(parents=True)
    for place in ("state.json", "block-00001.safetensors", "activations-2024/x"):
        (folder / name / place).write_text("precious")
    before = content(folder)
    for more in ((), ("resume=true",), ("export=hf",), ("export=hf", "resume=true")):
        with pytest.raises(ConfigurationError, match=rf"holds {name}, which no run has made; choose an empty or"):
            tiny_job.run(model, folder, *more)
    assert content(folder) == before


def test_what_the_user_has_put_into_the_folder_of_a_run_stays(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    tiny_job.run(model, folder)
    for name in (CHECKPOINT, WORK, "mine"):
        (folder / name).mkdir()
        (folder / name / "notes.txt").write_text("precious")
    tiny_job.run(model, folder, "resume=true")
    tiny_job.run(model, folder, "resume=true", "export=masks")
    assert all((folder / name / "notes.txt").read_text() == "precious" for name in (CHECKPOINT, WORK, "mine"))


def test_a_model_of_the_users_is_not_replaced_and_nothing_is_run_for_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    tiny_job.run(model, folder)
    (folder / "results.json").unlink()
    (folder / "model").mkdir()
    (folder / "model" / "mine").write_text("precious")
    monkeypatch.setattr(Pruner, "prune", None)
    with pytest.raises(InputError, match="model: holds mine, which no run has made"):
        tiny_job.run(model, folder, "resume=true", "export=hf")
    assert (folder / "model" / "mine").read_text() == "precious"


def test_an_exported_model_of_ours_is_replaced(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    tiny_job.run(model, folder, "export=hf")
    (folder / "results.json").unlink()
    tiny_job.run(model, folder, "resume=true", "export=hf")
    assert (folder / "model" / "config.json").is_file()


def late(*_: Any, **__: Any) -> None:
    raise SparsityError("too late")


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("when", ["early", "late"])
def test_a_refused_run_leaves_what_it_found(
    when: str, existed: bool, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "day" / "run"
    if existed:
        folder.mkdir(parents=True)
    if when == "late":
        monkeypatch.setattr(Pruner, "prune", late)
    with pytest.raises((CorpusError, SparsityError)):
        tiny_job.run(model, folder, *(() if when == "late" else ("calibration.sequences=4000",)))
    assert folder.exists() == existed == (tmp_path / "day").exists()
    assert not existed or list(folder.iterdir()) == []


def test_what_came_into_the_folder_meanwhile_stays(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def put(*_: Any, **__: Any) -> None:
        (folder / "notes.txt").write_text("mine")
        late()

    monkeypatch.setattr(Pruner, "prune", put)
    with pytest.raises(SparsityError):
        tiny_job.run(model, folder)
    assert content(folder) == {"notes.txt": b"mine"}


def test_what_a_killed_attempt_left_half_made_goes_at_the_next_start(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    tiny_job.run(model, folder)
    left = [folder / f".{name}.x{UNFINISHED}" for name in ("results.json", "model", "masks.safetensors")]
    left += [folder / CHECKPOINT / f".state.json.x{UNFINISHED}", folder / WORK / "activations-abcd1234"]
    for each in left:
        each.mkdir(parents=True)
        (each / "half").touch()
    tiny_job.run(model, folder, "resume=true")
    assert not any(each.exists() for each in left)
    assert not (folder / CHECKPOINT).exists()


def test_every_file_can_be_read_by_all(model: Path, tmp_path: Path) -> None:
    for export in ("masks", "hf"):
        tiny_job.run(model, tmp_path / export, f"export={export}")
    modes = {path: path.stat().st_mode & 0o777 for path in tmp_path.glob("*/**/*") if path.is_file()}
    assert {path.name: oct(mode) for path, mode in modes.items() if mode != 0o644} == {}
    assert len(modes) > len(content(tmp_path / "masks"))


# ---- places that cannot be written


def test_a_file_is_no_folder(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigurationError, match=r"^output_dir=.*(is a file|cannot be written \(Not a directory)"):
            tiny_job.run(model, place)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_one_line(model: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^output_dir=/proc/self/run: cannot be written \(No such file"):
        tiny_job.run(model, Path("/proc/self/run"))


def failing(number: int) -> Callable[..., Any]:
    """Return what any operation on a disk does that is full, read-only or somebody else's."""

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("operation", ["os.open", "os.write", "pathlib.Path.mkdir", "tempfile.mkdtemp", "os.replace"])
def test_a_disk_that_does_not_allow_it_is_told_before_the_work_and_nothing_is_left(
    number: int, operation: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny_job.spec(tmp_path / "run", tiny_job.overrides(model))
    with monkeypatch.context() as patch:
        if operation == "os.open":
            patch.setattr(claims.os, "open", failing(number))
        else:
            patch.setattr(operation, failing(number))
        with pytest.raises(ConfigurationError, match=r"^output_dir=.*cannot be written \(") as error:
            tiny_job.run_spec(spec)
    assert os.strerror(number) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
    assert LOCK not in {path.name for path in tmp_path.rglob("*")}


# ---- secrets


def test_no_file_and_no_name_of_one_holds_a_secret(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "hf_planted1token2of3nobody"
    monkeypatch.setenv("HF_TOKEN", secret)
    spec = tiny_job.spec(tmp_path / secret, tiny_job.overrides(model, f"name={secret}"))
    assert spec.settings.name == "${oc.env:HF_TOKEN}"
    tiny_job.run_spec(spec)
    shown = capsys.readouterr()
    assert secret not in shown.out + shown.err
    found = [path for path in tmp_path.rglob("*") if secret in str(path)]
    assert not found
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
