"""The decode matrix of formats that are simple enough to be written down here, byte by byte."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from decode_cases import HEIGHT, WIDTH, Case, Pixels, expected_grey, over_white, rgb, samples, scaled, wrong
from numpy.typing import NDArray

cv2 = pytest.importorskip("cv2")
imagecodecs = pytest.importorskip("imagecodecs")


def png(rows: NDArray[np.uint8], depth: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of packed rows ``[height, bytes]``, written down."""
    header = struct.pack(">LLBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, 0)
    filtered = np.hstack([np.zeros((HEIGHT, 1), np.uint8), rows]).tobytes()
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(filtered)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


def pack(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    planes = (values.astype(np.uint32)[..., None] >> np.arange(bits - 1, -1, -1, dtype=np.uint32)) & 1
    return np.packbits(planes.reshape(HEIGHT, -1).astype(np.uint8), axis=1)


def pngs() -> Iterator[Case]:
    for depth in (1, 2, 4, 8, 16):
        grey = samples(1, "u2", 0, 2**depth - 1)
        expected = rgb(scaled(grey, 0, 2**depth - 1))
        yield Case(f"grey {depth}", png(pack(grey, depth), depth, 0), expected)
        clear = int(grey[3, 4])
        data = png(pack(grey, depth), depth, 0, (b"tRNS", struct.pack(">H", clear)))
        refusal = "transparent colour" if depth in (2, 4) else ""
        shown = np.where((grey == clear)[..., None], np.uint8(255), expected)
        yield Case(f"grey {depth} with a transparent value", data, None if refusal else shown, refusal)
    for depth in (1, 2, 4, 8):
        indices = samples(1, "u1", 0, 2**depth - 1)
        table = np.array([[i * 5 % 256, 255 - i, i * 11 % 256] for i in range(2**depth)], np.uint8)
        palette = (b"PLTE", table.tobytes())
        yield Case(f"palette {depth}", png(pack(indices, depth), depth, 3, palette), table[indices])
        alpha = np.array([i * 9 % 256 for i in range(2**depth)], np.uint8)
        data = png(pack(indices, depth), depth, 3, palette, (b"tRNS", alpha.tobytes()))
        yield Case(f"palette {depth} with alpha", data, over_white(table[indices], alpha[indices]), tolerance=1)
    for depth, (colour, channels) in itertools.product((8, 16), ((2, 3), (4, 2), (6, 4))):
        values = samples(channels, f"u{depth // 8}")
        eight = values if depth == 8 else (values >> 8).astype(np.uint8)
        data = png(pack(values, depth), depth, colour)
        assert np.array_equal(imagecodecs.png_decode(data), values)
        shown = eight if colour == 2 else over_white(eight[..., 0] if channels == 2 else eight[..., :3], eight[..., -1])
        yield Case(f"colour type {colour} of {depth}", data, rgb(shown), tolerance=0 if colour == 2 else 1)
    for depth in (8, 16):
        values = samples(3, f"u{depth // 8}")
        clear = values[3, 4]
        data = png(pack(values, depth), depth, 2, (b"tRNS", struct.pack(">HHH", *clear.tolist())))
        shown = np.where((values == clear).all(axis=-1, keepdims=True), 255, values).astype(np.uint8)
        yield Case(f"rgb {depth} with a transparent colour", data, *((shown,) if depth == 8 else (None, "transparent")))


def bmp(rows: NDArray[np.uint8], bits: int, compression: int, palette: bytes = b"", masks: bytes = b"") -> bytes:
    """A BMP with a BITMAPINFOHEADER; rows ``[height, bytes]`` from the top, or the bytes of a run-length coding."""
    if compression in (0, 3):
        padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
        body = padded[::-1].tobytes()
    else:
        body = rows.tobytes()
    offset = 14 + 40 + len(masks) + len(palette)
    colours = len(palette) // 4
    info = struct.pack("<LllHHLLllLL", 40, WIDTH, HEIGHT, 1, bits, compression, len(body), 2835, 2835, colours, 0)
    return struct.pack("<2sLHHL", b"BM", offset + len(body), 0, 0, offset) + info + masks + palette + body


def run_length(indices: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """BI_RLE8 or BI_RLE4 of rows from below, one pixel a run."""
    coded = bytearray()
    for row in indices[::-1]:
        for value in row.tolist():
            coded += bytes([1, value if bits == 8 else value << 4])
        coded += b"\0\0"
    return np.frombuffer(bytes(coded + b"\0\1"), np.uint8)


def bmps() -> Iterator[Case]:
    for bits in (1, 4, 8):
        indices = samples(1, "u1", 0, 2**bits - 1)
        table = np.array([[i * 5 % 256, 255 - i, i * 11 % 256] for i in range(2**bits)], np.uint8)
        palette = b"".join(bytes([b, g, r, 0]) for r, g, b in table.tolist())
        data = bmp(pack(indices, bits), bits, 0, palette)
        assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1], table[indices])
        yield Case(f"bmp palette {bits}", data, table[indices])
        if bits > 1:
            data = bmp(run_length(indices, bits), bits, 1 if bits == 8 else 2, palette)
            yield Case(f"bmp rle{bits}", data, *((table[indices],) if bits == 8 else (None, "RLE4")))
    values = samples(3, "u1")
    bgr = np.ascontiguousarray(values[..., ::-1]).reshape(HEIGHT, -1)
    yield Case("bmp 24", bmp(bgr, 24, 0), values)
    bgrx = np.dstack([values[..., ::-1], np.full((HEIGHT, WIDTH), 0, np.uint8)]).reshape(HEIGHT, -1)
    yield Case("bmp 32", bmp(bgrx, 32, 0), values)
    five = (values >> 3).astype(np.uint16)
    words = (five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]).astype("<u2")
    shown = (five * 255 // 31).astype(np.uint8)
    yield Case("bmp 555", bmp(words.view(np.uint8).reshape(HEIGHT, -1), 16, 0), shown, tolerance=1)
    six = (values[..., 1] >> 2).astype(np.uint16)
    words = (five[..., 0] << 11 | six << 5 | five[..., 2]).astype("<u2")
    shown = np.dstack([five[..., 0] * 255 // 31, six * 255 // 63, five[..., 2] * 255 // 31]).astype(np.uint8)
    masks = struct.pack("<LLL", 0xF800, 0x07E0, 0x001F)
    yield Case("bmp 565", bmp(words.view(np.uint8).reshape(HEIGHT, -1), 16, 3, masks=masks), shown, tolerance=1)


def tga(
    pixels: NDArray[np.uint8], kind: int, bits: int, descriptor: int, palette: bytes = b"", entry: int = 0
) -> bytes:
    """A TGA of rows as they are to be stored."""
    header = struct.pack("<BBBHHBHHHHBB", 0, bool(palette), kind, 0, len(palette) // max(entry // 8, 1), entry, 0, 0,
                         WIDTH, HEIGHT, bits, descriptor)  # fmt: skip
    return header + palette + pixels.tobytes()


def tgas() -> Iterator[Case]:
    values = samples(4, "u1")
    bgra = np.ascontiguousarray(values[..., [2, 1, 0, 3]])
    for descriptor, seen_rows in ((0x20, bgra), (0, bgra[::-1]), (0x30, bgra[:, ::-1]), (0x10, bgra[::-1, ::-1])):
        turn = f"descriptor {descriptor:x}"
        stored = np.ascontiguousarray(seen_rows)
        yield Case(f"tga 24 {turn}", tga(np.ascontiguousarray(stored[..., :3]), 2, 24, descriptor), values[..., :3])
        shown = over_white(values[..., :3], values[..., 3])
        yield Case(f"tga 32 {turn}", tga(stored, 2, 32, descriptor | 8), shown, tolerance=1)
        yield Case(f"tga 32 {turn} without alpha bits", tga(stored, 2, 32, descriptor), values[..., :3])
        for attributes, seen in ((0, values[..., :3]), (1, values[..., :3]), (2, values[..., :3]), (3, shown)):
            data = tga(stored, 2, 32, descriptor | 8)
            area = bytearray(495)
            area[:2], area[494] = struct.pack("<H", 495), attributes
            footer = struct.pack("<LL", len(data), 0) + b"TRUEVISION-XFILE.\0"
            yield Case(f"tga 32 {turn} attributes {attributes}", data + bytes(area) + footer, seen, tolerance=1)
        grey = tga(np.ascontiguousarray(stored[..., 2]), 3, 8, descriptor)
        yield Case(f"tga grey {turn}", grey, rgb(values[..., 0]))
    indices = samples(1, "u1")
    table = np.array([[i, 255 - i, i * 7 % 256] for i in range(256)], np.uint8)
    palette = np.ascontiguousarray(table[:, ::-1]).tobytes()
    yield Case("tga palette", tga(indices, 1, 8, 0x20, palette, 24), table[indices])


def pcx(planes: NDArray[np.uint8], bits: int, table: bytes = b"", tail: bytes = b"") -> bytes:
    """A PCX of rows ``[height, planes, bytes]``, coded one byte a run."""
    header = struct.pack("<BBBBHHHHHH48sBBHH58s", 10, 5, 1, bits, 0, 0, WIDTH - 1, HEIGHT - 1, 72, 72, table, 0,
                         planes.shape[1], planes.shape[2], 1, b"")  # fmt: skip
    body = b"".join(bytes([0xC1, value]) for value in planes.reshape(-1).tolist())
    return header + body + tail


def pcxs() -> Iterator[Case]:
    values = samples(3, "u1")
    even = np.pad(values, ((0, 0), (0, WIDTH % 2), (0, 0))).transpose(0, 2, 1)
    yield Case("pcx 24", pcx(np.ascontiguousarray(even), 8), values)
    grey = np.pad(values[..., 0], ((0, 0), (0, WIDTH % 2)))[:, None]
    table = np.array([[i, 255 - i, i * 7 % 256] for i in range(256)], np.uint8)
    yield Case("pcx palette", pcx(grey, 8, tail=b"\x0c" + table.tobytes()), table[values[..., 0]])
    bits = values[..., 0] > 127
    packed = np.packbits(np.pad(bits, ((0, 0), (0, 64 - WIDTH))), axis=1)[:, None]
    yield Case("pcx 1 bit", pcx(packed, 1, b"\0\0\0\xff\xff\xff"), rgb(bits * np.uint8(255)))
    yield Case("pcx 1 bit turned around", pcx(packed, 1, b"\xff\xff\xff\0\0\0"), None, "palette")
    sixteen = values[..., 0] >> 4
    planes = np.stack(
        [np.packbits(np.pad(sixteen >> i & 1, ((0, 0), (0, 64 - WIDTH))), axis=1) for i in range(4)], axis=1
    )
    colours = table[::17][:16]
    yield Case("pcx 16 colours", pcx(planes, 1, colours.tobytes()), colours[sixteen])


def psd(planes: NDArray[Any], mode: int, depth: int, resources: bytes = b"", *, coded: bool = False) -> bytes:
    """A Photoshop document of planes ``[channels, height, bytes]`` without layers."""
    header = struct.pack(">4sH6xHLLHH", b"8BPS", 1, len(planes), HEIGHT, WIDTH, depth, mode)
    body = struct.pack(">H", coded)
    rows = [row.tobytes() for plane in planes for row in plane]
    if coded:  # PackBits, a byte a run
        packed = [b"".join(bytes([0, value]) for value in row) for row in rows]
        body += b"".join(struct.pack(">H", len(row)) for row in packed) + b"".join(packed)
    else:
        body += b"".join(rows)
    return header + struct.pack(">L", 0) + struct.pack(">L", len(resources)) + resources + struct.pack(">L", 0) + body


def psds() -> Iterator[Case]:
    planes = np.ascontiguousarray(samples(4, "u1").transpose(2, 0, 1))
    shown = np.ascontiguousarray(planes[:3].transpose(1, 2, 0))
    for coded in (False, True):
        yield Case(f"psd rgb {coded}", psd(planes[:3], 3, 8, coded=coded), shown)
        yield Case(f"psd grey {coded}", psd(planes[:1], 1, 8, coded=coded), rgb(planes[0]))
    composite = b"8BIM" + struct.pack(">HHL", 1057, 0, 6) + struct.pack(">L", 1)
    yield Case("psd with a composite", psd(planes[:3], 3, 8, composite + b"\1\0"), shown)
    yield Case("psd without one", psd(planes[:3], 3, 8, composite + b"\0\0"), None, "composite")
    for name, channels, mode, depth in (
        ("rgba", 4, 3, 8), ("cmyk", 4, 4, 8), ("grey alpha", 2, 1, 8), ("lab", 3, 9, 8), ("multichannel", 3, 7, 8),
        ("duotone", 1, 8, 8), ("bitmap", 1, 0, 1),
    ):  # fmt: skip
        stored = np.packbits(planes[:1] > 127, axis=2) if depth == 1 else planes[:channels]
        yield Case(f"psd {name}", psd(stored, mode, depth), None, "Photoshop")
    yield Case(
        "psd 16", psd(samples(1, ">u2")[None].view(np.uint8).reshape(1, HEIGHT, -1), 1, 16), None, "Photoshop|PSD"
    )


def fits(values: NDArray[Any], **cards: object) -> bytes:
    """The primary image of a FITS file; its first row is the lowest."""
    kind = values.dtype
    bits = kind.itemsize * 8 * (-1 if kind.kind == "f" else 1)
    header = {"SIMPLE": "T", "BITPIX": bits, "NAXIS": values.ndim}
    header |= {f"NAXIS{i + 1}": size for i, size in enumerate(values.shape[::-1])} | cards
    text = "".join(f"{name:<8}= {value:>20}".ljust(80) for name, value in header.items()) + "END".ljust(80)
    body = values[..., ::-1, :].astype(kind.newbyteorder(">")).tobytes()
    return text.ljust(-(-len(text) // 2880) * 2880).encode() + body + bytes(-len(body) % 2880)


def fitses() -> Iterator[Case]:
    for kind, low, high in (("u1", 0, 255), ("i2", 0, 4000), ("i2", -50, 50), ("i4", 0, 60000), ("i4", -9, 2**30),
                            ("i8", 0, 2**40), ("f4", 0, 1), ("f8", -2, 7)):  # fmt: skip
        values = samples(1, kind, low, high)
        yield Case(f"fits {kind} {low}..{high}", fits(values), expected_grey(values))
    unsigned = samples(1, "u2")
    stored = (unsigned.astype(np.int32) - 32768).astype("i2")
    yield Case("fits uint16", fits(stored, BZERO=32768), expected_grey(unsigned))
    values = samples(1, "i2", 0, 1000)
    yield Case("fits scaled", fits(values, BSCALE=0.001), expected_grey(values * 0.001))
    yield Case("fits cube", fits(samples(3, "u1").transpose(2, 0, 1)), None, "axes")


def gifs() -> Iterator[Case]:
    indices = samples(1, "u1", 0, 15)
    table = np.array([[i * 5, 255 - i, i * 11 % 256] for i in range(16)], np.uint8)
    for clear, interlaced in itertools.product((None, 3), (False, True)):
        data = gif(indices, table, clear, interlaced=interlaced)
        opaque = cv2.imdecode(np.frombuffer(gif(indices, table, None), np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(opaque[..., ::-1], table[indices])
        shown = (
            table[indices] if clear is None else np.where((indices == clear)[..., None], np.uint8(255), table[indices])
        )
        yield Case(f"gif transparent {clear} {'interlaced' if interlaced else ''}", data, shown)


def gif(indices: Pixels, table: Pixels, clear: int | None, *, interlaced: bool = False) -> bytes:
    """A GIF of 16 colours, coded without compression: a clear code before every eighth pixel."""
    order = [*range(0, HEIGHT, 8), *range(4, HEIGHT, 8), *range(2, HEIGHT, 4), *range(1, HEIGHT, 2)]
    stored = indices[order] if interlaced else indices
    codes: list[int] = []
    for position, value in enumerate(stored.reshape(-1).tolist()):
        codes += [16] * (position % 8 == 0) + [value]
    bits = "".join(f"{code:05b}"[::-1] for code in [*codes, 17])
    body = int(bits[::-1], 2).to_bytes(-(-len(bits) // 8), "little")
    blocks = b"".join(bytes([len(part)]) + part for part in (body[i : i + 255] for i in range(0, len(body), 255)))
    control = b"" if clear is None else bytes([0x21, 0xF9, 4, 1, 0, 0, clear, 0])
    screen = struct.pack("<6sHHBBB", b"GIF89a", WIDTH, HEIGHT, 0xF3, 0, 0) + table.tobytes()
    return (
        screen
        + control
        + struct.pack("<BHHHHB", 0x2C, 0, 0, WIDTH, HEIGHT, 0x40 * interlaced)
        + b"\4"
        + blocks
        + b"\0;"
    )


@pytest.mark.parametrize("family", [pngs, bmps, tgas, pcxs, psds, fitses, gifs])
def test_pixels_are_those_of_independent_readers(family):
    assert wrong(family()) == []
