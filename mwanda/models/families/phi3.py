"""Phi-3: query, key and value in one matrix (qkv_proj), gate and up in another (gate_up_proj)."""

from mwanda.models.family import Family


FAMILY = Family(name="phi3", model_types=("phi3",), block_paths=("model.layers",))
