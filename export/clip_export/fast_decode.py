"""Does a finished file decide JPEGs that are scaled down while they are decoded as it does exact ones?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clip_export.quantization.evidence.gate import Decisions, compare_heads
from clip_export.quantization.evidence.images import LEAST_EVALUATION, LabelledImage
from clip_toolkit import Classifier, Prediction, load, open_image, preprocess
from clip_toolkit.errors import ParityError
from clip_toolkit.images import DecodeOptions
from clip_toolkit.images.limits import DRAFT_FACTOR
from clip_toolkit.spec.classifier import Preprocessing
from clip_toolkit.spec.receipts import FastDecodeReceipt, agreement_text
from clip_toolkit.stream.pipeline import chunks

_BATCH = 8


@dataclass(frozen=True)
class FastDecodeOptions:
    """How fast decoding is judged.

    Attributes:
        images: that judge: each with its pixels decoded fast, uint8 RGB ``[size, size, 3]`` like the exact ones.
        side: pixels that both sides of them have kept.
        source: where they come from, for people.
        min_agreement: bound on `clip_export.quantization.evidence.gate.Decisions.agreement` of every head, 0 to 1.
    """

    images: tuple[tuple[LabelledImage, NDArray[np.uint8]], ...]
    side: int
    source: str
    min_agreement: float


def scaled_images(
    images: Sequence[LabelledImage], source: str, rule: Preprocessing, min_agreement: float
) -> FastDecodeOptions:
    """Decode images fast, and keep those to which it makes a difference.

    Raises:
        ParityError: these are fewer than `LEAST_EVALUATION`.
    """
    side = rule.resize * DRAFT_FACTOR
    draft = DecodeOptions(draft_side=side)
    pairs = [(image, preprocess(open_image(image.path, draft), rule)) for image in images]
    scaled = tuple((image, pixels) for image, pixels in pairs if not np.array_equal(pixels, image.pixels))
    if len(scaled) < LEAST_EVALUATION:
        raise ParityError(
            f"--fast-decode: expected at least {LEAST_EVALUATION} JPEGs of {2 * side} pixels a side or more, which it "
            f"scales down, got {len(scaled)} among {len(images)} images ({source}). Name a folder of such images, or "
            "leave it out: without them it saves nothing."
        )
    return FastDecodeOptions(scaled, side, source, min_agreement)


def judge_fast_decode(path: Path, options: FastDecodeOptions) -> tuple[FastDecodeReceipt, dict[str, Decisions]]:
    """Compare what a file answers to images decoded fast and exactly.

    Returns:
        The receipt, of the head that fares worst, and what changed, by the heads' names.

    Raises:
        ParityError: too many decisions change.
    """
    classifier = load(path, device="cpu", fast_decode=False)
    spec = classifier.spec
    images = [image for image, _ in options.images]
    before = _answers(classifier, ((image.pixels, image.text) for image in images))
    after = _answers(classifier, ((pixels, image.text) for image, pixels in options.images))
    names, targets = [image.name for image in images], [image.target for image in images]
    decisions = compare_heads(spec, names, before, after, targets)
    worst = min(decisions, key=lambda name: decisions[name].agreement)
    found = decisions[worst]
    if found.agreement < options.min_agreement:
        agreement = agreement_text(spec.heads[worst].task, found.agreement, found.images, "file with exact pixels")
        flips = "; ".join(f"{name}: {flip.before} -> {flip.after}" for name, flip in found.flips[:5])
        raise ParityError(
            f"--fast-decode: {f'{worst} ' if worst else ''}{agreement}, less than {options.min_agreement:.2%}"
            f"{f' ({flips})' if flips else ''}. No file was written. Leave it out."
        )
    receipt = FastDecodeReceipt(
        side=options.side,
        images=found.images,
        source=options.source,
        min_agreement=options.min_agreement,
        **found.told(),
    )
    return receipt, decisions


def _answers(classifier: Classifier, pairs: Iterable[tuple[NDArray[np.uint8], str | None]]) -> list[Prediction]:
    """Predict prepared images, with a text each where the model reads texts."""
    reads_texts = classifier.spec.text is not None
    answers: list[Prediction] = []
    for batch in chunks(pairs, _BATCH):
        texts = [(text or "") if reads_texts else None for _, text in batch]
        answers += classifier.predict_pixels([pixels for pixels, _ in batch], texts)
    return answers
