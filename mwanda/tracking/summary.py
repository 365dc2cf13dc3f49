"""Flattens results.json for a dashboard: single values by name, and tables."""

from collections.abc import Iterator, Mapping
from typing import Any

from mwanda.languages import known
from mwanda.languages.ratios import exponential, ratio


Results = Mapping[str, Any]
Row = list[Any]

SECTIONS = ("model", "sparsity", "calibration", "evaluation", "tasks", "inside", "memory", "environment")
VERSIONS = ("dense", "pruned")
LANGUAGE_COLUMNS = (
    "language",
    "name",
    "dense perplexity",
    "pruned perplexity",
    "ratio",
    "ratio low",
    "ratio high",
    "p (Holm)",
    "dense bits per byte",
    "pruned bits per byte",
    "tokens",
    "bytes",
)
LAYER_COLUMNS = ("layer", "target", "achieved")


def single_values(results: Results) -> dict[str, Any]:
    """Return every number and word under a name with slashes, e.g. `perplexity/pruned/swh_Latn`.

    Lists are left out: those of the blocks are a table, those of the matrices stay in results.json.
    """
    perplexity = _part(results, "perplexity")
    sections = {section: _part(results, section) for section in SECTIONS}
    values = {"status": results.get("status"), "seconds": _part(results, "timing"), **sections}
    values["aggregate"] = _part(perplexity, "aggregate")
    for metric in ("perplexity", "bits_per_byte", "bits_per_character"):
        values[metric] = {
            version: {code: measured.get(metric) for code, measured in _part(perplexity, version).items()}
            for version in VERSIONS
        }
    for metric in ("log_ratio", "p_holm"):
        values[metric] = {code: pair.get(metric) for code, pair in _part(perplexity, "paired").items()}
    values["tasks"] = {which: scores for which, scores in _part(results, "tasks").items() if which != "about"}
    values["ratio"] = {code: _ratio(perplexity, code) for code in _codes(perplexity)}
    return dict(_leaves("", values))


def language_rows(results: Results) -> list[Row]:
    """Return a row of `LANGUAGE_COLUMNS` for each language."""
    perplexity = _part(results, "perplexity")
    return [_language_row(perplexity, code) for code in _codes(perplexity)]


def layer_rows(results: Results) -> list[Row]:
    """Return a row of `LAYER_COLUMNS` for each block."""
    layers = _part(results, "sparsity").get("per_layer") or []
    return [[layer.get(column) for column in LAYER_COLUMNS] for layer in layers]


def _language_row(perplexity: Results, code: str) -> Row:
    dense, pruned = (_part(_part(perplexity, version), code) for version in VERSIONS)
    either, pair = {**dense, **pruned}, _part(_part(perplexity, "paired"), code)
    return [
        code,
        known()[code].name if code in known() else None,
        dense.get("perplexity"),
        pruned.get("perplexity"),
        _ratio(perplexity, code),
        *(exponential(pair.get(end)) for end in ("low", "high")),
        pair.get("p_holm"),
        dense.get("bits_per_byte"),
        pruned.get("bits_per_byte"),
        either.get("tokens"),
        either.get("bytes"),
    ]


def _ratio(perplexity: Results, code: str) -> float | None:
    dense, pruned = (_part(_part(perplexity, version), code).get("perplexity") for version in VERSIONS)
    return ratio(dense, pruned)


def _codes(perplexity: Results) -> list[str]:
    return list(dict.fromkeys(code for version in VERSIONS for code in _part(perplexity, version)))


def _part(results: Results, name: str) -> Results:
    return results.get(name) or {}


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{name}/{key}" if name else str(key), item)
    elif value is not None and not isinstance(value, list):
        yield name, value
