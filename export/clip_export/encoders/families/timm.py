"""OpenCLIP's models with an image tower of timm's: MobileCLIP (arXiv:2311.17049), EVA-02, PE-Core, ConvNeXt and others.

Their graph is a trace of the tower itself, in standard operators.
"""

from __future__ import annotations

from typing import Any

from clip_export.encoders.families.family import BlockSettings, Family, ImageTower, TextTower


def _class(_: str) -> Any:
    from clip_export.encoders.open_clip_timm import TimmClipModel  # with it come transformers' models: a second

    return TimmClipModel


def _traced(tower: Any) -> Any:
    from clip_export.encoders.open_clip_timm import reparameterised

    return reparameterised(tower)


def _no_blocks(config: Any) -> BlockSettings:
    """Return the width of the feature alone: what blocks there are differs from tower to tower."""
    return BlockSettings(width=config.hidden_size, heads=0, hidden=0, depth=0, activation="gelu", eps=0.0)


def _text_switches(config: Any) -> dict[str, Any]:
    return {"causal": config.model_type == "clip_text_model", "pooling": "largest"}


TIMM = Family(
    name="timm",
    model_types=("open_clip_timm",),
    architectures=("TimmClipModel", "TimmTower"),
    class_of=_class,
    image=ImageTower(
        processor="CLIPImageProcessor", pooling="own", settings=_no_blocks, traced=_traced, can_finetune=False
    ),
    text=TextTower(
        architecture="TimmClipModel", switches=_text_switches, projection="text_projection", pads_to_context=True
    ),
)
