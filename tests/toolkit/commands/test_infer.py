"""``clip-infer`` as its users run it."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import clip_toolkit
from clip_toolkit.commands import classify
from clip_toolkit.commands.infer import main
from clip_toolkit.commands.infer_options import parse_args
from clip_toolkit.spec.model_file import read_spec

Captured = pytest.CaptureFixture[str]
KEYS = ["image", "label", "probability", "top", "provider", "error"]


@pytest.fixture
def image(tmp_path: Path, pixels: NDArray[np.uint8]) -> str:
    """A picture with an awkward name."""
    path = tmp_path / 'a, "quoted" näme.png'
    Image.fromarray(pixels).save(path)
    return str(path)


def process(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clip_toolkit.commands.infer", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


def test_json_jsonl_and_csv_hold_the_same_record(image: str, capsys: Captured):
    expected = clip_toolkit.load(device="cpu").predict(image)
    assert main([image, "--format", "json", "--top-k", "2", "--device", "cpu"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert list(record) == KEYS
    assert record["label"] == expected.label
    assert record["probability"] == pytest.approx(expected.probability, abs=1e-6)
    assert [score["label"] for score in record["top"]] == [score.label for score in expected.top(2)]
    assert (record["image"], record["provider"], record["error"]) == (image, "CPUExecutionProvider", None)
    assert main([image, "--format", "jsonl", "--top-k", "2", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out) == record
    assert main([image, "--format", "csv", "--device", "cpu"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["image"], row["label"], row["error"]) == (image, record["label"], "")
    assert float(row["probability"]) == record["probability"]


def test_table_names_the_image_once_and_all_its_labels(image: str, capsys: Captured):
    assert main([image, "--top-k", "3"]) == 0
    out = capsys.readouterr().out
    assert out.count(image) == 1
    assert out.count("%") == 3


def test_the_device_is_one_line_and_quiet_leaves_it_out(image: str, demo: Path, capsys: Captured):
    assert main([image, "--model", str(demo)]) == 0
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main([image, "--model", str(demo), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "options", "begins"),
    [
        ("out.csv", [], "image,label,"),
        ("out.JSONL", [], '{"image"'),
        ("out.json", [], "["),
        ("out.txt", [], "image  "),
        ("out.csv", ["--format", "jsonl"], '{"image"'),
    ],
)
def test_the_suffix_of_the_output_names_its_format(
    name: str, options: list[str], begins: str, image: str, tmp_path: Path
):
    assert main([image, "-o", str(tmp_path / name), *options]) == 0
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(begins)


def test_a_bad_image_does_not_stop_the_others(image: str, tmp_path: Path):
    (tmp_path / "bad.jpg").write_bytes(b"junk")
    done = process(image, "bad.jpg", "missing.jpg", image, "--format", "jsonl", cwd=tmp_path)
    assert done.returncode == 1
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["error"] is None for record in records] == [True, False, False, True]
    assert all(list(record) == KEYS for record in records)
    assert records[1]["label"] is None
    assert records[1]["top"] == []
    assert "bad.jpg" in done.stderr
    assert "missing.jpg" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--top-k", "0", "a.jpg"],
        ["--format", "xml", "a.jpg"],
        ["--device", "tpu", "a.jpg"],
        ["--describe", "m.onnx", "a.jpg"],
        ["--describe", "m.onnx", "--selftest", "m.onnx"],
        ["--describe", "m.onnx", "--format", "csv"],
    ],
    ids=" ".join,
)
def test_usage_errors_exit_with_2(arguments: list[str]):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


def test_order_in_which_a_model_is_looked_for(
    image: str, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
):
    assert main([image]) == 0
    assert f"built-in demo, which recognises {', '.join(read_spec(demo).labels)}" in capsys.readouterr().err
    shutil.copy(demo, tmp_path / "model.onnx")
    assert main([image]) == 0
    assert "built-in" not in capsys.readouterr().err
    monkeypatch.setenv("CLIP_MODEL", "from_environment.onnx")
    assert main([image]) == 1
    assert "from_environment.onnx" in capsys.readouterr().err
    assert main([image, "--model", "named.onnx"]) == 1
    assert "named.onnx" in capsys.readouterr().err


def test_describe(demo: Path, capsys: Captured):
    assert main(["--describe", str(demo), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(read_spec(demo).to_json())
    assert main(["--describe"]) == 0
    out = capsys.readouterr().out
    spec = read_spec(demo)
    for text in (*spec.labels, spec.encoder.id, "bicubic", "parity", "golden vectors", "format"):
        assert text in out


def test_selftest(demo: Path, capsys: Captured, edited: Callable[..., Path]):
    assert main(["--selftest", str(demo)]) == 0
    assert "selftest passed" in capsys.readouterr().out
    assert main(["--selftest", "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["passed"], report["provider"], len(report["drift"])) == (True, "CPUExecutionProvider", 6)
    broken = edited(lambda data: data["golden"][0]["logits"].reverse())
    assert main(["--selftest", str(broken)]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_terminal_that_lacks_the_letters_gets_escapes(image: str):
    done = process(image, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "n\\xe4me.png" in done.stdout


def test_errors_are_one_line_and_exit_code_1(tmp_path: Path):
    (tmp_path / "bad.onnx").write_bytes(b"junk")
    for arguments in (["x.png", "--model", "bad.onnx"], ["--describe", "bad.onnx"], ["x.png", "--device", "tensorrt"]):
        done = process(*arguments, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stdout == ""
        (line,) = [text for text in done.stderr.splitlines() if "built-in demo" not in text]
        assert line.startswith("clip-infer: ")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_need_no_heavy_import(option: str):
    command = [sys.executable, "-X", "importtime", "-m", "clip_toolkit.commands.infer", option]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "clip_toolkit.commands.infer" in imported or "clip_toolkit" in imported
    assert not imported & {"torch", "transformers", "onnxruntime"}
    assert "clip-infer" in done.stdout


def test_a_prediction_imports_neither_torch_nor_transformers_and_the_library_is_silent(image: str):
    code = (
        "import sys, clip_toolkit; clip_toolkit.load().predict(sys.argv[1]); "
        "sys.exit(bool({'torch', 'transformers', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, image], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_reader_that_leaves_early_is_no_error_of_ours(image: str):
    command = [
        sys.executable,
        "-m",
        "clip_toolkit.commands.infer",
        *[image] * 40,
        "--format",
        "jsonl",
        "--batch-size",
        "1",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        running.stdout.readline()
        running.stdout.close()
        errors = running.stderr.read()
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors


def test_labels_with_commas_quotes_and_line_ends_survive_every_format(
    image: str, edited: Callable[..., Path], capsys: Captured
):
    def change(data: dict[str, Any]) -> None:
        data["labels"] = [f'a, "{i}"\nb' for i in range(len(data["labels"]))]

    model = edited(change)
    arguments = [image, "--model", str(model), "--device", "cpu", "--format"]
    expected = clip_toolkit.load(model, device="cpu").predict(image).label
    outputs = {}
    for form in ("json", "jsonl", "csv"):
        assert main([*arguments, form]) == 0
        outputs[form] = capsys.readouterr().out
    assert json.loads(outputs["json"])[0]["label"] == expected
    assert json.loads(outputs["jsonl"])["label"] == expected
    assert outputs["jsonl"].count("\n") == 1
    (row,) = csv.DictReader(io.StringIO(outputs["csv"], newline=""))
    assert row["label"] == expected


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv"])
def test_nothing_but_bad_images(form: str, capsys: Captured):
    assert main(["missing.jpg", "--format", form]) == 1
    captured = capsys.readouterr()
    assert "missing.jpg" in captured.err
    assert ("missing.jpg" in captured.out) == (form != "table")


def test_options_reach_the_classifier(image: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured):
    opened, batches = [], []
    load, predict_many = classify.load, clip_toolkit.Classifier.predict_many

    def spied_load(*arguments: object, **decoding: object) -> clip_toolkit.Classifier:
        opened.append((*arguments[1:], decoding))
        return load(*arguments, **decoding)

    def spied_many(self, images: list[str], batch_size: int, errors: str, *, texts: None) -> object:
        batches.append(batch_size)
        return predict_many(self, images, batch_size, errors, texts=texts)

    monkeypatch.setattr(classify, "load", spied_load)
    monkeypatch.setattr(clip_toolkit.Classifier, "predict_many", spied_many)
    assert (
        main([image, "--device", "cpu", "--threads", "1", "--resize", "graph", "--batch-size", "3", "--fast-decode"])
        == 0
    )
    decoding = {"max_pixels": 2**27, "allow_truncated": False, "fast_decode": True, "isolate": None}
    decoding |= {"prepack": False, "throughput": False}
    assert opened == [("cpu", 1, "graph", decoding)]
    assert batches == [3]
    assert "CPUExecutionProvider, threads: 1" in capsys.readouterr().err
    assert main([*[image] * 9, "--device", "cpu"]) == 0
    assert opened[-1][-1]["prepack"] is opened[-1][-1]["throughput"] is True
    assert opened[-1][-1]["fast_decode"] is None
    assert main([image, "--no-fast-decode"]) == 0
    assert opened[-1][-1]["fast_decode"] is False


@pytest.mark.parametrize("option", ["--batch-size", "--threads"])
def test_numbers_beyond_any_machine_are_usage_errors(option: str):
    with pytest.raises(SystemExit) as stopped:
        parse_args([option, "1" + "0" * 25, "a.jpg"])  # parsed and no more: nothing must start so many threads
    assert stopped.value.code == 2


def test_an_interruption_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Captured):
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("clip_toolkit.commands.infer.run", interrupted)
    assert main(["a.jpg"]) == 130
    assert capsys.readouterr().err == "clip-infer: interrupted\n"


def test_usage_errors_do_not_name_our_functions(capsys: Captured):
    with pytest.raises(SystemExit):
        main(["--top-k", "many", "a.jpg"])
    assert "_positive" not in capsys.readouterr().err


def test_an_output_that_cannot_hold_a_name_is_no_crash(pixels: NDArray[np.uint8], tmp_path: Path):
    Image.fromarray(pixels).save(tmp_path / "snow \u2603.png")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = process("snow \u2603.png", cwd=tmp_path, env=environment)
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a Linux device")
def test_a_full_disk_is_one_line_and_exit_code_1(image: str):
    command = [sys.executable, "-m", "clip_toolkit.commands.infer", image, "--format", "jsonl", "--device", "cpu"]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "clip-infer: " in done.stderr


def test_version(capsys: Captured):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"clip-infer {clip_toolkit.__version__}\n"


def test_public_names():
    assert sorted(clip_toolkit.__all__) == [
        "Classifier",
        "ClipToolkitError",
        "DeviceError",
        "Drift",
        "ImageError",
        "ImageNotFoundError",
        "MissingDependencyError",
        "ModelError",
        "ModelNotFoundError",
        "ModelSpec",
        "Outputs",
        "Prediction",
        "Score",
        "SpecError",
        "TextEncoder",
        "TextError",
        "TextOutputs",
        "TextTowerSpec",
        "TextTruncatedWarning",
        "Tokenizer",
        "Tokens",
        "__version__",
        "decode",
        "load",
        "load_text",
        "open_image",
        "preprocess",
        "selftest",
        "selftest_text",
    ]
    assert all(hasattr(clip_toolkit, name) for name in clip_toolkit.__all__)
