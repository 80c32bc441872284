"""Features on disk, so that an image goes through an encoder once and never again.

A feature is found by the hash of what made it: the encoder's weights, configuration and preprocessing, the bytes of the
image file and the number of the augmented view. File names and dates play no part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path
from torch import nn

from clip_export.encoders.image import Encoder
from clip_export.features.rows import RowCache

_FORMAT = 2


def default_folder() -> Path:
    """Where caches lie unless another place is named: the user's cache folder of the system."""
    return user_cache_path("clip-toolkit", appauthor=False) / "features"


def encoder_identity(encoder: Encoder) -> dict[str, object]:
    """Everything about an encoder that decides its features."""
    modules = [encoder.tower] + ([encoder.projection] if encoder.projection is not None else [])
    return {
        "format": _FORMAT,
        "encoder": encoder.spec().id,
        "revision": encoder.revision,
        "feature": "all depths" if encoder.makes_all_depths else encoder.feature,
        "weights": weights_digest(modules),
        "configuration": configuration(encoder.tower.config),
        "preprocessing": asdict(encoder.preprocessing),
    }


def weights_digest(modules: Iterable[nn.Module]) -> str:
    """Hash all weights and buffers of some modules."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def configuration(config: Any) -> dict[str, Any]:
    """Return what a transformers configuration says beyond the weights, such as activation and heads."""
    told: dict[str, Any] = config.to_diff_dict()
    return {name: value for name, value in told.items() if name != "transformers_version" and not name.startswith("_")}


class FeatureCache(RowCache):
    """The features of one encoder on disk; with that of a depth those of all depths, which one pass makes."""

    def __init__(self, base: Path, encoder: Encoder) -> None:
        """Open the cache of an encoder below ``base``, and read what it holds; a missing folder is made."""
        super().__init__(base, encoder_identity(encoder), encoder.row_shape)
