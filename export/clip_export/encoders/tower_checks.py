"""Whether an image tower and its image processor fit each other."""

from __future__ import annotations

from typing import Any

import torch

from clip_export.encoders.checkpoint import Checkpoint
from clip_toolkit.errors import EncoderError
from clip_toolkit.spec.classifier import Preprocessing


def check_tower(tower: Any, checkpoint: Checkpoint, preprocessing: Preprocessing) -> None:
    """Refuse an image tower without its head, or whose images the processor would not make.

    Raises:
        EncoderError: it is such a one, or of a traced tower: it cannot be run, or makes another feature than it says.
    """
    if getattr(tower, "use_head", True) is False:
        raise EncoderError(f"{checkpoint.id}: the image tower has no pooling head (vision_use_head is false).")
    if checkpoint.family.image.naflex or preprocessing.patch:
        if not checkpoint.family.image.naflex or tower.config.patch_size != preprocessing.patch:
            raise EncoderError(
                f"{checkpoint.id}: the image processor makes {preprocessing.mode} images in patches of "
                f"{preprocessing.patch}, which is not what its image tower takes. Check preprocessor_config.json."
            )
    elif checkpoint.family.image.takes_any_size:
        if preprocessing.size % tower.config.patch_size:
            raise EncoderError(
                f"{checkpoint.id}: the image processor makes {preprocessing.size} pixels a side, no multiple of the "
                f"image tower's patches of {tower.config.patch_size}. Check preprocessor_config.json."
            )
    elif tower.config.image_size != preprocessing.size:
        raise EncoderError(
            f"{checkpoint.id}: the image tower takes {tower.config.image_size} pixels a side, but its image processor "
            f"makes {preprocessing.size}. Check preprocessor_config.json."
        )
    if checkpoint.family.image.traced:
        _check_feature(tower, checkpoint.id)


def _check_feature(tower: Any, encoder: str) -> None:
    """Run a tower once, of which nothing else is known."""
    size, dim = tower.config.image_size, tower.config.hidden_size
    try:
        shape = list(tower(pixel_values=torch.zeros(1, 3, size, size)).pooler_output.shape)
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(f"{encoder}: its image tower cannot take images of {size} pixels ({reason}).") from error
    if shape != [1, dim]:
        raise EncoderError(
            f"{encoder}: its image tower makes a feature of shape {shape}, expected [1, {dim}]. Check embed_dim, "
            "timm_pool and timm_proj in its configuration."
        )
