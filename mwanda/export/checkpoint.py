"""The pruned model as a folder that `from_pretrained` loads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mwanda.display import number
from mwanda.export.base import write_atomically
from mwanda.models import LoadedModel


@dataclass(frozen=True)
class Checkpoint:
    """Saves weights, tokenizer and a model card to `model/`."""

    name: ClassVar[str] = "model"

    def write(self, loaded: LoadedModel, results: dict[str, Any], folder: Path) -> Path:
        """Write `model/` and return it."""

        def save(target: Path) -> None:
            loaded.model.save_pretrained(target)
            loaded.tokenizer.save_pretrained(target)
            (target / "README.md").write_text(card(results), encoding="utf-8")

        write_atomically(folder / self.name, save)
        return folder / self.name


def card(results: dict[str, Any]) -> str:
    """Return the model card of a run."""
    sparsity, model = results["sparsity"], results["model"]
    lines = [
        f"# {model['id']}, pruned to {sparsity['achieved']:.1%}",
        "",
        f"- base model: {model['id']}, revision {model['revision']}",
        f"- criterion and schedule: {results['criterion']['name']}, {results['schedule']['name']}",
        f"- pattern: {sparsity['pattern']}; zeros in {sparsity['achieved']:.4%} of the decoder blocks' linear weights",
        f"- configuration: {results['config_hash']}",
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
