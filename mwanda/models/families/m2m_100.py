"""M2M-100 and NLLB-200: an encoder and a decoder for translation."""

from mwanda.models.family import Family


FAMILY = Family(
    name="m2m_100",
    model_types=("m2m_100",),
    block_paths=("model.encoder.layers",),
    further_paths=("model.decoder.layers",),
)
