"""The decode rule."""

import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import EpsImagePlugin, Image, ImageFile

from clip_toolkit import ImageError, ImageNotFoundError, decode
from clip_toolkit.images import DecodeOptions, opening

Pixels = NDArray[np.uint8]


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_every_kind_of_source_gives_the_same_pixels(pixels: Pixels, tmp_path: Path):
    data = encoded(Image.fromarray(pixels))
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    just_written = io.BytesIO()
    just_written.write(data)  # its position is at its end
    for source in (path, str(path), data, io.BytesIO(data), just_written, Image.fromarray(pixels), pixels):
        decoded = decode(source)
        assert decoded.dtype == np.uint8
        assert np.array_equal(decoded, pixels)


# Where the camera's top left ended up, from the EXIF standard, undone by hand.
ORIENTATIONS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_applied_once(pixels: Pixels, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encoded(Image.fromarray(pixels), "PNG", exif=exif))
    assert np.array_equal(decoded, ORIENTATIONS[orientation](pixels))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_greyscale_is_scaled_and_not_clipped(form: str):
    values = np.array([[0, 256, 257, 32896, 65535]], np.uint16)
    decoded = decode(encoded(Image.fromarray(values), form))
    assert decoded[0, :, 0].tolist() == [0, 1, 1, 128, 255]


def test_alpha_is_composited_over_white():
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)
    assert decode(encoded(Image.fromarray(rgba)))[0].tolist() == [[10, 20, 30], [255, 255, 255], [127, 127, 127]]
    assert decode(encoded(Image.new("LA", (2, 1), (0, 0))))[0, 0].tolist() == [255, 255, 255]
    assert decode(encoded(Image.new("LA", (2, 1), (60, 128))))[0, 0].tolist() == [157, 157, 157]


def test_palette_with_and_without_transparency():
    image = Image.new("P", (2, 1), 0)
    image.putpalette([200, 10, 20, 1, 2, 3])
    image.putpixel((1, 0), 1)
    assert decode(encoded(image))[0].tolist() == [[200, 10, 20], [1, 2, 3]]
    assert decode(encoded(image, transparency=0))[0].tolist() == [[255, 255, 255], [1, 2, 3]]


@pytest.mark.parametrize(("mode", "value", "expected"), [("1", 1, 255), ("L", 77, 77)])
def test_grey_becomes_three_equal_channels(mode: str, value: int, expected: int):
    assert decode(encoded(Image.new(mode, (3, 2), value)))[1, 2].tolist() == [expected] * 3


def test_cmyk_is_converted():
    decoded = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"))
    assert decoded[0, 0].tolist() == [255, 0, 0]


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data)[0, 0].tolist() == [255, 0, 0]


JPEG = encoded(Image.effect_noise((64, 64), 60), "JPEG")
PNG = encoded(Image.effect_noise((64, 64), 60))
BAD = {
    "empty": b"",
    "text": b"this is no image at all",
    "truncated jpeg": JPEG[: len(JPEG) // 2],
    "truncated png": PNG[: len(PNG) // 2],
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_what_is_no_whole_image_is_refused_by_name(content: bytes, tmp_path: Path):
    path = tmp_path / "bad file.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="bad file"):
        decode(path)
    with pytest.raises(ImageError, match="<bytes>"):
        decode(content)


def test_missing_files_and_folders(tmp_path: Path):
    with pytest.raises(ImageNotFoundError, match="no such image file"):
        decode(tmp_path / "none.jpg")
    with pytest.raises(FileNotFoundError):
        decode(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match=r"cannot be read|Is a directory"):
        decode(tmp_path)


def test_too_many_pixels_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"64x64 pixels.*--max-pixels 4096 "):
        decode(PNG, DecodeOptions(max_pixels=64 * 63))


def test_the_limit_itself_is_allowed():
    assert decode(PNG, DecodeOptions(max_pixels=64 * 64)).shape == (64, 64, 3)


@pytest.mark.parametrize("source", [None, 7, [1, 2]])
def test_other_types_are_refused(source: object):
    with pytest.raises(ImageError, match="expected a path"):
        decode(source)


def test_a_transparent_grey_of_sixteen_bits_is_composited_over_white():
    values = np.array([[0, 257, 65535]], np.uint16)
    assert decode(encoded(Image.fromarray(values), transparency=257))[0, :, 0].tolist() == [0, 255, 255]


def test_a_pillow_image_without_pixels_is_refused():
    with pytest.raises(ImageError, match="0x5"):
        decode(Image.new("RGB", (0, 5)))


def test_postscript_starts_no_other_program(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    with pytest.raises(ImageError):
        decode(BAD["postscript"])


@pytest.mark.parametrize("name", ["empty", "text", "postscript"])
def test_messages_speak_of_the_file_and_not_of_our_objects(name: str, tmp_path: Path):
    path = tmp_path / "bad.jpg"
    path.write_bytes(BAD[name])
    with pytest.raises(ImageError) as caught:
        decode(path)
    assert "object at 0x" not in str(caught.value)


def test_our_limit_decides_and_not_pillows_warning(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)  # above it Pillow warns
    assert decode(PNG).shape == (64, 64, 3)


def test_large_images_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(opening, "_LARGE", 63)
    together, most = 0, 0
    plain = ImageFile.ImageFile.load

    def watched(image: ImageFile.ImageFile) -> object:
        nonlocal together, most
        together += 1
        most = max(most, together)
        time.sleep(0.02)  # long enough for another thread to come in, were it let in
        loaded = plain(image)
        together -= 1
        return loaded

    monkeypatch.setattr(ImageFile.ImageFile, "load", watched)
    data = encoded(Image.new("RGB", (8, 8)))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(opening.loaded, [io.BytesIO(data) for _ in range(4)], [DecodeOptions()] * 4))
    assert most == 1
