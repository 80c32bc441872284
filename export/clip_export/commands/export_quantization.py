"""How ``clip-export`` quantizes and judges: where its images come from, and the decisions that changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from clip_export.fast_decode import FastDecodeOptions, scaled_images
from clip_export.heads.references import DataReference
from clip_export.quantization.evidence.files import Wanted
from clip_export.quantization.evidence.gate import Decisions
from clip_export.quantization.evidence.images import gather, judging_images, refit_images
from clip_export.quantization.quantizing import QuantizationOptions
from clip_export.quantization.request import MINUTES, QuantizationRequest
from clip_export.quantization.targets import find_target
from clip_toolkit.terminal import say

_SHOWN_FLIPS = 20


def quantization_options(
    asked: QuantizationRequest, wanted: Wanted, remembered: DataReference | None
) -> QuantizationOptions:
    """Gather the images that a request names, and say which were skipped.

    Raises:
        QuantizationError: images are too few, mixed up or of other labels, or this machine cannot prove the target.
    """
    target = find_target(asked.target)
    evidence = gather(wanted, asked.calibration, asked.evaluation, remembered)
    if evidence is None:
        say(
            "no images were given, and the training folder is not there: ranges are determined at run time, and drawn "
            "pictures judge. Give typical images with --calibration for a proof that means something."
        )
    else:
        say(*wanted.listing.notes(), *(f"skipped: {error}" for error in evidence.unreadable))
    refit = asked.refit if isinstance(asked.refit, Path) else None
    return QuantizationOptions(
        mode=asked.mode,
        target=target,
        evidence=evidence,
        refit=refit_images(refit, evidence, wanted) if asked.refit else (),
        min_agreement=asked.min_agreement,
        minutes=MINUTES if asked.search_minutes is None else asked.search_minutes,
        report=lambda text: say(f"quantization: {text}"),
    )


def fast_decode_options(
    asked: Path | bool, least: float, wanted: Wanted, remembered: DataReference | None
) -> FastDecodeOptions | None:
    """Gather the images that judge fast decoding, if it is asked for.

    Raises:
        ParityError, QuantizationError: there are none, or too few.
    """
    if not asked:
        return None
    images, source, unreadable = judging_images(asked if isinstance(asked, Path) else None, wanted, remembered)
    say(*wanted.listing.notes(), *(f"skipped: {error}" for error in unreadable))
    return scaled_images(images, source, wanted.preprocessing, least)


def flip_lines(decisions: Mapping[str, Decisions], name_of_flip: str = "flip") -> Iterator[str]:
    """Name the images whose decision changed, which the file itself does not, by the heads' names."""
    for head, found in decisions.items():
        of_head = f"{head}: " if head else ""
        for name, flip in found.flips[:_SHOWN_FLIPS]:
            before, after = f"{flip.before} {flip.before_probability:.1%}", f"{flip.after} {flip.after_probability:.1%}"
            yield f"{name_of_flip}: {of_head}{name}: {before} -> {after}"
        if len(found.flips) > _SHOWN_FLIPS:
            yield f"and {len(found.flips) - _SHOWN_FLIPS} more flips"


def changed_lines(names: Sequence[str]) -> Iterator[str]:
    """Name the images that the quantized file decides otherwise than the notebook."""
    for name in names[:_SHOWN_FLIPS]:
        yield f"changed: {name}: decided otherwise than in the notebook"
    if len(names) > _SHOWN_FLIPS:
        yield f"and {len(names) - _SHOWN_FLIPS} more decisions of the notebook's"
