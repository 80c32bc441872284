"""Preprocessing with Pillow."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clip_toolkit import ImageError, preprocess
from clip_toolkit.images import DecodeOptions
from clip_toolkit.images.preparing import Preparation
from clip_toolkit.images.preprocess import MAX_ASPECT, by_shape, check_aspect, crop_offset, normalise, resized_shape
from clip_toolkit.spec.classifier import Preprocessing


def rule(mode: str = "crop", resize: int = 224, size: int = 224, resample: str = "bicubic") -> Preprocessing:
    return Preprocessing(mode, resize, size, resample, (0.5, 0.4, 0.3), (0.25, 0.26, 0.27))


@pytest.mark.parametrize(
    ("shape", "resized"),
    [
        ((480, 640), (224, 298)),  # 298.67 is truncated
        ((640, 480), (298, 224)),
        ((224, 231), (224, 231)),
        ((500, 500), (224, 224)),
        ((1, 50), (224, 11200)),
        ((3, 2), (336, 224)),
    ],
)
def test_the_shortest_edge_decides_and_the_longer_is_truncated(shape: tuple[int, int], resized: tuple[int, int]):
    assert resized_shape(*shape, rule()) == resized
    assert resized_shape(*shape, rule("squash")) == (224, 224)


@pytest.mark.parametrize(("spare", "offset"), [(0, 0), (1, 0), (2, 1), (3, 1), (7, 3), (11, 5)])
def test_half_of_an_odd_difference_is_rounded_down(spare: int, offset: int):
    assert crop_offset(224 + spare, 224) == offset


def test_the_crop_is_the_centre():
    columns = np.arange(10, dtype=np.uint8)
    image = np.broadcast_to(columns[None, :, None], (7, 10, 3)).copy()
    assert preprocess(image, rule(resize=7, size=7))[0, :, 0].tolist() == list(range(1, 8))


@pytest.mark.parametrize("mode", ["crop", "squash"])
def test_an_image_of_the_models_size_is_unchanged(mode: str, pixels: NDArray[np.uint8]):
    square = pixels[:, :60]
    assert np.array_equal(preprocess(square, rule(mode, 60, 60)), square)


@pytest.mark.parametrize("shape", [(600, 120), (120, 600), (300, 280)])
def test_the_horizontal_pass_comes_first_on_every_pillow(shape: tuple[int, int]):
    """Pillow 13 turns the order around for tall images; the two orders differ in a good part of the pixels."""
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    wide = Image.fromarray(image).resize((64, shape[0]), Image.Resampling.BICUBIC)
    expected = np.asarray(wide.resize((64, 64), Image.Resampling.BICUBIC))
    assert np.array_equal(preprocess(image, rule("squash", 64, 64)), expected)


def test_bilinear_and_bicubic_differ(pixels: NDArray[np.uint8]):
    assert not np.array_equal(
        preprocess(pixels, rule(resize=32, size=32)), preprocess(pixels, rule(resize=32, size=32, resample="bilinear"))
    )


def test_endless_strips_are_refused():
    check_aspect(1, MAX_ASPECT)
    with pytest.raises(ImageError, match=f"1x{MAX_ASPECT + 1}"):
        check_aspect(MAX_ASPECT + 1, 1)


def test_normalise_follows_its_formula(pixels: NDArray[np.uint8]):
    values = normalise(pixels[None], rule())
    assert (values.dtype, values.shape) == (np.float32, (1, 3, 60, 90))
    expected = (pixels.astype(np.float64) / 255 - (0.5, 0.4, 0.3)) / (0.25, 0.26, 0.27)
    np.testing.assert_allclose(values[0].transpose(1, 2, 0), expected, atol=1e-6)


@pytest.mark.parametrize("spare", [3, 7, 11])
def test_the_crop_of_a_tall_and_of_a_wide_picture_is_rounded_down(spare: int):
    line = np.arange(20 + spare, dtype=np.uint8)
    kept = line[spare // 2 : spare // 2 + 20]
    wide = np.broadcast_to(line[None, :, None], (20, 20 + spare, 3)).copy()
    assert np.array_equal(preprocess(wide, rule(resize=20, size=20))[0, :, 0], kept)
    assert np.array_equal(preprocess(wide.transpose(1, 0, 2).copy(), rule(resize=20, size=20))[:, 0, 0], kept)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1)])
@pytest.mark.parametrize("mode", ["crop", "squash"])
def test_sides_of_one_pixel(shape: tuple[int, int], mode: str):
    image = np.full((*shape, 3), 90, np.uint8)
    assert np.array_equal(preprocess(image, rule(mode, 16, 16)), np.full((16, 16, 3), 90))


def test_an_image_that_the_resize_would_blow_up_is_refused():
    rule = Preprocessing("crop", 4096, 4096, "bicubic", (0.5,) * 3, (0.5,) * 3)
    prepare = Preparation(DecodeOptions(max_pixels=10**8), rule)
    with pytest.raises(ImageError, match=r"4x4000: resized for this model it would have \d+ pixels"):
        prepare(Image.new("RGB", (4, 4000)))


NAFLEX = Preprocessing("naflex", 256, 256, "bilinear", (0.5,) * 3, (0.5,) * 3, patch=16, max_patches=256)


@pytest.mark.parametrize(
    ("shape", "expected"), [((480, 640), (224, 288)), ((100, 100), (256, 256)), ((10, 1000), (32, 2048))]
)
def test_naflex_keeps_the_shape_in_as_many_patches_as_fit(shape: tuple[int, int], expected: tuple[int, int]):
    """Of transformers' ``get_image_size_for_max_num_patches``."""
    assert resized_shape(*shape, NAFLEX) == expected
    pixels = preprocess(np.zeros((*shape, 3), np.uint8), NAFLEX)
    assert pixels.shape == (*expected, 3)
    assert resized_shape(*expected, NAFLEX) == expected


def test_images_of_one_shape_run_together():
    shapes = [(2, 3), (3, 2), (2, 3), (1, 1)]
    assert by_shape([np.zeros((*shape, 3), np.uint8) for shape in shapes]) == [[0, 2], [1], [3]]
