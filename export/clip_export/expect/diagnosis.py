"""Why a notebook answers otherwise than the file: the usual reasons tried, one at a time and then two."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import ExifTags, Image

from clip_export.expect.answers import Answers
from clip_export.expect.comparing import Comparison
from clip_export.expect.fitting import Fit, Setting, fits
from clip_export.expect.half_precision import of_half_precision, of_rounded_weights
from clip_export.expect.reasons import Reason, head_reasons, image_reasons
from clip_export.expect.variants import AS_EXPORTED, Subject, Variant

ROWS = 16
"""Number of answers that reasons are tried on."""

_ENOUGH = 0.2  # of the difference, and of how far the answers vary: an explanation that leaves more of it is none


def diagnose(answers: Answers, subject: Subject, setting: Setting) -> str:
    """Name what explains the notebook's answers.

    Args:
        answers: some of them, fitted to the labels.
        subject: the encoder and the head, with the images or features of these answers.
        setting: what is made of the logits, as exported.

    Returns:
        A sentence or two, with what to do.
    """
    attempts: list[Fit] = []
    for stage in _stages(answers, subject, setting):
        found = list(stage)
        attempts += found
        exact = [fit for fit in found if fit.left.passed]
        if exact:
            return _explained(_distinct(exact))
    start, *others = attempts
    closest = min(others, key=lambda fit: (len(fit.left.changed), fit.left.excess), default=start)
    if _explains_most(closest.left, start.left):
        return (
            f"Closest: {_said(closest)}, which leaves a difference of {closest.left.difference:.2g} and "
            f"{len(closest.left.changed)} other decisions. To do: {_remedies(closest)}."
        )
    return (
        "None of the usual reasons explains it, alone or two together: normalised or other features, activation, label "
        "order, softmax or sigmoid, temperature, resize, channel order, pixel normalisation, half precision. If the "
        "head has more in it than layers in a row, give its class with --head-class notebook.py:ClassName."
    )


def _explains_most(left: Comparison, start: Comparison) -> bool:
    """Ask for more than small logits: a large temperature alone brings any near to small answers, and follows none."""
    follows = left.compared == "labels" or left.difference <= _ENOUGH * start.spread
    return follows and left.excess <= _ENOUGH * start.excess and len(left.changed) <= len(start.changed)


def _stages(answers: Answers, subject: Subject, setting: Setting) -> Iterator[Iterable[Fit]]:
    """Explanations by what they cost to try; each stage is computed when the one before has failed."""
    heads = list(head_reasons(subject))
    images = list(image_reasons(subject, rotated=_any_rotated(subject))) if subject.images else []

    def tried(reasons: Iterable[tuple[Reason, ...]], most: int) -> Iterator[Fit]:
        for group in reasons:
            variant = _combined(group)
            if variant is not None and variant.head in subject.heads:
                for fit in fits(answers, subject.logits(variant), setting, most - len(group)):
                    yield Fit((*group, *fit.reasons), fit.left)

    yield tried([()], 1)
    yield tried([(reason,) for reason in heads], 1)
    yield tried([(reason,) for reason in images], 1)
    yield of_half_precision(answers, subject, setting)
    yield of_rounded_weights(answers, subject, setting)
    yield tried([(), *((reason,) for reason in heads)], 2)
    yield tried(itertools.combinations(heads, 2), 2)
    yield tried([(reason,) for reason in images], 2)
    yield tried(itertools.product(images, heads), 2)
    yield tried(itertools.combinations(images, 2), 2)


def _combined(group: tuple[Reason, ...]) -> Variant | None:
    variant: Variant | None = AS_EXPORTED
    for reason in group:
        variant = variant.combined(reason.variant) if variant is not None else None
    return variant


def _distinct(exact: list[Fit]) -> list[Fit]:
    """Return the best ones first; those with a single reason before others."""
    return sorted(exact, key=lambda fit: (len(fit.reasons), fit.left.excess))


def _explained(exact: list[Fit]) -> str:
    best, *others = exact
    if best.left.compared != "labels" or not others:
        return f"What explains it: {_said(best)}. To do: {_remedies(best)}."
    listed = "; or ".join(f"{_said(fit)} ({_remedies(fit)})" for fit in exact[:3])
    return f"Labels alone cannot tell which of these explains it: {listed}. Save logits for a certain answer."


def _said(fit: Fit) -> str:
    return "the notebook " + " and ".join(reason.text for reason in fit.reasons)


def _remedies(fit: Fit) -> str:
    options = [reason.remedy.removeprefix("export with ") for reason in fit.reasons if reason.remedy.startswith("exp")]
    others = dict.fromkeys(reason.remedy for reason in fit.reasons if not reason.remedy.startswith("exp"))
    return "; ".join([f"export with {' '.join(options)}"] * bool(options) + list(others))


def _any_rotated(subject: Subject) -> bool:
    return any(_orientation(image) > 1 for image in subject.images)


def _orientation(image: str | bytes) -> int:
    with Image.open(io.BytesIO(image) if isinstance(image, bytes) else Path(image)) as picture:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
