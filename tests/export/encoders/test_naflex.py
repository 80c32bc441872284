"""SigLIP 2 NaFlex: images in their own shape, from bytes on as transformers' processor and model answer them."""

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch.nn import functional

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder, tokenised
from clip_export.exporting import ExportOptions, export_classifier
from clip_export.graph.preprocessing import GraphPreprocessor, preprocess_graph
from clip_export.graph.text_weights import canonical_text
from clip_export.graph.vit import resampled
from clip_export.graph.vit_weights import canonical_vit
from clip_export.heads.files import TrainedHead
from clip_export.proof.reference import pixel_values, reference
from clip_export.quantization.evidence.examples import tuning_feeds
from clip_export.samples.pictures import picture
from clip_export.triton_repository.writing import write_repository
from clip_toolkit import load
from clip_toolkit.errors import EncoderError, ImageError, OutputError
from clip_toolkit.images import MAX_PIXELS
from clip_toolkit.images.preprocess import check_resized, preprocess, resized_shape
from clip_toolkit.spec.description import describe

pytestmark = pytest.mark.transformers

EncoderOf = Callable[..., Encoder]
SHAPES = ((40, 40), (23, 80), (90, 21), (5, 300), (300, 40), (33, 65), (5, 7))


@pytest.fixture
def used(encoder: EncoderOf) -> Encoder:
    return encoder("siglip2-naflex")


def png(height: int, width: int) -> bytes:
    buffer = io.BytesIO()
    picture(height, width, seed=height).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_canonical_transformer_equals_processor_and_model(
    checkpoint: Callable[[str], Path], used: Encoder, shape: tuple[int, int]
):
    model = transformers.Siglip2Model.from_pretrained(checkpoint("siglip2-naflex"), dtype=torch.float32).eval()
    image = Image.open(io.BytesIO(png(*shape)))
    prepared = preprocess(image, used.preprocessing).copy()
    inputs, own = (used.processor(images=[item], return_tensors="pt") for item in (Image.fromarray(prepared), image))
    assert torch.equal(inputs["spatial_shapes"], own["spatial_shapes"])
    step = 2.1 / 255  # by which Pillow 13 differs for tall images
    torch.testing.assert_close(inputs["pixel_values"], own["pixel_values"], atol=step, rtol=0)
    assert inputs["pixel_values"].shape[1] == 18, "padded, and so masked"
    expected = model.get_image_features(**inputs)
    expected = getattr(expected, "pooler_output", expected)  # since transformers 5
    torch.testing.assert_close(used.features(pixel_values(used, png(*shape))), expected, atol=1e-6, rtol=1e-6)
    found = canonical_vit(used)(torch.from_numpy(prepared)[None])
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("grid", [(1, 256), (3, 85), (16, 16), (128, 2), (5, 7)])
def test_positions_are_resampled_as_pytorch_does(grid: tuple[int, int]):
    table = torch.randn(1, 6, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = functional.interpolate(table, grid, mode="bilinear", antialias=True)
    torch.testing.assert_close(resampled(table.flatten(2).mT, *grid), expected.flatten(2).mT)


def test_images_that_no_reference_answers_rightly_are_refused(used: Encoder):
    """PyTorch's resize to one column gives other values than its resize to two equal ones."""
    rule = replace(used.preprocessing, patch=16, max_patches=256)
    for height, width, said in ((500, 2, "one patch wide"), (2, 2, "too few pixels")):
        with pytest.raises(ImageError, match=rf"{width}x{height}.*{said}"):
            check_resized(height, width, rule, MAX_PIXELS)


@pytest.mark.parametrize("most", [18, 256])
def test_grids_are_those_of_transformers(used: Encoder, most: int):
    module = __import__(type(used.processor).__module__, fromlist=["_"])
    rng = np.random.default_rng(most)
    rule = replace(used.preprocessing, max_patches=most)
    for height, width in np.exp(rng.uniform(0, 9, (300, 2))).astype(int).tolist():
        expected = module.get_image_size_for_max_num_patches(height, width, 8, most)
        assert resized_shape(height, width, rule) == expected


def test_the_graph_finds_the_same_grids_and_leaves_prepared_images_alone(used: Encoder):
    resize, rng = GraphPreprocessor(preprocess_graph(used.preprocessing)), np.random.default_rng(1)
    for height, width in [(1, 1), (1, 900), *np.exp(rng.uniform(1, 6, (60, 2))).astype(int).tolist()]:
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        found = resize(image)
        assert found.shape[:2] == resized_shape(height, width, used.preprocessing)
        if height * width > 6:
            prepared = preprocess(image, used.preprocessing)
            assert np.abs(found.astype(int) - prepared).max() <= 2
            assert np.array_equal(resize(prepared), prepared)


def test_from_image_bytes_to_a_proved_file_that_takes_mixed_shapes(
    used: Encoder, head_for: Callable[[Encoder], TrainedHead], tmp_path: Path
):
    head, model = head_for(used), tmp_path / "model.onnx"
    spec = export_classifier(head, used, model).spec
    assert len(set(spec.parity.shapes)) > 3
    files = [png(*shape) for shape in SHAPES]
    expected = reference(used, head.module, files)
    for resize in ("pillow", "graph"):
        found = list(load(model, "cpu", resize=resize).predict_many(files, batch_size=4))
        logits = np.stack([item.logits for item in found])
        np.testing.assert_allclose(logits, expected.logits, atol=(1e-4 if resize == "pillow" else 2e-2))
    assert "own shape, at most 18 patches of 8x8 pixels" in "".join(describe(spec, model))
    with pytest.raises(OutputError, match="keep their shape"):
        write_repository(model, tmp_path / "repository")


def test_what_takes_one_size_for_granted_is_refused(
    used: Encoder, head_for: Callable[[Encoder], TrainedHead], tmp_path: Path
):
    with pytest.raises(EncoderError, match="--input pixels"):
        export_classifier(head_for(used), used, tmp_path / "model.onnx", options=ExportOptions("pixels"))
    assert not list(tmp_path.iterdir())
    with pytest.raises(EncoderError, match=r"siglip2 encoders have no mean@1"):
        Encoder.from_pretrained(used.id, feature="mean@1")


def test_images_to_tune_an_int8_file_on_make_one_batch(used: Encoder):
    rule = used.preprocessing
    feeds = tuning_feeds(SimpleNamespace(text=None, input="image", preprocessing=rule), None)
    assert feeds.image.shape[1:] == (rule.size, rule.size, 3)
    assert len(feeds) == len(feeds[:3]) + len(feeds[3:]) > 3


def test_text_tower(checkpoint: Callable[[str], Path]):
    folder = checkpoint("siglip2-naflex")
    tower, model = TextEncoder.from_pretrained(str(folder)), transformers.Siglip2Model.from_pretrained(folder)
    tokens = tokenised(tower, ["a red circle", "Blue"])
    expected = model.get_text_features(**tokens)
    expected = getattr(expected, "pooler_output", expected)
    torch.testing.assert_close(canonical_text(tower)(**tokens, attention_mask=None), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "other"), [("siglip2-naflex", "siglip"), ("siglip", "siglip2-naflex")])
def test_processors_of_the_other_kind_are_refused(
    checkpoint: Callable[[str], Path], tmp_path: Path, name: str, other: str
):
    folder = Path(shutil.copytree(checkpoint(name), tmp_path / "copy"))
    shutil.copy(checkpoint(other) / "preprocessor_config.json", folder)
    with pytest.raises(EncoderError, match=r"which is not what its image tower takes\. Check preprocessor_config"):
        Encoder.from_pretrained(str(folder))
