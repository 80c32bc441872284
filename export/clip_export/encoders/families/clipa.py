"""CLIPA (Li et al. 2023, arXiv:2305.07017), in OpenCLIP's format: it reads the mean of the patches."""

from __future__ import annotations

from typing import Any

from clip_export.encoders.families.family import Family, ImageTower, TextTower


def _class(_: str) -> Any:
    from clip_export.encoders.clipa import ClipaModel  # with it come transformers' models, which take a second

    return ClipaModel


CLIPA = Family(
    name="clipa",
    model_types=("clipa",),
    architectures=("ClipaModel",),
    class_of=_class,
    image=ImageTower(
        processor="CLIPImageProcessor", pooling="mean", projection="visual_projection", can_finetune=False
    ),
    text=TextTower(
        architecture="ClipaModel",
        switches=lambda _: {"pooling": "last"},
        projection="text_projection",
        pads_to_context=True,
    ),
)
