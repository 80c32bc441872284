"""The other side of the proof: what the PyTorch model answers, by the unpatched transformers processor and modules."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import nn

from clip_export.encoders.image import Encoder
from clip_export.heads.outputs import probabilities
from clip_toolkit.spec.tasks import SINGLE_LABEL


class Reference(NamedTuple):
    """PyTorch's answers to a list of images.

    Attributes:
        pixels: of each image uint8 ``[size, size, 3]``, the processor's resized and cropped pixels.
        probabilities: float32 ``[images, classes]``; ``[images, 0]`` for a regression.
        logits: float32 ``[images, classes]``; the values of a regression.
        embedding: float32 ``[images, dim]``, of L2 norm 1.
    """

    pixels: list[NDArray[np.uint8]]
    probabilities: NDArray[np.float32]
    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]


def reference(
    encoder: Encoder,
    head: nn.Module,
    files: Sequence[bytes],
    task: str = SINGLE_LABEL,
    temperature: float = 1.0,
    *,
    texts: torch.Tensor | None = None,
) -> Reference:
    """Run the transformers encoder and the head, in float32 and one image at a time, on image files.

    Args:
        encoder: the encoder.
        head: from its feature, and behind it that of a text if there are any, to logits.
        files: image files.
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        temperature: as in `clip_toolkit.spec.classifier.ModelSpec`.
        texts: float32 ``[images, text dim]``, features of the texts that go with the images.
    """
    values = [pixel_values(encoder, file) for file in files]
    with torch.inference_mode():
        features = torch.cat([encoder.features(value) for value in values])
        logits = head(features if texts is None else torch.cat([features, texts], dim=1))
        answers = probabilities(logits, task, temperature), logits, nn.functional.normalize(features, dim=-1)
    return Reference([_unnormalised(value, encoder) for value in values], *(answer.numpy() for answer in answers))


def pixel_values(encoder: Encoder, file: bytes) -> torch.Tensor:
    """Run the transformers processor on an image file: float32 ``[1, 3, size, size]``, or in the image's own shape."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB")
    # Pillow 13 would take the vertical pass first for tall images; doing the horizontal one beforehand restores the
    # order of Pillow up to 12, which these checkpoints were made with (see clip_toolkit.images.preprocess).
    rule = encoder.preprocessing
    filter_ = Image.Resampling[rule.resample.upper()]
    if rule.mode == "squash":
        image = image.resize((rule.size, image.height), filter_)
    if rule.mode == "naflex":
        rows, columns = encoder.processor(images=[image], return_tensors="pt")["spatial_shapes"][0].tolist()
        image = image.resize((columns * rule.patch, image.height), filter_)
        image = image.resize((columns * rule.patch, rows * rule.patch), filter_)
    processed = encoder.processor(images=[image], return_tensors="pt")
    values: torch.Tensor = processed["pixel_values"]
    return _assembled(values, rows, columns, rule.patch) if rule.mode == "naflex" else values


def _assembled(patches: torch.Tensor, rows: int, columns: int, patch: int) -> torch.Tensor:
    """Put flat patches ``[1, patches, patch * patch * 3]`` together, without those that only pad."""
    tiles = patches[:, : rows * columns].reshape(1, rows, columns, patch, patch, 3)
    return tiles.permute(0, 5, 1, 3, 2, 4).reshape(1, 3, rows * patch, columns * patch)


def _unnormalised(values: torch.Tensor, encoder: Encoder) -> NDArray[np.uint8]:
    """Recover the integers that the processor normalised, exactly: they lie far apart in float32."""
    rule = encoder.preprocessing
    pixels = (values[0].permute(1, 2, 0).numpy().astype(np.float64) * rule.std + rule.mean) / rule.scale
    return np.rint(pixels).astype(np.uint8)
