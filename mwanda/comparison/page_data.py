"""What report.html holds of the runs: plain values, from which the page makes its charts and tables alike."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mwanda.comparison.blocks import block_numbers
from mwanda.comparison.configurations import Configuration, language_of
from mwanda.comparison.finding import Candidate, findings, method, sparsity
from mwanda.comparison.pairs import Paired, paired
from mwanda.comparison.records import Run, Unfinished
from mwanda.comparison.tables import Section, partners
from mwanda.comparison.tidy import MEASURES, VERSIONS, by_language, numbers
from mwanda.config.identity import NOT_SEMANTIC
from mwanda.errors import ComparisonError, RecordError


if TYPE_CHECKING:
    from pandas import DataFrame

MOST_PAIRS = 60
"""Configurations compared sentence by sentence, about a tenth of a second each."""

STAGES = ("load", "calibrate", "schedule", "prune", "evaluate", "inside")
BROKEN = 999.0
"""Stands for an infinite log-ratio, which JSON has no number for."""

Record = dict[str, Any]


@dataclass
class Pool:
    """Values that many runs share, kept once."""

    values: list[Any] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)

    def place(self, value: Any) -> int:
        """Return the number of a value, which is added where it is new."""
        key = repr(value)
        if key not in self._places:
            self._places[key] = len(self.values)
            self.values.append(value)
        return self._places[key]


def page_data(
    every: Sequence[Configuration],
    found: Sequence[Section],
    frame: "DataFrame",
    scores: "DataFrame",
    blocks: "DataFrame",
    unfinished: Sequence[Unfinished],
    warnings: Sequence[str],
    output: Path,
) -> tuple[Record, list[str]]:
    """Return what the page shows, and warnings of what could not be paired.

    Args:
        every: all configurations.
        found: tables by protocol.
        frame: the tidy frame of all runs.
        scores: the task scores in it.
        blocks: the frame of blocks.
        unfinished: runs that are named and not shown.
        warnings: that the page repeats.
        output: the folder of the page, to which the runs' folders are linked relatively.
    """
    ratios, hurt = by_language(frame, "ratio"), by_language(frame, "significantly_hurt")
    codes = sorted(ratios, key=_place)
    places = numbers(every)
    ratios, hurt = (each.reindex(index=list(places.values()), columns=codes) for each in (ratios, hurt))
    measures = {key: (ratios.loc[place].tolist(), hurt.loc[place].tolist()) for key, place in places.items()}
    tasks = _by_run(scores[["suite", "metric", "task", "language", "documents", *VERSIONS, "difference_error"]])
    sparsities, inside = _by_run(blocks[["target", "achieved"]]), _by_run(blocks[list(MEASURES)])
    settings, shapes, patterns = Pool(), Pool(), Pool()
    runs: list[Record] = []
    configurations: list[Record] = []
    protocols: list[Record] = []
    further: list[str] = []
    parts: list[tuple[Section | None, list[Configuration]]] = [(section, section.configurations) for section in found]
    measured = {id(run) for _, members in parts for each in members for run in each.runs}
    rest = [Configuration(each.settings, tuple(r for r in each.runs if id(r) not in measured)) for each in every]
    if any(each.runs for each in rest):
        parts.append((None, [each for each in rest if each.runs]))
    for number, (section, members) in enumerate(parts):
        candidates, problems = _judged(section, members)
        further += problems
        protocols.append(_protocol(section, candidates, codes))
        first = len(configurations)
        for candidate in candidates:
            one = candidate.configuration
            calibrated, place = one.calibrated(), places[id(one.runs[0])]
            configurations.append(
                {
                    "protocol": number,
                    "method": method(one),
                    "label": one.label,
                    "sparsity": sparsity(one),
                    "runs": [len(runs) + place for place in range(len(one.runs))],
                    "calibrated": [place for place, code in enumerate(codes) if code in calibrated],
                    "baseline": None if candidate.baseline is None else first + members.index(candidate.baseline),
                    "paired": _paired(candidate.paired, codes),
                    "schedule": one.runs[0].results["schedule"]["name"],
                    "layers": shapes.place(sparsities.get(place, [])),
                    "matrices": shapes.place(_matrices(one.runs[0])),
                    "tasks": tasks.get(place, []),
                    "inside": inside.get(place, []),
                }
            )
            runs += [_run(run, measures[id(run)], output, settings, patterns) for run in one.runs]
    return {
        "protocols": protocols,
        "languages": [_language(code) for code in codes],
        "configurations": configurations,
        "runs": runs,
        "settings": settings.values,
        "configs": patterns.values,
        "shapes": shapes.values,
        "unfinished": [asdict(each) for each in unfinished],
        "warnings": [*warnings, *further],
        "stages": list(STAGES),
        "measures": list(MEASURES),
    }, further


def _judged(section: Section | None, members: Sequence[Configuration]) -> tuple[list[Candidate], list[str]]:
    """Return every configuration with its pair, and what could not be paired."""
    if section is None:
        return [Candidate(each, math.inf, None, None) for each in members], []
    ratios = section.means["ratio"].fillna(math.inf).tolist()
    others = partners(members, section.baseline)
    candidates, problems, made = [], [], 0
    for each, other, ratio in zip(members, others, ratios, strict=True):
        pair = None
        if other is not None and made < MOST_PAIRS:
            try:
                pair, made = paired(each, other, section.languages), made + 1
            except ComparisonError as error:
                problems.append(str(error))
        candidates.append(Candidate(each, ratio, other, pair))
    wanted = sum(other is not None for other in others)
    warnings = []
    if problems:
        warnings.append(f"{len(problems)} of {wanted} pairs could not be made by sentences; the first: {problems[0]}")
    if wanted > MOST_PAIRS and made == MOST_PAIRS:
        warnings.append(
            f"only the first {MOST_PAIRS} of {wanted} configurations are compared with the baseline sentence by "
            "sentence; give fewer folders to compare the others"
        )
    return candidates, warnings


def _protocol(section: Section | None, candidates: Sequence[Candidate], codes: Sequence[str]) -> Record:
    if section is None:
        return {
            "name": "no perplexity",
            "common": "",
            "languages": [],
            "findings": ["These runs measured no perplexity."],
        }
    return {
        "name": section.measured_on,
        "common": section.common,
        "languages": [codes.index(code) for code in section.languages],
        "findings": findings(candidates, section.baseline, len(section.languages)),
        "baseline": section.baseline and ", ".join(f"{key}={value}" for key, value in section.baseline.items()),
    }


def _paired(pair: Paired | None, codes: Sequence[str]) -> Record | None:
    if pair is None:
        return None
    return {
        "seeds": list(pair.seeds),
        "ratio": _number(pair.ratio),
        "low": _number(pair.low),
        "high": _number(pair.high),
        "languages": [
            [codes.index(code), *map(_number, (each.log_ratio, each.low, each.high, each.p_holm)), each.units,
             int(each.significant)]
            for code, each in pair.pairs.items()
        ],
    }  # fmt: skip


def _run(run: Run, measured: tuple[list[float], list[float]], output: Path, settings: Pool, configs: Pool) -> Record:
    (ratios, hurt), results = measured, run.results
    timing, memory = results.get("timing") or {}, results.get("memory") or {}
    # Where a run lies and how it is tracked changes no number, and a report is handed on to others.
    leaves = flat({key: value for key, value in run.config.items() if key not in NOT_SEMANTIC})
    environment = results.get("environment") or {}
    return {
        "name": run.name,
        "href": Path(os.path.relpath(run.folder, output.resolve())).as_posix(),
        "seed": run.seed,
        "hash": results.get("config_hash"),
        "commit": str(environment.get("git_commit") or "")[:10],
        "device": environment.get("device"),
        "finished": results.get("finished"),
        "ratios": list(map(_log, ratios)),
        "hurt": [place for place, mark in enumerate(hurt) if mark == 1],
        "total": _number(timing.get("total")),
        "stages": [_number(timing.get(stage)) for stage in STAGES],
        "memory": [memory.get("peak_rss_bytes"), memory.get("peak_device_bytes")],
        "reused": len((results.get("artifacts") or {}).get("reused") or ()),
        "config": configs.place([settings.place([key, value]) for key, value in leaves.items()]),
    }


def flat(config: Mapping[str, Any]) -> dict[str, str]:
    """Return every leaf of a configuration as text, by dotted key."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{rest}": text for rest, text in flat(value).items()}
        else:
            found[str(key)] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return found


def _matrices(run: Run) -> list[list[Any]]:
    """Return kind, block and sparsity of the matrices; experts of one kind in one block are taken together."""
    described = run.results["sparsity"]
    names = [each["name"] for each in described["per_matrix"]]
    try:
        blocks = block_numbers(names, len(described["per_layer"]))
    except RecordError:  # names that do not tell their block
        return []
    zeros: dict[tuple[str, int], list[int]] = {}
    for each in described["per_matrix"]:
        parts = each["name"].split(".")
        start = next((place for place, part in enumerate(parts) if part.isdigit()), -1) + 1
        kind = ".".join(part for part in parts[start:] if not part.isdigit())
        counted = zeros.setdefault((kind, blocks[each["name"]]), [0, 0])
        counted[0] += each["zeros"]
        counted[1] += math.prod(each["shape"])
    return [[kind, block, _number(gone / size)] for (kind, block), (gone, size) in zeros.items()]


def _by_run(frame: "DataFrame") -> dict[int, list[list[Any]]]:
    """Return the rows of each run that has a value in them, by its number, without what JSON has no number for."""
    rows: dict[int, list[list[Any]]] = {}
    for number, *values in frame.itertuples():
        rows.setdefault(number, []).append([_number(each) if isinstance(each, float) else each for each in values])
    return {number: own for number, own in rows.items() if any(each is not None for row in own for each in row)}


def _language(code: str) -> Record:
    language = language_of(code)
    if language is None:
        return {"code": code, "name": code, "family": "unknown", "script": "unknown", "level": "unknown", "rtl": False}
    return {
        "code": code,
        "name": language.name,
        "family": language.family,
        "script": language.script,
        "level": language.resource_level,
        "rtl": language.direction == "rtl",
    }


def _place(code: str) -> tuple[str, str]:
    language = language_of(code)
    return (language.family, language.name) if language else ("￿", code)


def _log(ratio: float) -> float | None:
    if math.isnan(ratio) or ratio <= 0:
        return None
    return BROKEN if math.isinf(ratio) else round(math.log(ratio), 5)


def _number(value: Any) -> float | None:
    """Return a number short enough for the page; None of what is none or infinite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.5g}")
