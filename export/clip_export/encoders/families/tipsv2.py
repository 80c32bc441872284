"""TIPSv2 (transformers 5.14): DINOv2's image tower with a second class token in place of the registers.

The feature is the first class token, which was trained on the captions of the web. The text tower, whose tokens are
averaged, is not read.
"""

from __future__ import annotations

from dataclasses import replace

from clip_export.encoders.families.dinov2 import DINOV2
from clip_export.encoders.families.family import Family

TIPSV2 = Family(
    name="tipsv2",
    model_types=("tipsv2", "tipsv2_vision_model"),
    architectures=("Tipsv2Model", "Tipsv2VisionModel"),
    image=replace(
        DINOV2.image,
        processor="Tipsv2ImageProcessor",
        in_pillow={
            "image_processor_type": "ViTImageProcessor",
            "size": {"height": 448, "width": 448},
            "do_normalize": False,
        },
    ),
)
