"""A fine-tuned image tower that lies in one file with its head: it replaces the one of the checkpoint it came from."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from typing import Any

from clip_export.encoders.image import Encoder
from clip_export.heads.checkpoints import Weights
from clip_toolkit.errors import HeadError


def with_tower(encoder: Encoder, weights: Weights) -> Encoder:
    """Return the encoder with the weights of another image tower and its projection; unchanged if there are none.

    Its revision becomes the SHA-256 of these weights: it is no longer the one that its id names.

    Raises:
        HeadError: the weights are not those of such a tower, or the projection that the head reads is not among them.
    """
    if not weights:
        return encoder
    weights = {name: value.float() for name, value in weights.items() if not name.endswith("position_ids")}
    prefix = f"{encoder.family.image.projection}."
    projection = {name: value for name, value in weights.items() if name.startswith(prefix)}
    used = {name: value for name, value in weights.items() if name not in projection}
    changed = replace(encoder, tower=_loaded(encoder.tower, used, encoder.id))
    if encoder.projection is not None:
        if not projection:
            raise HeadError(
                f"the head's file holds a tuned encoder, but not the {prefix[:-1]} behind it that makes the projected "
                f"feature, and that of {encoder.id} may not be the one. Save it in the same file, or use --feature "
                "pooled if the head reads pooler_output."
            )
        own = {name.removeprefix(prefix): value for name, value in projection.items()}
        changed = replace(changed, projection=_loaded(encoder.projection, own, encoder.id))
        used |= projection
    return replace(changed, revision=_digest(used))


def _loaded(module: Any, weights: Weights, id_: str) -> Any:
    """Return a copy of a module with other weights."""
    changed = copy.deepcopy(module)
    try:
        changed.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise HeadError(
            f"the head's file holds an encoder, too, and it does not fit {id_} ({reason}). Name the checkpoint "
            "that it was tuned from with --encoder."
        ) from error
    return changed.eval().requires_grad_(False)


def _digest(weights: Weights) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()
