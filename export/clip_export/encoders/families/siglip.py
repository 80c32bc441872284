"""SigLIP (Zhai et al. 2023, arXiv:2303.15343) and the SigLIP 2 checkpoints of a fixed resolution.

Model type ``siglip2`` names those of variable resolution: `clip_export.encoders.families.siglip2`.
"""

from __future__ import annotations

from clip_export.encoders.families.family import Family, ImageTower, TextTower

SIGLIP = Family(
    name="siglip",
    model_types=("siglip", "siglip_vision_model"),
    architectures=("SiglipModel", "SiglipVisionModel", "SiglipForImageClassification"),
    image=ImageTower(processor="SiglipImageProcessor", pooling="attention", optimum="SiglipVisionModel"),
    text=TextTower(
        architecture="SiglipModel",
        switches=lambda _: {"pooling": "last"},
        pads_to_context=True,
        lower_cases=True,
        compares_labels=False,
    ),
)
