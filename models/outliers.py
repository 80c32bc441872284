"""Outlier channels, as trained CLIP encoders have them and random ones lack, put into a checkpoint.

A few channels of each layer normalisation are scaled up and the weights behind scaled down: in exact arithmetic the
encoder stays what it was.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

_READERS = {
    "layer_norm1": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "layer_norm2": ("mlp.fc1",),
}


def add_outliers(folder: Path, factor: float, channels: int) -> Path:
    """Change a CLIP checkpoint in place: ``channels`` of each norm, other ones in each, grow by ``factor``."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    generator = torch.Generator().manual_seed(0)
    for name in [name for name in weights if name.endswith(("layer_norm1.weight", "layer_norm2.weight"))]:
        if "vision" not in name and "text" in name:
            continue
        block, norm = name.removesuffix(".weight").rsplit(".", 1)
        chosen = torch.randperm(len(weights[name]), generator=generator)[:channels]
        for kind in ("weight", "bias"):
            weights[f"{block}.{norm}.{kind}"][chosen] *= factor
        for reader in _READERS[norm]:
            weights[f"{block}.{reader}.weight"][:, chosen] /= factor
    save_file(weights, path, metadata={"format": "pt"})
    return folder
