"""Signals that end a run."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import tiny_job
from tiny_models import tiny_model, tiny_tokenizer

from mwanda.job import status
from mwanda.job.run import run
from mwanda.system.conf import CONF
from mwanda.system.interruption import TRY_AGAIN, Interrupted, listening


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture
def handlers() -> Any:
    """Put every handler back in its place."""
    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGUSR1, TRY_AGAIN), (signal.SIGUSR2, TRY_AGAIN), (signal.SIGTERM, 143)],
)
def test_a_signal_ends_the_work_and_says_which(handlers: None, number: signal.Signals, exit_code: int) -> None:
    with pytest.raises(Interrupted, match=number.name) as caught, listening():
        send(number)
        pytest.fail("the work went on")
    assert caught.value.exit_code == exit_code
    assert not isinstance(caught.value, Exception)  # nobody takes it for an error of the work
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_second_signal_does_not_disturb_the_end(handlers: None) -> None:
    ended = []
    with pytest.raises(Interrupted, match="SIGUSR2"), listening():
        try:
            send(signal.SIGUSR2)
        finally:
            send(signal.SIGUSR1)
            send(signal.SIGTERM)
            ended.append(True)
    assert ended == [True]


def test_a_launcher_that_listens_itself_is_called_when_the_work_has_ended(handlers: None) -> None:
    order: list[object] = []

    def queue_again(number: int, frame: object) -> None:
        order.append(signal.Signals(number))
        raise SystemExit(255)

    signal.signal(signal.SIGUSR2, queue_again)
    signal.signal(signal.SIGTERM, lambda *_: order.append("left to the launcher"))
    with pytest.raises(SystemExit), listening():
        try:
            send(signal.SIGTERM)
            send(signal.SIGUSR2)
        finally:
            order.append("ended")
    assert order == ["left to the launcher", "ended", signal.SIGUSR2]
    assert signal.getsignal(signal.SIGUSR2) is queue_again


def test_work_in_another_thread_is_left_alone(handlers: None) -> None:
    done = []

    def work() -> None:
        with listening():
            done.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.SIG_DFL]


def test_a_run_that_gets_a_signal_says_so_and_goes_on_later(tmp_path: Path) -> None:
    """While batches wait for each other in coroutines."""
    model = tmp_path / "model"
    tiny_model("llama", num_hidden_layers=8).save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    settings = ("calibration.sequences=60", "pruner.batch_size=1", "export=masks", "artifacts=false")
    arguments = [*tiny_job.without_evaluation(model), *settings]

    def start(folder: Path, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(CONF.parent / "run.py"), *arguments, f"output_dir={folder}", *more]
        environment = os.environ | {"PYTHONPATH": str(CONF.parent)}
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )

    first = start(tmp_path / "run")
    while not (tmp_path / "run" / "checkpoint" / "state.json").exists():  # a block is finished
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.01)
    first.send_signal(signal.SIGUSR2)
    _, printed = first.communicate(timeout=120)
    assert first.returncode == TRY_AGAIN, printed
    assert f"interrupted by signal SIGUSR2; with resume=true output_dir={tmp_path / 'run'} it goes on" in printed
    assert "Traceback" not in printed
    found = status.read(tmp_path / "run")
    assert found is not None
    assert (found["state"], found["exception"]["type"]) == ("interrupted", "Interrupted")
    again = start(tmp_path / "run", "resume=true")
    _, printed = again.communicate(timeout=240)
    assert again.returncode == 0, printed
    whole = run(tiny_job.spec(tmp_path / "whole", arguments))
    assert whole is not None
    assert json.loads((tmp_path / "run" / "results.json").read_text())["sparsity"] == whole["sparsity"]
