"""OPT: learned positions, biases everywhere."""

from mwanda.models.family import Family


FAMILY = Family(name="opt", model_types=("opt",), block_paths=("model.decoder.layers",))
