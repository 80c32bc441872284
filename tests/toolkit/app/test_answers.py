"""The answers on the page are the runtime's, and the table is clip-infer's CSV."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_task_model
from numpy.typing import NDArray
from tiny_fused_model import png

from clip_app.answers import answer_html, classify, csv_lines, headline
from clip_toolkit import load
from clip_toolkit.commands.infer import main
from clip_toolkit.errors import ImageError
from clip_toolkit.prediction import Prediction
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS

COLOURS = {"red.png": (200, 30, 40), "blue.png": (10, 90, 250), "grey.png": (128, 128, 128)}


@pytest.fixture(params=TASKS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_task_model.model(request.param))
    for name, colour in COLOURS.items():
        (tmp_path / name).write_bytes(png(colour))
    (tmp_path / "none.png").write_text("no picture", encoding="utf-8")
    return path


def test_the_table_is_the_csv_of_clip_infer(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    names = [*COLOURS, "none.png"]
    classifier = load(model, device="cpu")
    answers = list(classify(classifier, [str(tmp_path / name) for name in names]))
    main([*names, "--model", str(model), "--format", "csv", "--quiet"])
    assert csv_lines(classifier, answers) == capsys.readouterr().out.splitlines()
    assert isinstance(answers[-1].result, ImageError)
    assert str(tmp_path) not in str(answers[-1].result)


def test_the_headline_is_the_decision(model: Path, tmp_path: Path):
    classifier = load(model, device="cpu")
    for name in COLOURS:
        prediction = classifier.predict(tmp_path / name)
        text, page = headline(prediction), answer_html(name, prediction, 1)
        if prediction.task == REGRESSION:
            assert text.startswith(f"age {prediction.values['age']:.5g}, weight ")
        elif prediction.task == MULTI_LABEL:
            assert text == (", ".join(prediction.decisions) or "none of the labels")
        else:
            assert text == f"{prediction.label} {prediction.probability:.1%}"
        assert page.count("<li class=predicted>") == len(prediction.decisions)  # beyond the top-k, too


def answer(probabilities: list[float], labels: tuple[str, ...] = ("normal", "<b>ill")) -> Prediction:
    import numpy as np

    values = np.array(probabilities, np.float32)
    return Prediction(labels, values, values, values, "CPUExecutionProvider", SINGLE_LABEL, {labels[1]: 0.2})


def test_a_threshold_that_decides_is_told_and_labels_are_escaped():
    by_threshold, plain = answer([0.7, 0.3]), answer([0.1, 0.9])
    assert headline(by_threshold) == "<b>ill 30.0%"
    page = answer_html("<i>.png", by_threshold, 2)
    assert "&lt;b&gt;ill from 20.0% on: so this is not the most probable label." in page
    assert "<b>" not in page
    assert "<i>" not in page
    assert "not the most probable" not in answer_html("a.png", plain, 2)


def test_an_image_unlike_the_training_images_is_told(demo: Path, pixels: NDArray[np.uint8]):
    prediction = replace(load(demo, device="cpu").predict(pixels), novelty=2.0, novelty_threshold=1.0)
    assert "Unlike the training images" in answer_html("a.png", prediction, 1)
    assert "Unlike" not in answer_html("a.png", replace(prediction, novelty=1.0), 1)


def test_a_set_of_labels_is_told_where_its_promise_holds():
    promised = replace(answer([0.3, 0.7]), set_quantile=0.8)
    assert "One of these should be right: &lt;b&gt;ill, normal." in answer_html("a.png", promised, 1)
    novel = replace(promised, novelty=2.0, novelty_threshold=1.0)
    assert "should be right" not in answer_html("a.png", novel, 1)
    assert "should be right" not in answer_html("a.png", answer([0.3, 0.7]), 1)
