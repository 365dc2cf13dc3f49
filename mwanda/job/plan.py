"""What `mode=plan` does: predict what pruning would cost each language, from gradients of the dense model."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from mwanda.config.identity import RunSpec
from mwanda.errors import ConfigurationError
from mwanda.job import reuse
from mwanda.job.components import Parts
from mwanda.job.folder import WORK, remove_if_empty
from mwanda.job.modes import LABELS, check_memory, check_text
from mwanda.system.distributed import World
from mwanda.system.files import write_json
from mwanda.system.terminal import console, number


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mwanda.pruner.damage import Sample
    from mwanda.pruner.damage.prediction import Prediction
    from mwanda.pruner.forecast import Forecast


FILE = "plan.json"
SCHEMA = "mwanda.plan/1"
LEVELS = (0.3, 0.5, 0.7)


@dataclass(frozen=True)
class Planned:
    """What is predicted, as plan.json has it.

    Args:
        sparsities: over all prunable weights.
        languages: for each language that gives calibration text, and each sparsity, the log-ratio of the losses in nats
            a token, and the ends of its interval.
        limit: the log-ratio that is not to be exceeded.
        language: the only language that counts, or None for all.
        within: the largest sparsity at which none that counts is predicted to lose more; None where there is none.
        surely_within: the same by the upper ends of the intervals.
    """

    sparsities: tuple[float, ...]
    languages: dict[str, list[dict[str, float]]]
    limit: float
    language: str | None
    within: float | None
    surely_within: float | None


def plan(spec: RunSpec, parts: Parts, world: World) -> Planned:
    """Predict, print a table, and write plan.json to the folder of the run.

    Raises:
        InputError: the model has no language model's loss, or `plan.language` gives no calibration text.
    """
    from mwanda.pruner.damage.measure import check_causal

    settings = spec.settings.plan
    codes = [language.code for language in parts.calibration_languages]
    if settings.language is not None and settings.language not in codes:
        raise ConfigurationError("plan.language", settings.language, "gives no calibration text", codes)
    config = parts.source.load_config()
    check_causal(config, "mode", "plan", ["run"])
    skeleton = check_memory(parts, config)
    try:
        found = _predicted(spec, parts, world, codes, skeleton)
        world.barrier()  # the folder may be that of all processes, and some may still read from it
    finally:
        shutil.rmtree(spec.folder / WORK, ignore_errors=True)
        remove_if_empty(spec.folder)
    if world.first:
        spec.folder.mkdir(parents=True, exist_ok=True)
        write_json(spec.folder / FILE, {"schema": SCHEMA, **asdict(found)})
        _show(found, parts, spec.folder / FILE)
    return found


def _predicted(spec: RunSpec, parts: Parts, world: World, codes: list[str], skeleton: "PreTrainedModel") -> Planned:
    settings = spec.settings.plan
    fixed = parts.pattern.fixed_sparsity()
    sparsities = tuple(settings.sparsities) if fixed is None else (fixed,)
    forecast = _forecast(spec, parts, world, min(sparsities), skeleton)
    rows = [_row(forecast.at(sparsity)) for sparsity in sparsities]
    languages = {code: [row[place] for row in rows] for place, code in enumerate(codes)}
    place = None if settings.language is None else codes.index(settings.language)
    within, surely = (
        forecast.largest_within(settings.limit, place, surely=surely) if fixed is None else None
        for surely in (False, True)
    )
    return Planned(sparsities, languages, settings.limit, settings.language, within, surely)


def _forecast(spec: RunSpec, parts: Parts, world: World, lowest: float, skeleton: "PreTrainedModel") -> "Forecast":
    from mwanda.pruner.forecast import forecast
    from mwanda.pruner.passes import Passes
    from mwanda.pruner.runtime import Runtime
    from mwanda.system.progress import Silent, Terminal

    tokenizer = parts.source.load_tokenizer()
    cache = reuse.artifact_cache(parts.source, use=parts.settings.artifacts and world.size == 1)
    calibration = reuse.calibration_set(cache, parts.calibration, tokenizer, parts.text().calibration)
    check_text(parts, skeleton, tokenizer, calibration, {})
    work = spec.folder / WORK
    loaded = parts.source.load(work)
    loaded.work_in(work)
    runtime = Runtime(
        weights=loaded.weights,
        world=world,
        artifacts=cache,
        scratch=work,
        progress=Terminal() if world.first else Silent(),
    )
    passes = Passes.of(loaded.model, calibration, parts.pruner.of_passes, runtime)
    return forecast(passes, parts.method, parts.schedule, parts.pattern, _sample(spec, parts), lowest)


def _sample(spec: RunSpec, parts: Parts) -> "Sample":
    """Return what gradients are taken of: more than for a schedule, as each language is told by itself."""
    from mwanda.pruner.damage import Sample
    from mwanda.pruner.pre_pass import spreads_rows
    from mwanda.schedules.base import Information, LooksAtGradients

    own = parts.schedule if isinstance(parts.schedule, LooksAtGradients) else None
    fixed = parts.pattern.fixed_sparsity()
    levels = (fixed,) if fixed is not None else own.levels if own is not None else LEVELS
    labels = own.labels if own is not None else LABELS
    settings = spec.settings.plan
    information: Information = own.information if own is not None else "diagonal"
    rows = own is not None and fixed is None and spreads_rows(own, parts.method)
    return Sample(levels, settings.fraction, labels, settings.draws, spec.settings.seed, information, rows)


def _row(prediction: "Prediction") -> list[dict[str, float]]:
    columns = {name: getattr(prediction, name).tolist() for name in ("log_ratio", "low", "high")}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _show(found: Planned, parts: Parts, file: Path) -> None:
    names = {language.code: language.name for language in parts.calibration_languages}
    table = Table(title="Predicted log-ratio of the loss, nats a token (95 % interval of the draws)")
    table.add_column("language")
    for sparsity in found.sparsities:
        table.add_column(f"{sparsity:g}", justify="right")
    for code in sorted(found.languages, key=lambda each: found.languages[each][-1]["log_ratio"]):
        cells = [f"{number(c['log_ratio'])} ({number(c['low'])}–{number(c['high'])})" for c in found.languages[code]]
        table.add_row(f"{code}  {names[code]}", *cells)
    table.add_section()
    columns = list(zip(*([cell["log_ratio"] for cell in row] for row in found.languages.values()), strict=True))
    table.add_row("[bold]mean[/]", *(number(sum(column) / len(column)) for column in columns))
    table.add_row("[bold]worst[/]", *(number(max(column)) for column in columns))
    out = console()
    out.print(table)
    who = "no language" if found.language is None else found.language
    negated = "is" if found.language is None else "is not"
    for largest, by in ((found.within, ""), (found.surely_within, ", by the upper ends of the intervals")):
        told = "none" if largest is None else f"{largest:.3f}"
        line = f"largest sparsity at which {who} {negated} predicted to lose more than {found.limit:g}{by}: {told}"
        out.print(line, markup=False, soft_wrap=True)
    out.print(f"plan: {file}", markup=False, soft_wrap=True)
