"""The work of a run: load, measure, prune, measure, export."""

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from mwanda.artifacts.store import text_digest
from mwanda.config.identity import RunSpec
from mwanda.errors import ConfigurationError
from mwanda.evaluation.finite import Which
from mwanda.evaluation.perplexity import LanguagePerplexity
from mwanda.evaluation.sentence_losses import FILE, write_sentence_losses
from mwanda.job import reuse, sections
from mwanda.job.components import Parts
from mwanda.job.folder import CHECKPOINT, WORK
from mwanda.job.modes import check_memory, check_text
from mwanda.job.sections import Outcome
from mwanda.job.status import Reporter, Watched
from mwanda.models import blocks_of
from mwanda.pruner.audit import check_blocks
from mwanda.pruner.damage.measure import check_causal
from mwanda.pruner.run_checkpoint import RunCheckpoint
from mwanda.pruner.runtime import Runtime
from mwanda.system.distributed import World
from mwanda.system.progress import Silent, Terminal
from mwanda.tracking import RunIdentity


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mwanda.calibration import CalibrationSet
    from mwanda.evaluation.perplexity import Text
    from mwanda.evaluation.task_scores import Scores, Task
    from mwanda.inside.collector import Observation
    from mwanda.models import LoadedModel


STAGES = ("load", "calibrate", "schedule", "prune", "evaluate")
"""Stages whose seconds every record has, also where they took none."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass
class Pipeline:
    """Takes one run from its text and model to its results.

    Args:
        spec: what was asked for.
        parts: what it stands for.
        world: the processes that share the run.
        reporter: told how far it has come.
        seconds: by stage.
        record: the sections of results.json that are known so far.
    """

    spec: RunSpec
    parts: Parts
    world: World
    reporter: Reporter
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    record: dict[str, Any] = field(default_factory=dict)
    _throughput: dict[str, dict[str, float]] = field(default_factory=dict)

    def work(self) -> RunCheckpoint | None:
        """Do all of it; return the checkpoint, which the run needs until its results are written.

        Raises:
            InputError: the text or the model does not allow it.
            MwandaError: the run failed.
        """
        from mwanda.system import device, environment

        parts, seed, folder = self.parts, self.parts.settings.seed, self.spec.folder
        self._progress = Watched(Terminal() if self.world.first else Silent(), self.reporter)
        self.reporter.stage("load")
        seed_everything(seed)
        self._tell_languages()
        text = parts.text()
        tokenizer = self._timed("load", parts.source.load_tokenizer)
        # Several processes would have to find the same, or to wait for each other.
        shared = parts.settings.artifacts and self.world.size == 1
        self._artifacts = self._timed("load", lambda: reuse.artifact_cache(parts.source, use=shared))
        calibration = reuse.calibration_set(self._artifacts, parts.calibration, tokenizer, text.calibration)
        if parts.calibration.sampling == "equal" and calibration.count != parts.calibration.sequences:
            logger.info("%d sequences: the same number of each language", calibration.count)
        texts = parts.perplexity.texts(tokenizer, text.evaluation) if parts.perplexity else {}
        tasks = self._load_tasks()
        check_text(parts, self._check_model(), tokenizer, calibration, texts)
        loaded = self._load_model()
        checkpoint = self._checkpoint(calibration.fingerprint())
        device.reset_peak(loaded.device)
        self.record |= {
            "environment": environment.environment(device.describe(loaded.device)),
            "fingerprints": {
                "model": parts.source.fingerprint(),
                "calibration_text": text_digest(text.calibration),
                "evaluation_text": text_digest(text.evaluation),
                "blocks": calibration.fingerprint(),
            },
        }
        parts.tracker.start(self._identity(), self.spec.config)

        measured: dict[str, dict[str, LanguagePerplexity]] = {}
        scores: dict[str, Scores] = {}
        self._evaluate("dense", loaded, texts, tasks, measured, scores, checkpoint)
        observation = self._look_inside(loaded, calibration)
        logger.info("calibrating and pruning to %s", parts.settings.sparsity)
        report = parts.pruner.prune(
            loaded.model,
            calibration,
            parts.criterion,
            parts.schedule,
            parts.pattern,
            parts.settings.sparsity,
            Runtime(
                weights=loaded.weights,
                checkpoint=checkpoint,
                world=self.world,
                artifacts=self._artifacts if shared else None,
                scratch=folder / WORK,
                progress=self._progress,
            ),
            parts.solver,
        )
        self.seconds |= report.seconds
        self._evaluate("pruned", loaded, texts, tasks, measured, scores)
        self.record |= sections.sections(self.spec, parts, Outcome(loaded, calibration, report, measured, text.dropped))
        self.record["evaluation"] = self._throughput
        self._write_losses(measured)
        if observation is not None:
            found = self._timed("inside", observation.finish)
            self.record["inside"] = found.write(folder / "inside")
        if parts.harness is not None:
            self.record["tasks"] = parts.harness.as_record(tasks, scores, seed)
        if parts.export is not None and self.world.first:
            self.reporter.stage("export")
            hashed = {"config_hash": self.spec.config_hash}
            self.record["export"] = str(parts.export.write(loaded, hashed | self.record, folder).name)
        self.world.barrier()
        self.record["memory"] = {
            "peak_rss_bytes": device.peak_resident_bytes(),
            "peak_device_bytes": device.peak_device_bytes(loaded.device),
        }
        self.record["artifacts"] = {"reused": self._artifacts.reused, "made": self._artifacts.made}
        return checkpoint

    def _tell_languages(self) -> None:
        parts = self.parts
        logger.info("reading %d languages of %s", len(parts.languages), parts.corpus.name)
        if len(parts.languages) < self.spec.named_languages:
            logger.info("%d of the %d languages of the set", len(parts.languages), self.spec.named_languages)
        silent = len({each.code for each in parts.languages} - {each.code for each in parts.calibration_languages})
        if silent:
            logger.info("%d of them give no calibration text", silent)

    def _load_tasks(self) -> "list[Task]":
        parts = self.parts
        if parts.harness is None:
            return []
        logger.info("loading tasks: %s", ", ".join(parts.harness.tasks))
        return parts.harness.load(parts.languages, parts.evaluation_corpus, parts.settings.seed)

    def _check_model(self) -> "PreTrainedModel":
        """Refuse, before any weight is loaded, what this machine or this kind of model does not allow.

        Returns the model without weights.
        """
        from mwanda.models.forward import is_causal

        parts, source = self.parts, self.parts.source
        if source.device_map == "auto" and self.world.size > 1:
            raise ConfigurationError(
                "model.device_map", "auto", "gives one process all GPUs, so that several cannot share them", ["none"]
            )
        config = source.load_config()
        if parts.schedule.looks_at == "gradients":
            check_causal(config)
        if parts.evaluation is not None and not is_causal(config):
            raise ConfigurationError(
                "evaluation",
                self.spec.choice("evaluation", parts.evaluation),
                f"{source.path} does not predict a token from those before it alone, and has no perplexity",
                ["none"],
            )
        return check_memory(parts, config)

    def _load_model(self) -> "LoadedModel":
        """Load the model, and refuse what cannot be pruned as asked before minutes of evaluation."""
        parts, work = self.parts, self.spec.folder / WORK
        logger.info("loading %s", parts.source.path)
        loaded = self._timed("load", lambda: parts.source.load(work))
        loaded.work_in(work)
        blocks = blocks_of(loaded.model)
        parts.method.check_experts(blocks)
        check_blocks(blocks, parts.pattern, parts.method.group, parts.settings.sparsity, loaded.weights)
        logger.info("%d blocks, %d prunable weights", len(blocks), sum(block.size for block in blocks))
        return loaded

    def _checkpoint(self, fingerprint: str) -> RunCheckpoint | None:
        if not self.parts.pruner.checkpoint:
            return None
        return RunCheckpoint(self.spec.folder / CHECKPOINT, f"{self.spec.exact_hash}-{fingerprint}", self.world)

    def _evaluate(
        self,
        which: Which,
        loaded: "LoadedModel",
        texts: "Mapping[str, Text]",
        tasks: "list[Task]",
        measured: dict[str, dict[str, LanguagePerplexity]],
        scores: "dict[str, Scores]",
        checkpoint: RunCheckpoint | None = None,
    ) -> None:
        if self.parts.evaluation is None:
            return
        logger.info("evaluating the %s model", which)
        if self.parts.perplexity is not None:
            measured[which] = self._measure(which, loaded, texts, checkpoint)
        if self.parts.harness is not None:
            scores[which] = self._score(which, loaded, tasks)

    def _measure(
        self, which: Which, loaded: "LoadedModel", texts: "Mapping[str, Text]", checkpoint: RunCheckpoint | None
    ) -> dict[str, LanguagePerplexity]:
        """Return the perplexity of the dense or the pruned model, or what an interrupted run has noted of it."""
        perplexity, seed = self.parts.perplexity, self.parts.settings.seed
        assert perplexity is not None
        noted = checkpoint.noted(which) if checkpoint is not None else None
        if noted is not None:
            logger.info("taken from %s", CHECKPOINT)
            return {code: LanguagePerplexity(**each) for code, each in json.loads(noted).items()}

        def measure() -> dict[str, LanguagePerplexity]:
            start = perf_counter()
            found = perplexity.measure(
                loaded.model,
                loaded.tokenizer,
                texts,
                self._progress,
                which,
                seed,
                loaded.weights,
                self.world,
            )
            self._throughput[which] = _throughput(found, perf_counter() - start)
            return found

        def take_or_measure() -> dict[str, LanguagePerplexity]:
            return reuse.dense_perplexity(self._artifacts, perplexity, texts, seed, measure)

        found = self._timed("evaluate", take_or_measure if which == "dense" else measure)
        if checkpoint is not None:
            # As a text, which unlike a record can hold infinity.
            checkpoint.note(which, json.dumps({code: asdict(each) for code, each in found.items()}))
        return found

    def _score(self, which: Which, loaded: "LoadedModel", tasks: "list[Task]") -> "Scores":
        from mwanda.models.streaming import fetched_on_call
        from mwanda.models.weights import Resident

        harness, seed = self.parts.harness, self.parts.settings.seed
        assert harness is not None
        resident = isinstance(loaded.weights, Resident)

        def score() -> "Scores":
            with nullcontext() if resident else fetched_on_call(loaded.weights, blocks_of(loaded.model)):
                return harness.score(loaded.model, loaded.tokenizer, tasks, self._progress, which, seed, self.world)

        def take_or_score() -> "Scores":
            return reuse.dense_scores(self._artifacts, harness, tasks, seed, score)

        return self._timed("evaluate", take_or_score if which == "dense" else score)

    def _look_inside(self, loaded: "LoadedModel", calibration: "CalibrationSet") -> "Observation | None":
        parts, inside = self.parts, self.parts.inside
        if inside is None:
            return None
        logger.info("looking into the dense model")
        chosen = parts.criterion, parts.pattern, parts.settings.sparsity
        return self._timed(
            "inside",
            lambda: inside.observe(loaded.model, calibration, *chosen, loaded.weights, self._progress),
        )

    def _timed(self, stage: str, work: Callable[[], T]) -> T:
        from mwanda.system import device

        start = perf_counter()
        try:
            return work()
        finally:
            device.wait()
            self.seconds[stage] = self.seconds.get(stage, 0.0) + perf_counter() - start

    def _write_losses(self, measured: Mapping[str, Mapping[str, LanguagePerplexity]]) -> None:
        if measured and self.world.first:
            losses = {which: {code: one.losses for code, one in each.items()} for which, each in measured.items()}
            write_sentence_losses(self.spec.folder / FILE, losses)

    def _identity(self) -> RunIdentity:
        spec = self.spec
        tags = tuple(sections.tags(spec))
        return RunIdentity(sections.run_id(spec), spec.settings.name, spec.study, "run", tags, spec.folder)


def seed_everything(seed: int) -> None:
    """Set every generator of random numbers that a library may ask."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _throughput(measured: Mapping[str, LanguagePerplexity], seconds: float) -> dict[str, float]:
    tokens = sum(one.tokens for one in measured.values())
    return {"tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds}
