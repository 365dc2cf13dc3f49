"""What is asked of a cluster, and what is made of its answers."""

from pathlib import Path

import pytest

from mwanda.errors import InputError
from mwanda.sweep import slurm


def answer(command: str, text: str, monkeypatch: pytest.MonkeyPatch, folder: Path, exit_code: int = 0) -> None:
    """Have one of SLURM's commands print a text."""
    program = folder / command
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {exit_code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_an_array_may_be_as_large_as_the_cluster_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer(
        "scontrol", "LaunchParameters = (null)\nMaxArraySize            = 1001\nMaxJobCount = 9", monkeypatch, tmp_path
    )
    slurm.check_array(1001)
    with pytest.raises(InputError, match=r"1002 jobs .*MaxArraySize=1001.*hydra\.sweeper\.max_batch_size=1001"):
        slurm.check_array(1002)


def test_where_nobody_answers_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    slurm.check_array(10**6)
    assert slurm.states() is None
    answer("scontrol", "", monkeypatch, tmp_path, exit_code=1)
    slurm.check_array(10**6)


def test_states_are_by_number_and_element(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer("squeue", "7_0|RUNNING\n7_1|COMPLETED\n8|PENDING", monkeypatch, tmp_path)
    assert slurm.states() == {"7_0": "RUNNING", "7_1": "COMPLETED", "8": "PENDING"}


@pytest.mark.parametrize(
    ("listed", "done"),
    [
        ("7_1|RUNNING", False),
        ("7_1|PENDING", False),
        ("7_1|SUSPENDED", False),  # to submitit, a state that it does not know is an end
        ("7_1|CONFIGURING", False),
        ("7_1|COMPLETING", False),
        ("7_1|CANCELLED", True),
        ("7_1|OUT_OF_MEMORY", True),
        ("7_2|RUNNING", True),  # the cluster has forgotten it
    ],
)
def test_submitit_takes_a_job_for_ended_when_the_queue_says_so(
    listed: str, done: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("submitit")
    answer("squeue", listed, monkeypatch, tmp_path)
    queue = slurm.watcher()(delay_s=60)
    queue.register_job("7_1")
    assert queue.is_done("7_1", mode="force") is done
    assert queue.jobs == ["7_1"]


def test_a_queue_that_does_not_answer_ends_no_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    answer("squeue", "", monkeypatch, tmp_path, exit_code=1)
    queue = slurm.watcher()(delay_s=60)
    queue.register_job("7")
    assert not queue.is_done("7", mode="force")
