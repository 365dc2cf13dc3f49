"""Falcon: linear layers of a class of its own, a fused query_key_value."""

from mwanda.models.family import Family


FAMILY = Family(name="falcon", model_types=("falcon",), block_paths=("transformer.h",))
