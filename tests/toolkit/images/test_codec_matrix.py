"""The decode matrix of compressed formats, against imagecodecs and OpenCV."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from decode_cases import HEIGHT, WIDTH, Case, expected_grey, over_white, rgb, samples, scaled, wrong
from PIL import features

cv2 = pytest.importorskip("cv2")
imagecodecs = pytest.importorskip("imagecodecs")


def codecs() -> Iterator[Case]:
    grey, colour, alpha = samples(1, "u1"), samples(3, "u1"), samples(4, "u1")
    shown = over_white(alpha[..., :3], alpha[..., 3])
    for codec in ("jp2", "j2k"):
        for name, values, expected in (("grey", grey, rgb(grey)), ("rgb", colour, colour)):
            data = imagecodecs.jpeg2k_encode(values, level=0, reversible=True, codecformat=codec)
            assert np.array_equal(imagecodecs.jpeg2k_decode(data), values)
            yield Case(f"jpeg 2000 {codec} {name}", data, expected)
    deep = samples(1, "u2")
    data = imagecodecs.jpeg2k_encode(deep, level=0, reversible=True)
    yield Case("jpeg 2000 of 16 bits", data, expected_grey(deep))
    palette = data.replace(b"colr", b"pclr")
    yield Case("jpeg 2000 with a palette", palette, None, "JPEG 2000|JPEG2000")
    for name, values, expected in (("rgb", colour, colour), ("rgba", alpha, shown)):
        data = imagecodecs.webp_encode(values, lossless=True)
        assert np.array_equal(
            imagecodecs.webp_decode(data)[..., :3][values[..., -1] > 0], values[..., :3][values[..., -1] > 0]
        )
        yield Case(f"webp {name}", data, expected, tolerance=1)
        yield Case(f"qoi {name}", imagecodecs.qoi_encode(values), expected, tolerance=1)
    lossy = imagecodecs.webp_encode(colour, level=90)
    yield Case("webp lossy", lossy, imagecodecs.webp_decode(lossy), tolerance=3)
    for subsampling, kind in itertools.product(("444", "422", "420"), ("rgb", "grey", "progressive")):
        values = grey if kind == "grey" else colour
        data = (
            imagecodecs.jpeg8_encode(values, level=95, subsampling=subsampling)
            if kind != "progressive"
            else (cv2.imencode(".jpg", colour[..., ::-1], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes())
        )
        yield Case(f"jpeg {kind} {subsampling}", data, rgb(imagecodecs.jpeg8_decode(data)), tolerance=3)
    if features.check("avif"):
        data = imagecodecs.avif_encode(colour, level=95, pixelformat="444")
        yield Case("avif", data, imagecodecs.avif_decode(data), tolerance=3)
        ten = samples(3, "u2", 0, 1023)
        data = imagecodecs.avif_encode(ten, level=95, bitspersample=10, pixelformat="444")
        yield Case(
            "avif of 10 bits", data, (imagecodecs.avif_decode(data) / 1023 * 255).round().astype(np.uint8), tolerance=3
        )
        data = imagecodecs.avif_encode(alpha, level=100, pixelformat="444")
        seen = imagecodecs.avif_decode(data)
        yield Case("avif with alpha", data, over_white(seen[..., :3], seen[..., 3]), tolerance=3)
    for white, digits in ((1, 1), (255, 1), (1000, 2), (65535, 2)):
        values = samples(3, "u2", 0, white)
        body = values.astype(f">u{digits}").tobytes()
        yield Case(
            f"ppm up to {white}",
            f"P6 {WIDTH} {HEIGHT} {white}\n".encode() + body,
            scaled(values, 0, white),
            tolerance=1,
        )
        one = values[..., 0]
        plain = f"P2\n{WIDTH} {HEIGHT}\n{white}\n".encode() + " ".join(map(str, one.reshape(-1).tolist())).encode()
        yield Case(f"plain pgm up to {white}", plain, rgb(scaled(one, 0, white)), tolerance=1)
    bits = grey > 127
    body = np.packbits(~bits, axis=1).tobytes()
    yield Case("pbm", f"P4 {WIDTH} {HEIGHT}\n".encode() + body, rgb(bits * np.uint8(255)))
    yield Case(
        "pfm",
        f"Pf\n{WIDTH} {HEIGHT}\n-1.0\n".encode() + samples(1, "<f4")[::-1].tobytes(),
        expected_grey(samples(1, "f4")),
    )


@pytest.mark.parametrize("family", [codecs])
def test_pixels_are_those_of_independent_readers(family):
    assert wrong(family()) == []
