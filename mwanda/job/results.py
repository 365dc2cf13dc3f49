"""results.json: its sections, made, written and read here alone."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mwanda.config.identity import RunSpec
from mwanda.evaluation import LanguagePerplexity, aggregate, aggregate_change, compare
from mwanda.evaluation.finite import overflows
from mwanda.evaluation.perplexity import as_record
from mwanda.job.components import Parts
from mwanda.job.record import read_record
from mwanda.languages.groups import calibrated
from mwanda.system.files import write_json


if TYPE_CHECKING:
    from mwanda.calibration import CalibrationSet
    from mwanda.models import LoadedModel
    from mwanda.pruner import PruningReport


SCHEMA_FAMILY = "mwanda.results/"
SCHEMA = f"{SCHEMA_FAMILY}1"
RESULTS = "results.json"


@dataclass(frozen=True)
class Outcome:
    """What a run has come to.

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


def read_results(folder: Path) -> dict[str, Any] | None:
    """Return the results that a folder holds, if any.

    Raises:
        RecordError: what it holds is damaged.
    """
    path = folder / RESULTS
    return read_record(path) if path.is_file() else None


def write_results(folder: Path, record: Mapping[str, Any]) -> None:
    """Write results.json, whole or not at all."""
    write_json(folder / RESULTS, record)


def run_id(spec: RunSpec) -> str:
    """Return what a tracker knows the run by: the same for every attempt of one job in one folder."""
    place = hashlib.sha256(str(spec.folder.resolve()).encode()).hexdigest()
    return f"{spec.config_hash[:8]}-{place[:8]}"


def frame(spec: RunSpec, status: str, started: datetime, timing: Mapping[str, float]) -> dict[str, Any]:
    """Return what results.json begins with, whatever became of the run."""
    return {
        "schema": SCHEMA,
        "status": status,
        "run_id": run_id(spec),
        "config_hash": spec.config_hash,
        "config_hash_without_seed": spec.config_hash_without_seed,
        "seed": spec.settings.seed,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "timing": dict(timing),
    }


def sections(spec: RunSpec, parts: Parts, outcome: Outcome) -> dict[str, Any]:
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
            "order": report.order,
            "fingerprint": calibration.fingerprint(),
            "overlap": {"drop": parts.corpus.drop_overlap, "dropped": dict(outcome.dropped)},
        },
        "schedule": {
            "name": spec.choice("schedule", parts.schedule),
            "signal": [list(each) for each in report.signals],
            **({"level": "matrix"} if parts.schedule.level == "matrix" else {}),
        },
        "perplexity": _perplexity(parts, outcome),
        "tasks": {},
    }


def _model(outcome: Outcome) -> dict[str, Any]:
    model, plans = outcome.loaded.model, outcome.report.plans
    parameters = {id(parameter): parameter.numel() for parameter in model.parameters()}
    return {
        "id": outcome.loaded.id,
        "revision": outcome.loaded.revision,
        "class": type(model).__name__,
        "parameters": sum(parameters.values()),
        "prunable_parameters": sum(plan.shape[0] * plan.shape[1] for plan in plans),
        "zeros_before": sum(plan.zeros_before for plan in plans),
    }


def _perplexity(parts: Parts, outcome: Outcome) -> dict[str, Any]:
    perplexity, measured = parts.perplexity, outcome.measured
    if not measured or perplexity is None:
        return {}
    dense, pruned = ({code: one.losses for code, one in measured[which].items()} for which in ("dense", "pruned"))
    comparison = compare(dense, pruned, perplexity.resamples, parts.settings.seed)
    seen = calibrated(outcome.calibration.tokens_per_language)
    return {
        "protocol": perplexity.definition.as_record() | {"corpus": parts.evaluation_corpus.name},
        **{which: as_record(one) for which, one in measured.items()},
        "overflowed": [code for code, losses in pruned.items() if overflows(losses)],
        "paired": comparison.as_record(),
        "aggregate": {
            **{which: aggregate(one, parts.languages) for which, one in measured.items()},
            "paired": aggregate_change(comparison, parts.languages, seen),
        },
    }


def _sparsity(report: "PruningReport", parts: Parts) -> dict[str, Any]:
    sizes = [plan.shape[0] * plan.shape[1] for plan in report.plans]
    layers = []
    for layer, wanted in enumerate(report.sparsities):
        inside = [(plan, size) for plan, size in zip(report.plans, sizes, strict=True) if plan.block == layer]
        achieved = sum(plan.zeros for plan, _ in inside) / sum(size for _, size in inside)
        layers.append({"layer": layer, "target": wanted, "achieved": achieved})
    return {
        "target": parts.settings.sparsity,
        "achieved": sum(plan.zeros for plan in report.plans) / sum(sizes),
        "pattern": parts.pattern.name,
        "masks": hashlib.sha256("".join(f"{plan.name}:{plan.mask}" for plan in report.plans).encode()).hexdigest()[:16],
        "per_layer": layers,
        "per_matrix": [
            {
                "name": plan.name,
                "shape": list(plan.shape),
                "zeros": plan.zeros,
                "zeros_before": plan.zeros_before,
                "mask": plan.mask,
                **({"target": plan.target} if parts.schedule.level == "matrix" else {}),
            }
            for plan in report.plans
        ],
    }
