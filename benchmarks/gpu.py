"""Checks the GPU path on a card, and measures it: one script of six minutes that writes JSON after every item.

    python benchmarks/gpu.py --out outputs/gpu.json        # or: make test-gpu
    python benchmarks/gpu.py --device cpu --tiny           # the same items without a GPU, to see that they run
    python benchmarks/gpu.py --gemma FOLDER_OR_GGUF        # Gemma 3 270M from there, not from its packages

First what must hold (statistics, repetition, resuming, perplexity, models in parts), on tiny models; then what it
costs, on random models with the shapes of Llama-3-8B, Qwen3-30B-A3B and Gemma 3 270M that are made on the device; then
Gemma itself. An item that fails is written down with its error and the others go on; none
is begun that would not end within `--seconds`, and one that takes three times as long as expected is left. Beside a
measurement stands what it has to reach (`bars`). It exits with 1 if a check has failed.
"""
# ruff: noqa: E402 - the folders of what is imported come first

import argparse
import copy
import gc
import itertools
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from types import FrameType
from typing import Any, TypeVar
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM


sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

import published
from tiny_models import save_tiny_model, tiny_calibration, tiny_model, tiny_tokenizer

from mwanda.calibration import CalibrationSet
from mwanda.corpora.embedded import Embedded, codes
from mwanda.criteria.magnitude import Magnitude
from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.ria import RIA
from mwanda.criteria.sparsegpt import SparseGPT
from mwanda.criteria.wanda import Wanda
from mwanda.errors import MwandaError
from mwanda.evaluation.head import Scorer
from mwanda.evaluation.perplexity import Perplexity, Text, padded, tokens_at_once
from mwanda.kernels import fused
from mwanda.languages import find
from mwanda.models import blocks_of
from mwanda.models.forward import forward
from mwanda.models.gemma import converted_folder, dequantise
from mwanda.models.source import PretrainedModel
from mwanda.patterns.n_of_m import NOfM
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner, PruningReport, audit, engine
from mwanda.pruner.damage import Sample, measure_damage
from mwanda.pruner.engine import Order
from mwanda.pruner.observe import Observer
from mwanda.pruner.passes import Passes
from mwanda.pruner.run_checkpoint import RunCheckpoint
from mwanda.pruner.runtime import Runtime
from mwanda.pruner.visitors import OnArrival
from mwanda.schedules.fisher import Fisher
from mwanda.schedules.uniform import Uniform
from mwanda.solvers import sparsegpt
from mwanda.solvers.admm import ADMM
from mwanda.solvers.swap import Swap
from mwanda.statistics import Needs, SequenceSums, language
from mwanda.system import device as devices
from mwanda.system.background import Background
from mwanda.system.distributed import World
from mwanda.system.environment import environment
from mwanda.system.files import write_json


T = TypeVar("T")
ORDERS: list[Order] = ["block", "arrival", "oneshot"]
FAMILIES = ["llama", "qwen3", "gemma2", "gemma3_text", "bloom", "gpt2", "falcon", "mixtral", "qwen3_moe", "t5"]
CRITERIA = [Wanda(), MWanda(), RIA(), Magnitude(), SparseGPT()]
PATTERNS = [Unstructured(), NOfM(2, 4)]
CALIBRATION = tiny_calibration()
SENTENCES = {"eng_Latn": ["The river is high.", "Bread!"], "ell_Grek": ["Το ποτάμι ανέβηκε.", "Ψωμί!"]}
LLAMA: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}
MIXTURE: dict[str, Any] = {
    "hidden_size": 2048,
    "moe_intermediate_size": 768,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "vocab_size": 151936,
    "max_position_embeddings": 8192,
}
GEMMA: dict[str, Any] = {
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "sliding_window": 512,
    "vocab_size": 1 << 18,
    "max_position_embeddings": 32768,
}
TINY = {"hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 32, "vocab_size": 512, "num_experts": 4}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_experts_per_tok": 2}


LLAMA_BLOCKS, MIXTURE_BLOCKS, GEMMA_BLOCKS = 32, 48, 18
STAGED_BLOCKS, SOLVED_BLOCKS = 16, 4
"""Of the shape of Llama-3-8B: on so many stages and selection are timed, and SparseGPT."""
SEQUENCES, LENGTH = 128, 2048

WARMING = 1.5
"""Seconds of work before a kernel of a tenth of a millisecond is timed."""

ARRIVAL_TO_DENSE, ARRIVAL_TO_PUBLISHED = 1.3, 0.6
GRADIENTS_TO_DENSE = 0.75
ROW_KERNEL_TO_COPY = 0.6
SPARSEGPT_SECONDS, MOMENT_SECONDS, SOLVE_SECONDS = 45, 8, 10
"""Of 32 blocks and all sequences: besides the dense pass, of second moments alone, and of solving."""
CHECKPOINT_SECONDS, STATISTICS_SECONDS, SCORING_SECONDS = 0.5, 0.3, 0.1
"""Of 32 blocks and all sequences."""
SELECTION_SECONDS = 1
"""Over whole matrices, of 32 blocks."""
MIXTURE_SECONDS = 3
"""Of scoring and masking all 48 blocks."""
SCORER_TOKENS = 350_000
"""A second, with a vocabulary of 262,144."""

STAGES: dict[str, tuple[Any, str]] = {
    "statistics": (Observer, "add"),
    "scoring and masking": (OnArrival, "_remove"),
    "zeros before": (engine, "check_blocks"),
    "zeros after": (engine, "audit"),
    "digests": (audit, "digests"),
    "masks for the checkpoint": (OnArrival, "leave"),
    "waiting for the checkpoint": (Background, "wait"),
    "hidden states to the checkpoint": (RunCheckpoint, "save_output"),
}
"""Of a run by arrival: what is called for each; the rest is the forward pass with the walk."""


SPARSEGPT_STAGES: dict[str, tuple[Any, str]] = {
    "products": (language, "upper_moment"),
    "adding up": (language, "add_upper"),
    "mirroring": (language, "mirror"),
    "factors": (sparsegpt, "feedback"),
    "selection": (sparsegpt, "lowest"),
    "columns": (sparsegpt, "adjust"),
}
"""Of SparseGPT: the first three are second moments, and the others most of solving."""


class Stop(Exception):
    """A run is killed here."""


class OverTime(BaseException):
    """An item takes too long; no `Exception`, which compilers of kernels are allowed to raise."""


@dataclass(frozen=True)
class Bar:
    """What a measurement has to reach.

    Args:
        value: of what an item has found.
        limit: see above.
        at_least: whether the value may not be below it, or not above it.
    """

    value: Callable[[Mapping[str, Any]], float]
    limit: float
    at_least: bool = False

    def judge(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the value, the bar and whether it is met; not where the value is unknown."""
        try:
            value = self.value(found)
        except KeyError:
            return {"value": None, "bar": self.limit, "met": False}
        return {"value": value, "bar": self.limit, "met": value >= self.limit if self.at_least else value <= self.limit}


@dataclass
class StopAtBlock:
    """Progress that kills a run at a block."""

    at: int

    def track(self, items: Sequence[T], title: str, unit: str, weight: Callable[[T], int] = lambda _: 1) -> Iterable[T]:
        """Yield items until it is time."""
        for number, item in enumerate(items):
            if number == self.at:
                raise Stop
            yield item


@dataclass
class Bench:
    """The items, on one device.

    Args:
        device: to be checked.
        tiny: whether large models are small ones, and few combinations are tried.
        gemma_path: folder or GGUF file of Gemma 3 270M; None takes its packages, if they are there.
    """

    device: torch.device
    tiny: bool
    gemma_path: Path | None = None

    def masks(self) -> dict[str, Any]:
        """Compare masks with those of the CPU, in float64."""
        families, criteria = (FAMILIES[:2], CRITERIA[:2]) if self.tiny else (FAMILIES, CRITERIA)
        differing, count = [], 0
        for family, order, criterion, pattern in itertools.product(families, ORDERS, criteria, PATTERNS):
            model = tiny_model(family, dtype=torch.float64)
            reports = [prune(each, order, criterion, pattern) for each in (copy.deepcopy(model).to(self.device), model)]
            count += 1
            if digests(reports[0]) != digests(reports[1]):
                differing.append(f"{family} {order} {type(criterion).__name__} {pattern.name}")
        assert not differing, differing
        return {"combinations": count}

    def kernel(self) -> dict[str, Any]:
        """Say for which rows the row kernel is used."""
        sizes = [64] if self.tiny else [2048, 4096, 14336, 28672]
        dtypes = torch.bfloat16, torch.float16, torch.float32
        return {f"{size} {dtype}": fused.agrees(self.device, dtype, size, True) for size in sizes for dtype in dtypes}

    def statistics(self) -> dict[str, Any]:
        """Compare sums of squares of bfloat16 inputs with those in float64."""
        inputs = torch.randn(4, 300 if self.tiny else 2048, 512, device=self.device).bfloat16()
        found, exact = SequenceSums.of(inputs, Needs.NORMS).squares, inputs.double().square().sum(dim=1)
        error = float(((found - exact).abs() / exact).max())
        assert error < 1e-5, error
        return {"largest relative error": error}

    def repeated(self) -> dict[str, Any]:
        """Prune twice, and expect the same bits."""
        found = []
        for _ in range(2):
            model = tiny_model("mixtral", dtype=torch.bfloat16).to(self.device)
            found.append(digests(prune(model, "arrival", MWanda())))
        assert found[0] == found[1]
        return {"matrices": len(found[0])}

    def resumed(self) -> dict[str, Any]:
        """Kill a run at each block, and take it up again."""
        dense = tiny_model("llama").to(self.device)
        for order in ORDERS:
            expected = digests(prune(copy.deepcopy(dense), order, Wanda()))
            with tempfile.TemporaryDirectory() as folder:
                try:
                    prune(copy.deepcopy(dense), order, Wanda(), runtime=runtime(folder, StopAtBlock(1)))
                except Stop:
                    pass
                else:
                    raise AssertionError("it was not killed")
                assert digests(prune(copy.deepcopy(dense), order, Wanda(), runtime=runtime(folder))) == expected
        return {"orders": len(ORDERS)}

    def perplexity(self) -> dict[str, Any]:
        """Compare perplexity with that of the CPU."""
        model, tokenizer, settings = tiny_model("gemma2"), tiny_tokenizer(), Perplexity(window=16, stride=8)
        texts = settings.texts(tokenizer, SENTENCES)
        here = settings.measure(model, tokenizer, texts)
        there = settings.measure(model.to(self.device), tokenizer, texts)  # type: ignore[arg-type]
        error = max(abs(there[code].perplexity / here[code].perplexity - 1) for code in here)
        assert error < 1e-3, error
        return {"largest relative difference": error}

    def in_parts(self) -> dict[str, Any]:
        """Prune a model of which one block is on the CPU, as `device_map` would put it."""
        from accelerate.hooks import AlignDevicesHook, add_hook_to_module

        model = tiny_model("llama", dtype=torch.float64)
        expected = digests(prune(copy.deepcopy(model), "arrival", Wanda()))
        part = model.model.layers[1]
        model.to(self.device)  # type: ignore[arg-type]
        add_hook_to_module(part.to("cpu"), AlignDevicesHook(execution_device="cpu", io_same_device=True))
        assert digests(prune(model, "arrival", Wanda())) == expected
        return {"devices": sorted({str(each.device) for each in model.parameters()})}

    def on_disk(self) -> dict[str, Any]:
        """Prune a model whose blocks stay on disk."""
        choice: Any = self.device.type
        with tempfile.TemporaryDirectory() as folder:
            path = str(save_tiny_model("llama", Path(folder) / "model"))
            kept = PretrainedModel(path, dtype="float32", device=choice).load()
            streamed = PretrainedModel(path, dtype="float32", device=choice, offload="disk").load(Path(folder))
            streamed.work_in(Path(folder) / "work")
            expected = digests(prune(kept.model, "arrival", Wanda()))
            found = digests(prune(streamed.model, "arrival", Wanda(), runtime=Runtime(weights=streamed.weights)))
            assert found == expected
        return {"matrices": len(expected)}

    def orders(self) -> dict[str, Any]:
        """Time the dense pass, the published procedure and the three orders on the shape of Llama-3-8B."""
        model = self.made("llama", LLAMA, LLAMA_BLOCKS)
        text, batch = self.text(model), self.batch
        dense_pass(model, self.text(model, 2 * batch), batch)
        ways: dict[str, Callable[[], object]] = {"dense": lambda: dense_pass(model, text, batch)}
        for order in reversed(ORDERS):  # an order prunes what the one before has pruned: the work is the same
            ways[order] = lambda order=order: prune(model, order, Wanda(), text=text, batch=batch)
        ways["published"] = lambda: published.prune(model, text, 0.5, batch)
        found = {name: self.timed(way) for name, way in ways.items()}
        base = found["dense"]["seconds"]
        return {name: {**each, "ratio": each["seconds"] / base} for name, each in found.items()}

    def warm(self) -> dict[str, Any]:
        """Prune two blocks in each order, so that what is compiled is compiled."""
        model = self.made("llama", LLAMA, 2)
        text = self.text(model, 2 * self.batch)
        for order in ORDERS:
            prune(model, order, Wanda(), text=text, batch=self.batch)
        published.prune(model, text, 0.5, self.batch)
        return {}

    def stages(self) -> dict[str, Any]:
        """Say where the time of a run by arrival with a checkpoint goes, on sixteen blocks."""
        model = self.made("llama", LLAMA, STAGED_BLOCKS)
        text = self.text(model)
        with tempfile.TemporaryDirectory() as folder, watched(STAGES, self.device) as marks:
            whole = self.timed(
                lambda: prune(model, "arrival", Wanda(), text=text, batch=self.batch, runtime=runtime(folder))
            )
        spent = seconds_of(marks)
        spent["zeros after"] -= spent["digests"]  # which are made within
        spent["forward pass and walk"] = whole["seconds"] - sum(spent.values())
        return {**whole, "spent": spent}

    def gradients(self) -> dict[str, Any]:
        """Time the gradients of an eighth of the text beside the dense pass over all of it, on eight blocks."""
        model = self.made("llama", LLAMA, 8)
        text, fisher = self.text(model), Fisher()
        dense_pass(model, self.text(model, 2 * self.batch), self.batch)
        dense = self.timed(lambda: dense_pass(model, text, self.batch))
        sample = Sample(fisher.levels, 1 / 8, fisher.labels, fisher.draws, fisher.seed)

        def measure() -> None:
            passes = Passes.of(model, text, Pruner("arrival", self.batch).of_passes)
            measure_damage(passes, Wanda(), PATTERNS[0], sample)

        first, found = self.timed(measure), self.timed(measure)
        return {
            **found,
            "first seconds": first["seconds"],
            "dense": dense,
            "ratio": found["seconds"] / dense["seconds"],
        }

    def solvers(self) -> dict[str, Any]:
        """Time the other solvers on two blocks."""
        return {type(solver).__name__: self._solved_by(solver) for solver in (Swap(), ADMM())}

    def _solved_by(self, solver: Any) -> dict[str, Any]:
        model = self.made("llama", LLAMA, 2)
        text, pruner = self.text(model, 32), Pruner("arrival", self.batch)
        chosen = Wanda(), Uniform(), PATTERNS[0], 0.5, None, solver
        return self.timed(lambda: pruner.prune(model, text, *chosen))

    def gemma(self) -> dict[str, Any]:
        """Prune Gemma 3 270M in float32 here and on the CPU, and compare masks and perplexities."""
        with tempfile.TemporaryDirectory() as folder:
            path = self._gemma_folder(Path(folder))
            if path is None:
                return {"found": False}
            source = PretrainedModel(str(path), dtype="float32", device="cpu")
            loaded = source.load()
        languages = find(sorted(codes())[:4])
        sentences = {one.code: list(Embedded().sentences(one, "evaluation"))[:20] for one in languages}
        settings = Perplexity(window=64, stride=64) if self.tiny else Perplexity()
        texts = settings.texts(loaded.tokenizer, sentences)
        length = min(64 if self.tiny else 512, *(len(each.tokens) for each in texts.values()))
        calibration = CalibrationSet(
            tuple(texts), tuple(torch.tensor([each.tokens[:length]]) for each in texts.values()), "first tokens"
        )
        there: Any = copy.deepcopy(loaded.model).to(self.device)  # type: ignore[arg-type]
        reports, measured = [], []
        for model in (loaded.model, there):
            reports.append(prune(model, "arrival", MWanda(), text=calibration))
            measured.append(settings.measure(model, loaded.tokenizer, texts))
        differing = [
            one.name for one, other in zip(reports[0].plans, reports[1].plans, strict=True) if one.mask != other.mask
        ]
        errors = [abs(measured[1][code].perplexity / each.perplexity - 1) for code, each in measured[0].items()]
        return {
            "found": True,
            "matrices": len(reports[0].plans),
            "matrices that differ": len(differing),
            "share of weights that differ": differing_share(loaded.model, there),
            "largest relative difference of perplexity": max(errors),
        }

    def _gemma_folder(self, scratch: Path) -> Path | None:
        if self.tiny:
            return save_tiny_model("gemma3_text", scratch / "tiny")
        if self.gemma_path is None:
            try:
                return converted_folder()
            except MwandaError:
                return None
        if self.gemma_path.is_dir():
            return self.gemma_path
        dequantise(self.gemma_path, scratch / "converted")
        return scratch / "converted"

    def row_kernel(self) -> dict[str, Any]:
        """Time scoring, selecting and zeroing beside a copy of the same matrix."""
        shape = (64, 128) if self.tiny else (14336, 4096)
        weight = torch.randn(shape, device=self.device).bfloat16()
        columns, target = torch.rand(shape[1], device=self.device), torch.empty_like(weight)
        used = fused.zero_lowest(weight.clone(), columns, shape[1] // 2)
        if not used:
            return {"used": False}

        def each(work: Callable[[Tensor], object]) -> float:
            fresh = [weight.clone() for _ in range(20)]  # a row that is pruned already is done at once
            return float(self.timed(lambda: [work(part) for part in fresh])["seconds"]) / len(fresh)

        def zero(part: Tensor) -> bool:
            return fused.zero_lowest(part, columns, shape[1] // 2)

        until = perf_counter() + (0 if self.tiny else WARMING)
        while True:  # an idle card's clock takes that long to rise, which a copy of memory does not show
            begun, rounds = perf_counter(), [(each(target.copy_), each(zero)) for _ in range(6)]
            if begun >= until:
                break
        copied, zeroed = (median(taken) for taken in zip(*rounds, strict=True))
        return {"used": True, "seconds": zeroed, "copy": copied, "share of copy bandwidth": copied / zeroed}

    def sparsegpt(self) -> dict[str, Any]:
        """Time SparseGPT on four blocks beside their dense pass, after one on few sequences, and say where it goes."""
        self._sparsegpt(2 * self.batch)
        return self._sparsegpt(SEQUENCES)

    def _sparsegpt(self, sequences: int) -> dict[str, Any]:
        model = self.made("llama", LLAMA, SOLVED_BLOCKS)
        text = self.text(model, sequences)
        dense = self.timed(lambda: dense_pass(model, text, self.batch))
        with watched(SPARSEGPT_STAGES, self.device) as marks:
            found = self.timed(lambda: prune(model, "arrival", SparseGPT(), text=text, batch=self.batch))
        return {**found, "spent": seconds_of(marks), "dense": dense}

    def selection(self) -> dict[str, Any]:
        """Time selection over whole matrices (magnitude) on sixteen blocks."""
        return self.again("llama", LLAMA, STAGED_BLOCKS, Magnitude())

    def mixture(self) -> dict[str, Any]:
        """Time four blocks of a mixture with the shape of Qwen3-30B-A3B."""
        return self.again("qwen3_moe", MIXTURE, 4, Wanda())

    def again(self, family: str, sizes: dict[str, Any], blocks: int, criterion: Any) -> dict[str, Any]:
        """Time a pruning after one of another model of the same sizes, for which all is compiled and begun."""
        seconds = []
        for _ in range(2):
            model = self.made(family, sizes, blocks)
            text = self.text(model, 32)
            found = self.timed(lambda: prune(model, "arrival", criterion, text=text, batch=2))  # noqa: B023 - at once
            seconds.append(found["seconds"])
        return {**found, "first seconds": seconds[0], "sequences": 32}

    def scorer(self) -> dict[str, Any]:
        """Time losses over a vocabulary of 262,144 with the shape of Gemma 3 270M, and its blocks alone."""
        model = self.made("gemma3_text", GEMMA, GEMMA_BLOCKS)
        length, count = (16, 64) if self.tiny else (1024, 1 << 18)
        tokens = torch.randint(model.config.vocab_size, (count,)).tolist()
        settings = Perplexity(window=length, stride=length)
        texts = {"eng_Latn": Text(tuple(tokens), tuple(range(count)), (1,) * count, (1,) * count)}
        batches, scorer = settings.batches(tiny_tokenizer(), texts, tokens_at_once(model, World())), Scorer(model)
        asked = [
            (padded(each), [one.scored for _, one in each], [len(one.tokens) for _, one in each]) for each in batches
        ]

        def score() -> None:
            for windows, scored, lengths in asked:
                scorer.score(windows, scored, lengths)

        def blocks() -> None:
            with torch.no_grad():
                for windows, _, _ in asked:
                    forward(model, windows.to(self.device))

        with scorer.faster_norms():
            found, alone = self.several(score), self.several(blocks)
        shape = {"batches": len(asked), "tokens of a batch": asked[0][0].numel()}
        return {
            **found,
            **shape,
            "fast": scorer.fast,
            "blocks alone": alone,
            "tokens a second": count / found["seconds"],
        }

    @property
    def batch(self) -> int:
        """Sequences in a forward pass."""
        return 2 if self.tiny else 4

    def text(self, model: Any, sequences: int = SEQUENCES) -> CalibrationSet:
        """Return random tokens for a model."""
        size = (min(sequences, 4), 16) if self.tiny else (sequences, LENGTH)
        return random_text(*size, model.config.vocab_size)

    def made(self, family: str, sizes: dict[str, Any], blocks: int) -> Any:
        """Return a random model in bfloat16, made on the device."""
        chosen = {**sizes, **{name: TINY[name] for name in sizes if name in TINY}} if self.tiny else sizes
        config = AutoConfig.for_model(family, **chosen, num_hidden_layers=min(blocks, 2) if self.tiny else blocks)
        with self.device:
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        return model.eval()

    def timed(self, work: Callable[[], object]) -> dict[str, Any]:
        """Return seconds and peak device memory of some work, and its stages if it is a pruning."""
        devices.wait()
        devices.reset_peak(self.device)
        start = perf_counter()
        done = work()
        devices.wait()
        found = {"seconds": perf_counter() - start, "peak bytes": devices.peak_device_bytes(self.device)}
        return {**found, "stages": done.seconds} if isinstance(done, PruningReport) else found

    def several(self, work: Callable[[], object], rounds: int = 5) -> dict[str, Any]:
        """Return the median of the seconds of several rounds, after one that warms up, and the highest peak."""
        first, *others = [self.timed(work) for _ in range(1 + rounds)]
        seconds = [each["seconds"] for each in others]
        peak = max(each["peak bytes"] for each in others)
        return {"seconds": median(seconds), "rounds": seconds, "first": first["seconds"], "peak bytes": peak}


def whole_sparsegpt(found: Mapping[str, Any]) -> dict[str, float]:
    """Return what SparseGPT takes of all blocks besides the dense pass, in all and in parts, given that of four."""
    spent, blocks = found["spent"], LLAMA_BLOCKS / SOLVED_BLOCKS
    seconds = {
        "all": found["stages"]["prune"] + found["stages"]["calibrate"] - found["dense"]["seconds"],
        "second moments": spent["products"] + spent["adding up"] + spent["mirroring"],
        "solving": found["stages"]["prune"],
    }
    return {part: blocks * each for part, each in seconds.items()}


def of_all_blocks(*stages: str) -> Callable[[Mapping[str, Any]], float]:
    """Return what adds up some stages, for a whole model."""
    return lambda found: LLAMA_BLOCKS / STAGED_BLOCKS * sum(found["spent"][stage] for stage in stages)


BARS: dict[str, dict[str, Bar]] = {
    "row_kernel": {
        "share of copy bandwidth": Bar(lambda found: found["share of copy bandwidth"], ROW_KERNEL_TO_COPY, True)
    },
    "scorer": {"tokens a second": Bar(lambda found: found["tokens a second"], SCORER_TOKENS, True)},
    "orders": {
        "arrival to the dense pass": Bar(lambda found: found["arrival"]["ratio"], ARRIVAL_TO_DENSE),
        "arrival to the published procedure": Bar(
            lambda found: found["arrival"]["ratio"] / found["published"]["ratio"], ARRIVAL_TO_PUBLISHED
        ),
    },
    "sparsegpt": {
        "seconds for the whole model": Bar(lambda found: whole_sparsegpt(found)["all"], SPARSEGPT_SECONDS),
        "of second moments": Bar(lambda found: whole_sparsegpt(found)["second moments"], MOMENT_SECONDS),
        "of solving": Bar(lambda found: whole_sparsegpt(found)["solving"], SOLVE_SECONDS),
    },
    "selection": {
        "seconds for the whole model": Bar(
            lambda found: found["stages"]["prune"] * LLAMA_BLOCKS / STAGED_BLOCKS, SELECTION_SECONDS
        )
    },
    "mixture": {
        "seconds for the whole model": Bar(lambda found: found["stages"]["prune"] * MIXTURE_BLOCKS / 4, MIXTURE_SECONDS)
    },
    "stages": {
        "seconds of checkpoints": Bar(
            of_all_blocks("masks for the checkpoint", "waiting for the checkpoint"), CHECKPOINT_SECONDS
        ),
        "of sums of squares": Bar(of_all_blocks("statistics"), STATISTICS_SECONDS),
        "of scoring and masking": Bar(of_all_blocks("scoring and masking"), SCORING_SECONDS),
    },
    "gradients": {"gradients to the dense pass": Bar(lambda found: found["ratio"], GRADIENTS_TO_DENSE)},
}
"""What an item has to reach."""

EXPECTED = {
    "statistics": 2,
    "repeated": 4,
    "resumed": 3,
    "perplexity": 2,
    "in_parts": 2,
    "on_disk": 2,
    "warm": 15,
    "row_kernel": 3,
    "scorer": 10,
    "orders": 75,
    "sparsegpt": 15,
    "selection": 10,
    "mixture": 8,
    "gradients": 20,
    "stages": 20,
    "masks": 45,
    "gemma": 30,
    "solvers": 30,
    "kernel": 40,
}
"""All items, in order, each with the seconds that it is thought to take on a card."""

MEASURES = (
    "warm",
    "row_kernel",
    "scorer",
    "orders",
    "sparsegpt",
    "selection",
    "mixture",
    "gradients",
    "stages",
    "solvers",
)
CHECKS = tuple(name for name in EXPECTED if name not in MEASURES)


def prune(
    model: nn.Module,
    order: Order,
    criterion: Any,
    pattern: Any = PATTERNS[0],
    *,
    text: CalibrationSet = CALIBRATION,
    batch: int = 4,
    runtime: Runtime | None = None,
) -> Any:
    """Prune half of a model in place."""
    return Pruner(order, batch).prune(model, text, criterion, Uniform(), pattern, 0.5, runtime)


def digests(report: Any) -> list[str]:
    """Return what stands for each mask."""
    return [plan.mask for plan in report.plans]


def runtime(folder: str, progress: Any = None) -> Runtime:
    """Return a runtime with a checkpoint."""
    checkpoint = RunCheckpoint(Path(folder), "key")
    return Runtime(checkpoint=checkpoint) if progress is None else Runtime(checkpoint=checkpoint, progress=progress)


def random_text(sequences: int, length: int, vocabulary: int) -> CalibrationSet:
    """Return random tokens in two languages."""
    generator = torch.Generator().manual_seed(0)
    parts: list[Tensor] = [torch.randint(vocabulary, (sequences // 2, length), generator=generator) for _ in range(2)]
    return CalibrationSet(("eng_Latn", "ell_Grek"), tuple(parts), "random tokens")


def dense_pass(model: nn.Module, text: CalibrationSet, batch: int) -> None:
    """Pass a text through the blocks, without the LM head."""
    device = next(model.parameters()).device
    with torch.no_grad():
        for each in text.batches(batch, device):
            forward(model, each.tokens)


def differing_share(here: nn.Module, there: nn.Module) -> float:
    """Return the share of the prunable weights that one of two models holds and the other has lost."""
    pairs = [
        (one.weight, other.weight.to(one.weight.device))
        for block, twin in zip(blocks_of(here), blocks_of(there), strict=True)
        for one, other in zip(block.matrices, twin.matrices, strict=True)
    ]
    return sum(int(((a == 0) != (b == 0)).sum()) for a, b in pairs) / sum(a.numel() for a, _ in pairs)


Marks = dict[str, list[tuple[devices.Mark, devices.Mark]]]


@contextmanager
def watched(stages: Mapping[str, tuple[Any, str]], device: torch.device) -> Iterator[Marks]:
    """Mark on the device, without waiting for it, where each stage begins and ends."""
    marks: Marks = {stage: [] for stage in stages}

    def marking(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def marked(*arguments: Any, **named: Any) -> Any:
            start = devices.Mark(device)
            found = function(*arguments, **named)
            marks[stage].append((start, devices.Mark(device)))
            return found

        return marked

    with ExitStack() as stack:
        for stage, (owner, name) in stages.items():
            stack.enter_context(patch.object(owner, name, marking(stage, getattr(owner, name))))
        yield marks


def seconds_of(marks: Marks) -> dict[str, float]:
    """Return what each stage took in all; waits for the device."""
    return {name: sum(end.seconds_since(start) for start, end in pairs) for name, pairs in marks.items()}


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Leave what takes longer, where Python gets to know of it.

    Raises:
        OverTime: it was left.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise OverTime(f"it was left after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def tried(bench: Bench, name: str, seconds: float) -> dict[str, Any]:
    """Do one item in so many seconds, and return what it found, or its error, with what it has to reach."""
    begun = perf_counter()
    try:
        with limited(min(seconds, 3 * EXPECTED[name])):
            found = {"ok": True, **getattr(bench, name)()}
    except (Exception, OverTime) as error:
        found = {"ok": False, "error": f"{type(error).__name__}: {error}"[:2000]}
    if name in BARS:
        found["bars"] = {what: bar.judge(found) for what, bar in BARS[name].items()}
    return {**found, "item seconds": perf_counter() - begun}


def run(bench: Bench, items: Sequence[str], out: Path, seconds: float) -> dict[str, Any]:
    """Do the items in turn, writing all that is known after each; return that."""
    start = perf_counter()
    record: dict[str, Any] = {"device": devices.describe(bench.device), "tiny": bench.tiny, "items": {}}
    record["environment"] = environment(record["device"])
    for name in items:
        left = seconds - (perf_counter() - start)
        if left < (0 if bench.tiny else EXPECTED[name]):
            found = {"skipped": f"{left:.0f} of {seconds:.0f} s are left, and it takes {EXPECTED[name]}"}
        else:
            found = tried(bench, name, left)
        record["items"][name] = found
        write_json(out, record)
        print(name, found, flush=True)
        gc.collect()
        devices.release()
    return record


def main() -> int:
    """Run all items, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--items", nargs="+", choices=list(EXPECTED), default=list(EXPECTED))
    parser.add_argument("--gemma", type=Path, help="folder or GGUF file of Gemma 3 270M; else its packages, if there")
    parser.add_argument("--seconds", type=float, default=345, help="none is begun that would not end within these")
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu.json"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    device = devices.exact(torch.device(options.device))
    found = run(Bench(device, options.tiny, options.gemma), options.items, options.out, options.seconds)["items"]
    return int(any(not found[name].get("ok", True) for name in CHECKS if name in found))


if __name__ == "__main__":
    sys.exit(main())
