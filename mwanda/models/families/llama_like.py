"""Llama and the many models of its shape: blocks at `model.layers`, separate query, key, value, gate and up."""

from mwanda.models.family import Family


FAMILY = Family(
    name="llama_like",
    model_types=(
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "gemma",
        "gemma2",
        "gemma3_text",
        "cohere",
        "cohere2",
    ),
    block_paths=("model.layers",),
)
