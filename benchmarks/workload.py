"""What is measured: models with tokens, and the ways to pass or prune them."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import published
import torch
from measure import Memory, in_fresh_process, memory_of
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers import logging as transformers_logging

from mwanda.calibration import CalibrationSet
from mwanda.criteria import Criterion
from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.wanda import Wanda
from mwanda.models import Matrix, blocks_of
from mwanda.models.forward import forward
from mwanda.models.gemma import PackagedGemma
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.pruner.engine import Order, dense_pre_pass
from mwanda.pruner.run_checkpoint import RunCheckpoint
from mwanda.pruner.runtime import Runtime
from mwanda.schedules import Schedule
from mwanda.schedules.alphapruning import AlphaPruning
from mwanda.schedules.dlp import DLP
from mwanda.schedules.fisher import Fisher
from mwanda.schedules.lsa import LSA
from mwanda.schedules.owl import OWL
from mwanda.schedules.owl_cwl import OWLCWL
from mwanda.schedules.uniform import Uniform
from mwanda.solvers import Solver
from mwanda.solvers.admm import ADMM
from mwanda.solvers.sparsegpt import SparseGPT
from mwanda.solvers.swap import Swap
from mwanda.statistics import LanguageWeights


SPARSITY = 0.5
BATCH_SIZE = 8
WANDA, UNIFORM = Wanda(), Uniform()
UNIFORMLY = LanguageWeights()
ALIKE = LanguageWeights(unit_tokens=True)
THINNED = LanguageWeights(unit_tokens=True, moment_share=0.5)

_HEADS = {"num_attention_heads": 4, "max_position_embeddings": 4096, "vocab_size": 1024}
_SMALL = {**_HEADS, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4}
_GROUPED = {**_SMALL, "num_key_value_heads": 2}
_EXPERTS = {**_GROUPED, "num_experts_per_tok": 2}
_OTHER_NAMES = {"d_model": 256, "ffn_dim": 768, "attention_heads": 4, "num_layers": 4}

FAMILIES: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 256, "n_layer": 4, "n_head": 4, "vocab_size": 1024},
    "llama": _GROUPED,
    "mistral": _GROUPED,
    "qwen2": _GROUPED,
    "qwen3": {**_GROUPED, "head_dim": 64},
    "gemma": {**_GROUPED, "head_dim": 64},
    "gemma2": {**_GROUPED, "head_dim": 64},
    "gemma3_text": {**_GROUPED, "head_dim": 64},
    "cohere": _GROUPED,
    "cohere2": _GROUPED,
    "opt": {**_SMALL, "ffn_dim": 768, "word_embed_proj_dim": 256},
    "xglm": {**_HEADS, **_OTHER_NAMES},
    "gpt_neox": _SMALL,
    "gpt2": {"n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 4096, "vocab_size": 1024},
    "falcon": _SMALL,
    "phi": _SMALL,
    "phi3": _GROUPED,
    "stablelm": _GROUPED,
    "olmo2": _GROUPED,
    "mixtral": {**_EXPERTS, "num_local_experts": 4},
    "qwen3_moe": {**_EXPERTS, "head_dim": 64, "num_experts": 4, "moe_intermediate_size": 256},
}
"""Small random models, by `model_type`."""

GEMMA, LLAMA = "gemma3", "llama-0.5b"
LLAMA_SIZES: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 3456,
    "num_hidden_layers": 24,
    "num_attention_heads": 20,
    "num_key_value_heads": 20,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
"""About half a billion parameters."""

MIXTURE = "qwen3_moe-0.1b"
MIXTURE_SIZES: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 512,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
}
"""A mixture whose experts weigh ten times what its attention does."""

LARGER = {LLAMA: ("llama", LLAMA_SIZES), MIXTURE: ("qwen3_moe", MIXTURE_SIZES)}


@dataclass(frozen=True)
class Workload:
    """How to make a model and its tokens, also in another process.

    Args:
        model: `gemma3`, or a key of `LARGER` or `FAMILIES`.
        tokens: in all; they are random.
        length: of a sequence.
        languages: among which the sequences are divided.
        blocks: of a random model, or None for as many as it has by itself.
        threads: of torch.
    """

    model: str
    tokens: int = 2048
    length: int = 128
    languages: int = 4
    blocks: int | None = None
    threads: int = 2

    def build(self) -> "Task":
        """Load or draw the weights."""
        torch.set_num_threads(self.threads)
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        model = PackagedGemma(dtype="float32", device="cpu").load().model if self.model == GEMMA else self._random()
        vocabulary = model.get_input_embeddings().weight.shape[0]
        return Task(model, tokens_of(self.languages, self.tokens, self.length, vocabulary))

    def _random(self) -> Any:
        torch.manual_seed(0)
        kind, sizes = LARGER.get(self.model) or (self.model, FAMILIES[self.model])
        layers = next(name for name in ("num_hidden_layers", "n_layer", "num_layers") if name in sizes)
        changed = {} if self.blocks is None else {layers: self.blocks}
        special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
        config = AutoConfig.for_model(kind, **{**sizes, **special, **changed})
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@dataclass
class Task:
    """A model with its tokens; its weights can be put back after it was pruned."""

    model: nn.Module
    calibration: CalibrationSet
    _weights: dict[str, Tensor] = field(default_factory=dict)

    def keep(self) -> None:
        """Copy the weights that pruning changes."""
        self._weights = {matrix.name: matrix.weight.clone() for matrix in self._matrices()}

    def restore(self) -> None:
        """Put the copied weights back."""
        for matrix in self._matrices():
            matrix.weight.copy_(self._weights[matrix.name])

    def _matrices(self) -> list[Matrix]:
        return [matrix for block in blocks_of(self.model) for matrix in block.matrices]


def tokens_of(languages: int, tokens: int, length: int, vocabulary: int) -> CalibrationSet:
    """Return random sequences in all languages alike, but for one sequence where they do not divide."""
    generator = torch.Generator().manual_seed(0)
    sequences = torch.randint(3, vocabulary, (max(tokens // length, languages), length), generator=generator)
    codes = tuple(f"l{language}" for language in range(languages))
    return CalibrationSet(codes, sequences.tensor_split(languages), "random tokens")


@torch.no_grad()
def dense(task: Task) -> None:
    """Pass the calibration tokens through the dense blocks, without the LM head: what no procedure can do without."""
    for batch in task.calibration.batches(BATCH_SIZE):
        forward(task.model, batch.tokens)


def ours(
    task: Task,
    order: Order = "arrival",
    criterion: Criterion = WANDA,
    schedule: Schedule = UNIFORM,
    checkpoint: RunCheckpoint | None = None,
    solver: Solver | None = None,
    *,
    weights: LanguageWeights = UNIFORMLY,
) -> None:
    """Prune with the project's own pruner, its checks and its audit included."""
    calibration = replace(task.calibration, weights=weights)
    pruner = Pruner(order=order, batch_size=BATCH_SIZE)
    runtime = Runtime(checkpoint=checkpoint)
    pruner.prune(task.model, calibration, criterion, schedule, Unstructured(), SPARSITY, runtime, solver=solver)


def looking(task: Task, schedule: Schedule) -> None:
    """Find the signals of a schedule, and prune nothing."""
    dense_pre_pass(task.model, task.calibration, schedule, Pruner(batch_size=BATCH_SIZE))


def checkpointed(task: Task) -> None:
    """Prune by arrival and write down every finished block, as a run does that can be resumed."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = RunCheckpoint(Path(folder) / "checkpoint", "key")
        ours(task, checkpoint=checkpoint)
        checkpoint.discard()


DENSE = "dense forward pass"
PUBLISHED = "published procedure, 1 sequence at a time"
PUBLISHED_BATCHES = f"published procedure, {BATCH_SIZE} at a time"
BLOCK, ARRIVAL, ONESHOT = "order=block", "order=arrival", "order=oneshot"
CHECKPOINTED = "order=arrival, with checkpoints"
LANGUAGE_AWARE = "order=arrival, mwanda, owl_cwl"
GRADIENTS = "order=block, gradients of an eighth"
RECOMMENDED, WITH_UPDATES, SPARSEGPT = "method=recommended", "method=recommended_with_updates", "method=sparsegpt"
LOOKING: dict[str, Schedule] = {
    "owl, an eighth of the tokens": OWL(),
    "dlp, an eighth of the tokens": DLP(),
    "lsa, an eighth of the tokens": LSA(),
    "fisher, an eighth of the tokens": Fisher(),
    "alphapruning, no tokens": AlphaPruning(),
}

WAYS: dict[str, Callable[[Task], None]] = {
    DENSE: dense,
    PUBLISHED: lambda task: published.prune(task.model, task.calibration, SPARSITY),
    PUBLISHED_BATCHES: lambda task: published.prune(task.model, task.calibration, SPARSITY, BATCH_SIZE),
    BLOCK: lambda task: ours(task, "block"),
    ARRIVAL: lambda task: ours(task, "arrival"),
    CHECKPOINTED: checkpointed,
    ONESHOT: lambda task: ours(task, "oneshot"),
    GRADIENTS: lambda task: ours(task, "block", schedule=Fisher()),
    RECOMMENDED: lambda task: ours(task, "block", schedule=Fisher(), solver=Swap(), weights=THINNED),
    WITH_UPDATES: lambda task: ours(task, "block", schedule=Fisher(), solver=ADMM(), weights=ALIKE),
    SPARSEGPT: lambda task: ours(task, "block", solver=SparseGPT()),
    LANGUAGE_AWARE: lambda task: ours(task, "arrival", MWanda(), OWLCWL()),
    **{name: partial(looking, schedule=schedule) for name, schedule in LOOKING.items()},
}


def peak_memory(workload: Workload, way: str) -> Memory:
    """Return the peak memory of one way in a process of its own, and what the model holds of it."""
    return in_fresh_process(_peak_memory, workload, way)


def _peak_memory(workload: Workload, way: str) -> Memory:
    task = workload.build()
    for parameter in task.model.parameters():
        parameter.sum()  # weights in a mapped file are read only when they are used
    return memory_of(lambda: WAYS[way](task))
