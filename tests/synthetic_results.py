"""Records of runs that never were, in the form that runs leave."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml


LANGUAGES = ("eng_Latn", "deu_Latn", "swh_Latn")
Protocol = tuple[str, str, str]
PROTOCOL: Protocol = ("0f99e0a16476", "document/2", "embedded")


def results(
    criterion: str = "wanda",
    schedule: str = "uniform",
    sparsity: float = 0.5,
    pattern: str = "unstructured",
    model: str = "some/model",
    seed: int = 0,
    ratios: Mapping[str, float | None] | None = None,
    calibrated: Sequence[str] | None = None,
    protocol: Protocol | None = PROTOCOL,
    layers: int = 3,
    paired: bool = True,
    significant: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """Return results.json of a run in which each language's perplexity went from 10 to `ratios` times that."""
    ratios = ratios if ratios is not None else dict.fromkeys(LANGUAGES, 2.0)
    perplexity: dict[str, Any] = {}
    if protocol is not None:
        digest, name, corpus = protocol
        perplexity = {
            "protocol": {"hash": digest, "name": name, "corpus": corpus},
            "dense": {code: _language(10.0) for code in ratios},
            "pruned": {code: _language(None if ratio is None else 10.0 * ratio) for code, ratio in ratios.items()},
            "aggregate": {},
        }
        if paired:
            perplexity["paired"] = {code: _pair(ratio, code in significant) for code, ratio in ratios.items()}
    return {
        "schema": "mwanda.results/1",
        "status": "complete",
        "seed": seed,
        "model": {"id": model},
        "criterion": {"name": criterion, "settings": {}},
        "schedule": {"name": schedule, "signal": []},
        "sparsity": {
            "target": sparsity,
            "achieved": sparsity,
            "pattern": pattern,
            "per_layer": [{"layer": layer, "target": sparsity, "achieved": sparsity} for layer in range(layers)],
            "per_matrix": [
                {"name": f"model.layers.{layer}.{name}", "shape": [2, 8], "zeros": 0, "zeros_before": 0}
                for layer in range(layers)
                for name in ("up", "down")
            ],
        },
        "calibration": {"tokens_per_language": dict.fromkeys(calibrated if calibrated is not None else ratios, 100)},
        "perplexity": perplexity,
        "tasks": {},
        **more,
    }


def save(folder: Path, content: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Path:
    """Write a run's folder and return it."""
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config or {"seed": 0})), encoding="utf-8")
    (folder / "overrides.yaml").write_text("[]\n", encoding="utf-8")
    return folder


def _language(perplexity: float | None) -> dict[str, Any]:
    bits = None if perplexity is None else math.log2(perplexity) / 4
    return {"perplexity": perplexity, "bits_per_byte": bits, "tokens": 10, "bytes": 40, "low": None, "high": None}


def _pair(ratio: float | None, significant: bool) -> dict[str, Any]:
    if ratio is None:
        return {"log_ratio": None, "low": None, "high": None, "p": 0.001, "p_holm": 0.003, "significant": True}
    middle = math.log(ratio)
    p = 0.001 if significant else 0.5
    return {
        "log_ratio": middle,
        "low": middle - 0.1,
        "high": middle + 0.1,
        "p": p,
        "p_holm": p,
        "significant": significant,
    }
