"""The independent oracle: Optimum's own export of the same checkpoint."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import clip_toolkit
from clip_export.encoders.image import Encoder
from clip_export.exporting import ExportOptions, export_classifier
from clip_export.heads.files import TrainedHead
from clip_export.proof.optimum import export_with_optimum, optimum_differences
from clip_export.proof.reference import pixel_values, reference
from clip_export.samples.pictures import proof_files
from clip_toolkit.errors import EncoderError

optimum = pytest.importorskip("optimum.exporters.onnx", reason="needs the optimum extra")
pytestmark = pytest.mark.filterwarnings("ignore")  # Optimum's tracing warns of much that is its own business

EncoderOf = Callable[..., Encoder]
HeadFor = Callable[[Encoder], TrainedHead]


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_our_file_gives_the_embedding_of_optimums(
    encoder: EncoderOf, exported: Callable[..., Path], tmp_path: Path, name: str
):
    import onnxruntime

    used, files = encoder(name), proof_files(32)
    theirs = onnxruntime.InferenceSession(
        export_with_optimum(used.checkpoint, tmp_path), providers=["CPUExecutionProvider"]
    )
    values = np.concatenate([pixel_values(used, file).numpy() for file in files])
    (pooled,) = theirs.run(["pooler_output"], {"pixel_values": values})
    ours = clip_toolkit.load(exported(name), resize="pillow").predict_many(files)
    embedding = np.stack([prediction.embedding for prediction in ours])
    np.testing.assert_allclose(embedding, pooled / np.linalg.norm(pooled, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize(("name", "feature"), [("clip", "pooled"), ("clip", "projected"), ("siglip", "pooled")])
def test_cross_check_goes_into_the_receipt(
    encoder: EncoderOf, head_for: HeadFor, tmp_path: Path, name: str, feature: str
):
    used = encoder(name, feature)
    options = ExportOptions(cross_checks=(("optimum", optimum_differences),))
    spec = export_classifier(head_for(used), used, tmp_path / "m.onnx", options=options).spec
    assert set(spec.parity.cross_check["optimum"]) == {"embedding", "logits"}
    assert spec.parity.cross_check["optimum"]["logits"] <= 1e-5


def test_cross_check_notices_another_head(encoder: EncoderOf, head_for: HeadFor):
    used, files = encoder("clip"), proof_files(32)
    head = head_for(used).module
    expected = reference(used, head, files)
    shifted = expected._replace(logits=expected.logits + 1)
    assert optimum_differences(used, head, files, shifted)["logits"] == pytest.approx(1, abs=1e-4)


def test_families_that_optimum_does_not_know_are_refused(encoder: EncoderOf, head_for: HeadFor):
    used, files = encoder("blip"), proof_files(32)
    head = head_for(used).module
    with pytest.raises(EncoderError, match="clip, siglip encoders, not blip"):
        optimum_differences(used, head, files, reference(used, head, files))
