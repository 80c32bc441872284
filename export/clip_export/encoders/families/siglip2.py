"""SigLIP 2 NaFlex (Tschannen et al. 2025, arXiv:2502.14786): SigLIP's towers for images of any shape."""

from __future__ import annotations

from dataclasses import replace

from clip_export.encoders.families.family import Family, ImageTower
from clip_export.encoders.families.siglip import SIGLIP

assert SIGLIP.text is not None
SIGLIP2 = Family(
    name="siglip2",
    model_types=("siglip2", "siglip2_vision_model"),
    architectures=("Siglip2Model", "Siglip2VisionModel"),
    image=ImageTower(processor="Siglip2ImageProcessor", pooling="attention", naflex=True, can_finetune=False),
    text=replace(SIGLIP.text, architecture="Siglip2Model"),
)
