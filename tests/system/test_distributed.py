"""Several processes that share a run, over gloo; two are forked from one that has imported everything."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_run import BESIDE, JOBS, NEEDS, TEXTS, job_of, statistics_of_rank, task_scores, tensors_of
from pruning_oracle import every_order
from safetensors.torch import load_file
from torch import Tensor

from mwanda.pruner.engine import Order
from mwanda.statistics import LanguageStatistics, Needs
from mwanda.system.distributed import World, join, leave


PROCESSES = 2


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run `distributed_run.py` and return the folder with what each process left in it."""
    folder, root = tmp_path_factory.mktemp("processes"), Path(__file__).parents[2]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    path = os.pathsep.join([str(root), str(root / "tests"), os.environ.get("PYTHONPATH", "")])
    settings = {"WORLD_SIZE": str(PROCESSES), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = {**os.environ, **settings, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(root / "tests" / "distributed_run.py"), str(folder)]
    subprocess.run(command, env=environment, check=True)
    return folder


@pytest.fixture(params=range(PROCESSES))
def rank(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def left_by(ran: Path, rank: int) -> dict[str, Any]:
    """Return what a process has written of what it saw."""
    return dict(json.loads((ran / f"{rank}.json").read_text()))


def weights_of(ran: Path, name: str, rank: int) -> dict[str, Tensor]:
    return load_file(ran / f"{name}-{rank}.safetensors")


def zeros(weights: dict[str, Tensor]) -> dict[str, list[bool]]:
    return {name: (value == 0).flatten().tolist() for name, value in weights.items()}


def differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    assert first.keys() == second.keys()
    return [name for name, value in first.items() if not value.equal(second[name])]


@every_order
@pytest.mark.parametrize("name", JOBS)
def test_two_processes_prune_alike_to_the_bit(ran: Path, order: Order, name: str) -> None:
    assert differing(weights_of(ran, f"{name}-{order}", 0), weights_of(ran, f"{name}-{order}", 1)) == []


@every_order
@pytest.mark.parametrize("name", JOBS)
def test_two_processes_give_the_masks_of_one(ran: Path, order: Order, name: str) -> None:
    expected, report = job_of(name, order).run()
    found = weights_of(ran, f"{name}-{order}", 0)
    assert zeros(found) == zeros(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)
    assert left_by(ran, 0)[f"{name}-{order}"] == pytest.approx(report.sparsities, abs=1e-6)


def test_two_processes_match_the_dense_model_as_one_does(ran: Path, rank: int) -> None:
    expected, _ = job_of(BESIDE, "block").run()
    found = weights_of(ran, BESIDE, rank)
    assert zeros(found) == zeros(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


@every_order
def test_an_interrupted_run_of_two_processes_goes_on_to_the_same_weights(ran: Path, order: Order, rank: int) -> None:
    uninterrupted = weights_of(ran, f"mwanda-{order}", rank)
    assert differing(weights_of(ran, f"resumed-{order}", rank), uninterrupted) == []
    assert left_by(ran, rank)[f"finished-{order}"] > 0
    assert not (ran / f"checkpoint-{order}").exists()


def test_each_process_takes_its_part_of_the_batches(ran: Path, rank: int) -> None:
    passes = [left_by(ran, each)["batches"] for each in range(PROCESSES)]
    assert passes[rank] == 2 - rank  # of three batches: three, three and one sequence


@every_order
def test_more_processes_than_sequences_are_refused_by_all_before_anything_is_pruned(
    ran: Path, order: Order, rank: int
) -> None:
    left = left_by(ran, rank)
    assert left[f"few-{order}"] == "2 processes share 1 calibration sequences; start no more than those"
    assert left[f"few-zeros-{order}"] == 0


@pytest.mark.parametrize("needs", NEEDS)
def test_statistics_are_all_reduced(ran: Path, rank: int, needs: Needs) -> None:
    parts = [statistics_of_rank(each, needs) for each in range(PROCESSES)]
    expected = LanguageStatistics.total(parts)
    found = load_file(ran / f"statistics-{needs.name}-{rank}.safetensors")
    assert found.keys() == tensors_of(expected).keys()
    for name, value in tensors_of(expected).items():
        assert torch.equal(found[name], value)


def test_values_are_all_reduced(ran: Path, rank: int) -> None:
    assert left_by(ran, rank)["total"] == [1 + 2, 10 + 20]


def test_the_first_process_says_what_is_the_same_for_all(ran: Path, rank: int) -> None:
    assert left_by(ran, rank)["same"] == [f"{text}0" if text else "" for text in TEXTS]


def test_every_process_hears_what_each_says(ran: Path, rank: int) -> None:
    assert left_by(ran, rank)["gathered"] == ["ʉ0", "ʉ1"]


def test_tasks_are_divided_and_every_process_has_all_scores(ran: Path, rank: int) -> None:
    expected, passes = task_scores(World())
    found = left_by(ran, rank)["scores"]
    assert sorted(found) == sorted(expected.values)
    for task, metrics in expected.values.items():
        for metric, values in metrics.items():
            rows = {(leaf, document): value for leaf, document, value in found[task][metric]}
            assert rows == pytest.approx(values)
    assert 0 < left_by(ran, rank)["asked"] < passes


def test_the_processes_know_which_they_are(ran: Path, rank: int) -> None:
    assert left_by(ran, rank)["world"] == [rank, PROCESSES, rank == 0]


@pytest.mark.parametrize("count", [0, 1, 2, 5, 12])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_are_disjoint_whole_and_even(count: int, size: int) -> None:
    items = list(range(count))
    shares = [World(each, size).shard(items) for each in range(size)]
    assert sorted(item for share in shares for item in share) == items
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_one_process_does_nothing_of_this() -> None:
    world, values = World(), torch.tensor([1.0])
    statistics = statistics_of_rank(0, Needs.COUNTS)
    before = [tensor.clone() for tensor in statistics.tensors() if tensor is not None]
    world.all_reduce([values, *(each for each in statistics.tensors() if each is not None)])
    world.barrier()
    after = [tensor for tensor in statistics.tensors() if tensor is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert values.tolist() == [1.0]
    assert world.broadcast("text") == "text"
    assert world.all_gather("text") == ["text"]
    assert world.first


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (None, "1"):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        if size is not None:
            monkeypatch.setenv("WORLD_SIZE", size)
        assert join() == World(0, 1)
    leave()
    leave()
