"""Small files that ask for much, and files that are something else: refused at once, with what to do."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_toolkit import ImageError, decode
from clip_toolkit.images import DecodeOptions
from clip_toolkit.images.limits import check_scans


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_a_gif_of_37_bytes_takes_no_gigabytes():
    screen = struct.pack("<6sHHBBB", b"GIF89a", 13000, 13000, 0x80, 0, 0) + bytes(6)
    bomb = screen + struct.pack("<BHHHHB", 0x2C, 0, 0, 13000, 13000, 0) + b"\2\2\x4c\1\0;"
    with pytest.raises(ImageError, match=r"13000x13000 pixels would take 845 MB.*--max-pixels 169000000"):
        decode(bomb)


@pytest.mark.parametrize(("mode", "bytes_a_pixel"), [("RGBA", 8), ("LA", 8), ("I;16", 10), ("RGB", 5), ("L", 5)])
def test_pixels_that_take_more_memory_weigh_more(mode: str, bytes_a_pixel: int):
    data = encoded(Image.new(mode, (100, 50)), "PNG")
    needed = 5000 * bytes_a_pixel // 5
    assert decode(data, DecodeOptions(max_pixels=needed)).shape == (50, 100, 3)
    with pytest.raises(ImageError, match=f"--max-pixels {needed} "):
        decode(data, DecodeOptions(max_pixels=needed - 1))


def test_the_scans_of_a_progressive_jpeg_are_counted():
    photo = encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG", progressive=True)
    assert decode(photo).shape == (64, 64, 3)
    scan = photo.index(b"\xff\xda")
    many = photo[:scan] + photo[scan:-2] * 30 + b"\xff\xd9"
    with pytest.raises(ImageError, match=r"64x64 pixels in \d{3} scans"):
        check_scans(many, 64, 64)
    with pytest.raises(ImageError, match="takes too long"):
        check_scans(photo, 20_000, 20_000)


@pytest.mark.parametrize(
    ("head", "name", "remedy"),
    [
        (b"%PDF-1.7\n", "a PDF document", "pdftoppm"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "a video", "ffmpeg"),
        (b"\x1aE\xdf\xa3\x01", "a video", "ffmpeg"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "an SVG drawing", "rsvg-convert"),
        (b"<!DOCTYPE html><html>", "a web page", "Download the image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS", "git lfs pull"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL", "djxl"),
        (b"8BPS\0\2" + bytes(20), "PSB", "PNG"),
        (b"v/1\1\2\0\0\0", "OpenEXR", "PNG"),
        (b"\0\0\2\0\1\0\x20\x20\0\0", "a mouse pointer", "PNG"),
        (b"DDS \x7c\0\0\0", "a texture", "PNG"),
        (b"PK\3\4\x14\0", "an archive", "Unpack"),
        (b"\x93NUMPY\1\0", "a NumPy array", "numpy.load"),
        (b"", "is empty", "again"),
    ],
)
def test_other_files_are_called_by_their_name(head: bytes, name: str, remedy: str, tmp_path: Path):
    path = tmp_path / "upload.jpg"
    path.write_bytes(head)
    with pytest.raises(ImageError, match=f"upload.jpg: .*{name}.*{remedy}"):
        decode(path)


def test_a_damaged_file_is_called_by_its_format():
    data = bytearray(encoded(Image.new("RGB", (8, 8)), "PNG"))
    data[29] ^= 1  # the checksum of the header
    with pytest.raises(ImageError, match="is a PNG file that cannot be read"):
        decode(bytes(data))


def test_a_signalling_not_a_number_warns_nobody():
    values = np.array([[0, 1], [0.5, 0]], np.float32)
    values.view(np.uint32)[1, 1] = 0x7FA00000
    assert decode(encoded(Image.fromarray(values), "TIFF"))[..., 0].tolist() == [[0, 255], [128, 0]]
