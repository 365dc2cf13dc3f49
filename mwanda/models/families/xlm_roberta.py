"""XLM-R: an encoder that fills in masked tokens; XL puts the norms before attention and feed-forward."""

from mwanda.models.family import Family


FAMILY = Family(
    name="xlm_roberta", model_types=("xlm-roberta", "xlm-roberta-xl"), block_paths=("roberta.encoder.layer",)
)
