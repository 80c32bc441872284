"""Whether what a model says of new images still looks like what it said of its reference images."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clip_toolkit.classifier import Classifier
from clip_toolkit.errors import DatasetError
from clip_toolkit.images.folder import ImageListing
from clip_toolkit.judging.answers import Array
from clip_toolkit.judging.drift import FEWEST, mean_distance, mean_p, share_p, shares_p
from clip_toolkit.prediction import Prediction
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from clip_toolkit.spec.trust import ReferenceSpec

LEVEL = 0.01
"""How often drift is found where there is none, all tests together (Bonferroni)."""


@dataclass(frozen=True)
class Seen:
    """What a model said of images without labels of their own.

    Attributes:
        images: how many it answered.
        failed: how many it could not.
        answered: how many have a label, or may have: those that were not rejected as novel.
        labels: how many of them each label was predicted of.
        novel: how many are unlike the training images; None where it was not told.
        embedding: ``[images, dim]``, or None where it was not kept.
    """

    images: int
    failed: int
    answered: int
    labels: dict[str, int]
    novel: int | None
    embedding: Array | None


class Finding(NamedTuple):
    """The outcome of one test.

    Attributes:
        about: what was compared.
        p: how often chance alone would give such a difference; NaN where nothing was tested.
        text: how large it is, or why it was not tested.
    """

    about: str
    p: float
    text: str


def see_folder(
    classifier: Classifier, folder: Path, batch_size: int, step: Callable[[bool], None], *, all_files: bool = False
) -> Seen:
    """Run a model over the images in a folder and below.

    Raises:
        DatasetError: none of them can be read, or the model reads a text with each.
    """
    if classifier.spec.text is not None:
        raise DatasetError(f"{folder}: the model reads a text with each image. Give the results of clip-infer --texts.")
    found = []
    for item in classifier.predict_many(ImageListing(all_files=all_files).images(str(folder)), batch_size, "return"):
        step(not isinstance(item, Prediction))
        found.append(item)
    good = [item for item in found if isinstance(item, Prediction)]
    if not good:
        raise DatasetError(f"{folder}: there are no images, or none that can be read.")
    labels = Counter(label for item in good for label in item.decisions)
    novel = None if classifier.spec.novelty is None else sum(bool(item.is_novel) for item in good)
    embedding = np.stack([item.embedding for item in good])
    return Seen(len(good), len(found) - len(good), len(good), labels, novel, embedding)


def see_results(path: Path, spec: ModelSpec) -> Seen:
    """Read the records that ``clip-infer --format jsonl`` wrote, taken to be of this model.

    Raises:
        DatasetError: they are not such records, or of a model with other labels.
    """
    records = list(_records(path))
    good = [item for item in records if item.get("error") is None]
    if not good:
        raise DatasetError(f"{path}: there are no results in it, or errors alone.")
    key = "labels" if spec.task == MULTI_LABEL else "label"
    for item in good:
        unknown = {*_labels(item, key)} - {*spec.labels}
        if key not in item or unknown:
            raise DatasetError(
                f"{path}: results of another model: expected '{key}' among its labels, got {item!r:.80}."
            )
    told = [item.get("is_novel") for item in good]
    answered = [item for item in good if item.get("top") != [] or spec.task == REGRESSION]
    labels = Counter(label for item in answered for label in _labels(item, key))
    novel = None if None in told else sum(map(bool, told))
    return Seen(len(good), len(records) - len(good), len(answered), labels, novel, _embedding(good, path, spec))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                item = json.loads(line) if line.strip() else None
                if isinstance(item, dict):
                    yield item
                elif item is not None:
                    raise DatasetError(
                        f"{path}, line {number}: expected a record of clip-infer, got {line.strip():.40}."
                    )
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be read as JSON lines: {error}.") from error


def _labels(item: dict[str, Any], key: str) -> list[Any]:
    found = item.get(key)
    return found if isinstance(found, list) else [] if found is None else [found]


def _embedding(records: list[dict[str, Any]], path: Path, spec: ModelSpec) -> Array | None:
    rows = [item.get("embedding") for item in records]
    if None in rows:
        return None
    try:
        found = np.array(rows, np.float64)
    except (ValueError, TypeError):
        found = np.zeros(0)
    if found.shape != (len(rows), spec.encoder.dim) or not np.isfinite(found).all():
        raise DatasetError(f"{path}: expected embeddings of {spec.encoder.dim} numbers each.")
    return found


def find_drift(spec: ModelSpec, reference: ReferenceSpec, seen: Seen) -> list[Finding]:
    """Compare what a model said of new images with its reference statistics."""
    return [_of_labels(spec, reference, seen), _of_novelty(reference, seen), _of_embedding(reference, seen)]


def drifted(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that chance alone would seldom give: `LEVEL` over the number of tests."""
    tested = [found for found in findings if not math.isnan(found.p)]
    return [found for found in tested if found.p < LEVEL / len(tested)]


def _of_labels(spec: ModelSpec, reference: ReferenceSpec, seen: Seen) -> Finding:
    if spec.task == REGRESSION:
        return Finding("labels", math.nan, "not tested: a regression has none")
    if not seen.answered:
        return Finding("labels", math.nan, "not tested: every image was rejected")
    before, after = (
        np.array([counts.get(label, 0) for label in spec.labels]) for counts in (reference.labels, seen.labels)
    )
    if spec.task == SINGLE_LABEL:
        p = shares_p(before, after)
    else:
        totals = (reference.images, seen.answered)
        p = min(
            1.0, len(before) * min(share_p(pair, totals) for pair in zip(before.tolist(), after.tolist(), strict=True))
        )
    shares = np.stack([before / reference.images, after / seen.answered])
    most = int(np.abs(shares[1] - shares[0]).argmax())
    rejected = f"; {seen.images - seen.answered} rejected images have no label" if seen.answered < seen.images else ""
    changed = f"the largest change: {spec.labels[most]}, {_change(*shares[:, most])}"
    return Finding("labels", p, f"{changed}{rejected}")


def _of_novelty(reference: ReferenceSpec, seen: Seen) -> Finding:
    if reference.novel is None or seen.novel is None:
        where = "the model file does" if reference.novel is None else "the results do"
        return Finding("novelty", math.nan, f"not tested: {where} not tell it (clip-train --novelty)")
    counts, totals = (reference.novel, seen.novel), (reference.images, seen.images)
    shares = (count / total for count, total in zip(counts, totals, strict=True))
    return Finding("novelty", share_p(counts, totals), f"unlike the training images: {_change(*shares)}")


def _of_embedding(reference: ReferenceSpec, seen: Seen) -> Finding:
    if seen.embedding is None:
        return Finding("embedding", math.nan, "not tested: the results do not hold it. Give the images instead")
    if seen.images < FEWEST:
        return Finding(
            "embedding", math.nan, f"not tested: at least {FEWEST} images are needed, there are {seen.images}"
        )
    mean, spread = np.array(reference.mean), np.array(reference.spread)
    distance = mean_distance(seen.embedding, mean, spread)
    p = mean_p(seen.embedding, mean, spread, reference.images)
    return Finding("embedding", p, f"the means are {distance:.3f} standard deviations apart (root mean square)")


def _change(before: float, after: float) -> str:
    return f"{before:.2%} before, {after:.2%} now"
