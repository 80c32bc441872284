"""The notebook's answers through a quantized file: its decisions are compared, counted and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from notebooks import LABELS, Notebook, make_notebook

from clip_export.encoders.image import Encoder
from clip_export.expect.answers import Answers
from clip_export.expect.proving import Expected
from clip_export.expect.quantized import check_quantized
from clip_export.exporting import ExportOptions, export_classifier
from clip_export.heads.files import load_head
from clip_export.quantization.quantizing import QuantizationOptions
from clip_export.quantization.targets import find_target
from clip_toolkit import load
from clip_toolkit.errors import QuantizationError
from clip_toolkit.spec.evidence import notebook_rows
from clip_toolkit.spec.receipts import NotebookReceipt

RECEIPT = NotebookReceipt(24, "logits", "images", 0.0, 1e-3, 3.0)


@pytest.fixture(scope="module")
def notebook(encoder: Callable[..., Encoder], tmp_path_factory: pytest.TempPathFactory) -> Notebook:
    return make_notebook(encoder("clip"), tmp_path_factory.mktemp("notebook"))


@pytest.fixture(scope="module")
def model(notebook: Notebook) -> Path:
    """The head as an fp16 file, exported with its answers."""
    path = notebook.file.with_name("fp16.onnx")
    quantization = QuantizationOptions("fp16", find_target("auto"))
    options = ExportOptions(expected=Expected(answers_of(notebook)), quantization=quantization)
    exported = export_classifier(load_head(notebook.file), notebook.encoder, path, LABELS, options)
    rows = dict(notebook_rows(exported.spec))
    assert rows["  quantized"] == "decides as the notebook on 100.00% of 24 images"
    assert (exported.changed, exported.spec.notebook.quantized) == ((), 1.0)
    return path


def answers_of(notebook: Notebook, **changes: object) -> Answers:
    images = tuple(map(str, notebook.paths))
    return Answers(**{"images": images, "logits": notebook.answers.double().numpy(), **changes})  # type: ignore[arg-type]


def test_decisions_that_differ_are_counted_and_named(notebook: Notebook, model: Path):
    logits = notebook.answers.double().numpy()
    logits[5] = np.roll(logits[5], 1)
    expected = Expected(answers_of(notebook, logits=logits))
    found = check_quantized(load(model, device="cpu"), expected, RECEIPT, 0.95)
    assert found.changed == ("5.png",)
    assert found.receipt.quantized == pytest.approx(23 / 24)
    with pytest.raises(QuantizationError, match=r"on 95\.83% of 24 .*99\.00% \(5\.png decided otherwise\)"):
        check_quantized(load(model, device="cpu"), expected, RECEIPT, 0.99)


def test_features_are_said_to_compare_nothing(notebook: Notebook, model: Path):
    answers = answers_of(notebook, images=(), features=notebook.features.numpy())
    assert check_quantized(load(model, device="cpu"), Expected(answers), RECEIPT, 0.99).receipt is RECEIPT
