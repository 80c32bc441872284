"""Predictions as records, and the rows of records in tables and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from textwrap import shorten
from typing import TYPE_CHECKING, Any, TypeAlias

from clip_toolkit import listing
from clip_toolkit.errors import ClipToolkitError
from clip_toolkit.listing import Style
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION

if TYPE_CHECKING:
    from clip_toolkit.prediction import Prediction
    from clip_toolkit.spec.classifier import ModelSpec, TaskSpec

Record: TypeAlias = dict[str, Any]
"""``image``, ``label``, ``probability``, ``top`` (a list of label and probability), ``provider``, ``error``; of a
multi-label model also ``labels``, all that are said; of a regression also ``values``, by name; of a model that reads a
text with each image also ``text`` and ``text_truncated``; of a file that tells it ``novelty`` and ``is_novel``; of one
that was calibrated for it ``set``, the labels one of which is promised to be right, null where nothing is said; of a
frame of a video also ``time``, its seconds from the start; of a model with several heads also ``head``, the main one's
name, and ``tasks``, the same of each further one by name. For `COLUMNAR` forms also ``p:<label>``, the probability of
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


_NOVEL = "! unlike the training images: the label may mean nothing, however high its probability"
"""What an exclamation mark in a table means."""

_SET = "+ in the set that holds the right label of as many images as clip-infer --describe says"
"""What a plus in a table means."""

_REJECTED = "(unlike the training images)"


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
    reject_novel: bool = False,
) -> Record:
    """Make the record of one image: a prediction, or ``error`` and nothing else.

    The spec says which keys it has, and ``columns`` adds the probability of each label. With ``reject_novel`` an image
    unlike the training images has no label, no probabilities, no values and no set.
    """
    item: Record = {"image": image} | ({} if time is None else {"time": time})
    item |= {"label": None, "probability": None, "top": [], "provider": provider, "error": None}
    if spec.text is not None:
        item |= {"text": text, "text_truncated": False}
    prediction = None if isinstance(result, ClipToolkitError) else result
    rejected = reject_novel and prediction is not None and prediction.is_novel
    answered = None if rejected else prediction
    item |= _answer(answered, top_k, spec, columns=columns)
    if spec.novelty is not None:
        item |= {"novelty": prediction and prediction.novelty, "is_novel": prediction and prediction.is_novel}
    if spec.coverage is not None:
        item |= {"set": None if answered is None or answered.set is None else [*answered.set]}
    if spec.tasks:
        item |= {"head": spec.name}
        item["tasks"] = {
            task.name: _answer(answered and answered.tasks[task.name], top_k, task, columns=columns)
            for task in spec.tasks
        }
    if prediction is None:
        return item | {"error": str(result)}
    if "text" in item:
        item["text_truncated"] = prediction.text_truncated
    return item | {"provider": prediction.provider}


def _answer(result: Prediction | None, top_k: int, spec: ModelSpec | TaskSpec, *, columns: bool) -> Record:
    """Return what a head says of an image, or with None of one that has an error."""
    item: Record = {"label": None, "probability": None, "top": []}
    if spec.task == MULTI_LABEL:
        item["labels"] = []
    if spec.task == REGRESSION:
        item["values"] = dict.fromkeys(spec.labels)
    if columns:
        item |= dict.fromkeys(probability_columns(spec))
    if result is None:
        return item
    if "labels" in item:
        item["labels"] = list(result.decisions)
    if "values" in item:
        item["values"] = result.values
    if columns:
        item |= dict(zip(probability_columns(spec), map(float, result.probabilities), strict=True))
    top = [score._asdict() for score in result.top(top_k)]
    return item | {"label": result.label, "probability": result.probability, "top": top}


def probability_columns(spec: ModelSpec | TaskSpec) -> list[str]:
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
        row |= _said(item) | {name: item[name] for name in ("novelty", "is_novel") if name in item}
        if "set" in item:
            row |= {"set": None if item["set"] is None else ";".join(item["set"])}
        row |= {"provider": item["provider"], "error": item["error"]} | _probabilities(item)
        for name, answer in item.get("tasks", {}).items():
            row |= prefixed(name, _said(answer) | _probabilities(answer))
        if number == 0:
            yield [*row]
        yield [*row.values()]


def prefixed(head: str, answer: Record) -> Record:
    """Put the name of a further head in front of its columns."""
    return {f"{head}.{name}": value for name, value in answer.items()}


def _said(item: Record) -> Record:
    if "values" in item:
        return dict(item["values"])
    label = ";".join(item["labels"]) if "labels" in item else item["label"]
    return {"label": label, "probability": item["probability"]}


def _probabilities(item: Record) -> Record:
    return {name: value for name, value in item.items() if name.startswith(PROBABILITY)}


def _grid(records: Iterable[Record]) -> Iterator[list[str]]:
    """Yield a row for each label of each image, and of each head."""
    for number, item in enumerate(records):
        several = len(_heads(item)) > 1
        if number == 0:
            kinds = dict.fromkeys("value" if "values" in answer else "probability" for answer in _heads(item).values())
            yield ["image", *["head"] * several, "label", " or ".join(kinds), *["novelty"] * ("novelty" in item)]
        rows = [(head, *row) for head, answer in _heads(item).items() for row in _answers(answer)]
        for rank, (head, *cells) in enumerate(rows):
            yield [_name(item) if rank == 0 else "", *[head] * several, *cells, *_novelty(item, shown=rank == 0)]


def _heads(item: Record) -> Record:
    """Return what each head says, by its name, the main one first."""
    return {item.get("head", ""): item, **item.get("tasks", {})}


def _novelty(item: Record, *, shown: bool) -> list[str]:
    """Return the cell of an image's distance from the training images; no cell where the file does not tell it."""
    if "novelty" not in item:
        return []
    return [f"{item['novelty']:>8.4g}{' !' if item['is_novel'] else ''}" if shown else ""]


def _legend(records: list[Record]) -> Iterator[str]:
    """Yield what the stars of a table mean."""
    answers = [answer for item in records for answer in _heads(item).values()]
    starred = {"labels" in answer for answer in answers for _, text in _answers(answer) if "*" in text}
    yield from (_MARK[several] for several in sorted(starred))
    if any(item.get("is_novel") for item in records):
        yield _NOVEL
    if any(map(_promised, records)):
        yield _SET


def _promised(item: Record) -> Sequence[str]:
    """Labels one of which is promised to be right; of images unlike the training images nothing is."""
    return () if item.get("is_novel") else item.get("set") or ()


def _name(item: Record) -> str:
    """Return the image's name, the time of a frame, and the beginning of the text that goes with it."""
    name = f"{item['image']} {item['time']:.2f} s" if "time" in item else str(item["image"])
    if item.get("text") is None:
        return name
    return f"{name}: {shorten(item['text'], _SHOWN, placeholder='...')}"


def _answers(item: Record) -> list[tuple[str, str]]:
    """Label and number, as text: all predicted labels first; those that a threshold predicted have a star."""
    if _is_rejected(item):
        return [(_REJECTED, "")]
    if "values" in item:
        return [(name, f"{value:>10.5g}") for name, value in item["values"].items()]
    scores = {name.removeprefix(PROBABILITY): value for name, value in item.items() if name.startswith(PROBABILITY)}
    predicted = item.get("labels", [item["label"]])
    ranked = sorted(scores, key=lambda label: (label not in predicted, -scores[label]))
    by_threshold = "labels" in item or predicted != [item["top"][0]["label"]]
    starred = predicted if by_threshold else ()
    several = _promised(item)
    shown = ranked[: max(len(item["top"]), len(predicted))]
    shown += [label for label in ranked[len(shown) :] if label in several]
    marks = {label: " *" * (label in starred) + " +" * (label in several) for label in shown}
    return [(label, f"{scores[label]:>10.2%}{marks[label]}") for label in shown]


def _is_rejected(item: Record) -> bool:
    """Whether a record was made with ``reject_novel``, of such an image."""
    answered = any(value is not None for value in item["values"].values()) if "values" in item else item["top"]
    return bool(item.get("is_novel")) and not answered
