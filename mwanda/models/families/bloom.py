"""BLOOM and BLOOMZ: ALiBi, a fused query_key_value."""

from mwanda.models.family import Family


FAMILY = Family(name="bloom", model_types=("bloom",), block_paths=("transformer.h",))
