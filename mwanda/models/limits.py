"""What a model's configuration allows, looked at before its weights are loaded."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from mwanda.errors import ConfigurationError, ModelError
from mwanda.models.forward import architecture_of, decoder_start


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


DEPTHS = (
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "num_decoder_layers",
    "num_encoder_layers",
    "encoder_layers",
    "decoder_layers",
)
"""What configurations call the number of blocks."""

POSITIONS = "max_position_embeddings"
DEEPEST = 4096
"""Blocks beyond which a configuration is taken to be damaged; such a model takes minutes to build without weights."""


def check_config(config: Any, path: str) -> None:
    """Refuse a configuration whose model cannot be pruned, or cannot be built.

    Raises:
        ModelError: its weights are quantised, or a number of blocks or of positions makes no sense.
    """
    text = config.get_text_config()
    for part in (config, text):
        quantised = getattr(part, "quantization_config", None)
        if quantised is not None:
            told = quantised.get("quant_method") if isinstance(quantised, Mapping) else None
            raise ModelError(
                f"model.path={path}: config.json says that its weights are quantised "
                f"({told or 'quantization_config'}), and zeros cannot be set in them; choose it in its original form"
            )
    for part in {id(config): config, id(text): text}.values():
        for name in DEPTHS:
            depth = getattr(part, name, None)
            if depth is not None and not (type(depth) is int and 0 < depth <= DEEPEST):
                raise ModelError(f"model.path={path}: config.json: {name}={depth} makes no sense; download it again")
        positions = getattr(part, POSITIONS, None)
        if isinstance(positions, int) and positions <= 0:
            raise ModelError(
                f"model.path={path}: config.json: {POSITIONS}={positions} makes no sense; download it again"
            )


def positions_of(model: Any) -> int | None:
    """Return how many tokens a model can read at once, or None where nothing limits them.

    Families after RoBERTa count positions on from their padding token, and have fewer than their table has rows.
    """
    known = getattr(model.config.get_text_config(decoder=True), POSITIONS, None)
    if not isinstance(known, int):
        return None
    tables = (
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings") and module.num_embeddings == known
    )
    padding = next((table.padding_idx for table in tables if table.padding_idx is not None), None)
    return known if padding is None else known - padding - 1


def check_positions(model: Any, path: str, lengths: Mapping[str, tuple[int, int]]) -> None:
    """Refuse sequences that are longer than a model can read.

    Args:
        model: may be on the meta device.
        path: of the model.
        lengths: by the key of the configuration that it comes from, the value there and the longest sequence.

    Raises:
        ConfigurationError: one is longer.
    """
    positions = positions_of(model)
    for key, (value, longest) in lengths.items():
        if positions is not None and longest > positions:
            more = max(0, longest - value)  # the token that starts a text
            told = f"with the token that starts a text, {longest}, and " if more else ""
            raise ConfigurationError(key, value, f"{told}{path} has {positions} positions", [positions - more])


def check_tokens(
    model: Any, path: str, tokenizer: "PreTrainedTokenizerBase", used: Mapping[str, Iterable[int]]
) -> None:
    """Refuse text with tokens that the model has no embedding for.

    Args:
        model: may be on the meta device.
        path: of the model.
        tokenizer: that made the tokens.
        used: tokens of each kind of text.

    Raises:
        ModelError: there are some; the message names one.
    """
    rows = len(model.get_input_embeddings().weight)
    if architecture_of(model) == "encoder-decoder":
        used = {**used, "the start of the decoder": [decoder_start(model.config)]}
    for text, tokens in used.items():
        largest = max(tokens, default=0)
        if largest >= rows:
            name = tokenizer.convert_ids_to_tokens([largest])[0]
            raise ModelError(
                f"model.path={path}: its tokenizer makes token {largest} ({name}) of {text}, and its embedding has "
                f"{rows} rows; the tokenizer is not that of the model, or tokens were added to it alone"
            )
