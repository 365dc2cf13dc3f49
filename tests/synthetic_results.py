"""Records of runs that never were, in the form that runs leave."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mwanda.evaluation.sentence_losses import FILE, SentenceLosses, write_sentence_losses


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
    matrices: Sequence[str] = ("up", "down"),
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
                for name in matrices
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


METHODS = {
    ("wanda", "uniform"): 0.0,
    ("mwanda", "uniform"): -0.02,
    ("mwanda", "cwl"): -0.1,
    ("magnitude", "uniform"): 0.4,
}
"""By how much the mean loss of a method is above that of the baseline."""

SPOKEN = ("eng_Latn", "deu_Latn", "swh_Latn", "arb_Arab", "heb_Hebr", "hin_Deva")


def save_sweep(
    folder: Path,
    methods: Mapping[tuple[str, str], float] = METHODS,
    sparsities: Sequence[float] = (0.5, 0.6),
    seeds: int = 2,
    codes: Sequence[str] = SPOKEN,
    sentences: int = 20,
    layers: int = 4,
) -> None:
    """Write a sweep with everything that a run may have measured, a run that failed, and one whose results are torn.

    Without sentences no run keeps the losses on them.
    """
    for sparsity in sparsities:
        for (criterion, schedule), excess in methods.items():
            for seed in range(seeds):
                ratios = {
                    code: math.exp(sparsity + 0.1 * place + (1 + place / 10) * excess + 0.003 * seed)
                    for place, code in enumerate(codes)
                }
                made = results(
                    criterion, schedule, sparsity, seed=seed, ratios=ratios, calibrated=codes[:4], layers=layers,
                    significant=codes, **_costs(len(criterion)), inside=_inside(layers, codes), 
                )  # fmt: skip
                made["tasks"] = _tasks(codes[:3], excess)
                place = folder / f"{criterion}-{schedule}-{sparsity}-{seed}"
                config = {"seed": seed, "sparsity": sparsity, "criterion": {"_target_": criterion}}
                save(place, made, config | {"output_dir": str(place), "sweep": {"folder": str(folder)}})
                if sentences:
                    _save_sentences(place, ratios, sentences, seed)
    failure = {"status": "failed", "error": {"type": "ModelError", "message": "no <b>such</b> model"}}
    save(folder / "failed", {**results(), **failure})
    (folder / "torn").mkdir()
    (folder / "torn" / "results.json").write_text('{"schema": "mwanda', encoding="utf-8")


def _costs(number: int) -> dict[str, Any]:
    timing = {"load": 1.0, "calibrate": 2.0 + number, "schedule": 0.5, "prune": 3.0, "evaluate": 9.0, "total": 16.0}
    return {
        "timing": timing,
        "memory": {"peak_rss_bytes": (2 + number) * 2**28, "peak_device_bytes": 0},
        "environment": {"git_commit": "0123456789abcdef", "device": "cpu"},
        "config_hash": f"{number:016x}",
    }


def _inside(layers: int, codes: Sequence[str]) -> dict[str, Any]:
    measures = ("energy_lost", "drift", "rank_correlation", "intersection_over_union")
    per_layer = [{"layer": layer} | {name: 0.1 * (layer + 1) for name in measures} for layer in range(layers)]
    language = {"neurons": 0, "neurons_weights_lost": None}
    return {"per_layer": per_layer, "per_language": dict.fromkeys(codes, language), "neurons": None}


def _tasks(codes: Sequence[str], excess: float) -> dict[str, Any]:
    names = {f"parallel_cloze_{code}": code for code in codes}
    about = {
        task: {"suite": "parallel_cloze", "language": code, "documents": 20, "chance": 0.25}
        for task, code in names.items()
    }
    values = {"dense": 0.6, "pruned": 0.5 - excess / 4, "difference": -0.1 - excess / 4}
    scores = {
        which: {task: {"acc,none": value, "acc_stderr,none": 0.05} for task in names} for which, value in values.items()
    }
    return {"about": about, **scores}


def _save_sentences(folder: Path, ratios: Mapping[str, float], count: int, seed: int) -> None:
    """Write losses whose mean over tokens changes by the logarithm of the ratio, with some noise by sentence."""
    noise = np.random.default_rng(seed + 1)
    tokens = tuple(8 + place % 5 for place in range(count))
    measured: dict[str, dict[str, SentenceLosses]] = {"dense": {}, "pruned": {}}
    for code, ratio in ratios.items():
        for which, log in (("dense", 0.0), ("pruned", math.log(ratio))):
            each = 2.3 + log + noise.normal(0, 0.03, count)
            nats = tuple(float(one * size) for one, size in zip(each, tokens, strict=True))
            measured[which][code] = SentenceLosses(tokens, tuple(4 * size for size in tokens), tokens, nats)
    write_sentence_losses(folder / FILE, measured)
