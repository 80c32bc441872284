"""``clip-train`` as its users run it: every task to its end, breaks and kills, reports, and bad input."""

import csv
import hashlib
import io
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from clip_export.commands.train import main as run_main
from clip_export.heads.files import load_head
from clip_export.heads.mlp import VLMtoMLP
from clip_export.training import checkpoints
from clip_toolkit.spec.model_file import read_spec
from commands_in_process import ENCODER, classified, failed, run, train
from forked_process import run_forked
from tiny_models import TINY_CLIP


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures of boxes and discs, red and blue, of known sizes; folders by shape, and manifests."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(5)
    shapes, several, sizes = [["path", "label"]], [["path", "label"]], [["path", "size"]]
    for number in range(60):
        disc, red, size = number % 2, number // 2 % 2, int(rng.integers(12, 44))
        path = folder / "photos" / ("disc" if disc else "box") / f"item{number // 4:02}_{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (80, 72), tuple(rng.integers(180, 230, 3).tolist()))
        draw = ImageDraw.Draw(image)
        box = (40 - size // 2, 36 - size // 2, 40 + size // 2, 36 + size // 2)
        (draw.ellipse if disc else draw.rectangle)(box, fill=(200, 30, 40) if red else (30, 50, 200))
        image.save(path)
        name = path.relative_to(folder).as_posix()
        shapes.append([name, "disc" if disc else "box"])
        several.append([name, ";".join(["red"] * red + ["disc"] * disc)])
        sizes.append([name, str(size)])
    for name, rows in (("shapes", shapes), ("several", several), ("sizes", sizes)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    return folder


def test_several_labels_from_manifest_to_runtime(pictures: Path, tmp_path: Path):
    options = ("--task", "multi-label", "--lr", "3e-3", "--operating-point", "youden")
    train(pictures / "several.csv", *options, cwd=tmp_path)
    images = sorted((pictures / "photos").rglob("*.png"), key=lambda path: path.stem[-2:])
    records = classified(tmp_path, *images)
    spec = read_spec(tmp_path / "model.onnx")
    assert (spec.task, spec.labels, list(spec.thresholds)) == ("multi-label", ("disc", "red"), ["disc", "red"])
    with (pictures / "several.csv").open(encoding="utf-8") as file:
        wanted = [set(row["label"].split(";")) - {""} for row in csv.DictReader(file)]
    right = [set(item["labels"]) == labels for item, labels in zip(records, wanted, strict=True)]
    assert np.mean(right) > 0.8


def test_values_from_manifest_to_runtime(pictures: Path, tmp_path: Path):
    train(pictures / "sizes.csv", "--task", "regression", "--lr", "3e-3", "--epochs", 200, cwd=tmp_path)
    images = sorted((pictures / "photos").rglob("*.png"), key=lambda path: path.stem[-2:])
    records = classified(tmp_path, *images)
    with (pictures / "sizes.csv").open(encoding="utf-8") as file:
        wanted = np.array([float(row["size"]) for row in csv.DictReader(file)])
    got = np.array([item["values"]["size"] for item in records])
    assert np.corrcoef(got, wanted)[0, 1] > 0.9
    assert abs(got.mean() - wanted.mean()) < 3
    described = run("clip-infer", "--describe", cwd=tmp_path).stdout
    assert re.search(r"task +regression\nvalues +size", described)


@pytest.mark.parametrize(
    ("manifest", "task", "said"),
    [
        ("shapes", "single-label", "decides as the float file on"),
        ("several", "multi-label", "decides as the float file on"),
        ("sizes", "regression", "of the values' variance on"),
    ],
)
def test_every_task_is_quantized_on_the_images_of_its_manifest(
    pictures: Path, tmp_path: Path, manifest: str, task: str, said: str
):
    train(pictures / f"{manifest}.csv", "--task", task, "--lr", "3e-3", "--val-fraction", 0.3, cwd=tmp_path)
    options = ("--quantize", "int8", "--min-agreement", 0.94, "--refit")
    done = run("clip-export", "--head", "head.pt", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    receipt = read_spec(tmp_path / "model.onnx").quantization
    assert (receipt.calibration_images, receipt.evaluation_images) == (42, 18)
    assert receipt.source.startswith(f"the training data {manifest}.csv")
    assert (receipt.accuracy_after is None) == (task != "single-label")
    assert said in done.stdout
    described = run("clip-infer", "--describe", cwd=tmp_path).stdout
    assert said in described
    pytest.importorskip("pyarrow", reason="needs the parquet extra")
    from pyarrow.parquet import read_table

    image = next((pictures / "photos").rglob("*.png"))
    assert run("clip-infer", image, "--format", "parquet", "--output", "a.parquet", cwd=tmp_path).returncode == 0
    (row,) = read_table(tmp_path / "a.parquet").to_pylist()
    (record,) = [json.loads(run("clip-infer", image, "--format", "jsonl", cwd=tmp_path).stdout)]
    assert {name: value for name, value in row.items() if not name.startswith("p:")} == record
    labels = () if task == "regression" else read_spec(tmp_path / "model.onnx").labels  # values have no probability
    assert {name.removeprefix("p:") for name in row if name.startswith("p:")} == set(labels)


@pytest.fixture(scope="module")
def decided(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a head that has a temperature and a threshold."""
    folder = tmp_path_factory.mktemp("decided")
    train(pictures / "photos", "--operating-point", "sensitivity=1", "--positive", "box", "--epochs", 5, cwd=folder)
    return folder


@pytest.mark.parametrize(("kind", "ops"), [("image", "ort"), ("pixels", "standard")])
def test_temperature_and_threshold_are_in_the_file_and_are_obeyed(pictures: Path, decided: Path, kind: str, ops: str):
    head = load_head(decided / "head.pt")
    assert run("clip-export", "--head", "head.pt", "--input", kind, "--ops", ops, cwd=decided).returncode == 0
    spec = read_spec(decided / "model.onnx")
    assert (spec.temperature, spec.thresholds) == (head.temperature, head.thresholds)
    assert list(spec.thresholds) == ["box"]
    assert spec.temperature != 1
    done = run("clip-infer", *(pictures / "photos").rglob("*.png"), "--format", "jsonl", cwd=decided)
    for item in map(json.loads, done.stdout.splitlines()):
        probability = {score["label"]: score["probability"] for score in item["top"]}["box"]
        assert (item["label"] == "box") == (probability >= spec.thresholds["box"])


def test_labels_given_at_export_carry_the_thresholds_over(decided: Path):
    export = ("clip-export", "--head", "head.pt", "--labels", "Kiste", "Kreis", "-o", "named.onnx")
    assert run(*export, cwd=decided).returncode == 0
    assert list(read_spec(decided / "named.onnx").thresholds) == ["Kiste"]


def test_groups_manifest_and_held_out_files(pictures: Path, tmp_path: Path):
    options = ("--groups", r"(item\d+)_", "--test-fraction", 0.2, "--epochs", 2)
    shown = train(pictures / "photos", *options, cwd=tmp_path).stdout
    assert re.search(r"\ntrain: \d+ images: box \d+, disc \d+\nvalidation: .*\ntest: ", shown)
    photos = sorted((pictures / "photos").rglob("*.png"))
    held_out = held_out_of(tmp_path / "head.pt", pictures / "photos", photos)
    sides = [
        {re.search(r"item\d+", path.name)[0] for path in photos if (path in held_out) is side} for side in (False, True)
    ]
    assert all(sides)
    assert not sides[0] & sides[1]
    train(pictures / "shapes.csv", "--epochs", 2, cwd=tmp_path)
    assert len(held_out_of(tmp_path / "head.pt", pictures / "shapes.csv", photos)) == 12


def held_out_of(head: Path, data: Path, files: list[Path]) -> set[Path]:
    """The files that a head did not learn from, as its file tells them, and checks of how it does."""
    found = load_head(head).data
    assert found is not None
    assert (found.folder, found.held_out) == (str(data.resolve()), ())
    held_out = {path for path in files if hashlib.sha256(path.read_bytes()).hexdigest()[:32] in found.digests}
    assert 0 < len(held_out) == len(found.digests) < len(files)
    return held_out


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_is_handed_on_names_no_patient_and_no_folder_of_the_machine(pictures: Path, tmp_path: Path, suffix: str):
    shutil.copytree(pictures / "photos", tmp_path / "data")
    shutil.copytree(TINY_CLIP, tmp_path / "tiny")
    (tmp_path / "heads").mkdir()
    out = tmp_path / "heads" / f"head{suffix}"
    arguments = ("data", "--encoder", tmp_path / "tiny", "--epochs", 2, "--val-fraction", 0.3, "-o", out)
    assert run("clip-train", *arguments, "--report", "report", cwd=tmp_path).returncode == 0
    export = ("clip-export", "--head", out, "--quantize", "int4", "--min-agreement", 0.5)
    assert run(*export, cwd=tmp_path).returncode == 0  # the images and the encoder are found from the head file
    spec = read_spec(tmp_path / "model.onnx")
    assert spec.quantization.source.startswith("the training data data (its held-out images judge")
    assert spec.quantization.evaluation_images == 18
    for file in (out, tmp_path / "model.onnx", tmp_path / "report" / "report.html"):
        content = file.read_bytes()
        assert str(tmp_path).encode() not in content, file
        assert file.suffix == ".html" or b"item0" not in content, file
    moved = shutil.copytree(tmp_path / "heads", tmp_path / "far" / "away")
    done = run("clip-export", "--head", moved / out.name, cwd=tmp_path)
    assert done.returncode == 1
    assert "Name its place with --encoder" in done.stderr


def test_the_second_training_takes_features_from_the_cache(pictures: Path, tmp_path: Path):
    options = ("--cache", tmp_path / "cache", "--epochs", 2, "--augment", 2)
    assert "60 computed by PyTorch" in train(pictures / "photos", *options, cwd=tmp_path).stdout
    assert "0 computed, 60 from the cache" in train(pictures / "photos", *options, cwd=tmp_path).stdout
    without = train(pictures / "photos", "--no-cache", "--epochs", 2, cwd=tmp_path)
    assert "60 computed" in without.stdout


def test_equal_files_on_both_sides_are_reported(pictures: Path, tmp_path: Path):
    for side, numbers in (("train", range(16)), ("val", range(12, 20))):
        for path in (pictures / "photos").rglob("*.png"):
            if int(path.stem[-2:]) in numbers:
                to = tmp_path / "data" / side / path.parent.name / path.name
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, to)
    done = train(tmp_path / "data", "--epochs", 2, cwd=tmp_path)
    assert "4 held-out files equal training files byte for byte, such as val/box/" in done.stderr


def test_a_file_with_two_labels_is_reported(pictures: Path, tmp_path: Path):
    shutil.copytree(pictures / "photos", tmp_path / "data")
    shutil.copy(tmp_path / "data/box/item00_00.png", tmp_path / "data/disc/again.png")
    done = train(tmp_path / "data", "--epochs", 2, cwd=tmp_path)
    assert "box/item00_00.png and disc/again.png are the same file with different labels" in done.stderr


def same_heads(first: Path, second: Path) -> bool:
    one, two = (load_head(path).module.state_dict() for path in (first, second))
    return all(torch.equal(one[name], two[name]) for name in one)


LONG = ("--epochs", 400, "--dropout", 0.3, "--seed", 3)


@pytest.fixture(scope="module")
def uninterrupted(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(pictures / "photos", *LONG, cwd=folder)
    return folder / "head.pt"


def train_and_break_off(stop: signal.Signals, arguments: list[str]) -> int:
    """Train, and signal this process a moment after its twentieth checkpoint, in the midst of whatever it does then."""
    # SIGTERM has to do where SIGINT is ignored, as under nohup.
    signal.signal(signal.SIGINT, signal.default_int_handler if stop == signal.SIGINT else signal.SIG_IGN)

    class Breaking(checkpoints.Checkpoints):
        kept = 0

        def keep(self, state: dict[str, object]) -> None:
            super().keep(state)
            self.kept += 1
            if self.kept == 20:
                threading.Timer(0.003, os.kill, (os.getpid(), stop)).start()

    checkpoints.INTERVAL, checkpoints.Checkpoints = 0, Breaking
    return run_main(arguments)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_broken_off_training_resumes_to_the_same_head(
    uninterrupted: Path, pictures: Path, tmp_path: Path, stop: signal.Signals
):
    arguments = [str(item) for item in (pictures / "photos", *LONG, *ENCODER)]
    for options in ([], ["--resume"]):
        process = run_forked(train_and_break_off, stop, [*arguments, *options], cwd=tmp_path)
        assert process.returncode == (130 if stop == signal.SIGINT else -stop)
        assert "Traceback" not in process.stderr
        assert ("continue with --resume" in process.stderr) == (stop == signal.SIGINT)
    done = train(pictures / "photos", *LONG, "--resume", cwd=tmp_path)
    assert "resum" in done.stderr
    assert same_heads(tmp_path / "head.pt", uninterrupted)
    assert not (tmp_path / "head.pt.checkpoint").exists()


def test_a_training_that_ignores_interrupts_stops_on_sigterm(pictures: Path, tmp_path: Path):
    arguments = [str(item) for item in (pictures / "photos", *LONG, *ENCODER)]
    process = run_forked(train_and_break_off, signal.SIGTERM, arguments, cwd=tmp_path)
    assert process.returncode == 128 + signal.SIGTERM
    assert "continue with --resume" in process.stderr
    assert "Traceback" not in process.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.pt.checkpoint"]


def run_script(path: Path, arguments: list[str]) -> int:
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")
    return 0


def test_the_courses_loop_gives_the_same_head(pictures: Path, tmp_path: Path):
    options = [str(pictures / "photos"), "--encoder", str(TINY_CLIP), "--epochs", "3", "--lr", "1e-3", "--seed", "4"]
    loop = Path(__file__).parents[3] / "examples" / "course_loop.py"
    assert run_forked(run_script, loop, options, cwd=tmp_path).returncode == 0
    train(pictures / "photos", *options[3:], "--keep-last", cwd=tmp_path)
    course, ours = (load_head(tmp_path / name).module.state_dict() for name in ("course.pt", "head.pt"))
    start = VLMtoMLP(128, 256, 2).state_dict()
    for name, weights in course.items():
        torch.testing.assert_close(weights, ours[name], atol=1e-4, rtol=0)
        assert not torch.allclose(weights, start[name], atol=1e-3)


def test_a_checkpoint_of_other_options_is_refused(pictures: Path, tmp_path: Path):
    (tmp_path / "head.pt.checkpoint").write_bytes(b"junk")
    line = failed(pictures / "photos", "--resume", cwd=tmp_path)
    assert "checkpoint is damaged" in line
    assert "--resume" in failed(pictures / "photos", cwd=tmp_path)  # rather than write over it in silence
    assert (tmp_path / "head.pt.checkpoint").read_bytes() == b"junk"


def test_sweep_shots_and_views(pictures: Path, tmp_path: Path):
    options = ("--sweep", "--shots", 5, "--augment", 1, "--epochs", 10, "--patience", 3)
    shown = train(pictures / "photos", *options, cwd=tmp_path).stdout
    assert "train: 10 images: box 5, disc 5" in shown
    assert "sweep of 18" in shown
    summary = load_head(tmp_path / "head.pt").training
    assert summary["optimizer"] == "adamw"
    assert summary["views"] == 1


REPORTS = {
    "single-label": ("photos", (), {"curves", "confusion", "roc-pr", "reliability"}),
    "multi-label": ("several.csv", ("--operating-point", "youden"), {"curves", "roc-pr", "reliability"}),
    "regression": ("sizes.csv", (), {"curves", "predicted"}),
}


@pytest.mark.parametrize("task", REPORTS)
def test_reports_are_whole_and_self_contained(pictures: Path, tmp_path: Path, task: str):
    pytest.importorskip("matplotlib", reason="needs the report extra")
    data, options, expected = REPORTS[task]
    train(pictures / data, "--task", task, "--epochs", 8, "--report", "out/report", *options, cwd=tmp_path)
    files = {path.stem: path for path in (tmp_path / "out/report").iterdir()}
    assert set(files) >= expected | {"report", "predictions"}
    page, table = (files.pop(name).read_text(encoding="utf-8") for name in ("report", "predictions"))
    assert ("mislabelled" in files) == (task == "single-label")
    files.pop("mislabelled", None)
    assert page.count("data:image/png;base64,") == len(files)
    check_predictions(table, page, pictures, task)
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "95% interval" in page
    assert "encoder tiny-clip, " in page  # the name of its folder, not where it lies
    assert str(TINY_CLIP.parent) not in page
    assert "regression on the same features" in page
    for path in files.values():
        with Image.open(path) as image:
            assert min(image.size) > 200


def check_predictions(table: str, page: str, pictures: Path, task: str) -> None:
    """Every image has its row, and every mistake of the held-out side its name on the page."""
    rows = list(csv.DictReader(table.splitlines()))
    assert Counter(row["side"] for row in rows) == {"train": 48, "validation": 12}
    assert {row["path"] for row in rows} == {
        path.relative_to(pictures).as_posix()
        if task != "single-label"
        else path.relative_to(pictures / "photos").as_posix()
        for path in (pictures / "photos").rglob("*.png")
    }
    for row in rows:
        if task == "regression":
            assert np.isfinite([float(row["true:size"]), float(row["predicted:size"])]).all()
        elif task == "single-label":
            assert row["true"] == Path(row["path"]).parent.name
            assert row["predicted"] == max(("box", "disc"), key=lambda label: float(row[f"p:{label}"]))
    judged = [row for row in rows if row["side"] == "validation"]
    wrong = [row["path"] for row in judged if task == "regression" or row["true"] != row["predicted"]]
    assert set(re.findall(r"<figcaption><b>(.*?)</b>", page.replace("<wbr>", ""))) == set(wrong)
    assert page.count("data:image/jpeg;base64,") == 2 * page.count("in colour: ")  # each mistake and its map
    if wrong:
        assert re.search(r"All \d+; the (largest|most confident) first", page)
        assert page.count("in colour: ") == page.count("<figure>") >= len(wrong)


def test_labels_are_text_in_the_report_and_never_markup(pictures: Path, tmp_path: Path):
    pytest.importorskip("matplotlib", reason="needs the report extra")
    shutil.copytree(pictures / "photos" / "box", tmp_path / "data" / "<b>$x$")
    shutil.copytree(pictures / "photos" / "disc", tmp_path / "data" / "$\\frac")
    train("data", "--epochs", 2, "--report", "report", cwd=tmp_path)
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;$x$" in page
    assert "<b>$x$" not in page


def test_tensorboard_gets_every_epoch(pictures: Path, tmp_path: Path):
    pytest.importorskip("tensorboard", reason="needs the tensorboard extra")
    train(pictures / "photos", "--epochs", 3, "--tensorboard", "runs", cwd=tmp_path)
    code = (
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator as E; "
        "e = E('runs/training'); e.Reload(); print([(s, len(e.Scalars(s))) for s in sorted(e.Tags()['scalars'])])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([(name, 3) for name in ("loss", "train_score", "val_loss", "val_score")])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_curves_on_a_full_disk_cost_no_training(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("tensorboard", reason="needs the tensorboard extra")
    monkeypatch.setattr("clip_export.training.report.tensorboard._opened", lambda _: io.FileIO("/dev/full", "w"))
    done = train(pictures / "photos", "--epochs", 3, "--tensorboard", "runs", cwd=tmp_path)
    assert done.stderr.count("curves of training are incomplete (No space left on device)") == 1
    assert "wrote head.pt" in done.stdout


def test_preprocessing_is_drawn(pictures: Path, tmp_path: Path):
    pytest.importorskip("matplotlib", reason="needs the report extra")
    image = next((pictures / "photos").rglob("*.png"))
    explain = ("--explain-preprocessing",)
    train(*explain, image, "-o", "steps.png", cwd=tmp_path)
    with Image.open(tmp_path / "steps.png") as drawn:
        assert min(drawn.size) > 500
    assert "no such image file" in failed(*explain, "none.png", cwd=tmp_path)
    assert "ending in .png" in failed(*explain, image, "-o", "steps.pt", cwd=tmp_path)


@pytest.mark.parametrize(("option", "extra"), [("--report", "report"), ("--tensorboard", "tensorboard")])
def test_without_an_extra_the_option_says_what_to_install(
    pictures: Path, tmp_path: Path, option: str, extra: str, monkeypatch: pytest.MonkeyPatch
):
    for module in ("matplotlib", "tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)  # neither found nor imported
    line = failed(pictures / "photos", "--epochs", 2, option, "x", cwd=tmp_path)
    assert f"pip install 'clip-toolkit[export,cpu,{extra}]'" in line
    assert not list(tmp_path.iterdir())
    train(pictures / "photos", "--epochs", 2, cwd=tmp_path)
    assert (tmp_path / "head.pt").exists()


def test_a_label_on_every_image_has_no_baseline_and_no_nan(pictures: Path, tmp_path: Path):
    rows = (pictures / "several.csv").read_text(encoding="utf-8").splitlines()
    manifest = pictures / "everywhere.csv"
    manifest.write_text("\n".join([rows[0], *(f"{row};thing" for row in rows[1:])]), encoding="utf-8")
    pytest.importorskip("matplotlib", reason="needs the report extra")
    done = train(manifest, "--task", "multi-label", "--epochs", "1", "--report", "report", cwd=tmp_path)
    assert "nan" not in done.stdout
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "no logistic regression to compare with: some label is on every training image" in page
    assert "no baseline: a label is on every training image, or on none" in done.stderr


def test_bad_data_is_one_line(pictures: Path, tmp_path: Path):
    work = tmp_path / "work"
    work.mkdir()

    def said(*arguments: object) -> str:
        return failed(*arguments, cwd=work)

    data = tmp_path / "data"
    shutil.copytree(pictures / "photos", data)
    assert "needs targets that folders cannot name" in said(data, "--task", "regression")
    assert "expected one of box, disc, got 'cat'" in said(data, "--positive", "cat")
    assert "neither a CSV" in said(data, "--groups", "(")
    assert "training side is empty" in said(data, "--groups", "item") or "side is empty" in said(
        data, "--groups", "item"
    )
    for path in list((data / "box").iterdir())[1:]:
        path.unlink()
    assert "class box: expected at least 2 readable images, got 1" in said(data)
    for path in data.rglob("*.png"):
        path.write_bytes(b"junk")
    assert "none of 31 files can be read as an image" in said(data)
    assert "line 3: the label is missing" in said(_written(tmp_path, "path,label\na,x\nb,\n"))
    assert "expected a number in column 'size', got 'big'" in said(
        _written(tmp_path, "path,size\na,big\n"), "--task", "regression"
    )
    assert not list(work.iterdir())


def _written(folder: Path, text: str) -> Path:
    (folder / "data.csv").write_text(text, encoding="utf-8")
    return folder / "data.csv"


def test_a_report_folder_that_is_a_file(pictures: Path, tmp_path: Path):
    pytest.importorskip("matplotlib", reason="needs the report extra")
    (tmp_path / "report").write_text("mine", encoding="utf-8")
    line = failed(pictures / "photos", "--report", "report", cwd=tmp_path)
    assert "cannot be used as a folder" in line
    assert (tmp_path / "report").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("photos", "--operating-point", "best"),
        ("photos", "--operating-point", "sensitivity=1.5"),
        ("photos", "--linear", "--hidden-dim", "8"),
        ("photos", "--explain-preprocessing", "a.png"),
        ("photos", "--val-fraction", "0.5", "--test-fraction", "0.5"),
        ("photos", "--task", "ranking"),
        ("photos", "--shots", "0"),
        ("--explain-preprocessing", "a.png", "--text-column", "text"),
        ("photos", "--init", "zero-shot", "--hidden-dim", "256"),
        ("photos", "--init", "zero-shot", "--activation", "relu"),
        ("photos", "--init", "zero-shot", "--dropout", "0.1"),
        ("photos", "--init", "zero-shot", "--feature-norm", "l2"),
        ("photos", "--feature-norm", "l2", "--standardise"),
        ("photos.csv", "--feature-norm", "l2", "--text-column", "text"),
        ("photos", "--keep-last", "--patience", "5"),
        ("photos", "--keep-last", "--sweep"),
    ],
)
def test_usage_errors(arguments: tuple[str, ...], tmp_path: Path):
    with pytest.raises(SystemExit, match="2"):
        run("clip-train", *arguments, "--encoder", "x", cwd=tmp_path)


def test_an_operating_point_is_any_number(pictures: Path, tmp_path: Path):
    options = ("--operating-point", "sensitivity=9e-1", "--positive", "box", "--epochs", 1)
    train(pictures / "photos", *options, cwd=tmp_path)
    assert load_head(tmp_path / "head.pt").training["operating point"] == "sensitivity=0.9"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a Linux device")
def test_results_that_cannot_be_written_are_one_line(pictures: Path, tmp_path: Path):
    command = [sys.executable, "-m", "clip_export.commands.train", pictures / "photos", *ENCODER, "--epochs", "1"]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "clip-train: the output cannot be written (No space left on device)\n"


def test_file_names_reach_the_terminal_without_their_escapes(pictures: Path, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(pictures / "photos", data)
    (next(data.iterdir()) / "\x1b[31mred\nclip-train.png").write_bytes(b"no image")
    done = train(data, "--epochs", 1, cwd=tmp_path)
    assert "\\x1b[31mred\\nclip-train.png" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout
