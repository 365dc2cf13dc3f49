"""StableLM: the shape of Llama, with LayerNorm and partly rotated positions."""

from mwanda.models.family import Family


FAMILY = Family(name="stablelm", model_types=("stablelm",), block_paths=("model.layers",))
