"""Preprocessing three ways: the transformers processor, `clip_toolkit.images.preprocess`, and the graph."""

import functools
import io
from pathlib import Path

import numpy as np
import PIL
import pytest
from numpy.typing import NDArray
from PIL import Image
from transformers import BlipImageProcessor, CLIPImageProcessor, SiglipImageProcessor

from clip_export.encoders.processors import load_processor, preprocessing_of
from clip_export.graph.preprocessing import GraphPreprocessor, preprocess_graph
from clip_export.samples.pictures import picture
from clip_toolkit.images.preprocess import normalise, preprocess

pytestmark = pytest.mark.transformers

SIZE = 224
TALL_FIRST = int(PIL.__version__.split(".")[0]) >= 13

PROCESSORS = {
    "clip": lambda: CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}),
    "clip-256": lambda: CLIPImageProcessor(size={"shortest_edge": 256}, crop_size={"height": SIZE, "width": SIZE}),
    "siglip": lambda: SiglipImageProcessor(size={"height": SIZE, "width": SIZE}),
    "siglip2": lambda: SiglipImageProcessor(size={"height": SIZE, "width": SIZE}, resample=2),
    "blip": lambda: BlipImageProcessor(size={"height": 384, "width": 384}),
}

SHRINKING = {
    "portrait": (640, 427),
    "landscape": (480, 640),
    "square": (500, 500),
    "model size": (SIZE, SIZE),
    "spare 3": (300, 304),
    "spare 7": (448, 462),
    "spare 11": (551, 448),
    "panorama 20:1": (400, 8000),
    "tower 1:20": (8000, 400),
    "12 megapixels": (3000, 4000),
}
ENLARGING = {"smaller": (97, 131), "tiny": (3, 2), "one row": (1, 50), "one column": (50, 1), "one pixel": (1, 1)}


@functools.cache  # it takes longer to draw twelve megapixels than to resize them
def pixels_of(shape: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(picture(*shape, seed=3))


@pytest.fixture(scope="module", params=PROCESSORS)
def processor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """The Pillow processor, loaded from a saved configuration as a checkpoint's is."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    PROCESSORS[request.param]().save_pretrained(folder)
    return load_processor(folder, "")


@pytest.mark.parametrize("shape", (SHRINKING | ENLARGING).values(), ids=(SHRINKING | ENLARGING).keys())
def test_pillow_path_equals_the_transformers_processor_bit_for_bit(processor, shape: tuple[int, int]):
    rule = preprocessing_of(processor)
    image = pixels_of(shape)
    if TALL_FIRST and rule.mode == "crop" and shape[0] > 2 * shape[1]:
        pytest.skip(
            "Pillow 13 takes the vertical pass first here; ours stays horizontal first (clip_toolkit.images.preprocess)"
        )
    if TALL_FIRST and rule.mode == "squash":
        filter_ = Image.Resampling[rule.resample.upper()]
        image = np.asarray(Image.fromarray(image).resize((rule.size, image.shape[0]), filter_))
    expected = processor(images=[Image.fromarray(image)], return_tensors="np", input_data_format="channels_last")
    ours = normalise(preprocess(pixels_of(shape), rule)[None], rule)
    assert np.array_equal(ours, expected["pixel_values"])


WITNESSED = {name: (SHRINKING | ENLARGING)[name] for name in ("portrait", "spare 3", "spare 7", "smaller", "one row")}


@pytest.mark.parametrize("shape", WITNESSED.values(), ids=WITNESSED.keys())
def test_a_second_witness_gives_the_same_pixels(processor, shape: tuple[int, int], tmp_path: Path):
    """In Rust, without Pillow; its own backend of torchvision is a step off here and there, as torchvision is."""
    witnesses = pytest.importorskip("hf_processors_rs")
    processor.save_pretrained(tmp_path)
    rule, image = preprocessing_of(processor), picture(*shape, seed=3)
    ours = normalise(preprocess(image, rule)[None], rule)
    pillow, torchvision = (
        np.asarray(witnesses.AutoImageProcessor.from_pretrained(tmp_path, backend=backend)([image]))
        for backend in ("pil", "torchvision")
    )
    assert np.array_equal(ours, pillow)
    steps = np.rint(np.abs(ours - torchvision) * np.reshape(rule.std, (1, 3, 1, 1)) / rule.scale)
    assert steps.max() <= 2
    assert (steps > 0).mean() <= 0.01


@pytest.mark.parametrize("shape", SHRINKING.values(), ids=SHRINKING.keys())
def test_graph_follows_pillow_when_it_shrinks(processor, shape: tuple[int, int]):
    rule = preprocessing_of(processor)
    if rule.resize != rule.size and shape == (rule.size, rule.size):
        pytest.skip("an image of the model's size counts as prepared")
    steps = difference(rule, shape)
    # Bilinear weights often tie at exactly half a step, and ONNX Runtime's float32 coordinates round those either way.
    bound = 0.001 if rule.resample == "bicubic" else 0.02
    assert steps.max() <= 1
    assert (steps > 0).mean() <= bound


@pytest.mark.parametrize("shape", ENLARGING.values(), ids=ENLARGING.keys())
def test_graph_follows_pillow_when_it_enlarges(processor, shape: tuple[int, int]):
    rule = preprocessing_of(processor)
    steps = difference(rule, shape)
    assert steps.max() <= (1 if rule.resample == "bicubic" else 2)
    assert (steps > 0).mean() <= (0.001 if rule.resample == "bicubic" else 0.05)


def test_an_image_of_the_models_size_passes_unchanged(processor):
    rule = preprocessing_of(processor)
    image = pixels_of((rule.size, rule.size))
    assert np.array_equal(graph(rule)(image), image)


def test_resize_needs_the_settings_it_has():
    """Pillow's filter is not ONNX's default one: with that, the same comparison fails by far."""
    rule = preprocessing_of(PROCESSORS["clip"]())
    model = preprocess_graph(rule)
    (resize,) = [node for node in model.graph.node if node.op_type == "Resize"]
    (parameter,) = [attribute for attribute in resize.attribute if attribute.name == "cubic_coeff_a"]
    parameter.f = -0.75
    image = pixels_of((480, 640))
    wrong = GraphPreprocessor(model)(image).astype(int) - preprocess(image, rule)
    assert (np.abs(wrong) > 0).mean() > 0.1


def test_decoded_jpeg_takes_the_same_way():
    buffer = io.BytesIO()
    picture(333, 517, seed=5).save(buffer, "JPEG")
    image = np.asarray(Image.open(buffer))
    rule = preprocessing_of(PROCESSORS["clip"]())
    assert np.abs(graph(rule)(image).astype(int) - preprocess(image, rule)).max() <= 1


def graph(rule) -> GraphPreprocessor:
    return GraphPreprocessor(preprocess_graph(rule))


def difference(rule, shape: tuple[int, int]) -> NDArray[np.int64]:
    image = pixels_of(shape)
    return np.abs(graph(rule)(image).astype(int) - preprocess(image, rule).astype(int))
