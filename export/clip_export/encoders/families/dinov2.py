"""DINOv2 (Oquab et al. 2023, arXiv:2304.07193), with and without registers (Darcet et al. 2023, arXiv:2309.16588)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clip_export.encoders.families.family import BlockSettings, Family, ImageTower, activation
from clip_toolkit.errors import EncoderError


def _settings(config: Any) -> BlockSettings:
    if config.use_swiglu_ffn or not config.qkv_bias:
        raise EncoderError(
            "gated MLPs (use_swiglu_ffn) and attention without bias are not supported. Use a smaller one."
        )
    return BlockSettings(
        width=config.hidden_size,
        heads=config.num_attention_heads,
        hidden=int(config.hidden_size * config.mlp_ratio),
        depth=config.num_hidden_layers,
        activation=activation(config.hidden_act),
        eps=config.layer_norm_eps,
    )


def _positions(tower: Any, size: int) -> Tensor:
    """Resample the table by the tower's own rule: it was trained at 518 pixels, and is used at 224."""
    patches = (size // tower.config.patch_size) ** 2
    tokens = torch.zeros(1, 1 + patches, tower.config.hidden_size)
    positions: Tensor = tower.embeddings.interpolate_pos_encoding(tokens, size, size)
    return positions


DINOV2_NAMES = {
    r"^embeddings\.cls_token$": "embeddings.class_embedding",
    r"^embeddings\.patch_embeddings\.projection\.": "embeddings.patch_embedding.",
    r"^encoder\.layer\.": "encoder.layers.",
    r"\.norm([12])\.": r".layer_norm\1.",
    r"\.attention\.attention\.query\.": ".self_attn.q_proj.",
    r"\.attention\.attention\.key\.": ".self_attn.k_proj.",
    r"\.attention\.attention\.value\.": ".self_attn.v_proj.",
    r"\.attention\.output\.dense\.": ".self_attn.out_proj.",
    r"\.attention\.([qkv])_proj\.": r".self_attn.\1_proj.",  # these two since transformers 5
    r"\.attention\.o_proj\.": ".self_attn.out_proj.",
    r"^layernorm\.": "post_layernorm.",
}
"""To those of CLIP's image tower; DINOv3 and TIPSv2 keep most of them."""

DINOV2 = Family(
    name="dinov2",
    model_types=("dinov2", "dinov2_with_registers"),
    architectures=("Dinov2Model", "Dinov2WithRegistersModel"),
    image=ImageTower(
        processor="BitImageProcessor",
        pooling="class",
        names=DINOV2_NAMES,
        settings=_settings,
        positions=_positions,
        can_finetune=False,
    ),
)
