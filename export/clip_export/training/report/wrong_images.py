"""The part of the report that shows what the head is wrong about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clip_export.encoders.image import Encoder
from clip_export.graph.vit_weights import canonical_vit
from clip_export.heads.files import TrainedHead
from clip_export.heads.mlp import VLMtoMLP
from clip_export.proof.relevance import check_explained, relevance_maps
from clip_export.training.judging.evaluation import Evaluation
from clip_export.training.preparation import Prepared
from clip_export.training.report.predictions import PREDICTIONS
from clip_toolkit.errors import EncoderError, HeadError
from clip_toolkit.explaining.mistakes import MAPS_NOTE, Relevance, mistake_thumbnail
from clip_toolkit.judging.mistakes import Mistake, mistakes
from clip_toolkit.judging.page import Section, gallery
from clip_toolkit.spec.tasks import REGRESSION

_MOST = 120  # on the page, which would be slow to open with thousands
_MOST_MAPS = 24  # each of which takes a pass of the encoder in PyTorch
_NOTE = "Look at each: wrong labels in the data, bad images and shortcuts (a caption, a marker, a border) show here."


def mistakes_section(
    evaluation: Evaluation, prepared: Prepared, head: TrainedHead, encoder: Encoder
) -> Iterator[Section]:
    """Show the held-out images that were decided wrongly, each with its file's name; say how many are left out."""
    found = mistakes(evaluation)
    shown, count = found[:_MOST], len(found)
    if not found:
        return
    title = "Largest errors" if evaluation.task == REGRESSION else "Mistakes"
    which = f"All {count}" if len(shown) == count else f"{len(shown)} of {count}, the others are in {PREDICTIONS}"
    order = "the largest first" if evaluation.task == REGRESSION else "the most confident first"
    note = f"{which}; {order}. {_NOTE}"
    relevance = _relevance(head, encoder, prepared, shown[:_MOST_MAPS])
    if relevance is not None:
        limit = f" The first {_MOST_MAPS} have one." if len(shown) > _MOST_MAPS else ""
        note = f"{note} {MAPS_NOTE}{limit}"
    indices = prepared.held_out.indices
    thumbnails = (
        mistake_thumbnail(mistake, evaluation, prepared.dataset, indices[mistake.row], relevance) for mistake in shown
    )
    yield Section(title, note, html=gallery(thumbnails))


def _relevance(
    head: TrainedHead, encoder: Encoder, prepared: Prepared, mistakes: Sequence[Mistake]
) -> Relevance | None:
    """Compute what speaks for answers, where `clip-export --explain` could: by the same operators, in PyTorch."""
    try:
        check_explained(head, encoder, reads_texts=prepared.texts is not None)
    except (EncoderError, HeadError):
        return None
    assert isinstance(head.module, VLMtoMLP)  # others have been refused
    for part in filter(None, (encoder.tower, encoder.projection)):
        part.to("cpu")  # from where the features were computed
    rows = list(dict.fromkeys(mistake.row for mistake in mistakes))  # an image may have several
    images = (prepared.dataset.files[prepared.held_out.indices[row]] for row in rows)
    maps = relevance_maps(canonical_vit(encoder), head.module, encoder.preprocessing, images)
    return Relevance(dict(zip(rows, maps, strict=True)), encoder.preprocessing)
