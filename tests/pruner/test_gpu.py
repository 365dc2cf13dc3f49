"""The same code on a GPU: same decisions, and no waiting for the device at each matrix."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from tiny_models import tiny_calibration, tiny_model

from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.wanda import Wanda
from mwanda.patterns.n_of_m import NOfM
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.pruner.engine import Order
from mwanda.schedules.fisher import Fisher
from mwanda.schedules.owl_cwl import OWLCWL
from mwanda.schedules.uniform import Uniform
from mwanda.solvers import Solver
from mwanda.solvers.admm import ADMM
from mwanda.solvers.dsnot import DSnoT
from mwanda.solvers.sparsegpt import SparseGPT
from mwanda.solvers.swap import Swap
from mwanda.statistics import LanguageWeights


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible here"),
]
CALIBRATION = tiny_calibration(languages=3, sequences=4, length=12)
ORDERS: list[Order] = ["arrival", "block", "oneshot"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_masks_are_those_of_the_cpu(family: str, order: Order) -> None:
    model = tiny_model(family, dtype=torch.float64)
    on_gpu = copy.deepcopy(model).cuda()
    for each in (model, on_gpu):
        Pruner(order, batch_size=4).prune(each, CALIBRATION, MWanda(), OWLCWL(), Unstructured(), 0.5)
    for name, value in model.state_dict().items():
        assert (on_gpu.state_dict()[name].cpu() == 0).equal(value == 0), name


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("family", ["llama", "mixtral"])
@pytest.mark.parametrize("solver", [Swap(), DSnoT(), SparseGPT(), ADMM()], ids=lambda each: type(each).__name__)
def test_solvers_find_what_they_find_on_the_cpu_and_the_same_twice(solver: Solver, family: str, order: Order) -> None:
    model = tiny_model(family, dtype=torch.float64)
    on_gpu = [copy.deepcopy(model).cuda() for _ in range(2)]
    balanced = replace(CALIBRATION, weights=LanguageWeights((1.0, 2.0, 0.5), balanced=True))
    for each in (model, *on_gpu):
        Pruner(order, batch_size=4).prune(each, balanced, Wanda(), Uniform(), Unstructured(), 0.5, solver=solver)
    for name, value in model.state_dict().items():
        found, again = (each.state_dict()[name].cpu() for each in on_gpu)
        assert found.equal(again), name
        assert (found == 0).equal(value == 0), name
        torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "mixtral", "gemma2"])
def test_gradients_are_those_of_the_cpu_and_the_same_twice(family: str) -> None:
    model = tiny_model(family, dtype=torch.float64)
    on_gpu = [copy.deepcopy(model).cuda() for _ in range(2)]
    schedule = Fisher(signal_fraction=1.0)
    reports = [
        Pruner("block", batch_size=4).prune(each, CALIBRATION, Wanda(), schedule, Unstructured(), 0.5)
        for each in (model, *on_gpu)
    ]
    torch.testing.assert_close(torch.tensor(reports[1].signals), torch.tensor(reports[0].signals), rtol=1e-6, atol=0)
    assert reports[1].signals == reports[2].signals
    for name, value in model.state_dict().items():
        assert (on_gpu[0].state_dict()[name].cpu() == 0).equal(value == 0), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_gradients_of_half_precision_are_finite_and_the_same_twice(family: str, dtype: torch.dtype) -> None:
    schedule, signals = Fisher(signal_fraction=1.0, draws=2), []
    for _ in range(2):
        model = tiny_model(family, dtype=dtype).cuda()
        report = Pruner("block", 4).prune(model, CALIBRATION, Wanda(), schedule, Unstructured(), 0.5)
        signals.append(report.signals)
    assert signals[0] == signals[1]
    assert bool(torch.tensor(signals[0]).isfinite().all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pattern", [Unstructured(), NOfM(2, 4)], ids=["unstructured", "2of4"])
def test_half_precision_weights_are_pruned_exactly(dtype: torch.dtype, pattern: Unstructured | NOfM) -> None:
    model = tiny_model("llama", dtype=dtype).cuda()
    report = Pruner("arrival", batch_size=4).prune(model, CALIBRATION, Wanda(), Uniform(), pattern, 0.5)
    assert all(plan.zeros == plan.planned for plan in report.plans)


@pytest.mark.parametrize("order", ORDERS)
def test_the_device_is_waited_for_once_a_block_and_not_at_each_matrix(order: Order) -> None:
    waits = []
    for blocks in (2, 4):
        model = tiny_model("llama", num_hidden_layers=blocks).cuda()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                Pruner(order, batch_size=12).prune(model, CALIBRATION, Wanda(), Uniform(), Unstructured(), 0.5)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits.append(sum("synchronizing" in str(each.message) for each in caught))
    matrices = 7
    assert (waits[1] - waits[0]) / 2 < matrices
