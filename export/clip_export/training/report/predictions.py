"""What a head predicts of every image that it learnt from or was judged by, as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip_export.heads.files import TrainedHead
from clip_export.training.judging.evaluation import answer
from clip_export.training.preparation import Prepared
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.files.csv_table import SEPARATOR
from clip_toolkit.judging.answers import Answers
from clip_toolkit.spec.tasks import REGRESSION
from clip_toolkit.stream.records import PROBABILITY

PREDICTIONS = "predictions.csv"


def write_predictions(path: Path, prepared: Prepared, head: TrainedHead) -> None:
    """Write a row for every image, at the head's operating point.

    Its columns are ``side``, ``path`` (from the root of the data set), ``text`` where images have one, ``true`` and
    ``predicted`` labels, and ``p:<label>``, the probability of each label; of a regression instead of the last three
    ``true:<value>`` and ``predicted:<value>``.

    Raises:
        OutputError: the file cannot be written.
    """
    with (
        written_atomically(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(_rows(prepared, head))


def _rows(prepared: Prepared, head: TrainedHead) -> Iterator[list[Any]]:
    dataset = prepared.dataset
    texts = ["text"] if dataset.texts is not None else []
    yield ["side", "path", *texts, *_headings(head.task, dataset.labels)]
    for side, indices, examples in prepared.sides:
        answers = answer(
            head.module,
            examples,
            dataset.labels,
            task=head.task,
            temperature=head.temperature,
            thresholds=head.thresholds,
        )
        for row, index in enumerate(indices):
            text = [] if dataset.texts is None else [dataset.texts[index]]
            yield [side, dataset.relative(index), *text, *_cells(answers, row)]


def _headings(task: str, labels: tuple[str, ...]) -> list[str]:
    if task == REGRESSION:
        return [f"{kind}:{label}" for kind in ("true", "predicted") for label in labels]
    return ["true", "predicted", *(f"{PROBABILITY}{label}" for label in labels)]


def _cells(answers: Answers, row: int) -> list[Any]:
    if answers.task == REGRESSION:
        return [*answers.targets[row].tolist(), *answers.logits[row].tolist()]
    named = (SEPARATOR.join(answers.named(which[row])) for which in (answers.true, answers.predicted))
    return [*named, *answers.probabilities[row].tolist()]
