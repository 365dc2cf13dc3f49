"""T5 and mT5: an encoder and a decoder, whose blocks hold attention and feed-forward as a list."""

from mwanda.models.family import Family


FAMILY = Family(name="t5", model_types=("t5", "mt5"), block_paths=("encoder.block",), further_paths=("decoder.block",))
