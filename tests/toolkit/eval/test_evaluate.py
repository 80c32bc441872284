"""``clip-eval MODEL DATA``: its figures, against scikit-learn's and against counts by hand."""

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_fused_model
import tiny_task_model
import tiny_text_model
from PIL import Image
from tiny_fused_model import png

from clip_eval.commands.evaluate import main
from clip_eval.evaluation import evaluate
from clip_eval.labelled import read_labelled
from clip_eval.running import run_models
from clip_toolkit import load
from clip_toolkit.data.dataset import Dataset
from clip_toolkit.judging.answers import Answers
from clip_toolkit.judging.calibration import brier_score, log_loss
from clip_toolkit.spec.decisions import decide
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

Model = Callable[[str], Path]
Manifest = Callable[..., Path]
Evaluated = Callable[..., dict[str, Any]]

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def metrics():
    """scikit-learn's figures."""
    return pytest.importorskip("sklearn.metrics", reason="needs scikit-learn")


def made(task: str, count: int = 200) -> tuple[Answers, Dataset]:
    labels = tiny_task_model.LABELS[task]
    logits = RNG.normal(0, 2, (count, len(labels))).astype(np.float32)
    true = RNG.random(logits.shape) < 1 / (1 + np.exp(-logits))
    if task == SINGLE_LABEL:
        exponents = np.exp(logits.astype(np.float64))
        probabilities, targets = (
            exponents / exponents.sum(1, keepdims=True),
            (logits + RNG.gumbel(size=logits.shape)).argmax(1),
        )
    else:
        probabilities, targets = 1 / (1 + np.exp(-logits.astype(np.float64))), true.astype(np.float32)
    answers = Answers(task, labels, targets, logits, probabilities, decide(probabilities, task, labels, {}))
    none = ("",) * count
    return answers, Dataset(Path("d"), Path(), task, labels, (Path("x"),) * count, targets, none, none)


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
def test_figures_are_those_of_scikit_learn(metrics, task: str):
    answers, dataset = made(task)
    found = evaluate(answers, dataset, tiny_task_model.spec(task))
    true, said, scores = answers.true, answers.predicted, answers.probabilities
    assert found.calibration is not None
    assert found.score.value == pytest.approx((said == true).mean())
    for index, row in enumerate(found.by_label):
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            true[:, index], said[:, index], average="binary"
        )
        expected = {
            "precision": precision,
            "recall": recall,
            "F1": f1,
            "AUROC": metrics.roc_auc_score(true[:, index], scores[:, index]),
            "AUPRC": metrics.average_precision_score(true[:, index], scores[:, index]),
        }
        assert {name: row.figures[name].value for name in expected} == pytest.approx(expected)
    losses = [metrics.log_loss(true[:, index], scores[:, index]) for index in range(len(answers.labels))]
    assert found.calibration.log_loss == pytest.approx(np.mean(losses))
    briers = [metrics.brier_score_loss(true[:, index], scores[:, index]) for index in range(len(answers.labels))]
    assert found.calibration.brier == pytest.approx(np.mean(briers))
    if task == SINGLE_LABEL:
        assert (answers.confusion() == metrics.confusion_matrix(true[:, 1], said[:, 1])).all()


def test_scores_of_three_labels_that_exclude_one_another(metrics):
    scores = RNG.dirichlet(np.ones(3), 100)
    targets = RNG.integers(0, 3, 100)
    answers = Answers(SINGLE_LABEL, ("a", "b", "c"), targets, np.log(scores), scores, np.eye(3)[scores.argmax(1)] > 0)
    assert log_loss(answers.logits, answers.true, SINGLE_LABEL) == pytest.approx(metrics.log_loss(targets, scores))
    assert brier_score(scores, answers.true, SINGLE_LABEL) == pytest.approx(
        np.mean([((row - np.eye(3)[target]) ** 2).sum() for row, target in zip(scores, targets, strict=True)])
    )


@pytest.mark.parametrize("name", ["data.csv", "data.jsonl"])
@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
def test_a_manifest_of_known_mistakes(model: Model, manifest: Manifest, evaluated: Evaluated, task: str, name: str):
    path = model(task)
    found = evaluated(path, manifest(path, name=name), "--mistakes", 99)
    decisions = 40 * (len(tiny_task_model.LABELS[task]) if task == MULTI_LABEL else 1)
    assert found["score"]["value"] == pytest.approx(1 - 8 / decisions)
    assert {item["image"] for item in found["mistakes"]} == {f"{number:02}.png" for number in range(0, 40, 5)}
    assert (found["images"], found["unreadable"]) == (40, [])
    assert {point["label"] for point in found["operating_points"]} <= set(tiny_task_model.LABELS[task])
    for point in found["operating_points"]:
        assert point["sensitivity"]["value"] is None or point["sensitivity"]["value"] >= point["asked"]


def test_a_regression(model: Model, manifest: Manifest, evaluated: Evaluated):
    path = model(REGRESSION)
    found = evaluated(path, manifest(path))
    assert [row["MAE"]["value"] for row in found["by_label"]] == pytest.approx([2, 2], rel=1e-4)  # 0, 1, 2, 3, 4
    assert [row["RMSE"]["value"] for row in found["by_label"]] == pytest.approx([6**0.5] * 2, rel=1e-4)
    assert (found["calibration"], found["confusion"], found["operating_points"]) == (None, None, [])


def test_a_folder_equals_what_predict_says(model: Model, pictures: list[str], tmp_path: Path, evaluated: Evaluated):
    path = model(SINGLE_LABEL)
    said = [found.label for found in load(path, device="cpu").predict_many(pictures)]
    for number, name in enumerate(pictures):
        target = tmp_path / "data" / ("normal", "pneumonia")[number % 2] / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(Path(name).read_bytes())
    found = evaluated(path, tmp_path / "data")
    right = sum(label == ("normal", "pneumonia")[number % 2] for number, label in enumerate(said))
    assert found["score"]["value"] == pytest.approx(right / 40)
    assert np.sum(found["confusion"]["counts"]) == 40
    assert "DATA names no sides" in found["of"]


def test_a_model_that_reads_texts(tmp_path: Path, evaluated: Evaluated):
    path = tmp_path / "fused.onnx"
    path.write_bytes(tiny_fused_model.model())
    (tmp_path / "a.png").write_bytes(png((0, 250, 0)))
    texts = ["", "red circle", "a red circle", "circle"]
    said = [load(path, device="cpu").predict("a.png", text).label for text in texts]
    assert len(set(said)) == 2
    rows = [{"path": "a.png", "label": label, "words": text} for label, text in zip(said, texts, strict=True)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert evaluated(path, "data.jsonl", "--text-column", "words")["score"]["value"] == 1


def test_slices_and_sides(model: Model, manifest: Manifest, evaluated: Evaluated):
    path = model(SINGLE_LABEL)
    data = manifest(
        path,
        site=["north" if number % 5 else "south" for number in range(40)],
        split=["test" if number < 30 else "train" for number in range(40)],
    )
    found = evaluated(path, data, "--slice", "site")
    assert (found["images"], found["of"]) == (30, "of the side test")
    slices = [(item["value"], item["images"], item["score"]["value"]) for item in found["slices"]]
    assert slices == [("south", 6, 0.0), ("north", 24, 1.0)]
    assert evaluated(path, data, "--side", "train")["images"] == 10
    assert evaluated(path, data, "--side", "all")["images"] == 40


def test_an_image_that_cannot_be_read_is_named_and_left_out(
    model: Model, manifest: Manifest, capsys: pytest.CaptureFixture[str]
):
    path = model(SINGLE_LABEL)
    data = manifest(path)
    Path("07.png").write_bytes(b"no image")
    assert main([str(path), str(data), "--json"]) == 1
    told = capsys.readouterr()
    assert "left out: " in told.err
    assert "07.png" in told.err
    assert json.loads(told.out)["images"] == 39


BOTH = "path,label\n00.png,normal\n01.png,pneumonia\n"
REFUSED = {
    "unknown label": (
        "path,label\n00.png,normal\n01.png,flu\n",
        SINGLE_LABEL,
        [],
        "line 3: the model has no label 'flu'",
    ),
    "unknown of several": ("path,label\n00.png,red;green\n", MULTI_LABEL, [], "line 2: the model has no label 'green'"),
    "one class": ("path,label\n00.png,normal\n01.png,normal\n", SINGLE_LABEL, [], "every image has the label 'normal'"),
    "empty side": (
        "path,label,split\n00.png,normal,train\n01.png,pneumonia,train\n",
        SINGLE_LABEL,
        [],
        "no images on the side test",
    ),
    "no such column": ("path,label\n00.png,normal\n", SINGLE_LABEL, ["--slice", "site"], "expected a column 'site'"),
    "value missing": ("path,age\n00.png,3\n", REGRESSION, [], "expected a column 'weight'"),
    "no texts": ("path,label\n00.png,normal\n", SINGLE_LABEL, ["--text-column", "x"], "reads images alone"),
    "unreadable": ("path,label\nx.png,normal\ny.png,pneumonia\n", SINGLE_LABEL, [], "none of the 2 images can be read"),
    "positive": (
        "path,label\n00.png,normal\n01.png,pneumonia\n",
        SINGLE_LABEL,
        ["--positive", "flu"],
        "expected one of",
    ),
    "positive of several": ("path,label\n00.png,red\n", MULTI_LABEL, ["--positive", "red"], "--positive"),
}


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(("text", "task", "more", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals(
    model: Model,
    capsys: pytest.CaptureFixture[str],
    text: str,
    task: str,
    more: list[str],
    said: str,
):
    Path("data.csv").write_text(text)
    assert main([str(model(task)), "data.csv", *more]) == 1
    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""


def test_folders_that_do_not_fit(model: Model, pictures: list[str], capsys: pytest.CaptureFixture[str]):
    for label in ("normal", "flu"):
        Path("data", label).mkdir(parents=True)
        Path(f"data/{label}/0.png").write_bytes(Path(pictures[0]).read_bytes())
    for task, said in ((SINGLE_LABEL, "the model has no label 'flu'"), (MULTI_LABEL, "which a folder cannot hold")):
        assert main([str(model(task)), "data"]) == 1
        assert said in capsys.readouterr().err


def test_a_text_tower_is_no_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "text.onnx"
    path.write_bytes(tiny_text_model.model())
    assert main([str(path), str(tmp_path)]) == 1
    assert "a text tower, which takes no images" in capsys.readouterr().err


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL, REGRESSION])
def test_the_page_and_the_terminal(model: Model, manifest: Manifest, capsys: pytest.CaptureFixture[str], task: str):
    path = model(task)
    data = manifest(path, site=["<b>north</b>"] * 40)
    assert main([str(path), str(data), "--slice", "site", "--report", "r.html", "--mistakes", "3"]) == 0
    told = capsys.readouterr().out
    assert ("mistakes: 3 of 8" in told) == (task != REGRESSION)
    page = Path("r.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 3
    assert page.count("<svg") == (0 if task == REGRESSION else 3)
    assert "&lt;b&gt;north&lt;/b&gt;" in page
    assert "<b>north" not in page
    assert "http" not in page
    assert "<script" not in page


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
def test_the_page_shows_what_speaks_for_a_mistake(model: Model, manifest: Manifest, task: str):
    path = model(task)
    data = manifest(path)
    path.write_bytes(tiny_task_model.model(task, relevance=True))
    assert main([str(path), str(data), "--report", "r.html", "--mistakes", "3"]) == 0
    page = Path("r.html").read_text(encoding="utf-8")
    pictures = [base64.b64decode(text) for text in re.findall(r"data:image/jpeg;base64,([^\"]*)", page)]
    assert len(pictures) == 6  # each mistake and its map
    red, _, blue = np.asarray(Image.open(io.BytesIO(pictures[1]))).mean((0, 1))
    assert red > blue + 50  # a picture of one colour, all of which speaks alike: light yellow over grey
    assert page.count("in colour: ") == page.count("<figure>") == 3


def test_maps_are_made_where_they_are_wanted(model: Model, manifest: Manifest):
    path = model(SINGLE_LABEL)
    data = manifest(path)
    path.write_bytes(tiny_task_model.model(SINGLE_LABEL, relevance=True))
    classifier = load(path, device="cpu")
    dataset = read_labelled(data, classifier.spec)
    (maps,) = run_models([classifier], dataset).relevance
    assert maps is not None
    assert classifier.explains  # the timing of the answers alone has left it as it was
    classifier.explains = False
    assert run_models([classifier], dataset).relevance == (None,)


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL, REGRESSION])
def test_novelty_is_judged_where_the_file_tells_it(
    task: str, model: Model, manifest: Manifest, evaluated: Evaluated, capsys: pytest.CaptureFixture[str]
):
    path = model(task)
    data = manifest(path)
    assert evaluated(path, data)["novelty"] is None
    path.write_bytes(tiny_task_model.model(task, novelty=True))
    told = evaluated(path, data)["novelty"]
    found = list(load(path, device="cpu").predict_many(sorted(map(str, Path().glob("*.png")))))
    novelty = np.array([item.novelty for item in found])
    assert told["novel"]["value"] == pytest.approx((novelty > tiny_task_model.BRIGHT).mean())
    if task == REGRESSION:
        assert told["auroc"] is None
        return
    wrong, right = novelty[::5], np.delete(novelty, np.s_[::5])  # as the manifest has them
    pairs = (wrong[:, None] > right).mean() + (wrong[:, None] == right).mean() / 2
    assert told["auroc"] == pytest.approx(pairs)
    assert main([str(path), str(data)]) == 0
    assert "tells wrong answers from right ones with AUROC" in capsys.readouterr().out
