"""What speaks for a label: maps of the file and by occlusion, and the overlays of ``clip-infer --explain``."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_task_model
from onnx_bytes import metadata
from PIL import Image

from clip_toolkit import load, selftest
from clip_toolkit.commands.infer import main
from clip_toolkit.errors import ModelError, SpecError
from clip_toolkit.explaining.explainer import Explainer
from clip_toolkit.explaining.occlusion import occlusion
from clip_toolkit.explaining.overlay import explained_label, laid_over, laid_over_seen, overlay, seen_part
from clip_toolkit.images.preprocess import preprocess
from clip_toolkit.spec.classifier import Preprocessing
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.tasks import MULTI_LABEL, OCCLUSION, REGRESSION, SINGLE_LABEL, TASKS

Model = Callable[..., Path]
PICTURE = np.zeros((4, 4, 3), np.uint8)
PICTURE[1, 2] = 255
MEAN_STD = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


@pytest.fixture
def model(tmp_path: Path) -> Model:
    def write(task: str = SINGLE_LABEL, *, relevance: bool = True) -> Path:
        path = tmp_path / f"{relevance}.onnx"
        path.write_bytes(tiny_task_model.model(task, relevance=relevance))
        return path

    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    return write


@pytest.mark.parametrize("task", TASKS)
def test_predictions_hold_the_map_and_the_selftest_replays_it(model: Model, task: str):
    classifier = load(model(task), device="cpu")
    for batch in (1, 3):
        for found in classifier.predict_many([PICTURE] * 3, batch):
            np.testing.assert_allclose(found.relevance, PICTURE.mean(2))
    assert all(drift.passed for drift in selftest(classifier))
    assert {drift.output for drift in selftest(classifier)} >= {"relevance"}
    assert load(model(task, relevance=False), device="cpu").predict(PICTURE).relevance is None
    spec = json.loads(read_spec(model(task)).to_json())
    spec["relevance"]["golden"][0][3] += 9
    wrong = model(task)
    wrong.write_bytes(tiny_task_model.model(task, relevance=True) + metadata(json.dumps(spec)))
    failed = [drift for drift in selftest(load(wrong, device="cpu")) if not drift.passed]
    assert {drift.output for drift in failed} == {"relevance"}


def test_a_graph_without_the_output_and_a_damaged_spec_are_refused(model: Model, tmp_path: Path):
    text = read_spec(model()).to_json()
    path = tmp_path / "wrong.onnx"
    path.write_bytes(tiny_task_model.model(SINGLE_LABEL) + metadata(text))
    with pytest.raises(ModelError, match="the metadata declares the outputs"):
        load(path, device="cpu")
    for name, value in (("rows", 0), ("columns", 9), ("golden", [[1.0]])):
        spec = json.loads(text)
        spec["relevance"][name] = value
        path.write_bytes(tiny_task_model.model(SINGLE_LABEL) + metadata(json.dumps(spec)))
        with pytest.raises(SpecError, match=r"relevance\."):
            read_spec(path)


def test_occlusion_finds_what_the_logit_comes_from(model: Model):
    classifier = load(model(relevance=False), device="cpu")
    weights = tiny_task_model.weights(SINGLE_LABEL)
    channel = int(np.abs(weights[:, 1]).argmax())
    pixels = np.full((14, 21, 3), 9, np.uint8)
    pixels[4:6, 15:18, channel] = 255  # all of one cell
    found = occlusion(classifier, pixels)
    assert found.shape == (7, 7)
    assert np.unravel_index(np.abs(found).argmax(), found.shape) == (2, 5)
    assert occlusion(classifier, PICTURE).shape == (4, 4)


RULES = {
    "crop": ((100, 300), (50.0, 0.0, 150.0, 100.0)),
    "squash": ((100, 300), (0.0, 0.0, 300.0, 100.0)),
    "pad": ((100, 300), (0.0, -100.0, 300.0, 200.0)),
}


@pytest.mark.parametrize("mode", RULES)
def test_the_part_that_is_seen_is_what_preprocessing_keeps(mode: str):
    rule = Preprocessing(mode, 30, 30, "bicubic", **MEAN_STD)
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[:, 50:150] = 255
    (height, width), expected = RULES[mode]
    if mode == "crop":
        expected = (100.0, 0.0, 200.0, 100.0)
        picture = np.roll(picture, 50, 1)
    found = seen_part(height, width, rule)
    assert found == pytest.approx(expected)
    again = Image.fromarray(picture).transform((30, 30), Image.Transform.EXTENT, found)
    assert np.abs(np.asarray(again, float) - preprocess(picture, rule)).mean() < 12


@pytest.mark.parametrize("rule", [("crop", 32, 28), ("crop", 28, 28), ("pad", 28, 28), ("squash", 28, 28)], ids=str)
def test_a_map_lies_alike_over_the_image_and_over_what_was_seen_of_it(rule: tuple[str, int, int]):
    rule = Preprocessing(*rule, "bicubic", **MEAN_STD)
    picture = np.kron(np.random.default_rng(3).integers(0, 255, (6, 9, 3), np.uint8), np.ones((20, 20, 1), np.uint8))
    map_ = np.random.default_rng(4).normal(size=(4, 4)).astype(np.float32)
    whole = laid_over(Image.fromarray(picture), map_, rule)
    seen = laid_over_seen(Image.fromarray(preprocess(picture, rule)), map_).resize(whole.size)
    assert np.abs(np.asarray(whole, float) - np.asarray(seen, float)).mean() < 10


def test_an_overlay_colours_what_speaks_for_the_label_alone():
    rule = Preprocessing("squash", 4, 4, "bicubic", **MEAN_STD)
    map_ = np.array([[4.0, 0], [-9, np.nan]], np.float32)
    page = np.asarray(overlay(Image.new("RGB", (30, 30), (90, 90, 90)), map_, "x" * 300, rule), int)
    colourful = np.ptp(page[:480], axis=2)
    assert page.shape == (544, 480, 3)
    assert colourful[:100, :100].min() > 40
    assert colourful[380:].max() == 0
    plain = np.asarray(overlay(Image.new("RGB", (30, 30)), np.zeros((2, 2), np.float32), "a", rule), int)
    assert np.ptp(plain, axis=2).max() == 0


def test_the_title_says_which_label_and_whether_it_is_the_answer(model: Model):
    grey = np.full((4, 4, 3), 90, np.uint8)
    aged = load(model(REGRESSION), device="cpu").predict(grey)
    for values, title in (((7, -3), "age (here 7)"), ((-3, 7), "weight (here 7)")):  # of several, as occlusion does
        given = replace(aged, logits=np.array(values, np.float32))
        assert explained_label(given) == f"what speaks for a large {title}"
    found = load(model(), device="cpu").predict(grey)  # one that has a threshold
    for share, title in ((0.1, "normal (90.0%)"), (0.3, "normal (70.0%, most probable but not predicted)")):
        shares = np.array([1 - share, share], np.float32)
        given = replace(found, probabilities=shares, logits=np.log(shares))
        assert explained_label(given) == f"what speaks for {title}"
    assert "not predicted" in explained_label(load(model(MULTI_LABEL), device="cpu").predict(grey))


@pytest.mark.parametrize("way", [[], ["--explain-by", OCCLUSION]])
def test_clip_infer_writes_overlays(model: Model, capsys: pytest.CaptureFixture[str], way: list[str]):
    arguments = ["a.png", "missing.png", "a.png", "--model", str(model()), "--explain", "maps", *way]
    assert main([*arguments, "--format", "json"]) == 1  # one image is missing
    records = json.loads(capsys.readouterr().out)
    assert [record["error"] is None for record in records] == [True, False, True]
    assert sorted(path.name for path in Path("maps").iterdir()) == ["0001-a.png", "0003-a.png"]
    with Image.open("maps/0003-a.png") as page:
        assert page.size == (480, 544)
    assert main(arguments) == 1
    assert "maps: is not empty" in capsys.readouterr().err


def test_refusals(model: Model, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["a.png", "--model", str(model(relevance=False)), "--explain", "maps"]) == 1
    assert "Export it again with clip-export --explain. Or" in capsys.readouterr().err
    several = tmp_path / "several.onnx"
    several.write_bytes(tiny_task_model.model_of_several())
    with pytest.raises(SpecError, match="--explain answers for one"):
        Explainer(load(several, device="cpu"), OCCLUSION)
    for more in (["--frames", "a.mp4"], ["-"], ["a.png", "--isolate"]):
        with pytest.raises(SystemExit, match="2"):
            main([*more, "--explain", "maps"])
    with pytest.raises(SystemExit, match="2"):
        main(["a.png", "--explain-by", "file"])
