"""The pruned model as a folder that `from_pretrained` loads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from mwanda.export.extras import keep_extras
from mwanda.models import LoadedModel, blocks_of
from mwanda.models.weights import Resident, visit
from mwanda.system.files import atomic, write_json, write_tensors
from mwanda.system.terminal import number


@dataclass(frozen=True)
class Checkpoint:
    """Saves weights, tokenizer and a model card to `model/`."""

    name: ClassVar[str] = "model"

    def write(self, loaded: LoadedModel, results: dict[str, Any], folder: Path) -> Path:
        """Write `model/` and return it."""
        with atomic(folder / self.name) as target:
            if isinstance(loaded.weights, Resident):
                loaded.model.save_pretrained(target)
            else:
                _save_by_block(loaded, target)
            loaded.tokenizer.save_pretrained(target)
            (target / "README.md").write_text(card(results, keep_extras(loaded, target)), encoding="utf-8")
        return folder / self.name


def _save_by_block(loaded: LoadedModel, target: Path) -> None:
    """Write one file a block and one for everything else, with the index by which `from_pretrained` finds them."""
    blocks = blocks_of(loaded.model)
    tied = set(loaded.model.all_tied_weights_keys)
    rest = {name: value for name, value in loaded.model.state_dict().items() if not value.is_meta and name not in tied}
    places: dict[str, str] = {}

    def write(number: int, tensors: Mapping[str, Tensor]) -> None:
        name = f"model-{number:05d}-of-{len(blocks) + 1:05d}.safetensors"
        write_tensors(target / name, tensors, {"format": "pt"})
        places.update(dict.fromkeys(tensors, name))

    target.mkdir(parents=True)
    write(1, rest)
    for block in visit(loaded.weights, blocks):
        write(block.index + 2, {f"{block.name}.{name}": value for name, value in block.module.state_dict().items()})
    index = {"metadata": {"total_size": sum(path.stat().st_size for path in target.iterdir())}, "weight_map": places}
    write_json(target / "model.safetensors.index.json", index)
    loaded.model.config.save_pretrained(target)
    if loaded.model.generation_config is not None:
        loaded.model.generation_config.save_pretrained(target)


def card(results: dict[str, Any], extras: Sequence[str] = ()) -> str:
    """Return the model card of a run; `extras` says what besides the pruned model is there, or is not."""
    sparsity, model = results["sparsity"], results["model"]
    lines = [
        f"# {model['id']}, pruned to {sparsity['achieved']:.1%}",
        "",
        f"- base model: {model['id']}, revision {model['revision']}",
        f"- criterion and schedule: {results['criterion']['name']}, {results['schedule']['name']}",
        f"- pattern: {sparsity['pattern']}; zeros in {sparsity['achieved']:.4%} of the decoder blocks' linear weights",
        f"- configuration: {results['config_hash']}",
        *(f"- {line}" for line in extras),
        "",
        "Zeros are not speed: the file is as large and as fast as the dense model unless an engine uses the zeros.",
        "The licence of the base model holds.",
    ]
    perplexity = results.get("perplexity")
    if perplexity:
        lines += ["", "| language | dense perplexity | pruned perplexity |", "|---|---|---|"]
        lines += [
            f"| {code} | {number(dense['perplexity'])} | {number(perplexity['pruned'][code]['perplexity'])} |"
            for code, dense in perplexity["dense"].items()
        ]
    return "\n".join(lines) + "\n"
