"""Files that version 0.1.0 wrote still open, and give the answers that it gave: tests/data/compat/README.md."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from clip_search import SearchIndex
from clip_toolkit import load, load_text, selftest, selftest_text
from clip_toolkit.commands.infer import main

COMPAT = Path(__file__).parents[1] / "data" / "compat"
ANSWERS = json.loads((COMPAT / "answers.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["float32.onnx", "int8.onnx"])
def test_a_classifier_answers_as_it_did(name: str):
    classifier = load(COMPAT / name, device="cpu")
    assert all(drift.passed for drift in selftest(classifier))
    for image, expected in ANSWERS[name].items():
        found = classifier.predict(COMPAT / "images" / image)
        assert found.label == expected["label"]
        tolerance = 1e-5 if name == "float32.onnx" else 1e-2  # int8 products depend on the processor
        np.testing.assert_allclose(found.probabilities, expected["probabilities"], atol=tolerance)
        np.testing.assert_allclose(found.embedding, expected["embedding"], atol=tolerance)


@pytest.mark.parametrize("name", ["float32.onnx", "int8.onnx", "text.onnx"])
def test_a_file_is_described(name: str, capsys: pytest.CaptureFixture[str]):
    assert main(["--describe", str(COMPAT / name)]) == 0
    assert "parity" in capsys.readouterr().out


def test_a_text_encoder_answers_as_it_did():
    pytest.importorskip("tokenizers", reason="needs the text extra")
    encoder = load_text(COMPAT / "text.onnx", device="cpu")
    assert all(drift.passed for drift in selftest_text(encoder))
    texts = ANSWERS["text.onnx"]
    np.testing.assert_allclose(encoder.encode(list(texts)), list(texts.values()), atol=1e-5)


def test_an_index_finds_what_it_found_and_is_brought_up_to_date(tmp_path: Path):
    folder = shutil.copytree(COMPAT, tmp_path / "compat")
    classifier = load(folder / "float32.onnx", device="cpu")
    with SearchIndex.open(folder / "index", classifier) as index:
        for image, expected in ANSWERS["index"].items():
            found = [
                (hit.path.name, pytest.approx(hit.score, abs=1e-3)) for hit in index.query(folder / "images" / image)
            ]
            assert found == [tuple(hit) for hit in expected]
        assert len(index.duplicates()) == 1
        report = index.update()
        assert (report.embedded, report.failed, len(index)) == (0, 0, 5)
        (folder / "images" / "star.png").unlink()
        assert index.update().removed == 1
        assert not (folder / "index" / "approximate.usearch").exists()
