"""The life of a run: its folder, its status, its log and its results, whatever becomes of the work."""

import logging
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, cast

from mwanda.config.identity import RunSpec
from mwanda.errors import ConfigurationError, InputError
from mwanda.job import results, sections
from mwanda.job.claim import claim
from mwanda.job.components import Parts
from mwanda.job.folder import finished_results, log_failure, log_to, remove_if_empty, remove_progress
from mwanda.job.inspection import inspection
from mwanda.job.modes import memory_plan, prepare
from mwanda.job.pipeline import Pipeline
from mwanda.job.plan import plan
from mwanda.job.record import Results
from mwanda.job.status import Reporter, TakenError
from mwanda.job.summary import summary
from mwanda.system import distributed, interruption
from mwanda.system.distributed import World
from mwanda.system.environment import write_difference
from mwanda.system.files import disk_problem, write_yaml
from mwanda.system.terminal import quiet_libraries
from mwanda.tracking.none import NoTracking


logger = logging.getLogger(__name__)


@interruption.listening()
def run(spec: RunSpec) -> Results | None:
    """Do what was asked for, leaving a record in its folder; return results.json of `mode=run`.

    Raises:
        InputError: the configuration, the text or the model does not allow it; the folder is left as it was.
        MwandaError: the run failed; results.json says `failed`.
    """
    quiet_libraries()
    parts = Parts.of(spec)
    world = distributed.join()
    if parts.inside is not None and world.size > 1:
        raise ConfigurationError("inside", spec.choice("inside", parts.inside), "looks in one process only", ["none"])
    if spec.settings.mode == "plan":
        plan(spec, parts, world)
        return None
    if spec.settings.mode != "run":
        if world.first and spec.settings.mode == "prepare":
            prepare(parts)
        elif world.first:
            inspection(parts.source, memory_plan(parts))
        return None
    shared = Path(world.broadcast(str(spec.folder)))
    if not world.first:
        logging.getLogger("mwanda").setLevel(logging.WARNING)
        parts = replace(parts, tracker=NoTracking())
        if shared != spec.folder:
            remove_if_empty(spec.folder)  # Hydra has made one for each process
        spec = replace(spec, folder=shared)
    with _claim(spec, world):
        record = finished_results(spec, parts)
        world.barrier()  # nobody writes results before everybody has looked
        if record is None:
            record = _Life(spec, parts, world).live()
    if world.first:
        summary(record, spec.folder, parts.languages)
    return record


def _claim(spec: RunSpec, world: World) -> AbstractContextManager[Any]:
    """Have the first process take the folder; where it may not, none goes on."""
    if world.size == 1:
        return claim(spec.folder, stays=spec.study is not None)
    claimed: AbstractContextManager[Any] = nullcontext()
    refusal: ConfigurationError | None = None
    if world.first:
        try:
            claimed = claim(spec.folder, stays=spec.study is not None)
        except ConfigurationError as error:
            refusal = error
    said = world.broadcast("" if refusal is None else str(refusal))
    if refusal is not None:
        raise refusal
    if said:
        raise InputError(said)
    return claimed


@dataclass
class _Life:
    spec: RunSpec
    parts: Parts
    world: World

    def live(self) -> Results:
        """Do the work; whatever becomes of it, leave a record and a status that say so."""
        from mwanda.system import device

        spec, folder = self.spec, self.spec.folder
        self._started, self._clock = datetime.now(UTC), perf_counter()
        self._pipeline: Pipeline | None = None
        reporter: Reporter | None = None
        log: logging.Handler = logging.NullHandler()
        failed = True
        try:
            reporter, log = self._begin()
            self._pipeline = Pipeline(spec, self.parts, self.world, reporter)
            checkpoint = self._pipeline.work()
            record = self._record("complete")
            self._tell_tracker(record)
            reporter.end("complete")
            if checkpoint is not None:
                checkpoint.discard()
            if self.world.first:
                remove_progress(folder)
            failed = False
        except TakenError:
            raise
        except InputError as error:
            if reporter is not None:
                reporter.end("failed", error)
            raise
        except BaseException as error:
            if isinstance(error, interruption.Interrupted):
                logger.warning("interrupted by %s", error)
            else:
                log_failure(log)
            with suppress(OSError):  # of the disk that ended it, perhaps; that is what must be told
                self._record("failed", error={"type": type(error).__name__, "message": str(error)})
            if reporter is not None:
                reporter.end("failed" if isinstance(error, Exception) else "interrupted", error)
            raise
        finally:
            self.parts.tracker.finish(failed=failed)
            logging.getLogger("mwanda").removeHandler(log)
            log.close()
            device.release()
        return record

    def _begin(self) -> tuple[Reporter, logging.Handler]:
        """Write what is known before the work begins.

        Raises:
            ConfigurationError: the folder cannot be written.
        """
        spec, folder = self.spec, self.spec.folder
        place = folder if self.world.first else None
        log: logging.Handler = logging.NullHandler()
        try:
            reporter = Reporter(place, spec.config_hash, spec.overrides, spec.settings.name)
            if self.world.first:
                log = log_to(folder / "run.log")
                write_yaml(folder / "config.yaml", dict(spec.config))
                write_yaml(folder / "overrides.yaml", list(spec.overrides))
                write_difference(folder)
        except OSError as error:
            logging.getLogger("mwanda").removeHandler(log)
            problem = disk_problem(error)
            if problem is None:
                raise
            raise ConfigurationError(
                "output_dir", folder, f"cannot be written ({problem}); choose another folder"
            ) from None
        return reporter, log

    def _record(self, status: str, **more: Any) -> Results:
        """Write and return results.json with all that is known by now."""
        pipeline = self._pipeline
        seconds = pipeline.seconds if pipeline is not None else {}
        timing = {**seconds, "total": perf_counter() - self._clock}
        known = pipeline.record if pipeline is not None else {}
        record = cast("Results", {**sections.frame(self.spec, status, self._started, timing), **known, **more})
        if self.world.first:
            results.write_results(self.spec.folder, record)
        return record

    def _tell_tracker(self, record: Results) -> None:
        for stage, seconds in record["timing"].items():
            self.parts.tracker.log_stage(stage, seconds)
        self.parts.tracker.log_results(record)
