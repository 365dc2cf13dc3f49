"""GPT-NeoX and Pythia: parallel residual, fused query_key_value."""

from mwanda.models.family import Family


FAMILY = Family(name="gpt_neox", model_types=("gpt_neox",), block_paths=("gpt_neox.layers",))
