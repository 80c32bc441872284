"""A whole checkpoint in transformers format of an encoder that has changed: image tower, text tower, tokenizer."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import huggingface_hub
import torch
import transformers
from torch import nn

from clip_export.encoders.image import Encoder

WEIGHTS = "model.safetensors"
"""The file of the weights."""

_KEPT = (".json", ".txt", ".model")  # suffixes of what a checkpoint has beside weights, as for its tokenizer


def save_checkpoint(encoder: Encoder, folder: Path) -> None:
    """Write an encoder, as it is now, with the rest of its checkpoint.

    Args:
        encoder: the encoder.
        folder: an empty one.

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    source = _source(encoder)
    model = _whole_model(encoder, source)
    model.save_pretrained(folder, max_shard_size="1TB")
    shutil.copymode(folder / "config.json", folder / WEIGHTS)  # safetensors lets nobody else read what it writes
    for path in source.iterdir():
        if path.suffix in _KEPT and not (folder / path.name).exists() and not path.name.endswith(".index.json"):
            shutil.copyfile(path, folder / path.name)


def _source(encoder: Encoder) -> Path:
    """The folder of the checkpoint: of one from the hub that in its cache, completed by what training did not need."""
    if Path(encoder.id).is_dir():
        return Path(encoder.id)
    fetch = partial(huggingface_hub.snapshot_download, encoder.id, revision=encoder.revision)
    try:
        return Path(fetch(allow_patterns=[f"*{suffix}" for suffix in _KEPT]))
    except Exception:  # no network any more: what was loaded is at hand
        return Path(fetch(local_files_only=True))


def _whole_model(encoder: Encoder, source: Path) -> nn.Module:
    """The checkpoint's transformers model, with the fine-tuned image tower and projection."""
    config = transformers.AutoConfig.from_pretrained(source)
    kind = getattr(transformers, (config.architectures or encoder.family.architectures)[0])
    model = kind.from_pretrained(source, dtype=torch.float32)
    getattr(model, "vision_model", model).load_state_dict(encoder.tower.state_dict())
    if encoder.projection is not None:
        name = "vision_proj" if hasattr(model, "vision_proj") else "visual_projection"
        getattr(model, name).load_state_dict(encoder.projection.state_dict())
    return model
