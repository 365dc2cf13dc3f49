"""Checks the GPU path on a card, and measures it: one script of at most ten minutes that writes JSON after every item.

    python benchmarks/gpu.py --out outputs/gpu.json        # or: make test-gpu
    python benchmarks/gpu.py --device cpu --tiny           # the same items without a GPU, to see that they run

First what must hold (masks, statistics, repetition, resuming, perplexity, models in parts), on tiny models; then what
it costs, on a random model with the shape of Llama-3-8B that is made on the device. An item that fails is written down
with its error and the others go on; none is begun after `--seconds`. It exits with 1 if a check has failed.
"""
# ruff: noqa: E402 - the folders of what is imported come first

import argparse
import copy
import gc
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM


sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

import published
from tiny_models import save_tiny_model, tiny_calibration, tiny_model, tiny_tokenizer

from mwanda.calibration import CalibrationSet
from mwanda.criteria.magnitude import Magnitude
from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.ria import RIA
from mwanda.criteria.sparsegpt import SparseGPT
from mwanda.criteria.wanda import Wanda
from mwanda.evaluation.head import Scorer
from mwanda.evaluation.perplexity import Perplexity
from mwanda.kernels import fused
from mwanda.models.forward import forward
from mwanda.models.source import PretrainedModel
from mwanda.patterns.n_of_m import NOfM
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.pruner.engine import Order
from mwanda.pruner.run_checkpoint import RunCheckpoint
from mwanda.pruner.runtime import Runtime
from mwanda.schedules.uniform import Uniform
from mwanda.statistics import Needs, SequenceSums
from mwanda.system import device as devices
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
TINY = {"hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 32, "vocab_size": 512, "num_experts": 4}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_experts_per_tok": 2}


class Stop(Exception):
    """A run is killed here."""


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
    """

    device: torch.device
    tiny: bool
    dense: dict[str, float] = field(default_factory=dict)

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
        blocks, length, count = (2, 16, 4) if self.tiny else (32, 2048, 128)
        model = self.made("llama", LLAMA, blocks)
        text = random_text(count, length, model.config.vocab_size)
        batch = 2 if self.tiny else 4

        def dense() -> None:
            with torch.no_grad():
                for each in text.batches(batch, self.device):
                    forward(model, each.tokens)

        ways: dict[str, Callable[[], object]] = {"dense": dense, "dense again": dense}
        for order in reversed(ORDERS):  # an order prunes what the one before has pruned: the work is the same
            ways[order] = lambda order=order: prune(model, order, Wanda(), text=text, batch=batch)
        ways["published"] = lambda: published.prune(model, text, 0.5, batch)
        found = {name: self.timed(way) for name, way in ways.items()}
        base = found["dense again"]["seconds"]
        return {name: {**each, "ratio": each["seconds"] / base} for name, each in found.items()}

    def row_kernel(self) -> dict[str, Any]:
        """Time scoring, selecting and zeroing beside a copy of the same matrix."""
        shape = (64, 128) if self.tiny else (14336, 4096)
        weight = torch.randn(shape, device=self.device).bfloat16()
        columns, target = torch.rand(shape[1], device=self.device), torch.empty_like(weight)
        used = fused.zero_lowest(weight.clone(), columns, shape[1] // 2)
        if not used:
            return {"used": False}

        fresh = [weight.clone() for _ in range(20)]  # a row that is pruned already is done at once

        def each(work: Callable[[Tensor], object]) -> float:
            work(weight.clone())
            return self.timed(lambda: [work(part) for part in fresh])["seconds"] / len(fresh)

        copied = each(target.copy_)
        zeroed = each(lambda part: fused.zero_lowest(part, columns, shape[1] // 2))
        return {"used": True, "seconds": zeroed, "copy": copied, "share of copy bandwidth": copied / zeroed}

    def sparsegpt(self) -> dict[str, Any]:
        """Time SparseGPT on two blocks."""
        model = self.made("llama", LLAMA, 2)
        text = random_text(4 if self.tiny else 32, 16 if self.tiny else 2048, model.config.vocab_size)
        return self.timed(lambda: prune(model, "arrival", SparseGPT(), text=text, batch=2))

    def mixture(self) -> dict[str, Any]:
        """Time four blocks of a mixture with the shape of Qwen3-30B-A3B."""
        model = self.made("qwen3_moe", MIXTURE, 4)
        text = random_text(4 if self.tiny else 32, 16 if self.tiny else 2048, model.config.vocab_size)
        return self.timed(lambda: prune(model, "arrival", Wanda(), text=text, batch=2))

    def scorer(self) -> dict[str, Any]:
        """Time losses over a vocabulary of 262,144."""
        model = self.made("llama", {**LLAMA, "hidden_size": 640, "intermediate_size": 2048, "vocab_size": 1 << 18}, 18)
        length = 16 if self.tiny else 1024
        tokens = torch.randint(model.config.vocab_size, (8, length), device=self.device)
        scorer = Scorer(model)
        scorer.score(tokens, [length - 1] * 8, [length] * 8)
        found = self.timed(lambda: scorer.score(tokens, [length - 1] * 8, [length] * 8))
        return {**found, "fast": scorer.fast, "tokens a second": 8 * (length - 1) / found["seconds"]}

    def made(self, family: str, sizes: dict[str, Any], blocks: int) -> Any:
        """Return a random model in bfloat16, made on the device."""
        chosen = {**sizes, **{name: TINY[name] for name in sizes if name in TINY}} if self.tiny else sizes
        config = AutoConfig.for_model(family, **chosen, num_hidden_layers=min(blocks, 2) if self.tiny else blocks)
        with self.device:
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        return model.eval()

    def timed(self, work: Callable[[], object]) -> dict[str, float]:
        """Return seconds and peak device memory of some work."""
        devices.wait()
        devices.reset_peak(self.device)
        start = perf_counter()
        work()
        devices.wait()
        return {"seconds": perf_counter() - start, "peak bytes": devices.peak_device_bytes(self.device)}


CHECKS = ("masks", "kernel", "statistics", "repeated", "resumed", "perplexity", "in_parts", "on_disk")
MEASURES = ("row_kernel", "orders", "sparsegpt", "mixture", "scorer")


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


def run(bench: Bench, items: Sequence[str], out: Path, seconds: float) -> dict[str, Any]:
    """Do the items in turn, writing all that is known after each; return that."""
    start = perf_counter()
    record: dict[str, Any] = {"device": devices.describe(bench.device), "tiny": bench.tiny, "items": {}}
    record["environment"] = environment(record["device"])
    for name in items:
        if perf_counter() - start > seconds:
            record["items"][name] = {"skipped": f"{seconds:.0f} s were over"}
        else:
            begun = perf_counter()
            try:
                found = {"ok": True, **getattr(bench, name)()}
            except Exception as error:
                found = {"ok": False, "error": f"{type(error).__name__}: {error}"[:2000]}
            record["items"][name] = {**found, "item seconds": perf_counter() - begun}
        write_json(out, record)
        print(name, record["items"][name], flush=True)
        gc.collect()
        devices.release()
    return record


def main() -> int:
    """Run all items, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--items", nargs="+", choices=CHECKS + MEASURES, default=CHECKS + MEASURES)
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu.json"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    device = devices.exact(torch.device(options.device))
    found = run(Bench(device, options.tiny), options.items, options.out, options.seconds)["items"]
    return int(any(not found[name].get("ok", True) for name in CHECKS if name in found))


if __name__ == "__main__":
    sys.exit(main())
