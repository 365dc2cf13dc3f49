"""A run that is interrupted anywhere and taken up again gives what an uninterrupted one gives."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from interruption import Interrupted, Job, Outcome, StopAt, assert_same, killed_at
from plain_decoder import CALIBRATION, PlainDecoder
from pruning_oracle import every_order
from safetensors.torch import load_file
from streamed_run import run_streamed
from tiny_models import tiny_calibration, tiny_model
from torch import Tensor

from mwanda.criteria import Criterion
from mwanda.criteria.magnitude import Magnitude
from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.sparsegpt import SparseGPT
from mwanda.criteria.wanda import Wanda
from mwanda.models import blocks_of
from mwanda.patterns.n_of_m import NOfM
from mwanda.pruner import Pruner
from mwanda.pruner.engine import Order
from mwanda.pruner.offloading import Activations
from mwanda.pruner.run_checkpoint import RunCheckpoint
from mwanda.schedules import Schedule
from mwanda.schedules.alphapruning import AlphaPruning
from mwanda.schedules.cwl import CWL
from mwanda.schedules.fisher import Fisher
from mwanda.schedules.owl_cwl import OWLCWL
from mwanda.schedules.uniform import Uniform
from mwanda.solvers.admm import ADMM
from mwanda.solvers.dsnot import DSnoT
from mwanda.solvers.sparsegpt import SparseGPT as SparseGPTSolver
from mwanda.solvers.swap import Swap
from mwanda.statistics import LanguageWeights, Needs


every_schedule = pytest.mark.parametrize(
    "schedule",
    [Uniform(), OWLCWL(2.0), OWLCWL(2.0, level="matrix"), AlphaPruning(), Fisher()],
    ids=["uniform", "owl_cwl", "owl_cwl of matrices", "alphapruning", "fisher"],
)
SOLVERS = {"swap": Swap(), "dsnot": DSnoT(), "sparsegpt": SparseGPTSolver(column_order="loss"), "admm": ADMM()}
every_criterion = pytest.mark.parametrize("criterion", [MWanda(), SparseGPT()], ids=["mwanda", "sparsegpt"])


def plain_job(order: Order, criterion: Criterion | None = None, schedule: Schedule | None = None) -> Job:
    return Job(PlainDecoder(), CALIBRATION, Pruner(order, 3), criterion or MWanda(), schedule or Uniform())


def known_decoder() -> PlainDecoder:
    """Return a model through which text has been followed, so that nothing but calibration passes it any more."""
    model = PlainDecoder()
    blocks_of(model)
    return model


def uninterrupted(job: Job) -> tuple[Outcome, int]:
    """Return what the job gives, and in how many steps."""
    progress = StopAt()
    return job.run(progress=progress), len(progress.steps)


def interrupt(job: Job, folder: Path, step: int) -> None:
    with pytest.raises(Interrupted):
        job.run(folder, StopAt(step))


@every_order
@every_schedule
@every_criterion
def test_a_run_interrupted_at_any_step_goes_on_to_the_same_weights(
    tmp_path: Path, order: Order, schedule: Schedule, criterion: Criterion
) -> None:
    job = plain_job(order, criterion, schedule)
    expected, steps = uninterrupted(job)
    for step in range(steps):
        folder = tmp_path / str(step)
        interrupt(job, folder, step)
        assert_same(job.run(folder), expected)


@every_order
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_run_with_any_solver_goes_on_to_the_same_weights(tmp_path: Path, order: Order, solver: str) -> None:
    weights = LanguageWeights((1.0, 2.0, 0.5), balanced=True)
    calibration = replace(CALIBRATION, weights=weights)
    job = Job(PlainDecoder(), calibration, Pruner(order, 3), Wanda(), OWLCWL(2.0), solver=SOLVERS[solver])
    expected, steps = uninterrupted(job)
    for step in range(1, steps, 2):
        folder = tmp_path / str(step)
        interrupt(job, folder, step)
        assert_same(job.run(folder), expected)


@pytest.mark.parametrize("activations", ["device", "ram", "disk"])
def test_a_run_beside_the_dense_model_goes_on_to_the_same_weights(tmp_path: Path, activations: Activations) -> None:
    pruner = Pruner("block", 3, activations=activations)
    job = Job(PlainDecoder(), CALIBRATION, pruner, Wanda(), OWLCWL(2.0), solver=ADMM(match="dense"))
    expected, steps = uninterrupted(job)
    plain = Job(PlainDecoder(), CALIBRATION, Pruner("block", 3), Wanda(), OWLCWL(2.0), solver=ADMM(match="dense"))
    assert_same(plain.run(), expected)
    for step in range(1, steps):
        folder = tmp_path / str(step)
        interrupt(job, folder, step)
        assert_same(job.run(folder), expected)


@every_order
@every_criterion
def test_a_run_may_be_interrupted_at_every_step(tmp_path: Path, order: Order, criterion: Criterion) -> None:
    job = plain_job(order, criterion, OWLCWL(2.0))
    expected, steps = uninterrupted(job)
    for step in range(steps):
        interrupt(job, tmp_path, step)
    assert_same(job.run(tmp_path), expected)


@every_order
@every_criterion
def test_a_checkpoint_changes_nothing(tmp_path: Path, order: Order, criterion: Criterion) -> None:
    job = plain_job(order, criterion, OWLCWL(2.0))
    assert_same(job.run(tmp_path), job.run())


@every_order
def test_a_finished_run_can_be_repeated_from_its_checkpoint(tmp_path: Path, order: Order) -> None:
    job = plain_job(order, SparseGPT(), OWLCWL(2.0))
    expected = job.run(tmp_path)
    model = known_decoder()
    assert_same(job.run(tmp_path, model=model), expected)
    assert model.passes == 0


@every_order
def test_finished_blocks_compute_nothing(tmp_path: Path, order: Order) -> None:
    job = plain_job(order)
    interrupt(job, tmp_path, 2)
    model = known_decoder()
    for layer in model.layers[:2]:
        layer.up.register_forward_pre_hook(_refuse)
    assert_same(job.run(tmp_path, model=model), job.run())
    assert all("forward" not in vars(layer) for layer in model.layers)


@pytest.mark.parametrize("order", ["block", "arrival"])
def test_a_block_with_a_forward_of_its_own_has_it_back(tmp_path: Path, order: Order) -> None:
    """As a library that wraps the blocks of a model leaves it."""
    job = plain_job(order)
    interrupt(job, tmp_path, 2)
    model = PlainDecoder()
    own: Callable[..., Tensor] = model.layers[0].forward
    model.layers[0].forward = own
    assert_same(job.run(tmp_path, model=model), job.run())
    assert vars(model.layers[0])["forward"] == own


@pytest.mark.parametrize("order", ["block", "arrival"])
def test_one_language_has_no_signal_before_and_after(tmp_path: Path, order: Order) -> None:
    calibration = tiny_calibration(languages=1, sequences=3)
    job = Job(PlainDecoder(), calibration, Pruner(order, 2), MWanda(), CWL())
    interrupt(job, tmp_path, 4)
    assert_same(job.run(tmp_path), job.run())


def test_a_criterion_without_statistics_writes_no_checkpoint(tmp_path: Path) -> None:
    job = plain_job("arrival", Magnitude())
    interrupt(job, tmp_path, 1)
    assert list(tmp_path.iterdir()) == []
    assert_same(job.run(tmp_path), job.run())


@pytest.mark.parametrize("order", ["block", "arrival"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_taken_up_to_the_bit(tmp_path: Path, order: Order, dtype: torch.dtype) -> None:
    job = Job(tiny_model("llama", dtype=dtype), CALIBRATION, Pruner(order, 3), SparseGPT())
    interrupt(job, tmp_path, 1)
    assert_same(job.run(tmp_path), job.run())


@pytest.mark.parametrize("order", ["block", "arrival"])
def test_a_pattern_of_groups_is_taken_up(tmp_path: Path, order: Order) -> None:
    job = Job(PlainDecoder(8, 16), CALIBRATION, Pruner(order, 3), SparseGPT(), Uniform(), NOfM())
    interrupt(job, tmp_path, 2)
    assert_same(job.run(tmp_path), job.run())


@every_order
@pytest.mark.parametrize("family", ["bloom", "gpt2", "falcon", "t5", "m2m_100", "xlm-roberta"])
def test_every_way_in_which_blocks_return_their_states_is_taken_up(tmp_path: Path, order: Order, family: str) -> None:
    """Tensors, tuples, what later blocks reuse of the first (T5), two stacks."""
    job = Job(tiny_model(family), tiny_calibration(sequences=3, length=6), Pruner(order, 4))
    expected, steps = uninterrupted(job)
    for step in {steps // 2, steps - 1}:
        interrupt(job, tmp_path / str(step), step)
        assert_same(job.run(tmp_path / str(step)), expected)


@every_order
@pytest.mark.parametrize(
    ("criterion", "expert_tokens"), [(SparseGPT(), 0), (MWanda(), 10**6)], ids=["own statistics", "shared statistics"]
)
def test_a_mixture_of_experts_is_taken_up(
    tmp_path: Path, order: Order, criterion: Criterion, expert_tokens: int
) -> None:
    model = tiny_model("mixtral")
    job = Job(model, tiny_calibration(), Pruner(order, 4, expert_tokens=expert_tokens), criterion, OWLCWL(2.0))
    expected = job.run()
    assert len(expected[1].pooled) == (16 if expert_tokens else 0)
    interrupt(job, tmp_path, 3)
    assert_same(job.run(tmp_path), expected)


@every_order
def test_what_a_block_hands_over_to_be_written_does_not_change_with_the_next_one(
    tmp_path: Path, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written while the next block is worked on; a list that grew meanwhile had a wrong seal."""
    given: list[list[str]] = []
    own = RunCheckpoint.finish

    def finish(self: RunCheckpoint, *args: Any, **named: Any) -> None:
        given.append(args[3]["pooled"])
        own(self, *args, **named)

    monkeypatch.setattr(RunCheckpoint, "finish", finish)
    Job(tiny_model("mixtral"), tiny_calibration(), Pruner(order, 4, expert_tokens=10**6), MWanda()).run(tmp_path)
    assert [len(each) for each in given] == [8, 16]


def never_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have hidden states never be worth writing, as those of a large model on a fast device are."""
    monkeypatch.setattr("mwanda.pruner.run_checkpoint.AT_ANY_TIME", -1)
    monkeypatch.setattr("mwanda.pruner.run_checkpoint.SHARE", 0.0)


@every_order
@pytest.mark.parametrize("family", ["llama", "m2m_100", "mixtral"])
def test_blocks_whose_outputs_were_not_worth_writing_are_run_again(
    tmp_path: Path, order: Order, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hidden states of an 8B were written after each of its blocks: 67 GB in all."""
    never_due(monkeypatch)
    job = Job(tiny_model(family), CALIBRATION, Pruner(order, 3), MWanda(), OWLCWL(2.0))
    expected, steps = uninterrupted(job)
    for step in range(1, steps):
        folder = tmp_path / str(step)
        interrupt(job, folder, step)
        kept = {path.name.partition(".")[0] for path in folder.glob("*.batch*")}
        assert len(kept) <= (family == "m2m_100")  # what the encoder ends with
        if step + 1 < steps:
            interrupt(job, folder, step + 1)
        assert_same(job.run(folder), expected)


@pytest.mark.parametrize("order", get_args(Order))
def test_blocks_on_disk_are_run_again_too(tmp_path: Path, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    never_due(monkeypatch)
    job = Job(tiny_model("llama", num_hidden_layers=3), CALIBRATION, Pruner(order, 3), MWanda(), OWLCWL(2.0))
    expected = job.run()
    for step in (2, 3):
        folder = tmp_path / str(step)
        with pytest.raises(Interrupted):
            run_streamed(job, folder / "work", folder / "checkpoint", StopAt(step))
        assert_same(run_streamed(job, folder / "work", folder / "checkpoint"), expected)


def test_beside_the_dense_model_outputs_are_always_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dense block is gone."""
    never_due(monkeypatch)
    job = Job(PlainDecoder(), CALIBRATION, Pruner("block", 3), Wanda(), Uniform(), solver=ADMM(match="dense"))
    expected, steps = uninterrupted(job)
    for step in range(1, steps):
        folder = tmp_path / str(step)
        interrupt(job, folder, step)
        assert_same(job.run(folder), expected)


@every_order
@pytest.mark.parametrize("family", ["llama", "m2m_100"])
def test_disk_holds_the_outputs_of_one_block_of_each_stack(tmp_path: Path, order: Order, family: str) -> None:
    """And, from when a block is visited to when it is finished, none of its own."""
    job = Job(tiny_model(family), CALIBRATION, Pruner(order, 3), MWanda(), OWLCWL(2.0))
    batches, stacks = 3, 1 if family == "llama" else 2
    counts = []
    job.run(tmp_path, StopAt(watch=lambda: counts.append(len(list(tmp_path.glob("*.batch*"))))))
    assert max(counts) == batches * stacks
    assert list(tmp_path.glob("*.batch*")) == []
    assert not list(tmp_path.glob(".*"))
    RunCheckpoint(tmp_path, "key").discard()
    assert not tmp_path.exists()


@pytest.mark.parametrize(
    ("order", "criterion", "schedule"),
    [
        ("block", MWanda(), Uniform()),
        ("arrival", MWanda(), OWLCWL(2.0)),
        ("arrival", SparseGPT(), Uniform()),
        ("oneshot", MWanda(), OWLCWL(2.0)),
    ],
    ids=["block", "arrival with a schedule", "arrival with new weights", "oneshot"],
)
def test_a_kill_between_any_two_operations_on_files_changes_nothing(
    tmp_path: Path, order: Order, criterion: Criterion, schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = PlainDecoder(blocks=2 if schedule.needs != Needs.NOTHING else 3)
    job = Job(model, tiny_calibration(sequences=2, length=6), Pruner(order, 4), criterion, schedule)
    expected, operation = job.run(), 0
    while killed_at(lambda: job.run(tmp_path / str(operation)), operation, monkeypatch):  # noqa: B023
        assert_same(job.run(tmp_path / str(operation)), expected)
        operation += 1
    assert operation >= 15


@pytest.mark.parametrize("order", ["block", "arrival"])
def test_a_kill_of_another_run_in_the_same_folder_changes_nothing(
    tmp_path: Path, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one prunes less; what it has written must never be taken for what the first has."""
    job = plain_job(order)
    other = Job(job.dense, CALIBRATION, job.pruner, job.criterion, sparsity=0.2)
    expected = job.run()
    for operation in range(8, 18):  # among the first outputs, what is decided in the first block, the state
        folder = tmp_path / str(operation)
        interrupt(job, folder, 2)
        with monkeypatch.context() as patch:
            patch.setattr("interruption.RunCheckpoint", lambda folder, _: RunCheckpoint(folder, "other"))
            assert killed_at(lambda: other.run(folder), operation, monkeypatch)  # noqa: B023
        assert_same(job.run(folder), expected)


SCRIPT = """
import os, random, signal, sys, time
from pathlib import Path

from safetensors.torch import save_file
from tiny_models import tiny_calibration, tiny_model

from mwanda.criteria.mwanda import MWanda
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.pruner.run_checkpoint import RunCheckpoint
from mwanda.pruner.runtime import Runtime
from mwanda.schedules.owl_cwl import OWLCWL


def prune(order, folder, say, to_the_end):
    class Steps:
        def track(self, items, title, unit, weight=None):
            for item in items:
                say(b".")
                yield item

    model, checkpoint = tiny_model("llama", num_hidden_layers=4), RunCheckpoint(folder / "checkpoint", "key")
    runtime = Runtime(progress=Steps(), checkpoint=checkpoint)
    Pruner(order, 3).prune(model, tiny_calibration(), MWanda(), OWLCWL(2.0), Unstructured(), 0.5, runtime)
    if not to_the_end:
        signal.pause()  # quicker than whoever kills it: it dies here, with all blocks finished and nothing handed over
    save_file({name: value.clone() for name, value in model.state_dict().items()}, folder / "weights")
    checkpoint.discard()


def run(order, folder, steps, delay):
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        prune(order, folder, lambda dot: os.write(writing, dot), steps is None)
        os._exit(0)
    os.close(writing)
    seen = 0
    while steps is None or seen < steps:
        dot = os.read(reading, 1)
        if not dot:
            break
        seen += 1
    else:
        time.sleep(delay)
        os.kill(process, signal.SIGKILL)
    os.close(reading)
    return os.waitpid(process, 0)[1]


chance = random.Random(0)
for order in ("block", "arrival", "oneshot"):
    folder = Path(sys.argv[1]) / order
    folder.mkdir()
    # Finished blocks count as steps too: further and further into the dense pre-pass, then into the pruning.
    for steps in (3, 5, 7):
        print(order, os.WTERMSIG(run(order, folder, steps, chance.random() * 0.01)))
    print(order, run(order, folder, None, 0))
"""


def test_processes_that_are_killed_are_taken_up_where_they_were(tmp_path: Path) -> None:
    """A process that has imported everything starts others, and kills them at blocks by `kill -9`."""
    root = Path(__file__).parents[2]
    (tmp_path / "prune.py").write_text(SCRIPT)
    path = os.pathsep.join([str(root), str(root / "tests"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(tmp_path / "prune.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    orders = ("block", "arrival", "oneshot")
    assert said.split() == [word for order in orders for end in (*[9] * 3, 0) for word in (order, str(end))]
    for order in get_args(Order):
        job = Job(tiny_model("llama", num_hidden_layers=4), tiny_calibration(), Pruner(order, 3), MWanda(), OWLCWL(2.0))
        expected, found = job.run()[0], load_file(tmp_path / order / "weights")
        assert [name for name, value in expected.items() if not value.equal(found[name])] == []
        assert not (tmp_path / order / "checkpoint").exists()


def _refuse(*_: object) -> None:
    raise AssertionError("a finished block was run")
