"""TIFF: what its tags say of its samples, and the 8-bit Pillow image they make.

Pillow reads the usual combinations of TIFF's tags, some of the others wrongly, and others again with each version. Here
the samples of all byte-wise compressions are read by `clip_toolkit.images.tiff_samples`; Pillow decodes fax and JPEG.
What is not read is refused by name. Section and tag numbers are those of TIFF 6.0.
"""

from __future__ import annotations

from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_toolkit.errors import ImageError
from clip_toolkit.images.depth import eight_bit
from clip_toolkit.images.limits import DecodeOptions, check_size
from clip_toolkit.images.tiff_samples import (
    BYTE_COMPRESSIONS,
    SIGNED,
    UNSIGNED,
    Layout,
    check_kind,
    read_samples,
    silence_libtiff,
)
from clip_toolkit.images.tiff_tags import MAGIC, Tags, read_tags

_ORIENTATION = 274
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _LAB: 3}
_OTHER_PHOTOMETRICS = {4: "a mask", 9: "ICC LAB", 10: "ITU LAB", 32803: "a camera's raw data", 32844: "LogL"}
_OTHER_PHOTOMETRICS |= {32845: "LogLuv", 34892: "a camera's linear raw data"}
_PILLOWS = {2: "fax", 3: "fax", 4: "fax", 6: "old-style JPEG", 7: "JPEG"}
_OTHER_COMPRESSIONS = {32809: "ThunderScan", 33003: "JPEG 2000", 33005: "JPEG 2000"}
_OTHER_COMPRESSIONS |= {50001: "WebP", 34712: "JPEG 2000", 34887: "LERC", 50002: "JPEG XL"}
_OTHER_COMPRESSIONS |= {52546: "JPEG XL", 34676: "SGI LogLuv"}
_PREMULTIPLIED, _ALPHA = 1, 2  # ExtraSamples, section 18
_CAMERA_RAW = {50706, 50717, 33421}  # DNGVersion, WhiteLevel, CFARepeatPatternDim
_MOST_SAMPLES = 32

__all__ = ["MAGIC", "read_tiff"]


def read_tiff(file: IO[bytes], options: DecodeOptions) -> Image.Image | None:
    """Decode the first image of a TIFF; None where Pillow is to do it.

    Returns:
        A Pillow image of 8 bits a sample, its orientation in its EXIF.

    Raises:
        ImageError: it is too large, damaged, or of a kind that is not read.
    """
    silence_libtiff()
    tags = read_tags(file)
    _check_is_picture(tags)
    compression = tags.one(259, 1)
    if compression not in BYTE_COMPRESSIONS:
        _check_pillow_reads(tags, compression)
        return None
    layout = _layout(tags, compression)
    check_kind(layout)
    bytes_a_pixel = layout.samples * (layout.dtype.itemsize + 1) + 4
    check_size(layout.width, layout.height, bytes_a_pixel, options)
    check_size(*layout.segment, layout.in_segment * layout.dtype.itemsize, options)
    image = _image(read_samples(file, layout, allow_truncated=options.allow_truncated), layout, tags)
    image.getexif()[_ORIENTATION] = tags.one(_ORIENTATION, 1)
    return image


def _check_is_picture(tags: Tags) -> None:
    is_thumbnail = tags.one(254, 0) & 1 and 330 in tags  # NewSubfileType, SubIFDs
    if is_thumbnail or not _CAMERA_RAW.isdisjoint(tags):
        raise ImageError("is a camera's raw file, which starts with a thumbnail. Develop it to a JPEG, PNG or TIFF.")
    photometric = tags.one(262, None)
    if photometric not in _COLOURS:
        kind = _OTHER_PHOTOMETRICS.get(photometric, f"photometric interpretation {photometric}")
        raise ImageError(f"a TIFF that holds {kind} is not read. Save it as grey or RGB.")
    if tags.one(332, 1) != 1 and photometric == _CMYK:
        raise ImageError("a TIFF of other inks than CMYK is not read. Save it as RGB.")


def _check_pillow_reads(tags: Tags, compression: int) -> None:
    bits, fax = set(_bits(tags)), compression in (2, 3, 4)
    if compression not in _PILLOWS:
        name = _OTHER_COMPRESSIONS.get(compression, f"number {compression}")
        raise ImageError(f"a TIFF with compression {name} is not read. Save it with LZW or Deflate.")
    if bits != ({1} if fax else {8}) or (fax and tags.one(262, 0) > 1):
        raise ImageError(
            f"a TIFF with {_PILLOWS[compression]} compression and {sorted(bits)} bits is not read. Save it with LZW."
        )


def _layout(tags: Tags, compression: int) -> Layout:
    width, height, bits = tags.one(256, 0), tags.one(257, 0), _bits(tags)
    formats = set(tags.all(339)) or {UNSIGNED}
    if len(set(bits)) > 1 or len(formats) > 1 or not formats <= {1, 2, 3, 4}:
        raise ImageError("a TIFF whose samples differ in kind, or are complex numbers, is not read. Save it as RGB.")
    if width < 1 or height < 1 or len(bits) < _COLOURS[tags.one(262, 0)]:
        raise ImageError(f"a TIFF of {width}x{height} pixels with {len(bits)} samples each is damaged.")
    tiled = 322 in tags
    segment = (tags.one(322, 0), tags.one(323, 0)) if tiled else (width, min(tags.one(278, height), height))
    if min(segment) < 1:
        raise ImageError(f"a TIFF with tiles of {segment[0]}x{segment[1]} is damaged.")
    offsets = tags.all(324 if tiled else 273)
    counts = tags.all(325 if tiled else 279)
    if not counts and compression == 1:
        counts = (2**62,) * len(offsets)  # the tag is often left out, and rows say how much there is
    form, planar, predictor = formats.pop(), tags.one(284, 1) == 2, tags.one(317, 1)
    reverse = tags.one(266, 1) == 2
    return Layout(
        width, height, len(bits), bits[0], form, tags.order, planar and len(bits) > 1, compression,
        predictor if compression in (5, 8, 32946, 34925, 50000) else 1, reverse, segment, offsets, counts,
    )  # fmt: skip


def _bits(tags: Tags) -> tuple[int, ...]:
    samples = tags.one(277, 1)
    if not 1 <= samples <= _MOST_SAMPLES:
        raise ImageError(f"a TIFF of {samples} samples a pixel is not read. Save it as grey or RGB.")
    bits = tags.all(258) or (1,)
    return bits * samples if len(bits) == 1 else bits[:samples]


def _image(samples: NDArray[Any], layout: Layout, tags: Tags) -> Image.Image:
    photometric = tags.one(262, 0)
    colours = _COLOURS[photometric]
    alpha = _alpha(tags, layout.samples, colours)
    if photometric == _PALETTE:
        return Image.fromarray(_looked_up(samples[..., 0], tags.all(320), layout.bits))
    if alpha is not None and (layout.format != UNSIGNED or layout.bits > 16 or photometric > _RGB):
        raise ImageError("a TIFF with an alpha channel and such samples is not read. Save it with 8 or 16 bits.")
    values = samples[..., : colours + (alpha is not None)]
    eight = _eight_bit(values, layout, is_grey=colours == 1 and alpha is None)
    if photometric == _WHITE_IS_ZERO:
        eight[..., 0] = 255 - eight[..., 0]
    if alpha is not None:
        return _with_alpha(eight, premultiplied=alpha == _PREMULTIPLIED)
    return _in_colours(eight, photometric, layout, tags)


def _alpha(tags: Tags, samples: int, colours: int) -> int | None:
    """Return the first kind of alpha among the extra samples; RGB of four samples without the tag has one."""
    extra = tags.all(338)
    if samples <= colours:
        return None
    if not extra:
        return _ALPHA if (samples, colours) == (4, 3) else None
    first = _ALPHA if extra[0] == 999 else extra[0]  # Corel Draw 10
    return first if first in (_PREMULTIPLIED, _ALPHA) else None


def _eight_bit(values: NDArray[Any], layout: Layout, *, is_grey: bool) -> NDArray[np.uint8]:
    if layout.format == UNSIGNED and layout.bits == 8:
        return np.array(values)
    if layout.format == UNSIGNED and layout.bits == 16 and not is_grey:
        return np.asarray(values >> 8, np.uint8)  # as Pillow does for colour
    states_white = layout.format not in (SIGNED, 3) and layout.bits <= 16
    return eight_bit(values, 2**layout.bits - 1 if states_white else None)


def _looked_up(indices: NDArray[Any], colours: tuple[int, ...], bits: int) -> NDArray[np.uint8]:
    if bits > 8 or len(colours) != 3 * 2**bits:
        raise ImageError(f"a TIFF of {bits} bits with a palette of {len(colours)} values is damaged.")
    table = np.array(colours, np.uint16).reshape(3, -1).T
    eight = table if table.max() < 256 else table >> 8  # some programs write 8-bit values, as libtiff knows
    looked_up: NDArray[np.uint8] = eight.astype(np.uint8)[indices]
    return looked_up


def _with_alpha(values: NDArray[np.uint8], *, premultiplied: bool) -> Image.Image:
    mode = ("La" if premultiplied else "LA") if values.shape[2] == 2 else ("RGBa" if premultiplied else "RGBA")
    return Image.frombytes(mode, (values.shape[1], values.shape[0]), np.ascontiguousarray(values).tobytes())


def _in_colours(values: NDArray[np.uint8], photometric: int, layout: Layout, tags: Tags) -> Image.Image:
    if values.shape[2] == 1:
        return Image.fromarray(values[..., 0])
    if photometric == _RGB:
        return Image.fromarray(np.ascontiguousarray(values))
    if photometric == _YCBCR and (tags.all(530) or (2, 2)) != (1, 1):
        raise ImageError("a TIFF of uncompressed YCbCr with fewer colour samples is not read. Save it as RGB.")
    if layout.format != UNSIGNED or layout.bits not in (8, 16) or (photometric != _CMYK and layout.bits != 8):
        raise ImageError(f"a TIFF of {layout.bits}-bit CMYK, YCbCr or LAB is not read. Save it as RGB.")
    mode = {_CMYK: "CMYK", _YCBCR: "YCbCr", _LAB: "LAB"}[photometric]
    return Image.frombytes(mode, (values.shape[1], values.shape[0]), np.ascontiguousarray(values).tobytes())
