"""What a file says beside its answers, to judge how far they can be trusted; absent where nobody asked for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from clip_toolkit.spec.json_codec import LATER


@dataclass(frozen=True)
class NoveltySpec:
    """How far an image is from the training images, by output ``novelty``: float32 ``[batch]``.

    Attributes:
        threshold: beyond it an image is unlike the training images.
        share: of the validation images that are beyond.
        images: how many validation images there were.
        golden: of each golden vector, as its other answers.
        quantized: of a quantized file, the shares of the images that judged it that are beyond: in float32, and in this
            file; else empty.
    """

    threshold: float
    share: float
    images: int
    golden: tuple[float, ...] = field(default=(), repr=False)
    quantized: tuple[float, ...] = field(default=(), metadata=LATER)


@dataclass(frozen=True)
class CoverageSpec:
    """The promise that the set of labels of `clip_toolkit.spec.decisions.label_sets` holds the right one.

    Attributes:
        share: of further images like those calibrated on, for which it does.
        quantile: of the probability that is more probable than the right label.
        images: how many images it was calibrated on.
    """

    share: float
    quantile: float
    images: int


@dataclass(frozen=True)
class ReferenceSpec:
    """What the model says of images like those that it is meant for, to tell when they change.

    Attributes:
        images: how many there were.
        labels: how many of them each label was predicted of; empty for a regression.
        novel: how many of them were told unlike the training images; None in a file that does not tell it.
        mean: of their embeddings ``[dim]``.
        spread: standard deviation of each dimension ``[dim]``.
    """

    images: int
    labels: dict[str, int]
    novel: int | None
    mean: tuple[float, ...] = field(repr=False)
    spread: tuple[float, ...] = field(repr=False)


@dataclass(frozen=True)
class RelevanceSpec:
    """Which parts of an image speak for its most probable label: output ``relevance``, float32, not negative.

    Its shape is ``[batch, rows, columns]``, over the square that the encoder sees.

    Attributes:
        rows: patches from top to bottom.
        columns: patches from left to right.
        golden: of each golden vector its map, row by row.
    """

    rows: int
    columns: int
    golden: tuple[tuple[float, ...], ...] = field(default=(), repr=False)
