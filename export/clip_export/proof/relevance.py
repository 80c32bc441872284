"""Which files can have the output ``relevance``, and PyTorch's own maps to prove it by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_export.encoders.image import Encoder
from clip_export.graph.relevance import cells_a_side
from clip_export.graph.vit import VisionTransformer
from clip_export.heads.files import TrainedHead
from clip_export.heads.mlp import VLMtoMLP
from clip_toolkit import Classifier, decode
from clip_toolkit.errors import EncoderError, HeadError
from clip_toolkit.images import ImageSource
from clip_toolkit.images.preprocess import preprocess
from clip_toolkit.spec.classifier import Preprocessing
from clip_toolkit.spec.tasks import REGRESSION

Maps = tuple[tuple[float, ...], ...]


def check_explained(head: TrainedHead, encoder: Encoder, *, reads_texts: bool) -> None:
    """Refuse what has no map of its patches, or none that is known to be right.

    Raises:
        EncoderError: the encoder's images keep their shape, or it is no plain vision transformer.
        HeadError: the head reads texts, is one of several or of other layers, or gives several values.
    """
    if encoder.family.image.naflex:
        raise EncoderError(f"{encoder.id}: its images keep their shape, and --explain has one grid. Leave it out.")
    if encoder.family.image.traced is not None:
        raise EncoderError(
            f"{encoder.id}: {encoder.family.name} encoders have no grid of patches. Leave out --explain."
        )
    if reads_texts:
        raise HeadError("--explain tells what of the image speaks for a label, and this head reads texts, too.")
    if head.further:
        raise HeadError("--explain goes with a file of one head.")
    if not isinstance(head.module, VLMtoMLP):
        raise HeadError("--explain goes with heads of Linear layers and activations alone, and this one has others.")
    if head.task == REGRESSION and head.module.spec.layers[-1] > 1:
        raise HeadError("--explain goes with a regression of one value: of several, none is the decided one.")


def relevance_maps(
    vit: VisionTransformer, head: VLMtoMLP, rule: Preprocessing, images: Iterable[ImageSource]
) -> Iterator[NDArray[np.float32]]:
    """Compute the maps of images in PyTorch, one at a time: float32 ``[rows, columns]``.

    Args:
        vit: the canonical encoder, of standard operators and for uint8 pixels.
        head: the head behind it.
        rule: the encoder's.
        images: what `clip_toolkit.decode` takes.

    Raises:
        ImageError: one cannot be decoded.
    """
    for image in images:
        pixels = torch.from_numpy(preprocess(decode(image), rule).copy())[None]
        yield _map(vit, head, pixels)[0].numpy()


def _map(vit: VisionTransformer, head: VLMtoMLP, pixels: Tensor) -> Tensor:
    """Compute maps ``[batch, rows, columns]`` by automatic differentiation, of which the file knows nothing."""
    with torch.no_grad():
        decided = head(vit(pixels)).argmax(1, keepdim=True)
    difference = pixels - pixels.float().mean((1, 2), keepdim=True)
    halfway = (pixels - difference / 2).requires_grad_()
    (gradient,) = torch.autograd.grad(head(vit(halfway)).gather(1, decided).sum(), halfway)
    side = vit.config.size // vit.config.patch * vit.config.patch
    made: Tensor = (gradient * difference).sum(-1)[:, :side, :side]
    rows = cells_a_side(vit)
    cells: Tensor = made.reshape(-1, rows, side // rows, rows, side // rows).sum((2, 4))
    return cells.clamp(min=0)


def reference_maps(vit: VisionTransformer, head: VLMtoMLP, rule: Preprocessing, files: Sequence[bytes]) -> Maps:
    """Compute the maps of image files as `relevance_maps` does, row by row."""
    return tuple(tuple(map_.ravel().tolist()) for map_ in relevance_maps(vit, head, rule, files))


def own_maps(classifier: Classifier, files: Sequence[bytes]) -> Maps:
    """Record the maps of a quantized file: elsewhere it has to give the same, however far from PyTorch."""
    pixels = [preprocess(decode(file), classifier.spec.preprocessing) for file in files]
    return tuple(tuple(map(float, classifier.relevance(image[None]).ravel())) for image in pixels)
