"""Predictions as records, and the rows of records in tables and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from textwrap import shorten
from typing import TYPE_CHECKING, Any, TypeAlias

from clip_toolkit import listing
from clip_toolkit.errors import ClipToolkitError
from clip_toolkit.listing import Style
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION

if TYPE_CHECKING:
    from clip_toolkit.prediction import Prediction
    from clip_toolkit.spec.classifier import ModelSpec

Record: TypeAlias = dict[str, Any]
"""``image``, ``label``, ``probability``, ``top`` (a list of label and probability), ``provider``, ``error``; of a
multi-label model also ``labels``, all that are said; of a regression also ``values``, by name; of a model that reads a
text with each image also ``text`` and ``text_truncated``; of a frame of a video also ``time``, its seconds from the
start. For `COLUMNAR` forms also ``p:<label>``, the probability of
each label; and where it is asked for `EMBEDDING`, a list of numbers."""

_SHOWN = 40  # characters of a text in a table

FORMATS = (*listing.FORMATS, "parquet")
"""Forms of output; `lines` gives the text of all but ``parquet``."""

COLUMNAR = ("table", "csv", "parquet")
"""Forms that want the probability of every label, ``p:<label>``."""

PROBABILITY = "p:"
"""How the heading of a column of probabilities begins; the label follows."""

EMBEDDING = "embedding"

_MARK = {
    False: "* predicted by the model's threshold, though not the most probable label: see clip-infer --describe",
    True: "* predicted: at or above its threshold, see clip-infer --describe",
}
"""What a star in a table means, by whether the model predicts any number of labels."""


def record(
    image: str,
    result: Prediction | ClipToolkitError,
    top_k: int,
    provider: str,
    spec: ModelSpec,
    *,
    text: str | None = None,
    time: float | None = None,
    columns: bool = False,
) -> Record:
    """Make the record of one image: a prediction, or ``error`` and nothing else.

    The spec says which keys it has, and ``columns`` adds the probability of each label.
    """
    item: Record = {"image": image} | ({} if time is None else {"time": time})
    item |= {"label": None, "probability": None, "top": [], "provider": provider, "error": None}
    if spec.text is not None:
        item |= {"text": text, "text_truncated": False}
    if spec.task == MULTI_LABEL:
        item["labels"] = []
    if spec.task == REGRESSION:
        item["values"] = dict.fromkeys(spec.labels)
    if columns:
        item |= dict.fromkeys(probability_columns(spec))
    if isinstance(result, ClipToolkitError):
        return item | {"error": str(result)}
    if "labels" in item:
        item["labels"] = list(result.decisions)
    if "values" in item:
        item["values"] = result.values
    if "text" in item:
        item["text_truncated"] = result.text_truncated
    if columns:
        item |= dict(zip(probability_columns(spec), map(float, result.probabilities), strict=True))
    top = [score._asdict() for score in result.top(top_k)]
    return item | {"label": result.label, "probability": result.probability, "top": top, "provider": result.provider}


def probability_columns(spec: ModelSpec) -> list[str]:
    """Name the columns of probabilities, one a label; a regression has none."""
    return [] if spec.task == REGRESSION else [f"{PROBABILITY}{label}" for label in spec.labels]


def lines(records: Iterable[Record], style: Style) -> Iterator[str]:
    """Give lines of text for records in any form but ``parquet``; a table leaves out images with an error."""
    if style.form != "table":
        return style.lines(records, _flat, _grid)
    good = [item for item in records if item["error"] is None]
    return chain(style.lines(good, _flat, _grid), _legend(good))


def _flat(records: Iterable[Record]) -> Iterator[list[Any]]:
    """``label`` holds all that are predicted, apart by semicolons; a regression has a column for each value instead."""
    for number, item in enumerate(records):
        row: Record = {name: item[name] for name in ("image", "time", "text", "text_truncated") if name in item}
        if "values" in item:
            row |= item["values"]
        else:
            row |= {"label": ";".join(item["labels"]) if "labels" in item else item["label"]}
            row |= {"probability": item["probability"]}
        row |= {"provider": item["provider"], "error": item["error"]}
        row |= {name: value for name, value in item.items() if name.startswith(PROBABILITY)}
        if number == 0:
            yield [*row]
        yield [*row.values()]


def _grid(records: Iterable[Record]) -> Iterator[list[str]]:
    """Yield a row for each label of each image."""
    for number, item in enumerate(records):
        if number == 0:
            yield ["image", "label", "value" if "values" in item else "probability"]
        for rank, (label, text) in enumerate(_answers(item)):
            yield [_name(item) if rank == 0 else "", label, text]


def _legend(records: list[Record]) -> Iterator[str]:
    """Yield what the stars of a table mean."""
    if any(text.endswith("*") for item in records for _, text in _answers(item)):
        yield _MARK["labels" in records[0]]


def _name(item: Record) -> str:
    """Return the image's name, the time of a frame, and the beginning of the text that goes with it."""
    name = f"{item['image']} {item['time']:.2f} s" if "time" in item else str(item["image"])
    if item.get("text") is None:
        return name
    return f"{name}: {shorten(item['text'], _SHOWN, placeholder='...')}"


def _answers(item: Record) -> list[tuple[str, str]]:
    """Label and number, as text: all predicted labels first; those that a threshold predicted have a star."""
    if "values" in item:
        return [(name, f"{value:>10.5g}") for name, value in item["values"].items()]
    scores = {name.removeprefix(PROBABILITY): value for name, value in item.items() if name.startswith(PROBABILITY)}
    predicted = item.get("labels", [item["label"]])
    ranked = sorted(scores, key=lambda label: (label not in predicted, -scores[label]))
    by_threshold = "labels" in item or predicted != [item["top"][0]["label"]]
    starred = predicted if by_threshold else ()
    shown = ranked[: max(len(item["top"]), len(predicted))]
    return [(label, f"{scores[label]:>10.2%}{' *' if label in starred else ''}") for label in shown]
