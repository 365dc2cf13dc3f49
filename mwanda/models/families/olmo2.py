"""OLMo 2: norms after attention and feed-forward, and of queries and keys."""

from mwanda.models.family import Family


FAMILY = Family(name="olmo2", model_types=("olmo2",), block_paths=("model.layers",))
