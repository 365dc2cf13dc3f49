"""What results.json says of a run, section by section; mwanda.job.record has the types."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from mwanda.config.identity import RunSpec
from mwanda.evaluation.aggregate import aggregate, aggregate_change
from mwanda.evaluation.finite import overflows
from mwanda.evaluation.perplexity import LanguagePerplexity, as_record
from mwanda.evaluation.significance import compare
from mwanda.job.components import Parts
from mwanda.job.record import Block, Frame, Matrix, Model, Perplexity, Schedule, Sections, Sparsity
from mwanda.job.results import SCHEMA
from mwanda.languages.groups import calibrated
from mwanda.models import blocks_of
from mwanda.models.left_dense import left_dense


if TYPE_CHECKING:
    from mwanda.calibration import CalibrationSet
    from mwanda.models import LoadedModel
    from mwanda.pruner import PruningReport
    from mwanda.pruner.audit import MatrixPlan


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run: the pruned model, its calibration set, the report and the perplexities.

    Args:
        loaded: the model, pruned by now.
        calibration: what it was calibrated on.
        report: what was done to each matrix.
        measured: `dense` and `pruned`, the perplexity of each language; empty where none was measured.
        dropped: how many calibration lines of each language were left out, as evaluation text holds them.
    """

    loaded: "LoadedModel"
    calibration: "CalibrationSet"
    report: "PruningReport"
    measured: Mapping[str, Mapping[str, LanguagePerplexity]]
    dropped: Mapping[str, int]


def run_id(spec: RunSpec) -> str:
    """Return what a tracker knows the run by: the same for every attempt of one job in one folder."""
    place = hashlib.sha256(str(spec.folder.resolve()).encode()).hexdigest()
    return f"{spec.config_hash[:8]}-{place[:8]}"


def tags(spec: RunSpec) -> list[str]:
    """Return what a tracker can filter a run by."""
    groups = ("model", "criterion", "solver", "schedule", "pattern")
    return [spec.choices[group] for group in groups if group in spec.choices]


def frame(spec: RunSpec, status: str, started: datetime, timing: Mapping[str, float]) -> Frame:
    """Return what results.json begins with, whatever became of the run."""
    return {
        "schema": SCHEMA,
        "status": status,
        "run_id": run_id(spec),
        "group": spec.study,
        "tags": tags(spec),
        "config_hash": spec.config_hash,
        "config_hash_without_seed": spec.config_hash_without_seed,
        "seed": spec.settings.seed,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "timing": dict(timing),
    }


def sections(spec: RunSpec, parts: Parts, outcome: Outcome) -> Sections:
    """Return what results.json says of model, languages, pruning and perplexity."""
    calibration, report = outcome.calibration, outcome.report
    return {
        "model": _model(outcome),
        "languages": {
            "set": spec.choices.get("langs"),
            "codes": [language.code for language in parts.languages],
        },
        "criterion": {"name": spec.choice("criterion", parts.criterion), "settings": spec.config["criterion"]},
        "solver": {"name": spec.choice("solver", parts.method.solver), "settings": spec.settings.solver},
        "sparsity": _sparsity(report, parts),
        "calibration": {
            "corpus": parts.corpus.name,
            "sequences": calibration.count,
            "length": calibration.length,
            "tokens": sum(calibration.tokens_per_language.values()),
            "tokens_per_language": calibration.tokens_per_language,
            "packing": calibration.packing,
            "sampling": parts.calibration.sampling,
            "mix": parts.calibration.mix,
            "weights": parts.calibration.weights,
            "unit_tokens": parts.calibration.unit_tokens,
            "moment_share": parts.calibration.moment_share,
            "order": report.order,
            "fingerprint": calibration.fingerprint(),
            "overlap": {"drop": parts.corpus.drop_overlap, "dropped": dict(outcome.dropped)},
        },
        "schedule": _schedule(spec, parts, report),
        "perplexity": _perplexity(parts, outcome),
        "tasks": {},
    }


def _model(outcome: Outcome) -> Model:
    model, plans = outcome.loaded.model, outcome.report.plans
    parameters = {id(parameter): parameter.numel() for parameter in model.parameters()}
    return {
        "id": outcome.loaded.id,
        "revision": outcome.loaded.revision,
        "class": type(model).__name__,
        "parameters": sum(parameters.values()),
        "prunable_parameters": sum(plan.shape[0] * plan.shape[1] for plan in plans),
        "zeros_before": sum(plan.zeros_before for plan in plans),
        "left_dense": [{"what": what, "weights": count} for what, count in left_dense(model, blocks_of(model)).items()],
    }


def _schedule(spec: RunSpec, parts: Parts, report: "PruningReport") -> Schedule:
    found: Schedule = {
        "name": spec.choice("schedule", parts.schedule),
        "signal": [list(each) for each in report.signals],
    }
    if parts.schedule.level == "matrix":
        found["level"] = "matrix"
    return found


def _perplexity(parts: Parts, outcome: Outcome) -> Perplexity:
    perplexity, measured = parts.perplexity, outcome.measured
    if not measured or perplexity is None:
        return {}
    dense, pruned = ({code: one.losses for code, one in measured[which].items()} for which in ("dense", "pruned"))
    comparison = compare(dense, pruned, perplexity.resamples, parts.settings.seed)
    seen = calibrated(outcome.calibration.tokens_per_language)
    found = {
        "protocol": perplexity.definition.as_record() | {"corpus": parts.evaluation_corpus.name},
        **{which: as_record(one) for which, one in measured.items()},
        "overflowed": [code for code, losses in pruned.items() if overflows(losses)],
        "paired": comparison.as_record(),
        "aggregate": {
            **{which: aggregate(one, parts.languages) for which, one in measured.items()},
            "paired": aggregate_change(comparison, parts.languages, seen),
        },
    }
    return cast("Perplexity", found)  # by evaluation, which knows no types of records


def _sparsity(report: "PruningReport", parts: Parts) -> Sparsity:
    sizes = [plan.shape[0] * plan.shape[1] for plan in report.plans]
    layers: list[Block] = []
    for layer, wanted in enumerate(report.sparsities):
        inside = [(plan, size) for plan, size in zip(report.plans, sizes, strict=True) if plan.block == layer]
        achieved = sum(plan.zeros for plan, _ in inside) / sum(size for _, size in inside)
        layers.append({"layer": layer, "target": wanted, "achieved": achieved})
    return {
        "target": parts.settings.sparsity,
        "achieved": sum(plan.zeros for plan in report.plans) / sum(sizes),
        "pattern": parts.pattern.name,
        "masks": hashlib.sha256("".join(f"{plan.name}:{plan.mask}" for plan in report.plans).encode()).hexdigest()[:16],
        "fuller_cells": report.fuller_cells,
        "per_layer": layers,
        "per_matrix": [_matrix(plan, by_matrix=parts.schedule.level == "matrix") for plan in report.plans],
    }


def _matrix(plan: "MatrixPlan", *, by_matrix: bool) -> Matrix:
    record: Matrix = {
        "name": plan.name,
        "shape": list(plan.shape),
        "zeros": plan.zeros,
        "zeros_before": plan.zeros_before,
        "mask": plan.mask,
    }
    if by_matrix:
        record["target"] = plan.target
    return record
