"""Predictions as records, and records as a table, JSON, JSON lines or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from clip_toolkit.errors import ClipToolkitError
from clip_toolkit.prediction import Prediction

Record: TypeAlias = dict[str, Any]
"""``image``, ``label``, ``probability``, ``top`` (a list of label and probability), ``provider``, ``error``."""

FORMATS = ("table", "json", "jsonl", "csv", "parquet")
"""Forms of output; `lines` gives the text of all but ``parquet``."""


def record(image: str, result: Prediction | ClipToolkitError, top_k: int, provider: str) -> Record:
    """The record of one image: a prediction, or ``error`` and nothing else."""
    item: Record = {"image": image, "label": None, "probability": None, "top": [], "provider": provider, "error": None}
    if isinstance(result, ClipToolkitError):
        return item | {"error": str(result)}
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
    yield "image,label,probability,provider,error"
    for item in records:
        row = [item[name] for name in ("image", "label", "probability", "provider", "error")]
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="").writerow(row)
        yield buffer.getvalue()


def _table(records: list[Record]) -> Iterator[str]:
    good = [item for item in records if item["error"] is None]
    if not good:
        return
    name_width = max(5, *(len(item["image"]) for item in good))
    label_width = max(5, *(len(score["label"]) for item in good for score in item["top"]))
    yield f"{'image':<{name_width}}  {'label':<{label_width}}  probability"
    for item in good:
        for rank, score in enumerate(item["top"]):
            name = item["image"] if rank == 0 else ""
            yield f"{name:<{name_width}}  {score['label']:<{label_width}}  {score['probability']:>10.2%}"
