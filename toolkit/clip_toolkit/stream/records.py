"""Predictions as records, and records as a table, JSON, JSON lines or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from textwrap import shorten
from typing import Any, TypeAlias

from clip_toolkit.errors import ClipToolkitError
from clip_toolkit.prediction import Prediction
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION

Record: TypeAlias = dict[str, Any]
"""``image``, ``label``, ``probability``, ``top`` (a list of label and probability), ``provider``, ``error``; of a
multi-label model also ``labels``, all that are said; of a regression also ``values``, by name; of a model that reads a
text with each image also ``text`` and ``text_truncated``."""

_SHOWN = 40  # characters of a text in a table

FORMATS = ("table", "json", "jsonl", "csv", "parquet")
"""Forms of output; `lines` gives the text of all but ``parquet``."""


def record(
    image: str,
    result: Prediction | ClipToolkitError,
    top_k: int,
    provider: str,
    spec: ModelSpec,
    *,
    text: str | None = None,
) -> Record:
    """The record of one image: a prediction, or ``error`` and nothing else. The spec says which keys it has."""
    item: Record = {"image": image, "label": None, "probability": None, "top": []}
    item |= {"provider": provider, "error": None}
    if spec.text is not None:
        item |= {"text": text, "text_truncated": False}
    if spec.task == MULTI_LABEL:
        item["labels"] = []
    if spec.task == REGRESSION:
        item["values"] = dict.fromkeys(spec.labels)
    if isinstance(result, ClipToolkitError):
        return item | {"error": str(result)}
    if "labels" in item:
        item["labels"] = list(result.decisions)
    if "values" in item:
        item["values"] = result.values
    if "text" in item:
        item["text_truncated"] = result.text_truncated
    top = [score._asdict() for score in result.top(top_k)]
    return item | {"label": result.label, "probability": result.probability, "top": top, "provider": result.provider}


def lines(records: Iterable[Record], form: str) -> Iterator[str]:
    """Lines of text for records, as early as the form allows: ``table`` and ``json`` need all of them first."""
    if form == "jsonl":
        return (json.dumps(item, ensure_ascii=False) for item in records)
    if form == "csv":
        return _csv(records)
    if form == "json":
        return iter([json.dumps(list(records), ensure_ascii=False, indent=2)])
    return _table(list(records))


def _csv(records: Iterable[Record]) -> Iterator[str]:
    """``label`` holds all that are said, apart by semicolons; a regression has a column for each value instead."""
    for number, item in enumerate(records):
        values = item.get("values")
        said = {"label": ";".join(item["labels"])} if "labels" in item else {"label": item["label"]}
        answer = values if values is not None else said | {"probability": item["probability"]}
        asked = {name: item[name] for name in ("image", "text", "text_truncated") if name in item}
        if number == 0:
            yield _csv_line([*asked, *answer, "provider", "error"])
        yield _csv_line([*asked.values(), *answer.values(), item["provider"], item["error"]])


def _csv_line(cells: Iterable[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(cells)
    return buffer.getvalue()


def _table(records: list[Record]) -> Iterator[str]:
    good = [item for item in records if item["error"] is None]
    if not good:
        return
    answers = [_answers(item) for item in good]
    names = [_name(item) for item in good]
    name_width = max(5, *map(len, names))
    label_width = max(5, *(len(label) for rows in answers for label, _ in rows))
    quantity = "value" if "values" in good[0] else "probability"
    yield f"{'image':<{name_width}}  {'label':<{label_width}}  {quantity}"
    for name, rows in zip(names, answers, strict=True):
        for rank, (label, text) in enumerate(rows):
            yield f"{name if rank == 0 else '':<{name_width}}  {label:<{label_width}}  {text}"


def _name(item: Record) -> str:
    """The image's name, and the beginning of the text that goes with it."""
    if item.get("text") is None:
        return str(item["image"])
    return f"{item['image']}: {shorten(item['text'], _SHOWN, placeholder='...')}"


def _answers(item: Record) -> list[tuple[str, str]]:
    """Label and number, as text. Labels that a multi-label model says carry a star, as does what a threshold turned."""
    if "values" in item:
        return [(name, f"{value:>10.5g}") for name, value in item["values"].items()]
    said = item.get("labels", [item["label"]])
    turned = item["top"][:1] and said != [item["top"][0]["label"]]
    starred = said if "labels" in item or turned else ()
    return [
        (score["label"], f"{score['probability']:>10.2%}{' *' if score['label'] in starred else ''}")
        for score in item["top"]
    ]
