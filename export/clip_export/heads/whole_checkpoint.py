"""A fine-tuned image tower that lies in one file with its head: it replaces the one of the checkpoint it came from."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace

from clip_export.encoders.image import Encoder
from clip_export.heads.checkpoints import Weights
from clip_toolkit.errors import HeadError


def with_tower(encoder: Encoder, tower: Weights) -> Encoder:
    """Return the encoder with the weights of another image tower; unchanged if there are none.

    Its revision becomes the SHA-256 of these weights: it is no longer the one that its id names.

    Raises:
        HeadError: the weights are not those of such a tower.
    """
    if not tower:
        return encoder
    changed = copy.deepcopy(encoder.tower)
    weights = {name: value.float() for name, value in tower.items() if not name.endswith("position_ids")}
    try:
        changed.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise HeadError(
            f"the head's file holds an encoder, too, and it does not fit {encoder.id} ({reason}). Name the checkpoint "
            "that it was tuned from with --encoder."
        ) from error
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return replace(encoder, tower=changed.eval().requires_grad_(False), revision=digest.hexdigest())
