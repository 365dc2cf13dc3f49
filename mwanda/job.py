"""One job: text, model, calibration, schedule, pruning, evaluation, record.

The only module besides the schema and the command line that sees the configuration.
"""

import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from mwanda import distributed, interruption, reuse, schema
from mwanda.calibration import Calibration
from mwanda.corpora import Corpus, check_disjoint
from mwanda.criteria import Criterion
from mwanda.distributed import World
from mwanda.errors import ConfigurationError, CorpusError, InputError, MwandaError
from mwanda.evaluation import Harness, LanguagePerplexity, Perplexity, aggregate, aggregate_change, compare
from mwanda.inside import Inside
from mwanda.languages import Language, find
from mwanda.models import ModelSource
from mwanda.patterns import Pattern
from mwanda.pruner import Pruner
from mwanda.pruner.audit import check_blocks
from mwanda.pruner.engine import check_request
from mwanda.pruner.runtime import Runtime
from mwanda.schedules import Schedule
from mwanda.status import Reporter, State, Watched
from mwanda.tracking import RunIdentity, Tracker
from mwanda.tracking.none import NoTracking


if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mwanda import memory
    from mwanda.calibration import CalibrationSet
    from mwanda.evaluation.harness import Scores, Task
    from mwanda.evaluation.perplexity import Text
    from mwanda.export import Export
    from mwanda.inside import Observation
    from mwanda.models import LoadedModel
    from mwanda.pruner import PruningReport
    from mwanda.pruner.run_checkpoint import RunCheckpoint


CHECKPOINT, WORK = "checkpoint", "weights"
"""Folders within that of the run, there while it runs: what is finished, and pruned blocks that are not in memory."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """Everything a configuration stands for, built and checked, with nothing loaded yet."""

    settings: schema.Settings
    languages: list[Language]
    calibration_languages: list[Language]
    source: ModelSource
    corpus: Corpus
    evaluation_corpus: Corpus
    calibration: Calibration
    criterion: Criterion
    schedule: Schedule
    pattern: Pattern
    pruner: Pruner
    evaluation: Perplexity | Harness | None
    inside: Inside | None
    tracker: Tracker
    export: "Export | None"

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Parts":
        """Build every part of a resolved configuration.

        Raises:
            InputError: something cannot be run as asked.
        """
        settings = schema.read(config)
        with_codes = schema.with_languages(config)
        settings.calibration = with_codes["calibration"]
        corpus_of_evaluation = schema.evaluation_corpus(settings)
        evaluation = {key: value for key, value in settings.evaluation.items() if key != "corpus"}
        built = {name: schema.build(name, getattr(settings, name)) for name in schema.GROUPS if name != "evaluation"}
        languages = find(with_codes["langs"]["codes"])
        calibration = built["calibration"].for_model(built["model"].path)
        codes = calibration.codes([language.code for language in languages])
        parts = cls(
            settings=settings,
            languages=languages,
            calibration_languages=find(codes, f"calibration.{calibration.named_by}"),
            source=built["model"],
            corpus=built["corpus"],
            evaluation_corpus=schema.build("evaluation.corpus", corpus_of_evaluation),
            calibration=calibration,
            criterion=built["criterion"],
            schedule=built["schedule"],
            pattern=built["pattern"],
            pruner=built["pruner"],
            evaluation=schema.build("evaluation", evaluation),
            inside=built["inside"],
            tracker=built["tracking"],
            export=built["export"],
        )
        check_request(settings.sparsity, parts.pattern, parts.schedule)
        if settings.mode != "inspect":
            parts.check_text()
        parts.calibration.divide(dict.fromkeys(codes, 1))
        if parts.harness is not None:
            parts.harness.choose(parts.languages)
        return parts

    @property
    def perplexity(self) -> Perplexity | None:
        """The part of the evaluation that measures perplexity."""
        return self.evaluation if isinstance(self.evaluation, Perplexity) else None

    @property
    def harness(self) -> Harness | None:
        """The part of the evaluation that runs tasks."""
        return self.evaluation if isinstance(self.evaluation, Harness) else None

    @property
    def evaluates_text(self) -> bool:
        """Whether evaluation reads its corpus."""
        return self.perplexity is not None or (self.harness is not None and self.harness.reads_corpus)

    def check_text(self) -> None:
        """Refuse languages that a corpus is known to lack, all at once.

        Raises:
            CorpusError: there are some; the message says what would do.
        """
        sides = [(self.corpus, self.calibration_languages)]
        sides += [(self.evaluation_corpus, self.languages)] if self.evaluates_text else []
        for corpus, languages in sides:
            missing = [language.code for language in languages if corpus.has(language) is False]
            if len(missing) > 1:  # of a single one the corpus itself has more to say
                raise CorpusError(
                    f"corpus={corpus.name} has no text in {len(missing)} of {len(languages)} languages "
                    f"({', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}): langs.available=true keeps only "
                    "what it has; or choose another corpus or set"
                )

    def text(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Return calibration and evaluation sentences per language.

        Raises:
            CorpusError: a language has no text, or the two sides share a sentence.
        """
        calibration = {
            each.code: list(self.corpus.sentences(each, "calibration")) for each in self.calibration_languages
        }
        evaluation = {}
        for language in self.languages if self.evaluates_text else []:
            evaluation[language.code] = list(self.evaluation_corpus.sentences(language, "evaluation"))
            check_disjoint(language, calibration.get(language.code, []), evaluation[language.code])
        return calibration, evaluation


def main(config: "DictConfig") -> None:
    """Run what Hydra composed; end the process with a short message where the user can do something about it."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from mwanda import sweep
    from mwanda.command_line import resolved

    plain = resolved(config)
    hydra = HydraConfig.get()
    swept = hydra.mode == RunMode.MULTIRUN
    folder = Path(hydra.runtime.output_dir)
    names = {group: str(choice) for group, choice in hydra.runtime.choices.items() if "/" not in group}
    overrides, study, assigned = list(hydra.overrides.task), None, None
    if swept and plain["mode"] == "run":
        _remove_if_empty(folder)
        assigned = sweep.assigned(plain, overrides)
        if assigned.action != "run":
            print(f"{assigned.folder}: left alone, as the sweep was started with rerun={plain['rerun']}")
            return
        folder, study = assigned.folder, assigned.folder.parent.name
        plain |= {"output_dir": str(folder), "resume": True}
    try:
        run(plain, folder, overrides, names, study)
    except interruption.Interrupted as interrupted:
        print(f"interrupted by {interrupted}; with resume=true output_dir={folder} it goes on", file=sys.stderr)
        raise SystemExit(interrupted.exit_code) from None
    except Exception as error:
        if assigned is not None:
            sweep.record_failure(assigned, error)
        if isinstance(error, MwandaError):
            print(f"error: {error}", file=sys.stderr)
        if swept or not isinstance(error, MwandaError):
            raise
        raise SystemExit(error.exit_code) from None


@interruption.listening()
def run(
    config: dict[str, Any], folder: Path, overrides: list[str], names: Mapping[str, str], study: str | None = None
) -> dict[str, Any] | None:
    """Do what `config` says, leaving a record in `folder`; return results.json of `mode=run`.

    Raises:
        InputError: the configuration, the text or the model does not allow it; `folder` is left as it was.
        MwandaError: it went wrong on the way; results.json says `failed`.
    """
    from mwanda.display import inspection, quiet_libraries, summary

    quiet_libraries()
    parts = Parts.of(config if config["mode"] != "prepare" else elsewhere(config))
    config = schema.with_languages(config)  # the record says what a set came to
    world = distributed.join()
    if parts.inside is not None and world.size > 1:
        raise ConfigurationError("inside", names.get("inside", "full"), "looks in one process only", ["none"])
    if parts.settings.mode != "run":
        _remove_if_empty(folder)
        if world.first and parts.settings.mode == "prepare":
            _prepare(parts)
        elif world.first:
            inspection(parts.source, _memory_plan(parts))
        return None
    shared = Path(world.broadcast(str(folder.absolute())))
    if not world.first:
        logging.getLogger("mwanda").setLevel(logging.WARNING)
        parts = replace(parts, tracker=NoTracking())
        if shared != folder.absolute():
            _remove_if_empty(folder)  # Hydra has made one for each process
        folder = shared
    finished = _finished(config, folder, parts)
    world.barrier()  # nobody writes results before everybody has looked
    if finished is None:
        finished = _Run(config, parts, folder, overrides, names, study, world).go()
    if world.first:
        summary(finished, folder, parts.languages)
    return finished


def elsewhere(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a job that runs on a machine with other devices, as it can be checked here."""
    wants_gpu = config["model"].get("device") == "cuda"
    return config | {"model": config["model"] | {"device": "auto"}} if wants_gpu else config


def _memory_plan(parts: Parts) -> "memory.Plan":
    from mwanda import device, memory

    source, calibration, pruner = parts.source, parts.calibration, parts.pruner
    needs = parts.criterion.needs
    if pruner.order == "oneshot":  # one pass sees what both ask for
        needs |= parts.schedule.needs
    return memory.Plan(
        order=pruner.order,
        offload=source.offload,
        activations=pruner.activations,
        needs=needs,
        languages=len(parts.calibration_languages),
        tokens=calibration.most_tokens,
        batch_tokens=pruner.batch_size * calibration.length,
        dtype=source.torch_dtype(device.choose(source.device)),
    )


def _finished(config: Mapping[str, Any], folder: Path, parts: Parts) -> dict[str, Any] | None:
    """Return the results that `folder` holds already, if the user asks to go on there.

    Raises:
        ConfigurationError: the folder belongs to another run.
    """
    from mwanda.record import read_results

    found = read_results(folder)
    if found is None or found["status"] != "complete":
        if (folder / CHECKPOINT).is_dir() and not parts.settings.resume:
            raise ConfigurationError(
                "output_dir", folder, "holds an interrupted run; add resume=true, or choose another folder"
            )
        return None
    if not parts.settings.resume:
        raise ConfigurationError("output_dir", folder, "holds a finished run; choose another folder or add resume=true")
    if found["config_hash"] != schema.config_hash(config):
        raise ConfigurationError("output_dir", folder, "holds the results of another configuration")
    if parts.export is not None and not (folder / parts.export.name).exists():
        logger.info("%s is finished but lacks %s, and is run again", folder, parts.export.name)
        return None
    logger.info("%s is finished already", folder)
    for left in (CHECKPOINT, WORK):  # by a process that was killed between its results and its cleaning up
        shutil.rmtree(folder / left, ignore_errors=True)
    return found


def _prepare(parts: Parts) -> None:
    """Fetch model and text, so that jobs run with the hub off."""
    from mwanda.display import console

    calibration, evaluation = parts.text()
    if parts.harness is not None:
        parts.harness.load(parts.languages, parts.evaluation_corpus, parts.settings.seed)
    # A login node has little memory: every file is fetched, and the blocks are left on disk.
    loaded = replace(parts.source, device="cpu", offload="disk", device_map="none").load()  # type: ignore[type-var]
    parts.calibration.build(loaded.tokenizer, calibration)
    if parts.perplexity is not None:
        parts.perplexity.texts(loaded.tokenizer, evaluation)
    ready = f"ready: {loaded.id}, {len(parts.languages)} languages of {parts.corpus.name}"
    console().print(ready, markup=False, soft_wrap=True)


@dataclass
class _Run:
    config: dict[str, Any]
    parts: Parts
    folder: Path
    overrides: list[str]
    names: Mapping[str, str]
    study: str | None
    world: World

    def go(self) -> dict[str, Any]:
        from mwanda.record import write_difference, write_yaml

        existed = self.folder.is_dir() and any(self.folder.iterdir())
        self._results: dict[str, Any] = {}
        self._started, self._clock = datetime.now(UTC), perf_counter()
        self._reporter: Reporter | None = None
        self._timing = dict.fromkeys(("load", "calibrate", "schedule", "prune", "evaluate"), 0.0)
        self._throughput: dict[str, dict[str, float]] = {}
        log: logging.Handler = logging.NullHandler()
        failed, refused = True, False
        try:
            if self.world.first:
                self.folder.mkdir(parents=True, exist_ok=True)
                _remove_scratch(self.folder / WORK)
            self._reporter = self._report()
            if self.world.first:
                log = _log_to(self.folder / "run.log")
                write_yaml(self.folder / "config.yaml", self.config)
                write_yaml(self.folder / "overrides.yaml", self.overrides)
                write_difference(self.folder)
            checkpoint = self._work()
            self._write_results()
            self._reporter.end("complete")
            self._clean(checkpoint)
            failed = False
        except InputError as error:
            refused = True
            self._end("failed", error)
            raise
        except BaseException as error:
            if isinstance(error, interruption.Interrupted):
                logger.warning("interrupted by %s", error)
            else:
                _log_failure(log)
            failure = {"type": type(error).__name__, "message": str(error)}
            self._results |= self._frame("failed") | {"error": failure}
            self._write_results()
            self._end("failed" if isinstance(error, Exception) else "interrupted", error)
            raise
        finally:
            self._close(log, failed=failed)
            # Of a job of a sweep the folder stays: it says why there are no results.
            if refused and not existed and self.world.first and self.study is None:
                shutil.rmtree(self.folder, ignore_errors=True)
                with suppress(OSError):  # the folder of the day, when nothing else is in it
                    self.folder.parent.rmdir()
        return self._results

    def _write_losses(self, measured: Mapping[str, Mapping[str, LanguagePerplexity]]) -> None:
        from mwanda.evaluation.sentence_losses import FILE, write_sentence_losses

        if measured and self.world.first:
            units = {which: {code: one.losses for code, one in each.items()} for which, each in measured.items()}
            write_sentence_losses(self.folder / FILE, units)

    def _write_results(self) -> None:
        from mwanda.record import RESULTS, write_json

        if self.world.first:
            write_json(self.folder / RESULTS, self._results)

    def _report(self) -> Reporter:
        place = self.folder if self.world.first else None
        return Reporter(place, schema.config_hash(self.config), self.overrides, str(self.config["name"]))

    def _end(self, state: State, error: BaseException) -> None:
        if self._reporter is not None:
            self._reporter.end(state, error)

    def _clean(self, checkpoint: "RunCheckpoint | None") -> None:
        """Remove what is there to resume the run, now that its results are written."""
        if checkpoint is not None:
            checkpoint.discard()
        if self.world.first:
            shutil.rmtree(self.folder / WORK, ignore_errors=True)

    def _close(self, log: logging.Handler, *, failed: bool) -> None:
        from mwanda import device

        self.parts.tracker.finish(failed=failed)
        logging.getLogger("mwanda").removeHandler(log)
        log.close()
        device.release()

    def _work(self) -> "RunCheckpoint | None":
        from mwanda import device, record
        from mwanda.artifacts import text_digest
        from mwanda.models import blocks_of
        from mwanda.progress import Silent, Terminal

        parts, seed = self.parts, self.parts.settings.seed
        assert self._reporter is not None
        reporter = self._reporter
        self._progress = Watched(Terminal() if self.world.first else Silent(), reporter)
        reporter.stage("load")
        _seed_everything(seed)
        logger.info("reading %d languages of %s", len(parts.languages), parts.corpus.name)
        asked = schema.selection(parts.settings.langs)
        if asked.available:
            logger.info("%d of the %d languages of the set have text", len(parts.languages), len(asked.named()))
        silent = len({each.code for each in parts.languages} - {each.code for each in parts.calibration_languages})
        if silent:
            logger.info("%d of them give no calibration text", silent)
        calibration_text, evaluation_text = parts.text()
        tokenizer = self._timed("load", parts.source.load_tokenizer)
        # Several processes would have to find the same, or to wait for each other.
        shared = parts.settings.artifacts and self.world.size == 1
        self._artifacts = self._timed("load", lambda: reuse.artifact_cache(parts.source, use=shared))
        calibration = reuse.calibration_set(self._artifacts, parts.calibration, tokenizer, calibration_text)
        if parts.calibration.sampling == "equal" and calibration.count != parts.calibration.sequences:
            logger.info("%d sequences: the same number of each language", calibration.count)
        texts = parts.perplexity.texts(tokenizer, evaluation_text) if parts.perplexity else {}
        tasks: list[Task] = []
        if parts.harness is not None:
            logger.info("loading tasks: %s", ", ".join(parts.harness.tasks))
            tasks = parts.harness.load(parts.languages, parts.evaluation_corpus, seed)
        self._check_model()
        logger.info("loading %s", parts.source.path)
        loaded = self._timed("load", lambda: parts.source.load(self.folder / WORK))
        loaded.work_in(self.folder / WORK)
        checkpoint = self._run_checkpoint(calibration.fingerprint())
        blocks = blocks_of(loaded.model)  # what cannot be pruned as asked is refused before minutes of evaluation
        check_blocks(blocks, parts.pattern, parts.criterion.group, parts.settings.sparsity, loaded.weights)
        logger.info("%d blocks, %d prunable weights", len(blocks), sum(block.size for block in blocks))
        device.reset_peak(loaded.device)
        self._results = self._frame("running") | {
            "seed": seed,
            "environment": record.environment(device.describe(loaded.device)),
            "fingerprints": {
                "model": parts.source.fingerprint(),
                "calibration_text": text_digest(calibration_text),
                "evaluation_text": text_digest(evaluation_text),
                "blocks": calibration.fingerprint(),
            },
        }
        parts.tracker.start(self._identity(), self.config)

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
                scratch=self.folder / WORK,
                progress=self._progress,
            ),
        )
        self._timing |= report.seconds
        self._evaluate("pruned", loaded, texts, tasks, measured, scores)
        self._results |= self._sections(loaded, calibration, report, measured)
        self._results["evaluation"] = self._throughput
        self._write_losses(measured)
        if observation is not None:
            found = self._timed("inside", observation.finish)
            self._results["inside"] = found.write(self.folder / "inside")
        if parts.harness is not None:
            self._results["tasks"] = parts.harness.as_record(tasks, scores, seed)
        if parts.export is not None and self.world.first:
            reporter.stage("export")
            self._results["export"] = str(parts.export.write(loaded, self._results, self.folder).name)
        self.world.barrier()
        self._results |= self._frame("complete")
        self._results["memory"] = {
            "peak_rss_bytes": device.peak_resident_bytes(),
            "peak_device_bytes": device.peak_device_bytes(loaded.device),
        }
        self._results["artifacts"] = {"reused": self._artifacts.reused, "made": self._artifacts.made}
        for stage, seconds in self._results["timing"].items():
            parts.tracker.log_stage(stage, seconds)
        parts.tracker.log_results(self._results)
        return checkpoint

    def _check_model(self) -> None:
        """Refuse, before any weight is loaded, what this machine or this kind of model does not allow."""
        from mwanda import device, memory
        from mwanda.models import blocks_of
        from mwanda.models.forward import is_causal

        parts, source = self.parts, self.parts.source
        if source.device_map == "auto" and self.world.size > 1:
            raise ConfigurationError(
                "model.device_map", "auto", "gives one process all GPUs, so that several cannot share them", ["none"]
            )
        config = source.load_config()
        if parts.evaluation is not None and not is_causal(config):
            raise ConfigurationError(
                "evaluation",
                self.names.get("evaluation", type(parts.evaluation).__name__.lower()),
                f"{source.path} does not predict a token from those before it alone, and has no perplexity",
                ["none"],
            )
        skeleton, spread = source.skeleton(config), source.device_map == "auto"
        free = device.available_bytes(device.choose(source.device), every=spread)
        logger.info(memory.check(skeleton, blocks_of(skeleton), _memory_plan(parts), free))

    def _run_checkpoint(self, fingerprint: str) -> "RunCheckpoint | None":
        from mwanda.pruner.run_checkpoint import RunCheckpoint

        if not self.parts.pruner.checkpoint:
            return None
        key = f"{schema.exact_hash(self.config)}-{fingerprint}"
        return RunCheckpoint(self.folder / CHECKPOINT, key, self.world)

    def _evaluate(
        self,
        which: str,
        loaded: "LoadedModel",
        texts: "Mapping[str, Text]",
        tasks: "list[Task]",
        measured: dict[str, dict[str, LanguagePerplexity]],
        scores: "dict[str, Scores]",
        checkpoint: "RunCheckpoint | None" = None,
    ) -> None:
        from mwanda.models import blocks_of
        from mwanda.models.streaming import fetched_on_call
        from mwanda.models.weights import Resident

        perplexity, harness, seed = self.parts.perplexity, self.parts.harness, self.parts.settings.seed
        title = f"evaluate {which}"
        if perplexity is None and harness is None:
            return
        logger.info("evaluating the %s model", which)
        noted = checkpoint.noted(which) if checkpoint is not None else None
        if perplexity is not None and noted is not None:
            logger.info("taken from %s", CHECKPOINT)
            measured[which] = {code: LanguagePerplexity(**each) for code, each in json.loads(noted).items()}
        elif perplexity is not None:

            def measure() -> dict[str, LanguagePerplexity]:
                start = perf_counter()
                found = perplexity.measure(
                    loaded.model, loaded.tokenizer, texts, self._progress, title, seed, loaded.weights, self.world
                )
                self._throughput[which] = _throughput(found, perf_counter() - start)
                return found

            def take_or_measure() -> dict[str, LanguagePerplexity]:
                return reuse.dense_perplexity(self._artifacts, perplexity, texts, seed, measure)

            measured[which] = self._timed("evaluate", take_or_measure if which == "dense" else measure)
            if checkpoint is not None:
                # As a text, which unlike a record can hold infinity.
                checkpoint.note(which, json.dumps({code: asdict(each) for code, each in measured[which].items()}))
        if harness is not None:
            resident = isinstance(loaded.weights, Resident)

            def score() -> "Scores":
                with nullcontext() if resident else fetched_on_call(loaded.weights, blocks_of(loaded.model)):
                    return harness.score(loaded.model, loaded.tokenizer, tasks, self._progress, title, seed, self.world)

            def take_or_score() -> "Scores":
                return reuse.dense_scores(self._artifacts, harness, tasks, seed, score)

            scores[which] = self._timed("evaluate", take_or_score if which == "dense" else score)

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
        start = perf_counter()
        try:
            return work()
        finally:
            self._timing[stage] = self._timing.get(stage, 0.0) + perf_counter() - start

    def _identity(self) -> RunIdentity:
        tags = [self.names[group] for group in ("model", "criterion", "schedule", "pattern") if group in self.names]
        name = str(self.config["name"])
        return RunIdentity(self._run_id, name, self.study, "run", tuple(tags), self.folder)

    @property
    def _run_id(self) -> str:
        """The same for every attempt of one job in one folder, so that a tracker goes on with its run."""
        place = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()
        return f"{schema.config_hash(self.config)[:8]}-{place[:8]}"

    def _frame(self, status: str) -> dict[str, Any]:
        from mwanda.record import SCHEMA

        return {
            "schema": SCHEMA,
            "status": status,
            "run_id": self._run_id,
            "config_hash": schema.config_hash(self.config),
            "config_hash_without_seed": schema.config_hash(self.config, seed=False),
            "seed": self.parts.settings.seed,
            "started": self._started.isoformat(timespec="seconds"),
            "finished": None if status == "running" else datetime.now(UTC).isoformat(timespec="seconds"),
            "timing": self._timing | {"total": perf_counter() - self._clock},
        }

    def _sections(
        self,
        loaded: "LoadedModel",
        calibration: "CalibrationSet",
        report: "PruningReport",
        measured: Mapping[str, Mapping[str, LanguagePerplexity]],
    ) -> dict[str, Any]:
        from mwanda.models import blocks_of
        from mwanda.models.left_dense import left_dense

        parts = self.parts
        names = [type(part).__name__.lower() for part in (parts.criterion, parts.schedule)]
        parameters = {id(parameter): parameter.numel() for parameter in loaded.model.parameters()}
        return {
            "model": {
                "id": loaded.id,
                "revision": loaded.revision,
                "class": type(loaded.model).__name__,
                "parameters": sum(parameters.values()),
                "prunable_parameters": sum(plan.shape[0] * plan.shape[1] for plan in report.plans),
                "zeros_before": sum(plan.zeros_before for plan in report.plans),
                "left_dense": [
                    {"what": what, "weights": count}
                    for what, count in left_dense(loaded.model, blocks_of(loaded.model)).items()
                ],
            },
            "languages": {
                "set": self.names.get("langs"),
                "codes": [language.code for language in parts.languages],
            },
            "criterion": {"name": self.names.get("criterion", names[0]), "settings": self.config["criterion"]},
            "sparsity": _sparsity(report, parts.settings.sparsity, parts.pattern.name),
            "calibration": {
                "corpus": parts.corpus.name,
                "sequences": calibration.count,
                "length": calibration.length,
                "tokens": sum(calibration.tokens_per_language.values()),
                "tokens_per_language": calibration.tokens_per_language,
                "packing": calibration.packing,
                "sampling": parts.calibration.sampling,
                "mix": parts.calibration.mix,
                "order": report.order,
                "fingerprint": calibration.fingerprint(),
            },
            "schedule": {
                "name": self.names.get("schedule", names[1]),
                "signal": [list(each) for each in report.signals],
            },
            "perplexity": self._perplexity(measured, calibration),
            "tasks": {},
        }

    def _perplexity(
        self, measured: Mapping[str, Mapping[str, LanguagePerplexity]], calibration: "CalibrationSet"
    ) -> dict[str, Any]:
        from mwanda.evaluation.perplexity import as_record

        perplexity, languages = self.parts.perplexity, self.parts.languages
        if not measured or perplexity is None:
            return {}
        dense, pruned = ({code: one.losses for code, one in measured[which].items()} for which in ("dense", "pruned"))
        comparison = compare(dense, pruned, perplexity.resamples, self.parts.settings.seed)
        seen = [code for code, tokens in calibration.tokens_per_language.items() if tokens]
        return {
            "protocol": perplexity.definition.as_record() | {"corpus": self.parts.evaluation_corpus.name},
            **{which: as_record(one) for which, one in measured.items()},
            "paired": comparison.as_record(),
            "aggregate": {
                **{which: aggregate(one, languages) for which, one in measured.items()},
                "paired": aggregate_change(comparison, languages, seen),
            },
        }


def _throughput(measured: Mapping[str, LanguagePerplexity], seconds: float) -> dict[str, float]:
    tokens = sum(one.tokens for one in measured.values())
    return {"tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds}


def _sparsity(report: "PruningReport", target: float, pattern: str) -> dict[str, Any]:
    sizes = [plan.shape[0] * plan.shape[1] for plan in report.plans]
    layers = []
    for layer, wanted in enumerate(report.sparsities):
        inside = [(plan, size) for plan, size in zip(report.plans, sizes, strict=True) if plan.block == layer]
        achieved = sum(plan.zeros for plan, _ in inside) / sum(size for _, size in inside)
        layers.append({"layer": layer, "target": wanted, "achieved": achieved})
    return {
        "target": target,
        "achieved": sum(plan.zeros for plan in report.plans) / sum(sizes),
        "pattern": pattern,
        "masks": hashlib.sha256("".join(f"{plan.name}:{plan.mask}" for plan in report.plans).encode()).hexdigest()[:16],
        "per_layer": layers,
        "per_matrix": [
            {
                "name": plan.name,
                "shape": list(plan.shape),
                "zeros": plan.zeros,
                "zeros_before": plan.zeros_before,
                "mask": plan.mask,
            }
            for plan in report.plans
        ],
    }


def _seed_everything(seed: int) -> None:
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _log_to(path: Path) -> logging.Handler:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("mwanda")
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    return handler


def _log_failure(handler: logging.Handler) -> None:
    """Write the traceback to run.log alone: whoever catches the error decides what the terminal shows."""
    values: dict[str, Any] = {"name": logger.name, "levelno": logging.ERROR, "levelname": "ERROR"}
    handler.handle(logging.makeLogRecord(values | {"msg": "the run failed", "exc_info": sys.exc_info()}))


def _remove_scratch(folder: Path) -> None:
    """Remove what an attempt that was killed has left of its own; pruned blocks are taken up again, and stay."""
    from mwanda.models.source import UNPACKED
    from mwanda.pruner.offloading import OFFLOADED

    for prefix in (UNPACKED, OFFLOADED):
        for left in folder.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)


def _remove_if_empty(folder: Path) -> None:
    """Remove the folders that Hydra made for a mode that leaves nothing."""
    for each in (folder, folder.parent):
        try:
            each.rmdir()
        except OSError:
            return
