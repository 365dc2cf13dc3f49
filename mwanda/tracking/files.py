"""What of a run's folder a tracker keeps beside the numbers, and what the run was made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mwanda.export.base import MASKS
from mwanda.system.files import write_json


FILES = {"results": ("results.json",), "config": ("config.yaml", "overrides.yaml"), "masks": (MASKS,)}
"""Files of the run's folder by the kind of what they are kept as; those that are not there are left out.

A whole model is too large to be sent unasked.
"""


@dataclass(frozen=True)
class Kept:
    """Some files under one name.

    Args:
        name: what it is kept as; of an input, the same in all runs that share it.
        kind: `results`, `config`, `masks` and `allocation`, which a run makes; `model` and `corpus`, which it uses.
        files: the files.
        about: what can be said of them in a few words.
    """

    name: str
    kind: str
    files: tuple[Path, ...]
    about: Mapping[str, Any]


def made(run_id: str, results: Mapping[str, Any], folder: Path, place: Path) -> list[Kept]:
    """Return what a run has made; what is no file of the run's folder yet is written to `place`."""
    about = {"status": results.get("status"), "config_hash": results.get("config_hash")}
    found = []
    for kind, names in FILES.items():
        files = tuple(folder / name for name in names if (folder / name).is_file())
        if files and (kind != "masks" or results.get("export") == MASKS):
            found.append(Kept(f"{kind}-{run_id}", kind, files, about))
    sparsity = results.get("sparsity") or {}
    allocation = {key: sparsity[key] for key in ("target", "per_layer", "per_matrix") if key in sparsity}
    if allocation:
        file = _written(place / "allocation.json", allocation)
        found.append(Kept(f"allocation-{run_id}", "allocation", (file,), {"target": sparsity.get("target")}))
    return found


def used(results: Mapping[str, Any], place: Path) -> list[Kept]:
    """Return model and corpora of a run, each as a small file that is the same wherever they are."""
    prints, found = results.get("fingerprints") or {}, []
    model, calibration = results.get("model") or {}, results.get("calibration") or {}
    protocol = (results.get("perplexity") or {}).get("protocol") or {}
    if model.get("id"):
        about = {"id": model["id"], "revision": model.get("revision"), "fingerprint": prints.get("model")}
        found.append(
            Kept(f"model-{Path(str(model['id'])).name}", "model", (_written(place / "model.json", about),), about)
        )
    for use, corpus in (("calibration", calibration.get("corpus")), ("evaluation", protocol.get("corpus"))):
        if corpus:
            about = {"corpus": corpus, "use": use, "fingerprint": prints.get(f"{use}_text")}
            file = _written(place / f"{use}.json", about)
            found.append(Kept(f"{use}-text-{corpus}", "corpus", (file,), about))
    return found


def _written(path: Path, content: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)
    return path
