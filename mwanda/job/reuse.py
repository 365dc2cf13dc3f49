"""Looks up in the artifact cache what another run has computed; each function computes it otherwise."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from mwanda.artifacts import store
from mwanda.artifacts.store import ArtifactCache
from mwanda.calibration import Calibration, CalibrationSet
from mwanda.config.schema import WEIGHTING
from mwanda.evaluation.harness import Harness
from mwanda.evaluation.perplexity import LanguagePerplexity, Perplexity
from mwanda.models import ModelSource


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mwanda.evaluation.perplexity import Text
    from mwanda.evaluation.task_scores import Scores, Task


def artifact_cache(source: ModelSource, *, use: bool) -> ArtifactCache:
    """Return the artifacts of runs with this model on this kind of machine; an empty cache without `use`."""
    from mwanda.system import device

    if not use:
        return ArtifactCache({}, source.path, None)
    place = device.choose(source.device)
    key = {
        "model": source.fingerprint(),
        "dtype": str(source.torch_dtype(place)),
        "device": device.describe(place),
        "device_map": source.device_map,
        "software": store.software(),
    }
    return ArtifactCache(key, source.path, store.store())


def calibration_set(
    cache: ArtifactCache,
    calibration: Calibration,
    tokenizer: "PreTrainedTokenizerBase",
    text: Mapping[str, Sequence[str]],
) -> CalibrationSet:
    """Return the calibration sequences, tokenised by this run or another one."""
    settings = {name: value for name, value in asdict(calibration).items() if name not in WEIGHTING}  # of the same text
    key = {"calibration": settings, "text": store.text_digest(text)}
    found = cache.find("blocks", key)
    if found is not None:
        codes = tuple(found.metadata["codes"])
        sequences = tuple(found.tensors[code] for code in codes)
        return CalibrationSet(codes, sequences, found.metadata["packing"], calibration.weighting(codes))
    made = calibration.build(tokenizer, text)
    tensors = dict(zip(made.codes, made.sequences, strict=True))
    cache.keep("blocks", key, tensors, {"codes": made.codes, "packing": made.packing})
    return made


def dense_perplexity(
    cache: ArtifactCache,
    perplexity: Perplexity,
    texts: "Mapping[str, Text]",
    seed: int,
    measure: Callable[[], dict[str, LanguagePerplexity]],
) -> dict[str, LanguagePerplexity]:
    """Return the perplexity of the dense model, measured by this run or another one."""
    tokens = {code: list(asdict(text).values()) for code, text in texts.items()}
    key = {"evaluation": _settings(perplexity, Perplexity), "text": store.text_digest(tokens), "seed": seed}
    found = cache.find("dense perplexity", key)
    if found is not None:
        return {code: LanguagePerplexity(**each) for code, each in found.metadata.items()}
    measured = measure()
    cache.keep("dense perplexity", key, {}, {code: asdict(each) for code, each in measured.items()})
    return measured


def dense_scores(
    cache: ArtifactCache, harness: Harness, tasks: "Sequence[Task]", seed: int, score: "Callable[[], Scores]"
) -> "Scores":
    """Return the task scores of the dense model, found by this run or another one."""
    from mwanda.evaluation.task_scores import Scores

    key = {
        "tasks": [_describe(task, harness.limit) for task in tasks],
        "settings": _settings(harness, Harness),
        "seed": seed,
    }
    found = cache.find("dense scores", key)
    if found is not None:
        return Scores.of_rows(found.metadata)
    made = score()
    cache.keep("dense scores", key, {}, made.as_rows())
    return made


def _settings(evaluation: object, kind: type[Perplexity] | type[Harness]) -> dict[str, Any]:
    """Return the settings of one part of an evaluation that may have both."""
    return {one.name: getattr(evaluation, one.name) for one in fields(kind)}


def _describe(task: "Task", limit: int | None) -> dict[str, Any]:
    """Return what a task's scores depend on besides the model: its version, its documents and its examples."""
    from importlib.metadata import version

    leaves = {}
    for name, leaf in task.leaves.items():
        few_shot = leaf.get_config("num_fewshot")
        made = hashlib.sha256()
        for number, document in enumerate(leaf.eval_docs):
            if limit is None or number < limit:
                made.update(json.dumps(document, sort_keys=True, default=str).encode())
        for document in leaf.fewshot_docs() if few_shot else ():
            made.update(json.dumps(document, sort_keys=True, default=str).encode())
        leaves[name] = [str(leaf.VERSION), few_shot, made.hexdigest()]
    return {"name": task.name, "leaves": leaves, "lm_eval": version("lm_eval")}
