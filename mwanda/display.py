"""What a person sees in the terminal: stages, the summary table, and what `mode=inspect` tells."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from mwanda.languages import Language


if TYPE_CHECKING:
    from mwanda.calibration import Calibration
    from mwanda.models import Block, ModelSource


BAR_WIDTH = 30
GIB = 2**30


def console() -> Console:
    """Return the console for results; in a pipe or a file it neither colours nor cuts."""
    return Console() if sys.stdout.isatty() else Console(width=120)


def quiet_libraries() -> None:
    """Show our own stages on standard error, and of the libraries only what matters."""
    logger = logging.getLogger("mwanda")
    if not any(isinstance(handler, RichHandler) for handler in logger.handlers):
        errors = Console(stderr=True) if sys.stderr.isatty() else Console(stderr=True, width=120)
        logger.addHandler(RichHandler(console=errors, show_path=False, show_level=False, log_time_format="%H:%M:%S"))
    logger.setLevel(logging.INFO)
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
        transformers_logging.disable_progress_bar()
        disable_progress_bars()


def summary(
    results: dict[str, Any], folder: Path, languages: Sequence[Language], target: Console | None = None
) -> None:
    """Print languages × dense, pruned and ratio, the sparsity of each layer, and where the record is."""
    out = target or console()
    out.print()
    perplexity = results["perplexity"]
    if perplexity:
        out.print(_language_table(perplexity, {language.code: language for language in languages}))
    out.print(_layer_table(results["sparsity"]))
    achieved, model, timing = results["sparsity"]["achieved"], results["model"], results["timing"]
    out.print(
        f"{model['id']}: {achieved:.4%} of {model['prunable_parameters']:,} prunable weights are zero "
        f"({model['zeros_before'] / model['prunable_parameters']:.1%} were before); {timing['total']:.0f} s",
        markup=False,  # a path may hold brackets
        soft_wrap=True,
    )
    out.print(f"record: {folder}/results.json", markup=False, soft_wrap=True)


def number(value: float | None, digits: int = 2) -> str:
    """Return a number as people read it; a dash where the record has none, as for an infinite perplexity."""
    return "–" if value is None else f"{value:.{digits}f}"


def _ratio(after: float | None, before: float | None) -> float | None:
    return None if after is None or not before else after / before


def _language_table(perplexity: dict[str, Any], languages: dict[str, Language]) -> Table:
    dense, pruned, totals = perplexity["dense"], perplexity["pruned"], perplexity["aggregate"]
    protocol = perplexity["protocol"]
    table = Table(
        title=f"Perplexity per language ({protocol['corpus']}, protocol {protocol['name']} {protocol['hash']})"
    )
    table.add_column("language")
    table.add_column("family")
    for heading in ("dense", "pruned", "95 % interval", "ratio", "bits/byte"):
        table.add_column(heading, justify="right")
    ratios = {code: _ratio(pruned[code]["perplexity"], dense[code]["perplexity"]) for code in dense}
    measured = sorted(ratio for ratio in ratios.values() if ratio is not None)
    for code in sorted(dense, key=lambda each: (ratios[each] is None, ratios[each] or 0.0)):
        language, before, after, ratio = languages[code], dense[code], pruned[code], ratios[code]
        table.add_row(
            f"{code}  {language.name}",
            language.family,
            number(before["perplexity"]),
            number(after["perplexity"]),
            "–" if after["low"] is None else f"{number(after['low'], 1)} – {number(after['high'], 1)}",
            f"[{_colour(ratio, measured)}]× {number(ratio)}[/]",
            f"{number(before['bits_per_byte'])} → {number(after['bits_per_byte'])}",
        )
    table.add_section()
    for label, key in (("geometric mean", "geometric_mean"), ("mean", "mean"), ("worst language", "worst")):
        first, last = totals["dense"][key], totals["pruned"][key]
        # The worst language before and after may be two languages, whose ratio would mean nothing.
        codes = [totals[which]["worst_language"] for which in ("dense", "pruned")]
        name = f"{label} ({' → '.join(dict.fromkeys(codes))})" if key == "worst" else label
        overall = "" if key == "worst" and len(set(codes)) > 1 else f"× {number(_ratio(last, first))}"
        table.add_row(f"[bold]{name}[/]", "", number(first), f"[bold]{number(last)}[/]", "", overall, "")
    return table


def _colour(ratio: float | None, ranked: Sequence[float]) -> str:
    """Green for the third of languages that lost least, red for the third that lost most."""
    if ratio is None:
        return "red"
    position = ranked.index(ratio) / max(1, len(ranked) - 1)
    return "green" if position < 1 / 3 else "yellow" if position < 2 / 3 else "red"


def _layer_table(sparsity: dict[str, Any]) -> Table:
    table = Table(title=f"Sparsity per layer ({sparsity['pattern']}, target {sparsity['target']:g})", box=None)
    table.add_column("layer", justify="right")
    table.add_column("")
    table.add_column("achieved", justify="right")
    for layer in sparsity["per_layer"]:
        filled = round(layer["achieved"] * BAR_WIDTH)
        bar = f"[cyan]{'█' * filled}[/][dim]{'░' * (BAR_WIDTH - filled)}[/]"
        table.add_row(str(layer["layer"]), bar, f"{layer['achieved']:.4f}")
    return table


def inspection(source: "ModelSource", languages: int, calibration: "Calibration", order: str) -> None:
    """Print what would be pruned, what would not and why, and what memory a run takes."""
    import torch
    from transformers import AutoModelForCausalLM

    from mwanda.models import blocks_of
    from mwanda.models.family import family_of

    config = source.load_config()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=getattr(source, "trust_remote_code", False))
    blocks = blocks_of(model)
    out = console()
    heading = f"{source.path}: {type(model).__name__}, family {family_of(model).name}, {len(blocks)} blocks"
    out.print(heading, markup=False, soft_wrap=True)
    out.print(_matrix_table(blocks))
    out.print(_left_out_table(model, blocks))
    for line in _memory(source, model, blocks, languages, calibration, order):
        out.print(line)


def _matrix_table(blocks: "Sequence[Block]") -> Table:
    """One row for each matrix, blocks that look alike together."""
    table = Table(title="Prunable matrices")
    for heading in ("blocks", "matrix", "out × in", "weights"):
        table.add_column(heading, justify="right" if heading in ("out × in", "weights") else "left")
    alike: dict[tuple[tuple[str, tuple[int, int]], ...], list[int]] = {}
    for block in blocks:
        shape = tuple((matrix.name.removeprefix(f"{block.name}."), matrix.shape) for matrix in block.matrices)
        alike.setdefault(shape, []).append(block.index)
    for shape, indices in alike.items():
        first = True
        for name, (rows, columns) in shape:
            label = f"{indices[0]}–{indices[-1]} ({len(indices)})" if first else ""
            table.add_row(label, name, f"{rows} × {columns}", f"{rows * columns * len(indices):,}")
            first = False
        table.add_section()
    table.add_row("", "[bold]in all[/]", "", f"[bold]{sum(block.size for block in blocks):,}[/]")
    return table


def _left_out_table(model: Any, blocks: "Sequence[Block]") -> Table:
    planned = {id(matrix.module.weight) for block in blocks for matrix in block.matrices}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    # On the meta device tying is what the configuration says, as no storage can be compared.
    tied = bool(getattr(model.config, "tie_word_embeddings", False))
    groups: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if id(parameter) in planned:
            continue
        if parameter is embedding.weight:
            reason = "input embeddings, tied to the LM head: never pruned" if tied else "input embeddings: never pruned"
        elif head is not None and parameter is head.weight:
            reason = "LM head: never pruned" + (", tied to the input embeddings" if tied else "")
        elif parameter.dim() < 2:
            reason = "norms and biases: not matrices"
        else:
            reason = f"{name}: outside the decoder blocks' linear layers"
        groups[reason] = groups.get(reason, 0) + parameter.numel()
    table = Table(title="Left out")
    table.add_column("what and why")
    table.add_column("weights", justify="right")
    for reason, count in groups.items():
        table.add_row(reason, f"{count:,}")
    return table


def _memory(
    source: Any, model: Any, blocks: "Sequence[Block]", languages: int, calibration: "Calibration", order: str
) -> list[str]:
    import torch

    from mwanda import device

    dtype = source.torch_dtype(device.choose(source.device))
    width = torch.empty((), dtype=dtype).element_size()
    unique = {id(parameter): parameter.numel() for parameter in model.parameters()}
    weights = sum(unique.values()) * width
    features = [[matrix.shape[1] for matrix in block.matrices] for block in blocks]
    watched = {
        "oneshot": sum(map(sum, features)),
        "block": max(map(sum, features)),
        "arrival": max(map(max, features)),
    }[order]
    statistics = watched * languages * (8 + 8 + 8)
    hidden = model.config.hidden_size
    in_flight = 0 if order == "oneshot" else calibration.sequences * calibration.length * hidden * width * 3
    scores = max(matrix.weight.numel() for block in blocks for matrix in block.matrices) * (4 + 4 + 1 + 8)
    return [
        "Memory of a run (estimate)",
        f"  weights ({str(dtype).removeprefix('torch.')}): {weights / GIB:.2f} GiB",
        f"  statistics of {languages} languages (order {order}): {statistics / GIB:.3f} GiB",
        f"  activations in flight ({calibration.sequences} × {calibration.length} tokens): {in_flight / GIB:.3f} GiB",
        f"  scores and mask of the largest matrix: {scores / GIB:.3f} GiB",
        f"  in all, besides the libraries: {(weights + statistics + in_flight + scores) / GIB:.2f} GiB",
    ]
