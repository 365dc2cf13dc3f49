"""Qwen2-MoE and Qwen3-MoE: mixtures of experts in most blocks; that of Qwen2 has one for all tokens, behind a gate."""

from mwanda.models.family import Family


FAMILY = Family(
    name="qwen_moe",
    model_types=("qwen2_moe", "qwen3_moe", "qwen3_next"),
    block_paths=("model.layers",),
    keep=("mlp.shared_expert_gate",),
)
