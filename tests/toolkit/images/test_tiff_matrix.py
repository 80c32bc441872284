"""The decode matrix of TIFF: every depth, layout, byte order and compression, against tifffile."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from decode_cases import HEIGHT, WIDTH, Case, Pixels, expected_grey, over_white, rgb, samples, scaled, wrong
from numpy.typing import NDArray
from PIL import Image

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")


def tiff(values: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **({"photometric": "minisblack", "metadata": None} | options))
    return buffer.getvalue()


LAYOUTS = [
    {"byteorder": order, **compression, **tile}
    for order, compression, tile in itertools.product(
        "<>",
        (
            {},
            {"compression": "lzw"},
            {"compression": "zlib", "predictor": True},
            {"compression": "packbits"},
            {"compression": "lzma"},
            {"compression": "zstd", "predictor": True},
            {"rowsperstrip": 5},
        ),
        ({}, {"tile": (16, 32)}),
    )
    if not ("rowsperstrip" in compression and tile)
]

GREYS = [
    *((kind, 0, None) for kind in ("u1", "u2", "u4", "f2", "f4", "f8")),
    ("u4", 0, 65535),
    ("u8", 0, 2**40),
    *((kind, -100, 100) for kind in ("i1", "i2", "i4", "i8")),
    ("i2", 0, 4000),
    ("i4", 0, 60000),
    ("f4", -3, 9),
    ("f4", 0, 250),
    ("f8", 0, 60000),
]


def readable(values: NDArray[Any], options: dict[str, Any]) -> bool:
    """Floating-point differences and horizontal ones are not defined for every type."""
    return not (options.get("predictor") and values.dtype in ("f2", "u8", "i8"))


def grey_tiffs() -> Iterator[Case]:
    for (kind, low, high), options in itertools.product(GREYS, LAYOUTS):
        values = samples(1, kind, low, high)
        if not readable(values, options):
            continue
        data = tiff(values, **options)
        assert np.array_equal(tifffile.imread(io.BytesIO(data)), values)
        yield Case(f"grey {kind} {low}..{high} {options}", data, expected_grey(values))
    for kind, options in itertools.product(("u1", "u2"), LAYOUTS):
        values = samples(1, kind)
        data = tiff(values, photometric="miniswhite", **options)
        yield Case(f"white is zero {kind} {options}", data, 255 - expected_grey(values))


def colour_tiffs() -> Iterator[Case]:
    for kind, planar, options in itertools.product(("u1", "u2", "u4", "f4", "f8"), ("contig", "separate"), LAYOUTS):
        values = samples(3, kind)
        stored = values if planar == "contig" else np.ascontiguousarray(values.transpose(2, 0, 1))
        if "tile" in options and planar == "separate":
            continue  # tifffile takes such an array for a volume
        data = tiff(stored, photometric="rgb", planarconfig=planar, **options)
        assert np.array_equal(tifffile.imread(io.BytesIO(data)), stored)
        eight = (values >> 8).astype(np.uint8) if kind == "u2" else values if kind == "u1" else None
        expected = expected_grey(values) if eight is None else eight
        yield Case(f"rgb {kind} {planar} {options}", data, expected)


def alpha_tiffs() -> Iterator[Case]:
    shapes = (("minisblack", 1), ("rgb", 3))
    for (photometric, colours), kind, extra, options in itertools.product(
        shapes, ("u1", "u2"), ("unassalpha", "assocalpha", "unspecified"), LAYOUTS[::3]
    ):
        values = samples(colours + 1, kind)
        if extra == "assocalpha":
            values[..., :-1] = np.minimum(values[..., :-1], values[..., -1:])
        data = tiff(values, photometric=photometric, extrasamples=[extra], planarconfig="contig", **options)
        eight = (values >> 8).astype(np.uint8) if kind == "u2" else values
        colour = eight[..., 0] if colours == 1 else eight[..., :3]
        if extra == "unspecified":
            grey16 = colours == 1 and kind == "u2"
            expected = expected_grey(values[..., 0]) if grey16 else rgb(colour)
        elif extra == "unassalpha":
            expected = over_white(colour, scaled(eight[..., -1], 0, 255))
        else:
            expected = np.clip(rgb(colour).astype(int) + 255 - eight[..., -1:], 0, 255).astype(np.uint8)
        grey_deep = colours == 1 and kind == "u2" and extra != "unspecified"
        yield Case(f"{extra} {photometric} {kind} {options}", data, expected, tolerance=2 + grey_deep)


def palette_tiffs() -> Iterator[Case]:
    indices = samples(1, "u1")
    table = np.array([[i, 255 - i, (i * 7) % 256] for i in range(256)], np.uint16)
    for scale, options in itertools.product((257, 1), LAYOUTS):
        data = tiff(indices, photometric="palette", colormap=(table * scale).T.copy(), **options)
        yield Case(f"palette times {scale} {options}", data, table.astype(np.uint8)[indices])


def other_tiffs() -> Iterator[Case]:
    cmyk = samples(4, "u1")
    expected = np.asarray(Image.frombytes("CMYK", (WIDTH, HEIGHT), cmyk.tobytes()).convert("RGB"))
    for options in LAYOUTS:
        data = tiff(cmyk, photometric="separated", planarconfig="contig", **options)
        yield Case(f"cmyk {options}", data, expected)
    bits = samples(1, "u1") > 127
    for photometric, options in itertools.product(("minisblack", "miniswhite"), ({}, {"compression": "packbits"})):
        data = tiff(bits, photometric=photometric, **options)
        yield Case(f"1 bit {photometric} {options}", data, rgb((bits ^ (photometric == "miniswhite")) * np.uint8(255)))
    for number in (2, 4, 10, 12, 14, 24):
        packed = samples(1, "u4", 0, 2**number - 1)
        white = 2**number - 1 if number <= 16 else None
        expected = expected_grey(packed.astype(np.uint32)) if white is None else rgb(scaled(packed, 0, white))
        for order, reverse in itertools.product("<>", (False, True)):
            yield Case(
                f"{number} bits {order} {'lowest first' if reverse else ''}",
                packed_tiff(packed, number, order, reverse=reverse),
                expected,
            )
    for depth in ("c8", "c16"):
        yield Case(depth, tiff(samples(1, "f4").astype(depth)), None, "samples|complex")
    photo = samples(3, "u1")
    lossy = tiff(photo, photometric="rgb", compression="jpeg", compressionargs={"level": 95})
    yield Case("jpeg rgb", lossy, tifffile.imread(io.BytesIO(lossy)), tolerance=3)
    grey = tiff(photo[..., 0], compression="jpeg", compressionargs={"level": 95})
    yield Case("jpeg grey", grey, rgb(tifffile.imread(io.BytesIO(grey))), tolerance=3)
    for compression, name in (("jpeg2000", "JPEG 2000"), ("webp", "WebP"), ("jpegxl", "JPEG XL")):
        yield Case(compression, tiff(photo, photometric="rgb", compression=compression), None, name)
    for orientation in range(1, 9):
        data = tiff(photo, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
        yield Case(f"orientation {orientation}", data, turned(photo, orientation))
    big = tiff(photo, photometric="rgb", bigtiff=True)
    yield Case("bigtiff", big, photo)


def packed_tiff(values: NDArray[np.uint32], bits: int, order: str, *, reverse: bool) -> bytes:
    """A TIFF of one strip of packed samples, written down."""
    weights = np.arange(bits - 1, -1, -1, dtype=np.uint32)
    planes = ((values[..., None] >> weights) & 1).astype(np.uint8)
    if bits == 24 and order == "<":
        planes = planes.reshape(*values.shape, 3, 8)[..., ::-1, :]
    strip = np.packbits(planes.reshape(HEIGHT, -1), axis=1)
    if reverse:
        strip = np.packbits(np.unpackbits(strip, axis=1).reshape(HEIGHT, -1, 8)[..., ::-1].reshape(HEIGHT, -1), axis=1)
    tags = {256: WIDTH, 257: HEIGHT, 258: bits, 259: 1, 262: 1, 266: 2 if reverse else 1, 273: 0, 277: 1, 278: HEIGHT}
    tags |= {279: strip.size}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack(f"{order}HHLL", tag, 4, 1, value) for tag, value in tags.items())
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}LH", 8, len(tags)) + entries + bytes(4) + strip.tobytes()


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """An image as EXIF's orientation shows it."""
    ways = [pixels, pixels[:, ::-1], pixels[::-1, ::-1], pixels[::-1]]
    ways += [
        pixels.transpose(1, 0, 2),
        np.rot90(pixels, -1),
        pixels[::-1, ::-1].transpose(1, 0, 2),
        np.rot90(pixels, 1),
    ]
    return ways[orientation - 1]


@pytest.mark.parametrize("family", [grey_tiffs, colour_tiffs, alpha_tiffs, palette_tiffs, other_tiffs])
def test_pixels_are_those_of_independent_readers(family):
    assert wrong(family()) == []
