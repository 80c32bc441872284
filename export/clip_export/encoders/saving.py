"""A whole checkpoint in transformers format of an encoder that has changed: image tower, text tower, tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

from torch import nn

from clip_export.encoders.digest import tokenizer_files
from clip_export.encoders.image import Encoder
from clip_export.encoders.model_card import save_card
from clip_export.encoders.open_clip_processor import CONFIG as OPEN_CLIP
from clip_export.encoders.weights import SAFETENSORS

_KEPT = (".json", ".txt", ".model")
"""Suffixes of what a checkpoint has beside weights, as for its tokenizer."""


def save_checkpoint(encoder: Encoder, folder: Path) -> None:
    """Write an encoder, as it is now, with the rest of its checkpoint.

    Args:
        encoder: the encoder.
        folder: an empty one.

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    source = encoder.checkpoint.source
    model = cast("Any", _whole_model(encoder))
    model.save_pretrained(folder, max_shard_size="1TB")
    shutil.copymode(folder / "config.json", folder / SAFETENSORS)  # safetensors lets nobody else read what it writes
    bare = encoder.checkpoint.bare_file
    if bare is not None:
        (folder / OPEN_CLIP).write_text(json.dumps(bare.content), encoding="utf-8")
    names = tokenizer_files(source) if bare is not None else [path.name for path in source.iterdir()]
    for name in names:
        if name.endswith(_KEPT) and not (folder / name).exists() and not name.endswith(".index.json"):
            shutil.copyfile(source / name, folder / name)
    save_card(encoder.checkpoint.licenses, encoder.spec().id, folder)


def _whole_model(encoder: Encoder) -> nn.Module:
    """Return the checkpoint's transformers model, with the fine-tuned image tower and projection."""
    rules = encoder.family.image
    model = encoder.checkpoint.model("image", lambda _: False)
    getattr(model, rules.module, model).load_state_dict(encoder.tower.state_dict())
    if encoder.projection is not None:
        assert rules.projection is not None
        getattr(model, rules.projection).load_state_dict(encoder.projection.state_dict())
    return model
