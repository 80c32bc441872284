"""The chosen head as it is saved, with the receipt of why it was chosen."""

from __future__ import annotations

from pathlib import Path

from clip_export.heads.files import TrainedHead
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.references import EncoderReference
from clip_export.training.judging.outcome import Judgement
from clip_export.training.preparation import Prepared
from clip_export.tuning.candidates import Found
from clip_export.tuning.choice import Choice
from clip_export.tuning.subject import Subject
from clip_toolkit.judging.figures import figure_text


def tuned_head(
    subject: Subject,
    head: VLMtoMLP,
    prepared: Prepared,
    judgement: Judgement,
    receipt: dict[str, str],
) -> TrainedHead:
    """Return the head with its decisions, and with the receipt in what the model file says of its training."""
    dataset, encoder = prepared.dataset, subject.encoder
    temperature, thresholds = judgement.decisions
    counts = {side.name: len(side.indices) for side in prepared.sides}
    return TrainedHead(
        head,
        EncoderReference(
            _portable_id(encoder.id),
            encoder.revision,
            receipt["chosen feature"],
            licenses=encoder.checkpoint.licenses,
            input_size=encoder.input_size,
        ),
        dataset.labels,
        {"images": len(prepared.reading.kept), "skipped": len(prepared.reading.errors), **counts, **receipt},
        prepared.reference(),
        dataset.task,
        temperature,
        thresholds,
    )


def receipt_of(
    choice: Choice, reference: Found, *, confirmed: Judgement, compared: Judgement, measured: int, machine: str
) -> dict[str, str]:
    """Say in words what was chosen, why, and what it does on the images that the search has not looked at."""
    found = choice.found
    return {
        "chosen by": f"clip-tune, {choice.why} of {measured} measured files",
        "chosen feature": found.feature,
        "chosen encoder": found.encoder,
        "chosen precision": found.precision,
        "time": f"{time_text(found)} for one image, {reference} {time_text(reference)}; {machine}",
        "size": f"{size_text(found)} without its proof, {reference} {size_text(reference)}",
        "cross-validation accuracy": f"{figure_text(found.accuracy)}, {reference} {figure_text(reference.accuracy)}",
        "held-out accuracy": f"{figure_text(confirmed.held_out.score)} on {confirmed.held_out.images} images, "
        f"{reference} {figure_text(compared.held_out.score)}",
    }


def time_text(found: Found) -> str:
    """Format a measured time."""
    return f"{1e3 * found.seconds:.3g} ms"


def size_text(found: Found) -> str:
    """Format a size."""
    return f"{found.bytes / 1e6:.1f} MB"


def _portable_id(encoder: str) -> str:
    return str(Path(encoder).resolve()) if Path(encoder).is_dir() else encoder
