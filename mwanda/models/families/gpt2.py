"""GPT-2: linear layers are `Conv1D`, whose weight is stored transposed."""

from mwanda.models.family import Family


FAMILY = Family(name="gpt2", model_types=("gpt2",), block_paths=("transformer.h",))
