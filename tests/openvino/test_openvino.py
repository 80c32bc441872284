"""The OpenVINO execution provider, really run: `make test-openvino` exports the files and brings the environment."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import clip_toolkit
from clip_toolkit.commands.infer import main

FILES = Path(__file__).parents[2] / "build" / "openvino"
PROVIDER = "OpenVINOExecutionProvider"

pytestmark = pytest.mark.skipif(
    PROVIDER not in onnxruntime.get_available_providers() or not (FILES / "standard.onnx").is_file(),
    reason="needs onnxruntime-openvino and exported files: make test-openvino",
)


@pytest.mark.parametrize("name", ["standard.onnx", "ort.onnx"])
def test_selftest_passes(name: str, capsys: pytest.CaptureFixture[str]):
    assert main(["--selftest", str(FILES / name), "--device", "openvino", "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["provider"] == PROVIDER
    assert {row["path"] for row in report["drift"]} == {"pillow"}  # its own resize ignores antialias


def test_host_resizes_and_decisions_equal_the_cpus():
    picture = np.asarray(Image.effect_mandelbrot((301, 200), (-2, -1.5, 1, 1.5), 50).convert("RGB"))
    openvino = clip_toolkit.load(FILES / "standard.onnx", device="openvino")
    cpu = clip_toolkit.load(FILES / "standard.onnx", device="cpu", resize="pillow")
    assert (openvino.provider, openvino.resize) == (PROVIDER, "pillow")
    ours, expected = openvino.predict(picture), cpu.predict(picture)
    assert ours.provider == PROVIDER
    np.testing.assert_allclose(ours.probabilities, expected.probabilities, atol=1e-3)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch(batch: int):
    classifier = clip_toolkit.load(FILES / "standard.onnx", device="openvino")
    size = classifier.spec.preprocessing.size
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    assert classifier.run(images).probabilities.shape == (batch, len(classifier.spec.labels))


def test_foreign_operators_bring_one_line_of_advice():
    assert clip_toolkit.load(FILES / "standard.onnx", device="openvino").notes == ()
    (note,) = clip_toolkit.load(FILES / "ort.onnx", device="openvino").notes
    assert "--ops standard" in note
