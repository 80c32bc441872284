"""What a frozen encoder makes of image files: computed once, so that no epoch has to run the encoder again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_export.encoder import Encoder
from clip_toolkit import ImageError, decode, preprocess
from clip_toolkit.preprocess import normalise


@dataclass(frozen=True)
class Features:
    """Features of the files that could be read.

    Attributes:
        values: float32 ``[readable, dim]``, on the CPU.
        kept: index of the file of each row.
        errors: why each of the other files was skipped.
    """

    values: Tensor
    kept: list[int]
    errors: list[ImageError]


def image_features(
    encoder: Encoder,
    files: Sequence[Path],
    batch_size: int = 32,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda _: None,
) -> Features:
    """Run the encoder over image files, skipping those that cannot be read.

    Args:
        encoder: the encoder; it is moved to ``device``.
        files: image files.
        batch_size: images per run.
        device: a PyTorch device.
        progress: called with the number of files just done.
    """
    encoder.tower.to(device)
    if encoder.projection is not None:
        encoder.projection.to(device)
    kept: list[int] = []
    errors: list[ImageError] = []
    rows: list[Tensor] = []
    prepared = _prepared(encoder, files, kept, errors, progress)
    while batch := list(islice(prepared, batch_size)):
        values = torch.from_numpy(normalise(np.stack(batch), encoder.preprocessing))
        with torch.inference_mode():
            rows.append(encoder.features(values.to(device)).cpu())
    return Features(torch.cat(rows).clone() if rows else torch.empty(0, encoder.dim), kept, errors)


def _prepared(
    encoder: Encoder,
    files: Sequence[Path],
    kept: list[int],
    errors: list[ImageError],
    progress: Callable[[int], None],
) -> Iterator[NDArray[np.uint8]]:
    for index, file in enumerate(files):
        try:
            pixels = preprocess(decode(file), encoder.preprocessing)
        except ImageError as error:
            errors.append(error)
        else:
            kept.append(index)
            yield pixels
        progress(1)
