"""``clip-eval A B DATA``: two models on the same images."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_task_model
from onnx_bytes import metadata
from PIL import Image

from clip_eval import running
from clip_eval.commands.evaluate import main
from clip_eval.comparing import mcnemar
from clip_toolkit import load
from clip_toolkit.images import decoding
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

Model = Callable[[str], Path]
Manifest = Callable[..., Path]
Evaluated = Callable[..., dict[str, Any]]


def changed(task: str, **changes: Any) -> Path:
    """Write a model of another spec."""
    path = Path("other.onnx")
    path.write_bytes(tiny_task_model.model(task) + metadata(replace(tiny_task_model.spec(task), **changes).to_json()))
    return path


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 9), (9, 1), (5, 5), (0, 6), (400, 470)])
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int):
    count = first + second
    tail = sum(math.comb(count, k) for k in range(min(first, second) + 1))
    assert mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail / 2**count))


def test_two_models_of_one_label(model: Model, manifest: Manifest, evaluated: Evaluated, capsys):
    one = model(SINGLE_LABEL)
    data = manifest(one)
    two = changed(SINGLE_LABEL, thresholds={"pneumonia": 0.0})  # says pneumonia of everything
    found = evaluated(one, two, data, "--mistakes", 99)
    names = [f"{number:02}.png" for number in range(40)]
    said = [item.label for item in load(one, device="cpu").predict_many(names)]
    flipped = {name for name, label in zip(names, said, strict=True) if label == "normal"}
    comparison = found["comparison"]
    assert {flip["image"] for flip in comparison["flips"]} == flipped
    assert comparison["agreement"]["value"] == pytest.approx(1 - len(flipped) / 40)
    true = {item["image"] for item in found["first"]["mistakes"]}
    alone = sum(name not in true for name in flipped)
    assert (comparison["first"], comparison["second"]) == (alone, len(flipped) - alone)
    assert comparison["p"] == pytest.approx(mcnemar(alone, len(flipped) - alone))
    for flip in comparison["flips"]:
        expected = load(one, device="cpu").predict(flip["image"]).probabilities
        assert flip["probabilities"] == pytest.approx([expected[0]] * 2)  # of one network with two thresholds
        assert (flip["label"], flip["other"]) == ("normal", "pneumonia")
    assert main([str(one), str(two), str(data), "--report", "r.html"]) == 0
    assert "McNemar's exact test" in capsys.readouterr().out
    assert "Flips" in Path("r.html").read_text(encoding="utf-8")


def test_several_labels_in_another_order(model: Model, manifest: Manifest, evaluated: Evaluated):
    one = model(MULTI_LABEL)
    labels = tiny_task_model.LABELS[MULTI_LABEL]
    two = changed(MULTI_LABEL, labels=(labels[1], labels[0], *labels[2:]), thresholds={})
    network = load(one, device="cpu")
    names = [f"{number:02}.png" for number in range(40)]
    found = evaluated(one, two, manifest(one), "--mistakes", 999)["comparison"]
    rows = [item.probabilities for item in network.predict_many(names)]
    swapped = np.array(rows)[:, [1, 0, 2, 3]] >= 0.5  # the second calls the first output by the second label
    own = np.array(rows) >= [tiny_task_model.THRESHOLDS[MULTI_LABEL].get(label, 0.5) for label in labels]
    assert found["flipped"] == (swapped != own).sum()
    assert found["agreement"]["value"] == pytest.approx((swapped == own).all(1).mean())


def test_values(model: Model, manifest: Manifest, evaluated: Evaluated):
    one = model(REGRESSION)
    found = evaluated(one, one, manifest(one))["comparison"]
    assert [item["between"] for item in found["differences"]] == [0, 0]
    assert [item["change"] for item in found["differences"]] == [{"value": 0, "low": 0, "high": 0}] * 2
    assert (found["p"], found["agreement"]["value"], found["flips"]) == (None, None, [])


@pytest.mark.parametrize("other_size", [False, True])
def test_each_image_is_decoded_once(
    model: Model, manifest: Manifest, evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch, other_size: bool
):
    one = model(SINGLE_LABEL)
    data = manifest(one)
    rule = tiny_task_model.spec(SINGLE_LABEL).preprocessing
    two = changed(SINGLE_LABEL, preprocessing=replace(rule, size=8, resize=8) if other_size else rule)
    opened = []
    binary_file = decoding.binary_file
    monkeypatch.setattr(decoding, "binary_file", lambda source: opened.append(source) or binary_file(source))
    found = evaluated(one, two, data)
    assert len(opened) == 40
    assert found["comparison"]["agreement"]["value"] == 1  # a mean colour is that of any size
    assert found["first"]["score"] == evaluated(one, data)["score"]


def test_each_model_sees_pixels_of_its_own_decoding(model: Model, tmp_path: Path):
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    picture = tmp_path / "large.jpg"
    Image.fromarray(noise).resize((2048, 2048)).save(picture)
    both = [load(model(SINGLE_LABEL), device="cpu", fast_decode=fast) for fast in (False, True)]
    exact, fast = running._pixels(both, picture)
    assert not np.array_equal(exact, fast)
    for classifier, pixels in zip(both, (exact, fast), strict=True):
        np.testing.assert_array_equal(pixels, classifier.pixels(picture))


@pytest.mark.parametrize(
    ("task", "changes", "said"),
    [(SINGLE_LABEL, {"labels": ("normal", "flu"), "thresholds": {}}, "the labels"), (MULTI_LABEL, {}, "the task")],
)
def test_models_of_other_questions(
    model: Model, manifest: Manifest, capsys: pytest.CaptureFixture[str], task: str, changes: dict[str, Any], said: str
):
    one = model(SINGLE_LABEL)
    data = manifest(one)
    assert main([str(one), str(changed(task, **changes)), str(data)]) == 1
    assert f"the models cannot be compared: {said}" in capsys.readouterr().err


def test_speed_is_measured_on_a_batch_without_decoding(model: Model, pictures: list[str]):
    classifier = load(model(SINGLE_LABEL), device="cpu")
    batch = [classifier.pixels(name) for name in pictures[:4]]
    (took,) = running._milliseconds([classifier], [batch], None)
    assert took > 0
