"""XGLM: a multilingual decoder with sinusoidal positions."""

from mwanda.models.family import Family


FAMILY = Family(name="xglm", model_types=("xglm",), block_paths=("model.layers",))
