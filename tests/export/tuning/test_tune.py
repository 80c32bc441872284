"""A search from images to a head, resumed, and what is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clip_export.heads.files import load_head
from clip_export.training.epochs import Examples
from clip_export.training.judging.baseline import fit_baseline
from clip_export.tuning import heads, search, timing
from clip_export.tuning.heads import cross_validated, folds, linear
from clip_export.tuning.options import with_unit
from clip_toolkit.data.image_folder import read_image_folder
from clip_toolkit.errors import DatasetError
from clip_toolkit.spec.model_file import read_spec
from commands_in_process import run


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty noisy pictures of two tints."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(4)
    for number in range(60):
        name = ("red", "blue")[number % 2]
        (folder / name).mkdir(exist_ok=True)
        pixels = rng.integers(0, 200, (40, 40, 3), dtype=np.uint8)
        pixels[..., 0 if name == "red" else 2] += 50
        Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few epochs and runs: what is measured is not what is tested."""
    monkeypatch.setattr(heads, "_MLP", replace(heads._MLP, epochs=1))
    monkeypatch.setattr(timing, "_ROUNDS", 1)
    monkeypatch.setattr(timing, "_TURN", 1e-4)


@pytest.mark.usefixtures("quick")
def test_smaller_inputs_are_tried_where_there_is_time(photos: Path, tmp_path: Path, checkpoint):
    options = (photos, "--encoder", checkpoint("clip"), "--cache", tmp_path / "cache", "--input-size")
    assert "patches of 8. Nearest are 24 or 32." in run("clip-tune", *options, 24, 30, cwd=tmp_path).stderr
    hasty = run("clip-tune", *options, 24, 32, "--minutes", "1e-6", cwd=tmp_path)
    assert re.search(r"\d+ features were not measured, since the time is over", hasty.stderr)
    assert run("clip-tune", *options, 24, 32, cwd=tmp_path).returncode == 0
    record = json.loads((tmp_path / "tuned" / "tuning.json").read_text(encoding="utf-8"))
    assert {re.match(r"clip( at \d+)?", key)[0] for key in record["times"]} == {"clip", "clip at 24"}
    least = min(size for *_, size in record["times"].values())  # fewer positions, fewer bytes
    done = run("clip-tune", *options, 24, 32, "--max-size", f"{(least + 1) / 1e3}KB", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    head = load_head(tmp_path / "tuned" / "head.pt")
    assert (head.training["chosen encoder"], head.encoder.input_size) == ("clip at 24", 24)
    assert run("clip-export", "--head", "tuned/head.pt", cwd=tmp_path).returncode == 0
    assert read_spec(tmp_path / "model.onnx").preprocessing.size == 24


@pytest.mark.usefixtures("quick")
def test_from_images_to_a_head_and_on_after_an_interruption(
    photos: Path, tmp_path: Path, checkpoint, monkeypatch: pytest.MonkeyPatch
):
    options = (photos, "--encoder", checkpoint("clip"), "--cache", tmp_path / "cache", "--minutes", "1e-6")
    done = run("clip-tune", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\*? +.*pooled +float32", done.stdout, re.MULTILINE)
    assert "6 features were not tried, since the time is over" in done.stderr
    assert "next: clip-export --head tuned/head.pt" in done.stdout
    head = load_head(tmp_path / "tuned" / "head.pt")
    page = (tmp_path / "tuned" / "tuning.html").read_text(encoding="utf-8")
    assert head.training["held-out accuracy"] in page
    assert page.count("data:image/png") == 2
    assert head.encoder.feature == head.training["chosen feature"]
    assert head.training["chosen by"] == "clip-tune, the knee of accuracy against time of 4 measured files"

    monkeypatch.setattr(search, "cross_validated", None)  # nothing is computed again
    again = run("clip-tune", *options, "--max-drop", "100", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "the fastest within 100 points of the best" in again.stdout
    record = json.loads((tmp_path / "tuned" / "tuning.json").read_text(encoding="utf-8"))
    least = min(ratio for _, ratio, _, _ in record["times"].values())
    chosen = load_head(tmp_path / "tuned" / "head.pt").training
    (key,) = [key for key, (_, ratio, _, _) in record["times"].items() if ratio == least]
    assert f"{chosen['chosen feature']} {chosen['chosen precision']}" in key

    exported = run("clip-export", "--head", "tuned/head.pt", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    spec = read_spec(tmp_path / "model.onnx")
    assert spec.encoder.feature == chosen["chosen feature"]
    assert spec.training["chosen by"] == chosen["chosen by"]

    refused = run("clip-tune", *options, "--max-latency", "0.000001ms", cwd=tmp_path)
    assert refused.returncode == 1
    assert re.search(r"no candidate takes at most 1e-06 ms here; the nearest is clip \S+ \w+ with", refused.stderr)


def test_times_are_ratios_in_turns_and_their_scatter_tells_a_busy_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timing, "_count", lambda _: 1)
    monkeypatch.setattr(timing, "_seconds", lambda run, _: run())
    busy = iter([1.0, 3.0] * timing._ROUNDS)
    assert timing.timed_in_turns(lambda: 2.0, lambda: 1.0) == (2.0, 0.5, 0.0)
    assert timing.timed_in_turns(lambda: 2.0, lambda: next(busy))[2] > timing.TOO_SCATTERED


def test_a_linear_head_is_the_logistic_regression_on_standardised_features():
    features = torch.randn(60, 5, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 2, 3, 4, 5]) + 7
    train = Examples(features, (features[:, 0] > 7).long())
    expected = fit_baseline(train, "single-label")(features)
    torch.testing.assert_close(linear(train, "single-label")(features), expected, atol=1e-4, rtol=1e-4)


def test_folds_keep_together_what_belongs_together_and_judge_every_image_once(photos: Path):
    dataset = read_image_folder(photos)
    contents = [str(number // 2) for number in range(60)]  # pairs of copies
    learnt = list(range(4, 56))
    parts = folds(dataset, contents, learnt, seed=0)
    assert sorted(row for _, judged in parts for row in judged) == list(range(len(learnt)))
    for train, judged in parts:
        assert not {contents[learnt[row]] for row in train} & {contents[learnt[row]] for row in judged}


def test_cross_validation_judges_what_a_head_has_not_learnt_from(photos: Path):
    dataset = read_image_folder(photos)
    parts = folds(dataset, list(map(str, range(60))), range(60), seed=0)
    noise = torch.randn(60, 100, generator=torch.Generator().manual_seed(1))  # enough to learn every image by heart
    learnt = Examples(noise, torch.from_numpy(dataset.targets))
    names = {"parts": parts, "dataset": dataset, "groups": [""] * 60}
    assert cross_validated("linear", learnt, noise, **names).value < 0.75
    told = Examples(learnt.targets[:, None] * 1.0, learnt.targets)
    assert cross_validated("linear", told, told.features, **names).value == 1
    assert cross_validated("linear", told, 1 - told.features, **names).value == 0  # the file computes the opposite


def test_too_few_images_say_how_many_are_needed(photos: Path):
    dataset = read_image_folder(photos)
    with pytest.raises(DatasetError, match=r"label red: .* at least 5 images, or groups, .* got 2\. Add 3 or more\."):
        folds(dataset, list(map(str, range(60))), [*range(30), 31, 58], seed=0)


@pytest.mark.parametrize("text", ["5", "5 m", "-5ms", "ms", "nanms"])
def test_limits_need_a_number_and_its_unit(text: str):
    with pytest.raises(ValueError, match="expected a number"):
        with_unit({"ms": 1e-3, "s": 1.0})(text)
    assert with_unit({"ms": 1e-3, "s": 1.0})("5 ms") == pytest.approx(0.005)
