"""Golden pixels of the decode rule: every mode, depth and orientation, against a second way written down here."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from clip_toolkit import ImageError, decode
from clip_toolkit.images import DecodeOptions
from clip_toolkit.images.formats import FORMATS, registered_formats

Pixels = NDArray[np.uint8]
LENIENT = DecodeOptions(allow_truncated=True)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def grey(values: object, kind: type) -> list[int]:
    """Decoded grey of one row of values, through a TIFF."""
    decoded = decode(encoded(Image.fromarray(np.array([values], kind)), "TIFF"))
    assert (decoded[..., 0] == decoded[..., 1]).all()
    assert (decoded[..., 1] == decoded[..., 2]).all()
    return decoded[0, :, 0].tolist()


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (np.uint16, [0, 128, 129, 32896, 65535], [0, 0, 1, 128, 255]),
        (np.int32, [0, 257, 65535], [0, 1, 255]),
        (np.int32, [-100, 0, 100], [0, 128, 255]),
        (np.int32, [0, 1_000_000, 2_000_000], [0, 128, 255]),
        (np.float32, [0, 0.25, 0.5, 1], [0, 64, 128, 255]),
        (np.float32, [0, 0.25, 1.5, 255], [0, 0, 2, 255]),
        (np.float32, [0, 257, 65535], [0, 1, 255]),
        (np.float32, [-1, 0, 1], [0, 128, 255]),
        (np.float32, [0, np.nan, np.inf, -np.inf, 0.5], [0, 0, 255, 0, 128]),
        (np.float32, [-7, -7], [0, 0]),
    ],
)
def test_deep_grey_is_scaled_and_never_clipped(kind: type, values: list[float], expected: list[int]):
    assert grey(values, kind) == expected


def test_grey_without_a_number_in_it_is_refused():
    with pytest.raises(ImageError, match="no finite pixel"):
        grey([np.nan, np.nan], np.float32)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_both_byte_orders_of_sixteen_bits(mode: str):
    image = Image.new(mode, (2, 1), 32896)
    assert decode(image)[0, 0].tolist() == [128] * 3
    assert decode(image.transpose(Image.Transpose.ROTATE_90)).shape == (2, 1, 3)


def test_tiffs_that_turn_white_around_or_state_their_bits():
    data = encoded(Image.fromarray(np.array([[0, 257 * 8, 257 * 16]], np.uint16)), "TIFF")
    inverted = data.replace(_entry(262, 1), _entry(262, 0))
    assert inverted != data
    assert decode(inverted)[0, :, 0].tolist() == [255, 247, 239]


def test_a_tiff_of_twelve_bits_is_scaled_by_its_own_white():
    packed = encoded(Image.fromarray(np.array([[0x00, 0x08, 0x00, 0xFF, 0xF0, 0x00]], np.uint8)), "TIFF")
    twelve = packed.replace(_entry(256, 6, 4), _entry(256, 4, 4)).replace(_entry(258, 8), _entry(258, 12))
    assert decode(twelve)[0, :, 0].tolist() == [0, 128, 255, 0]


def _entry(tag: int, value: int, kind: int = 3) -> bytes:
    """A little-endian TIFF directory entry of one SHORT, or LONG (4), without the padding."""
    return tag.to_bytes(2, "little") + bytes([kind, 0, 1, 0, 0, 0, value])


def second_way(image: Image.Image) -> Pixels:
    """The rule for 8-bit modes with numpy alone where that is possible, else by the one conversion it names."""
    if image.mode in ("RGBA", "LA"):
        values = np.asarray(image).astype(np.float64)
        colour, alpha = values[..., :-1], values[..., -1:] / 255
        return np.broadcast_to(colour * alpha + 255 * (1 - alpha), (*values.shape[:2], 3))
    if image.mode in ("1", "L"):
        return np.repeat(np.asarray(image.convert("L"))[..., None], 3, axis=-1)
    if image.mode == "CMYK":
        values = 255 - np.asarray(image).astype(np.int64)
        return values[..., :3] * values[..., 3:] / 255
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"]
)
def test_every_mode_against_a_second_way(mode: str, pixels: Pixels):
    rgba = Image.fromarray(np.dstack([pixels, np.tile(np.arange(90, dtype=np.uint8) * 2, (60, 1))]))
    source = rgba if mode in ("LA", "PA", "RGBA", "RGBa") else rgba.convert("RGB")
    image = _converted(source, mode)
    expected = second_way(image.convert("RGBA") if mode in ("PA", "RGBa") else image)
    assert np.abs(decode(image).astype(int) - expected).max() <= 1


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if mode == "LAB":  # Pillow reads LAB but does not convert to it
        return Image.merge("LAB", [image.convert("L"), *[Image.new("L", image.size, 128)] * 2])
    return image.convert("P").convert("PA") if mode == "PA" else image.convert(mode)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once_in_every_format(form: str, orientation: int):
    corners = Image.new("RGB", (64, 32))
    corners.paste((255, 255, 255), (0, 0, 16, 16))  # white top left
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encoded(corners, form, exif=exif))
    assert decoded.shape == ((32, 64, 3) if orientation < 5 else (64, 32, 3))
    row, column = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}[
        orientation
    ]
    assert decoded[row, column].min() > 200
    assert decoded[-1 - row, -1 - column].max() < 50


def test_damaged_exif_is_no_orientation(pixels: Pixels):
    data = encoded(Image.fromarray(pixels), "PNG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff junk")
    assert np.array_equal(decode(data), pixels)


def test_a_colour_profile_changes_nothing(pixels: Pixels):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(decode(encoded(Image.fromarray(pixels), icc_profile=profile)), pixels)


# JPEG 2000 refines all rows until its end, so that none is the final one yet
@pytest.mark.parametrize(("form", "rows"), [("JPEG", 8), ("PNG", 8), ("TIFF", 8), ("JPEG2000", 0)])
def test_cut_short_is_an_error_unless_allowed(form: str, rows: int, pixels: Pixels):
    whole = encoded(Image.fromarray(pixels), form)
    cut = whole[: len(whole) * 2 // 3]
    with pytest.raises(ImageError, match=r"complete image file.*--allow-truncated"):
        decode(cut)
    kept = decode(cut, LENIENT)
    assert kept.shape == pixels.shape
    assert np.array_equal(kept[:rows], decode(whole)[:rows])


def test_strict_and_lenient_decodings_do_not_meet(pixels: Pixels, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # the host program's choice, not ours
    cut = encoded(Image.fromarray(pixels), "JPEG")[:-600]

    def refused(lenient: bool) -> bool:
        try:
            decode(cut, DecodeOptions(allow_truncated=lenient))
        except ImageError:
            return True
        return False

    asked = [bool(i % 3) for i in range(120)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(refused, asked)) == [not lenient for lenient in asked]
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_draft_keeps_enough_pixels_and_only_jpegs_change():
    photo = Image.effect_mandelbrot((1200, 800), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    options = DecodeOptions(draft_side=200)
    assert decode(encoded(photo, "JPEG"), options).shape == (200, 300, 3)
    assert decode(encoded(photo), options).shape == (800, 1200, 3)
    assert decode(encoded(photo.resize((300, 150)), "JPEG"), options).shape == (150, 300, 3)


def test_no_format_reaches_another_program():
    assert not {"EPS", "IPTC", "WMF", "EMF", "BUFR", "GRIB", "HDF5", "MPEG", "FPX", "MIC"} & set(FORMATS)
    assert {"JPEG", "PNG", "WEBP", "TIFF", "GIF"} <= set(registered_formats())


def test_urls_are_named_as_such():
    with pytest.raises(ImageError, match="URLs are not fetched"):
        decode("https://example.org/cat.jpg")


def test_pipes_are_read_whole(pixels: Pixels):
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: object) -> int:
            raise OSError("a pipe")

    assert np.array_equal(decode(Pipe(encoded(Image.fromarray(pixels)))), pixels)
