"""What the runtime says of a model's outputs, by task."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_toolkit import ImageError, Prediction, SpecError
from clip_toolkit.listing import Style
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from clip_toolkit.stream.records import COLUMNAR, lines, record

Edited = Callable[..., Path]


def prediction(answers: list[float], task: str, thresholds: dict[str, float] | None = None) -> Prediction:
    values = np.array(answers, np.float32)
    labels = ("ant", "bee", "cow")[: len(answers)]
    return Prediction(
        labels, values[:0] if task == REGRESSION else values, values, values, "CPU", task, thresholds or {}
    )


def test_without_a_threshold_the_most_probable_label_is_said():
    said = prediction([0.2, 0.5, 0.3], SINGLE_LABEL)
    assert (said.label, said.decisions, said.values) == ("bee", ("bee",), {})


@pytest.mark.parametrize(("threshold", "label"), [(0.2, "bee"), (0.25, "bee"), (0.26, "ant"), (0.0, "bee")])
def test_of_two_labels_a_threshold_decides(threshold: float, label: str):
    said = prediction([0.75, 0.25], SINGLE_LABEL, {"bee": threshold})
    assert said.label == label
    assert said.probability == {"bee": 0.25, "ant": 0.75}[label]
    assert said.top(1)[0].label == "ant"


def test_the_threshold_may_be_of_the_first_label():
    assert prediction([0.3, 0.7], SINGLE_LABEL, {"ant": 0.3}).label == "ant"


def test_several_labels_or_none_are_said():
    said = prediction([0.6, 0.9, 0.2], MULTI_LABEL, {"cow": 0.1})
    assert said.decisions == ("ant", "bee", "cow")
    assert (said.label, said.probability) == ("bee", pytest.approx(0.9))
    none = prediction([0.1, 0.2], MULTI_LABEL)
    assert (none.decisions, none.label, none.probability) == ((), None, None)


def test_a_regression_has_values_and_says_no_label():
    said = prediction([-2.5, 70.0], REGRESSION)
    assert said.values == {"ant": -2.5, "bee": 70.0}
    assert (said.label, said.probability, said.decisions, said.top(3)) == (None, None, (), [])


def spec_of(demo: Path, task: str) -> ModelSpec:
    return replace(read_spec(demo), task=task, labels=("ant", "bee"))


def rows(demo: Path, task: str, form: str) -> list[str]:
    spec = spec_of(demo, task)
    results = [ImageError("bad.png: is not an image"), prediction([0.75, 0.5], task)]
    names = ("bad.png", "good.png")
    return shown([(name, result) for name, result in zip(names, results, strict=True)], spec, form)


def shown(results: list[tuple[str, Prediction | ImageError]], spec: ModelSpec, form: str, top_k: int = 3) -> list[str]:
    columns = form in COLUMNAR
    return list(lines([record(name, each, top_k, "CPU", spec, columns=columns) for name, each in results], Style(form)))


def test_records_of_several_labels(demo: Path):
    bad, good = map(json.loads, rows(demo, MULTI_LABEL, "jsonl"))
    assert (bad["labels"], bad["label"]) == ([], None)
    assert (good["labels"], good["label"]) == (["ant", "bee"], "ant")
    bad, good = csv.DictReader(rows(demo, MULTI_LABEL, "csv"))
    assert (good["label"], good["p:ant"], good["p:bee"]) == ("ant;bee", "0.75", "0.5")
    assert (bad["label"], bad["p:ant"], bad["p:bee"]) == ("", "", "")
    *table, mark = rows(demo, MULTI_LABEL, "table")
    assert [line.endswith("*") for line in table] == [False, True, True]
    assert "at or above its threshold" in mark


def test_records_of_a_regression(demo: Path):
    bad, good = map(json.loads, rows(demo, REGRESSION, "jsonl"))
    assert (bad["values"], good["values"]) == ({"ant": None, "bee": None}, {"ant": 0.75, "bee": 0.5})
    table = list(csv.DictReader(rows(demo, REGRESSION, "csv")))
    assert [(row["ant"], row["bee"], row["error"]) for row in table] == [
        ("", "", "bad.png: is not an image"),
        ("0.75", "0.5", ""),
    ]
    assert rows(demo, REGRESSION, "table")[1].split() == ["good.png", "ant", "0.75"]


def test_the_label_that_a_threshold_predicted_comes_first_and_its_star_is_explained(demo: Path):
    spec = spec_of(demo, SINGLE_LABEL)
    turned = prediction([0.75, 0.25], SINGLE_LABEL, {"bee": 0.2})
    plain = prediction([0.75, 0.25], SINGLE_LABEL, {"bee": 0.3})
    _, first, second, mark = shown([("a.png", turned)], spec, "table")
    assert (first.split(), second.split()) == (["a.png", "bee", "25.00%", "*"], ["ant", "75.00%"])
    assert "threshold" in mark
    assert [line[-1] for line in shown([("a.png", plain)], spec, "table")][1:] == ["%", "%"]


def test_every_predicted_label_is_in_the_table(demo: Path):
    spec = replace(spec_of(demo, MULTI_LABEL), labels=("ant", "bee", "cow"))
    rare = prediction([0.4, 0.3, 0.1], MULTI_LABEL, {"bee": 0.3, "cow": 0.1})
    _, *rows, _ = shown([("a.png", rare)], spec, "table", top_k=1)
    assert [row.split()[-3] for row in rows] == ["bee", "cow"]


def decided(task: str, thresholds: dict[str, float], temperature: float = 1.0) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.update(task=task, thresholds=thresholds, temperature=temperature)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (decided("ranking", {}), "task"),
        (decided(MULTI_LABEL, {"nothing": 0.5}), "thresholds"),
        (decided(MULTI_LABEL, {"circle": 1.5}), "thresholds"),
        (decided(SINGLE_LABEL, {"circle": 0.5}), "thresholds"),
        (decided(REGRESSION, {"circle": 0.5}), "thresholds"),
        (decided(REGRESSION, {}, 2.0), "temperature"),
    ],
)
def test_decisions_that_make_no_sense_are_refused(edited: Edited, change: Callable[..., None], field: str):
    with pytest.raises(SpecError, match=rf"spec\.{field}: expected"):
        read_spec(edited(change))


def test_a_graph_of_another_task_is_refused(edited: Edited):
    from clip_toolkit import ModelError, load

    with pytest.raises(ModelError, match="values"):
        load(edited(decided(REGRESSION, {})))
