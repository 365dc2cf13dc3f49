"""How often a device is waited for: at most a stated number for each block, each batch, and each batch in a block.

What is stated is what `docs/gpu.md` says. A wait for each row, column or expert would go beyond it at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from interruption import Interrupted, StopAt
from pretend_device import DEVICE, Waits, moved, pretend
from tiny_models import EXPERTS, tiny_calibration, tiny_model
from torch import nn

from mwanda.criteria.sparsegpt import SparseGPT
from mwanda.criteria.wanda import Wanda
from mwanda.kernels import grouped
from mwanda.patterns import Pattern
from mwanda.patterns.n_of_m import NOfM
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.pruner.engine import Order
from mwanda.pruner.offloading import Activations
from mwanda.pruner.run_checkpoint import RunCheckpoint
from mwanda.pruner.runtime import Runtime
from mwanda.schedules import Schedule
from mwanda.schedules.alphapruning import AlphaPruning
from mwanda.schedules.atp import ATP
from mwanda.schedules.cwl import CWL
from mwanda.schedules.dlp import DLP
from mwanda.schedules.fisher import Fisher
from mwanda.schedules.lsa import LSA
from mwanda.schedules.owl import OWL
from mwanda.schedules.owl_cwl import OWLCWL
from mwanda.schedules.uniform import Uniform
from mwanda.solvers import Solver, dsnot, sparsegpt, swap
from mwanda.solvers.admm import ADMM
from mwanda.solvers.dsnot import DSnoT
from mwanda.solvers.swap import Swap
from mwanda.statistics import experts


ORDERS: list[Order] = ["arrival", "block", "oneshot"]
every_order = pytest.mark.parametrize("order", ORDERS)
SIZES = [(1, 2), (3, 4)]
"""Blocks and batches."""

MATRICES = 7
"""Of a block of Llama; four of them have inputs of their own."""


@dataclass(frozen=True)
class Bound:
    """What may be waited for.

    Args:
        block: each block.
        batch: each batch.
        both: each batch in each block.
        start: once a run.
    """

    block: int = 4
    batch: int = 1
    both: int = 0
    start: int = 2

    def __add__(self, other: "Bound") -> "Bound":
        return Bound(
            self.block + other.block, self.batch + other.batch, self.both + other.both, self.start + other.start
        )

    def of(self, blocks: int, batches: int) -> int:
        """Return the most that a run may wait for."""
        return self.start + blocks * self.block + batches * self.batch + blocks * batches * self.both


PLAIN = Bound()
"""Zeros before, finite inputs, zeros after, digests; transformers' look at positions; what is tried at the start."""


def more(block: int = 0, batch: int = 0, both: int = 0, start: int = 0) -> Bound:
    """Return what comes on top of `PLAIN`."""
    return PLAIN + Bound(block, batch, both, start)


def prune(
    model: nn.Module,
    batches: int,
    order: Order,
    *,
    criterion: Any = None,
    schedule: Schedule | None = None,
    pattern: Pattern | None = None,
    solver: Solver | None = None,
    activations: Activations = "device",
    runtime: Runtime | None = None,
) -> None:
    """Prune half of a model, two sequences of two languages at a time."""
    chosen = criterion or Wanda(), schedule or Uniform(), pattern or Unstructured()
    calibration = tiny_calibration(languages=2, sequences=batches, length=8)
    Pruner(order, 2, activations=activations).prune(model, calibration, *chosen, 0.5, runtime, solver)


def waits_of(blocks: int, batches: int, order: Order, family: str = "llama", size: Any = None, **parts: Any) -> Waits:
    """Return what waits in a run over so many blocks and batches."""
    dtype = parts.pop("dtype", torch.float32)
    model = tiny_model(family, dtype=dtype, num_hidden_layers=blocks, **(size or {}))
    with pretend() as waits:
        prune(moved(model), batches, order, **parts)
    return waits


def assert_within(bound: Bound, order: Order, **parts: Any) -> None:
    """Hold runs over more and fewer blocks and batches to a bound."""
    for size in SIZES:
        found = waits_of(*size, order, **parts)
        assert found.total <= bound.of(*size), (size, found.lines)


@every_order
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_device_is_waited_for_four_times_a_block_and_once_a_batch(family: str, order: Order) -> None:
    bound = PLAIN if family == "llama" else Bound(block=8, start=4)  # whose blocks are those of two stacks
    assert_within(bound, order, family=family)


WALK = Bound(block=1, batch=1, start=2)
"""Another pass, of which finite inputs are checked."""

SCHEDULES: list[tuple[Schedule, Bound]] = [
    (Uniform(), Bound(0, 0, 0, 0)),
    (ATP(), Bound(0, 0, 0, 0)),
    (AlphaPruning(), Bound(MATRICES + 1, 0, 0, 0)),
    (OWL(signal_fraction=1.0), WALK + Bound(1, 0, 0, 0)),
    (CWL(signal_fraction=1.0), WALK + Bound(1, 0, 0, 0)),
    (CWL(signal_fraction=1.0, similarity="spearman"), WALK + Bound(1, 0, 0, 0)),
    (OWLCWL(signal_fraction=1.0), WALK + Bound(2, 0, 0, 0)),
    (LSA(signal_fraction=1.0), WALK + Bound(1, 0, 0, 0)),
    (DLP(signal_fraction=1.0), WALK + Bound(2 * MATRICES + 2, 0, 0, 0)),
    (Fisher(signal_fraction=1.0), WALK + Bound(MATRICES + 1, 4, 0, 4)),
    (Fisher(signal_fraction=1.0, draws=3), WALK + Bound(MATRICES + 1, 4, 0, 4)),
]
"""Each with what comes on top: AlphaPruning's spectra, counts of scores, zeros of a matrix, and what is drawn."""


@pytest.mark.parametrize(("schedule", "bound"), SCHEDULES, ids=str)
def test_a_schedule_waits_so_often_on_top(schedule: Schedule, bound: Bound) -> None:
    assert_within(PLAIN + bound, "arrival", schedule=schedule)


def test_every_schedule_has_a_bound() -> None:
    files = (Path(__file__).parents[2] / "conf" / "schedule").glob("*.yaml")
    named = {yaml.safe_load(file.read_text(encoding="utf-8"))["_target_"].rpartition(".")[2] for file in files}
    assert {type(schedule).__name__ for schedule, _ in SCHEDULES} == named


LOOKS_OF_SWAP = Swap.rounds * (1 + -(-Swap.pool // swap.CHECKED))
LOOKS_OF_DSNOT = -(-DSnoT.cycles // dsnot.CHECKED)
SOLVERS: list[tuple[Solver, int]] = [
    (sparsegpt.SparseGPT(), 15),
    (sparsegpt.SparseGPT(column_order="loss"), 4 * MATRICES),
    (ADMM(), 8),
    (Swap(), LOOKS_OF_SWAP * MATRICES),
    (DSnoT(), LOOKS_OF_DSNOT * MATRICES),
]
"""What each waits for in a block: factorisations, zeros of its columns, equal inputs, and whether any row goes on."""

CHECKS = 3
"""Inputs of a block that a solver is given as they arrive, and that are checked one by one, besides the first."""


@pytest.mark.parametrize(("solver", "block"), SOLVERS, ids=str)
def test_a_solver_waits_so_often_on_top_also_for_larger_matrices(solver: Solver, block: int) -> None:
    bound = more(block=block + CHECKS)
    assert_within(bound, "arrival", solver=solver)
    found = waits_of(1, 2, "arrival", size={"hidden_size": 64, "intermediate_size": 96}, solver=solver)
    assert found.total <= bound.of(1, 2), found.lines


def test_sparsegpt_in_cells_waits_for_factors_alone() -> None:
    assert_within(more(block=8 + CHECKS), "arrival", criterion=SparseGPT(), pattern=NOfM(2, 4))


@pytest.fixture
def tried() -> None:
    """Have what a device does for experts be tried before: a trial waits once a process."""
    with pretend():
        for agrees in (grouped.agrees, experts.agrees):
            agrees.cache_clear()
            assert agrees(DEVICE)


def assert_experts_wait_within(bound: Bound, order: Order, **parts: Any) -> None:
    for count in (EXPERTS, 2 * EXPERTS):
        assert_within(bound, order, family="mixtral", size={"num_local_experts": count}, **parts)


@every_order
@pytest.mark.usefixtures("tried")
def test_a_mixture_waits_once_more_for_each_batch_in_each_pass_however_many_experts_it_has(order: Order) -> None:
    """For how many tokens are sent to each expert, and once a block for each of its two parameters."""
    passes = 2 if order == "block" else 1
    assert_experts_wait_within(more(block=2, both=passes), order)


@every_order
@pytest.mark.usefixtures("tried")
def test_experts_in_one_go_wait_for_no_batch(order: Order) -> None:
    assert_experts_wait_within(more(block=2), order, dtype=torch.bfloat16)


def matrices_of(count: int) -> int:
    """Return how many matrices a block of Mixtral with so many experts has."""
    return 4 + 2 * count


@pytest.mark.parametrize("count", [EXPERTS, 2 * EXPERTS])
@pytest.mark.usefixtures("tried")
def test_solving_for_experts_waits_for_each_of_their_matrices_and_not_for_each_in_each_batch(count: int) -> None:
    """Tokens are sorted by expert and language, once for each of the two parameters."""
    bound = more(block=3 * matrices_of(count) + 2 + CHECKS, both=2 * 2 + 1)
    parts: dict[str, Any] = {"family": "mixtral", "size": {"num_local_experts": count}}
    assert_within(bound, "arrival", criterion=SparseGPT(), **parts)


@pytest.mark.parametrize("count", [EXPERTS, 2 * EXPERTS])
@pytest.mark.usefixtures("tried")
def test_gradients_of_experts_wait_twice_for_each_matrix_of_an_expert_and_batch(count: int) -> None:
    """For which sequences its tokens are of."""
    bound = PLAIN + WALK + Bound(block=matrices_of(count) + 5, batch=4, both=2 * 2 * count + 4, start=4)
    parts: dict[str, Any] = {"family": "mixtral", "size": {"num_local_experts": count}}
    assert_within(bound, "arrival", schedule=Fisher(signal_fraction=1.0), **parts)


@pytest.mark.parametrize(("order", "transfers"), [("block", 4), ("oneshot", 2)])
@pytest.mark.parametrize("activations", ["ram", "disk"])
def test_hidden_states_elsewhere_cost_two_transfers_a_batch_and_pass_of_a_block(
    activations: Activations, order: Order, transfers: int, tmp_path: Path
) -> None:
    bound = more(both=transfers)
    assert_within(bound, order, activations=activations, runtime=Runtime(scratch=tmp_path))


WRITTEN = {"arrival": 1, "block": 1, "oneshot": 2 * MATRICES}
"""What of a block is fetched to be written down: its masks together, or two sums of the inputs of each matrix."""


@every_order
def test_a_checkpoint_fetches_what_it_writes_once(order: Order, tmp_path: Path) -> None:
    """On top of that, what a block has given for each batch."""
    for blocks, batches in SIZES:
        checkpoint = RunCheckpoint(tmp_path / f"{blocks}-{batches}", "key")
        found = waits_of(blocks, batches, order, runtime=Runtime(checkpoint=checkpoint))
        assert found.total <= more(block=WRITTEN[order], both=1).of(blocks, batches), found.lines


@every_order
def test_what_is_taken_up_comes_back_in_a_transfer_for_each_thing_written(order: Order, tmp_path: Path) -> None:
    """A mask or two sums of each matrix, and once for each batch."""
    for blocks, batches in [(2, 2), (4, 3)]:
        folder = tmp_path / f"{blocks}-{batches}"
        checkpoint = Runtime(checkpoint=RunCheckpoint(folder, "key"), progress=StopAt(blocks - 1))
        with pytest.raises(Interrupted):
            waits_of(blocks, batches, order, runtime=checkpoint)
        found = waits_of(blocks, batches, order, runtime=Runtime(checkpoint=RunCheckpoint(folder, "key")))
        read = 2 * MATRICES if order == "oneshot" else MATRICES
        assert found.total <= more(block=read, both=1).of(blocks, batches), found.lines
