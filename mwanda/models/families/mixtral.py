"""Mixtral: a mixture of experts in every block."""

from mwanda.models.family import Family


FAMILY = Family(name="mixtral", model_types=("mixtral",), block_paths=("model.layers",))
