"""The samples of a TIFF, whatever its depth, layout and byte order: Pillow reads only the usual combinations rightly.

Strips and tiles are unpacked by libtiff, through Pillow, as if they were 8-bit grey: what their bytes mean is read
here. Section and tag numbers are those of TIFF 6.0.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin, _imaging

from clip_toolkit.errors import ImageError
from clip_toolkit.images.limits import INCOMPLETE

BYTE_COMPRESSIONS = (1, 5, 8, 32773, 32946, 34925, 50000)
"""None, LZW, Deflate, PackBits, Deflate's old number, LZMA, Zstandard: those that know nothing of samples."""

UNSIGNED, SIGNED, FLOAT, _UNDEFINED = 1, 2, 3, 4  # section 19
_KINDS = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f", _UNDEFINED: "u"}
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_ROWS = 64  # of packed samples unpacked at a time: in between they take eight times their memory


@dataclass(frozen=True)
class Layout:
    """How the samples lie in the file.

    Attributes:
        width, height: of the image, pixels.
        samples: a pixel.
        bits: a sample.
        format: `UNSIGNED`, `SIGNED` or `FLOAT`.
        order: byte order, ``<`` or ``>``.
        planar: each sample's plane by itself.
        compression: one of `BYTE_COMPRESSIONS`.
        predictor: 1 none, 2 horizontal differences, 3 those of floating point.
        reversed_bits: each byte holds its lowest bit first.
        segment: width and height of a tile, or of a strip.
        offsets, counts: where the segments' bytes are.
    """

    width: int
    height: int
    samples: int
    bits: int
    format: int
    order: Literal["<", ">"]
    planar: bool
    compression: int
    predictor: int
    reversed_bits: bool
    segment: tuple[int, int]
    offsets: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the samples in memory: the smallest that holds them."""
        size = next(size for size in (1, 2, 4, 8) if self.bits <= 8 * size)
        return np.dtype(f"{_KINDS[self.format]}{size}")

    @property
    def in_segment(self) -> int:
        """Samples a pixel in one segment."""
        return 1 if self.planar else self.samples


class _Segment(NamedTuple):
    plane: slice
    top: int
    left: int
    rows: int
    columns: int
    offset: int
    length: int


def read_samples(file: IO[bytes], layout: Layout, *, allow_truncated: bool) -> NDArray[Any]:
    """Read all samples of an image.

    Args:
        file: the TIFF.
        layout: from its tags.
        allow_truncated: leave black what is not there.

    Returns:
        ``[height, width, samples]`` of `Layout.dtype`.

    Raises:
        ImageError: a strip or tile is damaged or cut short, or bits and format do not go together.
    """
    check_kind(layout)
    image = np.zeros((layout.height, layout.width, layout.samples), layout.dtype)
    for segment in _segments(layout):
        try:
            values = _values(_content(file, segment, layout, allow_truncated), segment, layout)
        except (OSError, ValueError, SyntaxError) as error:
            if getattr(error, "errno", None) is not None:  # the system's, not libtiff's
                raise
            if allow_truncated:
                continue
            raise ImageError(f"a strip or tile is damaged or cut short. {INCOMPLETE}") from error
        rows, columns = (
            slice(segment.top, segment.top + segment.rows),
            slice(segment.left, segment.left + segment.columns),
        )
        image[rows, columns, segment.plane] = values[:, : layout.width - segment.left]
    return image


def check_kind(layout: Layout) -> None:
    """Refuse samples that have no agreed meaning.

    Raises:
        ImageError: bits, format and predictor do not go together.
    """
    whole = layout.bits in (8, 16, 32, 64)
    known = layout.bits in (16, 32, 64) if layout.format == FLOAT else 1 <= layout.bits <= 32 or layout.bits == 64
    known = known and (layout.format != SIGNED or whole) and layout.predictor in (1, 2, 3)
    if not known or (layout.predictor > 1 and not whole) or (layout.predictor == 3 and layout.format != FLOAT):
        kind = {UNSIGNED: "unsigned", SIGNED: "signed", FLOAT: "floating-point"}.get(layout.format, "undefined")
        raise ImageError(
            f"a TIFF with {kind} samples of {layout.bits} bits and predictor {layout.predictor} is not read. "
            "Save it with 8 or 16 bits."
        )


def _segments(layout: Layout) -> Iterator[_Segment]:
    """In the file's order: all of the first plane, then the second's."""
    columns, rows = layout.segment
    grid = [(top, left) for top in range(0, layout.height, rows) for left in range(0, layout.width, columns)]
    planes = [slice(i, i + 1) for i in range(layout.samples)] if layout.planar else [slice(None)]
    needed = len(grid) * len(planes)
    if min(len(layout.offsets), len(layout.counts)) < needed:
        raise ImageError(f"a TIFF of {needed} strips or tiles says where {len(layout.offsets)} are. It is damaged.")
    places = ((plane, top, left) for plane in planes for top, left in grid)
    for (plane, top, left), offset, count in zip(places, layout.offsets, layout.counts, strict=False):
        yield _Segment(plane, top, left, min(rows, layout.height - top), columns, offset, count)


def _content(file: IO[bytes], segment: _Segment, layout: Layout, allow_truncated: bool) -> bytes:
    """Return a segment's bytes, unpacked: as many as its rows take, zero where they are missing and may be."""
    row = _row_bytes(segment, layout)
    file.seek(segment.offset)
    data = file.read(min(segment.length, row * segment.rows) if layout.compression == 1 else segment.length)
    if layout.reversed_bits:
        data = data.translate(_REVERSED_BITS)
    if layout.compression != 1:
        data = _as_grey(data, row, segment.rows, layout.compression)
    if len(data) < row * segment.rows and not allow_truncated:
        raise ValueError("cut short")
    return data.ljust(row * segment.rows, b"\0")


def _row_bytes(segment: _Segment, layout: Layout) -> int:
    return -(-segment.columns * layout.in_segment * layout.bits // 8)


def silence_libtiff() -> None:
    """Keep libtiff from writing to standard error, which it does without a file name: what it finds is raised, too."""
    with contextlib.suppress(OSError, AttributeError):  # linked in statically, as on Windows
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def _as_grey(data: bytes, width: int, height: int, compression: int) -> bytes:
    """Unpack a segment as the one strip of an 8-bit grey TIFF made around it."""
    tags = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 273: 0, 277: 1, 278: height, 279: len(data)}
    start = 8 + 2 + 12 * len(tags) + 4
    tags[273] = start
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags.items())
    header = struct.pack("<2sHLH", b"II", 42, 8, len(tags)) + entries + bytes(4)
    with TiffImagePlugin.TiffImageFile(io.BytesIO(header + data)) as grey:  # Image.open has a limit of its own
        return grey.tobytes()


def _values(data: bytes, segment: _Segment, layout: Layout) -> NDArray[Any]:
    shape = (segment.rows, segment.columns, layout.in_segment)
    raw = np.frombuffer(data, np.uint8, segment.rows * _row_bytes(segment, layout)).reshape(segment.rows, -1)
    if layout.predictor == 3:  # Adobe Photoshop TIFF Technical Note 3: highest bytes of a row first, as differences
        planes = raw.reshape(segment.rows, -1, layout.in_segment).cumsum(axis=1, dtype=np.uint8)
        values = planes.reshape(segment.rows, layout.bits // 8, -1).transpose(0, 2, 1)
        return np.ascontiguousarray(values).view(layout.dtype.newbyteorder(">")).reshape(shape)
    if layout.bits not in (8, 16, 32, 64):
        return _unpacked(raw, layout, shape)
    values = raw.view(layout.dtype.newbyteorder(layout.order)).reshape(shape)
    if layout.predictor == 2:  # section 14
        words = values.astype(layout.dtype).view(f"u{layout.dtype.itemsize}")
        return words.cumsum(axis=1, dtype=words.dtype).view(layout.dtype)
    return values


def _unpacked(raw: NDArray[np.uint8], layout: Layout, shape: tuple[int, int, int]) -> NDArray[Any]:
    """Unpack samples of odd numbers of bits: highest bit first, except whole bytes, which have an order."""
    values = np.empty((shape[0], shape[1] * shape[2]), layout.dtype)
    weights = 1 << np.arange(layout.bits - 1, -1, -1, dtype=np.uint32)
    if layout.bits == 24 and layout.order == "<":
        weights = weights.reshape(3, 8)[::-1].reshape(-1)
    for top in range(0, shape[0], _ROWS):
        bits = np.unpackbits(raw[top : top + _ROWS], axis=1)[:, : values.shape[1] * layout.bits]
        values[top : top + _ROWS] = bits.reshape(len(bits), -1, layout.bits) @ weights
    return values.reshape(shape)
