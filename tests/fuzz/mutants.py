"""Seeds and seeded mutations of them: the same number always gives the same bytes."""

from __future__ import annotations

import io
import random
import warnings
from pathlib import Path

from PIL import Image

_INTERESTING = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff")
_FORMATS = ("AVIF", "BMP", "DDS", "GIF", "ICNS", "ICO", "IM", "JPEG", "JPEG2000", "MPO", "MSP", "PCX", "PNG", "PPM")
_MORE_FORMATS = ("QOI", "SGI", "SPIDER", "TGA", "TIFF", "WEBP", "XBM", "BLP")
_MODES = ("RGB", "L", "P", "1", "RGBA", "F", "I;16", "CMYK")


def images() -> list[bytes]:
    """Small pictures in every mode of every format that Pillow can write."""
    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of formats that Pillow will drop
        return _written()


def _written() -> list[bytes]:
    noise = Image.effect_noise((16, 12), 80)
    seeds = []
    for form in (*_FORMATS, *_MORE_FORMATS):
        for mode in _MODES:
            buffer = io.BytesIO()
            try:
                noise.convert(mode).save(buffer, form)
            except (OSError, ValueError, KeyError):  # the format has no such mode, or this build cannot write it
                continue
            seeds.append(buffer.getvalue())
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group4"):
        buffer = io.BytesIO()
        noise.convert("1" if compression == "group4" else "RGB").save(buffer, "TIFF", compression=compression)
        seeds.append(buffer.getvalue())
    return seeds


def models(folder: Path) -> list[bytes]:
    """The model files of a folder."""
    return [path.read_bytes() for path in sorted(folder.glob("*.onnx"))]


def mutant(seeds: list[bytes], number: int, ends: int | None = None) -> bytes:
    """Mutant ``number``: one seed with up to eight changes, in its first or last ``ends`` bytes where that is given."""
    rng = random.Random(number)  # noqa: S311  # for the same mutants every time, not for secrets
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 8)):
        size = min(len(data), ends or len(data))
        _change(data, rng, rng.choice((0, len(data) - size)), size)
    return bytes(data)


def _change(data: bytearray, rng: random.Random, start: int, size: int) -> None:
    if size < 2:
        return
    at = start + rng.randrange(size)
    kind = rng.randrange(6)
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[at] = rng.randrange(256)
    elif kind == 2:
        value = rng.choice(_INTERESTING)
        data[at : at + len(value)] = value
    elif kind == 3:
        del data[at : at + rng.randint(1, 16)]
    elif kind == 4:
        data[at:at] = data[at : at + rng.randint(1, 16)]
    elif rng.random() < 0.2:
        del data[at:]
