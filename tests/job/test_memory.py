"""What a run takes of memory, by parts."""

import gc
from dataclasses import replace

import pytest
import torch
from pretend_device import DEVICE, moved, pretend
from tiny_models import tiny_calibration, tiny_model
from tracked_memory import Tracked

from mwanda.criteria.magnitude import Magnitude
from mwanda.criteria.wanda import Wanda
from mwanda.errors import MemoryShortageError
from mwanda.job.memory import GIB, PER_MOMENT, PER_SCORE_ON_A_DEVICE, PER_SOLVED_WEIGHT, Plan, check, estimate
from mwanda.kernels.vocabulary import AT_ONCE, VOCABULARY_CHUNK
from mwanda.models import blocks_of
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.pruner.damage.labels import DRAWN_AT_ONCE, PER_LOGIT
from mwanda.pruner.engine import Order
from mwanda.pruner.visitors import OnArrival
from mwanda.pruner.walk import Arrivals
from mwanda.schedules.uniform import Uniform
from mwanda.solvers import Budget, Layer
from mwanda.solvers.base import Match
from mwanda.solvers.sparsegpt import SparseGPT
from mwanda.statistics import LanguageStatistics, Needs


TOKENS, BATCH_TOKENS = 1000, 10


def activations(family: str, order: str) -> int:
    """Return the estimate of a float32 model's activations."""
    model = tiny_model(family)
    plan = Plan(order, "none", "device", Needs.NORMS, 3, TOKENS, BATCH_TOKENS, torch.float32)  # type: ignore[arg-type]
    return estimate(model, blocks_of(model), plan)["activations"]


@pytest.mark.parametrize("family", ["llama", "mixtral", "qwen3_moe"])
def test_arrival_holds_the_widest_inputs_of_all_tokens_as_well(family: str) -> None:
    """Those of an expert's second matrix are there once for each expert that a token is sent to."""
    model = tiny_model(family)
    choices = {"down_proj": getattr(model.config, "num_experts_per_tok", 1)}
    widths = [
        matrix.shape[1] * (choices.get(matrix.parameter, 1)) for block in blocks_of(model) for matrix in block.matrices
    ]
    assert activations(family, "arrival") - activations(family, "block") == TOKENS * max(widths) * 4


def statistics(order: str, needs: Needs) -> dict[str, int]:
    model = tiny_model("llama")
    plan = Plan(order, "none", "device", needs, 3, TOKENS, BATCH_TOKENS, torch.float32)  # type: ignore[arg-type]
    return estimate(model, blocks_of(model), plan)


def test_each_order_holds_the_second_moments_of_the_inputs_that_it_watches_at_once() -> None:
    model = tiny_model("llama")
    squares = [[4 * matrix.shape[1] ** 2 for matrix in block.matrices] for block in blocks_of(model)]
    expected = {"oneshot": sum(map(sum, squares)), "block": sum(squares[0]), "arrival": max(squares[0])}
    for order, size in expected.items():
        found, without = statistics(order, Needs.SECOND_MOMENTS), statistics(order, Needs.NORMS)
        assert found["statistics"] - without["statistics"] == size
        (solving,) = found.keys() & {name for name in found if "solved" in name}
        assert found[solving] > without[solving] == 0


def test_every_sum_by_language_takes_its_eight_bytes() -> None:
    features = max(matrix.shape[1] for block in blocks_of(tiny_model("llama")) for matrix in block.matrices)
    sizes = {needs: statistics("arrival", needs)["statistics"] for needs in Needs.__members__.values()}
    each = {Needs.NOTHING: 0, Needs.NORMS: 1, Needs.COUNTS: 3, Needs.MEANS: 2}
    assert {needs: sizes[needs] for needs in each} == {needs: 8 * 3 * features * count for needs, count in each.items()}


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_gradients_hold_what_waits_between_blocks_and_one_block_of_a_batch(family: str) -> None:
    model = tiny_model(family)
    blocks, tokens, batch = blocks_of(model), 100, 10

    def gradients(tokens: int, activations: str = "device", draws: int = 1) -> int:
        plan = Plan("block", "none", activations, Needs.NORMS, 3, TOKENS, batch, torch.float32, tokens, draws)  # type: ignore[arg-type]
        return estimate(model, blocks, plan)["gradients"]

    assert gradients(0) == 0
    # What enters each block and leaves the last, and the gradients of each draw.
    assert gradients(2 * tokens) - gradients(tokens) == tokens * (len(blocks) + 2) * 16 * 4
    assert gradients(tokens, draws=3) - gradients(tokens) == tokens * 2 * 16 * 4
    assert gradients(2 * tokens, "disk") == gradients(tokens, "disk") < gradients(tokens)


@pytest.mark.parametrize(("device", "most"), [(torch.device("cpu"), VOCABULARY_CHUNK), (DEVICE, DRAWN_AT_ONCE)])
def test_drawing_takes_the_logits_of_a_part_of_the_vocabulary(device: torch.device, most: int) -> None:
    model = tiny_model("llama")
    blocks, tokens = blocks_of(model), 1 << 20
    model.config.vocab_size = 100_000

    def drawing(batch: int, labels: float, vocabulary: int = 100_000) -> int:
        model.config.vocab_size = vocabulary
        plan = Plan("block", "none", "disk", Needs.NORMS, 3, tokens, batch, torch.float32, tokens, labels=labels)
        sized = estimate(model, blocks, replace(plan, device=device))["gradients"]
        return sized - estimate(model, blocks, replace(plan, device=device, labels=0.0))["gradients"]

    per_position = PER_LOGIT * most
    assert drawing(1000, 0.25) == 249 * per_position  # of one at least
    assert drawing(1000, 0.25, 64) == 249 * PER_LOGIT * 64
    assert drawing(1 << 15, 1.0) <= PER_LOGIT * AT_ONCE


LENGTH, SEQUENCES = 61, 6


def plan_of(order: Order) -> Plan:
    tokens = LENGTH * SEQUENCES
    return Plan(order, "none", "device", Needs.NORMS, 2, tokens, LENGTH, torch.float32, length=LENGTH)


@pytest.mark.parametrize("family", ["bloom", "gemma2", "xglm", "t5", "llama"])
def test_attention_in_the_open_is_held_by_every_pass_that_waits_inside_it(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of BLOOM-7b1 103 GB at 128 sequences of 2048 tokens, of which the estimate said nothing."""
    held, own = [0], OnArrival.reach

    def reach(self: OnArrival, arrivals: Arrivals) -> None:
        alive = (each for each in gc.get_objects() if type(each) is torch.Tensor and each.dim() == 4)
        storages = (each.untyped_storage() for each in alive if min(each.shape[2:]) >= LENGTH - 1)
        held.append(sum({each.data_ptr(): each.nbytes() for each in storages}.values()))
        own(self, arrivals)

    monkeypatch.setattr(OnArrival, "reach", reach)
    model = tiny_model(family)
    calibration = tiny_calibration(languages=2, sequences=SEQUENCES // 2, length=LENGTH)
    Pruner("arrival", 1).prune(model, calibration, Wanda(), Uniform(), Unstructured(), 0.5)
    part = "attention of passes that wait"
    found, most = estimate(model, blocks_of(model), plan_of("arrival"))[part], max(held)
    assert most <= found * 1.01 <= 1.5 * most
    assert estimate(model, blocks_of(model), plan_of("block"))[part] == (found if family == "t5" else found / SEQUENCES)


def test_attention_that_does_not_fit_is_told_with_the_order_that_does() -> None:
    model = tiny_model("bloom")
    plan = replace(plan_of("arrival"), tokens=2048 * 512, batch_tokens=2048, length=2048)
    with pytest.raises(MemoryShortageError, match=r"; pruner\.order=block would take"):
        check(model, blocks_of(model), plan, 4 * GIB)


def test_selecting_on_an_accelerator_takes_no_more_than_is_said() -> None:
    """It was said to take 13 bytes for each score."""
    with pretend():
        model = moved(tiny_model("llama", hidden_size=256, intermediate_size=512, num_hidden_layers=1))
        tracked = Tracked()
        with tracked:
            Pruner("oneshot").prune(model, tiny_calibration(), Magnitude(), Uniform(), Unstructured(), 0.5)
    assert tracked.peak <= 1.05 * PER_SCORE_ON_A_DEVICE * 256 * 512


@pytest.mark.parametrize("rows", [64, 2048])
@pytest.mark.parametrize("match", ["layer", "dense"])
def test_solving_takes_no_more_than_is_said(rows: int, match: Match) -> None:
    features = 512
    weight, gram = torch.randn(rows, features), torch.randn(features, features)
    statistics = LanguageStatistics.zeros(1, features, needs=Needs.CROSS_MOMENTS)
    statistics.second_moment = statistics.cross_moment = gram @ gram.T
    layer = Layer(weight, statistics, Budget(rows * features // 2, rows * features // 2, group="matrix"))
    tracked = Tracked()
    with tracked:
        SparseGPT(match=match).solve(layer)
    said = PER_MOMENT * features**2 + PER_SOLVED_WEIGHT * weight.numel()
    assert said / 2.5 <= tracked.peak <= 1.05 * said
