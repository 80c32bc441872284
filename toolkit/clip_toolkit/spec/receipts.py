"""The evidence in a model file: of the export, and of the quantization."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from clip_toolkit.spec.tasks import REGRESSION


@dataclass(frozen=True)
class Differences:
    """Largest absolute differences from the PyTorch model, stage by stage.

    Attributes:
        pixels: of the resized and cropped image, in steps of 1/255.
        pixels_share: share of pixel values that differ at all.
        embedding: of the L2-normalised embedding.
        logits: of the logits.
        probabilities: of the probabilities.
    """

    pixels: int
    pixels_share: float
    embedding: float
    logits: float
    probabilities: float


@dataclass(frozen=True)
class ParityReceipt:
    """Evidence, measured at export on the shipped file and runtime, from image bytes on.

    Attributes:
        images: number of different pictures.
        shapes: their ``height x width``.
        batches: batch sizes that were run.
        logit_scale: largest absolute logit of the PyTorch model on them; tolerances are relative to it.
        tolerance: bound on ``pillow.logits / logit_scale``.
        pillow: differences when the runtime resizes with Pillow, as the transformers processor does.
        graph: differences when the graph resizes; absent in files that take ``pixel_values``.
        texts: number of different texts that went with the pictures; 0 for models that read none.
        cross_check: differences of logits and embedding from a second exporter's file, by its name.
    """

    images: int
    shapes: tuple[str, ...]
    batches: tuple[int, ...]
    logit_scale: float
    tolerance: float
    pillow: Differences
    graph: Differences | None = None
    texts: int = 0
    cross_check: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class NotebookReceipt:
    """Evidence that the file gives the answers that the notebook's own model gave, by the shipped runtime.

    Attributes:
        rows: number of the notebook's answers.
        compared: what was compared: ``logits``, ``probabilities`` or ``labels``, the strongest that was given.
        through: ``images`` (from image bytes on) or ``features`` (the head alone).
        difference: largest absolute difference; 0 for labels.
        tolerance: bound on it.
        scale: largest absolute logit of the notebook, 1 for probabilities and labels.
        tells_task: whether probabilities or labels were among the answers; logits alone suit every task.
        quantized: share of the rows that the quantized file decides as the notebook did, of a regression the share of
            variance kept, as in `QuantizationReceipt.agreement`; None if there is no such file, or for features.
    """

    rows: int
    compared: str
    through: str
    difference: float
    tolerance: float
    scale: float
    tells_task: bool = False
    quantized: float | None = None


@dataclass(frozen=True)
class Flip:
    """A decision that quantization changed. Of the image nothing is kept: its name may be somebody's secret.

    With several labels or none, the probability is that of one label that was said only before or only after.

    Attributes:
        before: label of the float file.
        before_probability: its probability there.
        after: label of the quantized file.
        after_probability: its probability there.
    """

    before: str
    before_probability: float
    after: str
    after_probability: float


@dataclass(frozen=True)
class QuantizationReceipt:
    """Evidence that a quantized file decides as the float one, by the shipped runtime on images it was not tuned on.

    Attributes:
        mode: ``int8``, ``int4`` or ``fp16``.
        target: processor that it was made for: ``x86-vnni``, ``x86``, ``arm64``, ``web``; ``any`` but for int8.
        choice: how it was done, for people.
        tried: relative error of the logits on the calibration images, for each way that was tried.
        float_layers: names of layers that stayed in float.
        calibration_images: number of images that ranges and ways were chosen on.
        evaluation_images: number of other images that it was judged by.
        source: where those images came from, for people.
        agreement: share of the evaluation images with the same decision; of a regression the share of the values'
            variance that is kept, of the value that fares worst (coefficient of determination).
        min_agreement: bound on it.
        flips: the decisions that changed.
        mean_shift: mean over the images of the largest absolute change of a probability, or of a regression's value.
        largest_shift: the largest of those changes.
        accuracy_before: of the float file where classes are known.
        accuracy_after: of this file.
        size_ratio: size of this file relative to the float one.
        speed_ratio: speed relative to the float one, for one image on the machine of the export; None if the target is
            another kind of machine.
        attempts: how many files were judged until one held the bound; each of them met the same images.
        refit_images: number of images that training the head again behind the quantized encoder was tried on; 0 without
            a refit. ``choice`` says whether the head that came of it was kept.
    """

    mode: str
    target: str
    choice: str
    tried: dict[str, float]
    float_layers: tuple[str, ...]
    calibration_images: int
    evaluation_images: int
    source: str
    agreement: float
    min_agreement: float
    flips: tuple[Flip, ...]
    mean_shift: float
    largest_shift: float
    accuracy_before: float | None
    accuracy_after: float | None
    size_ratio: float
    speed_ratio: float | None
    attempts: int = 1
    refit_images: int = 0


@dataclass(frozen=True)
class FastDecodeReceipt:
    """Evidence that the file decides JPEGs that are scaled down while they are decoded as it does exact ones.

    Attributes:
        side: JPEGs are scaled down by 2, 4 or 8, as long as both sides keep this number of pixels.
        images: number of JPEGs that judged it, all of them scaled down; the other fields are those of
            `QuantizationReceipt`, with the exactly decoded image in place of the float file.
    """

    side: int
    images: int
    source: str
    agreement: float
    min_agreement: float
    flips: tuple[Flip, ...]
    mean_shift: float
    largest_shift: float
    accuracy_before: float | None
    accuracy_after: float | None


def agreement_text(task: str, agreement: float, images: int, other: str = "float file") -> str:
    """Put an agreement with another model into words."""
    if task == REGRESSION:
        return f"keeps {agreement:.2%} of the values' variance on {images} images"
    return f"decides as the {other} on {agreement:.2%} of {images} images"
