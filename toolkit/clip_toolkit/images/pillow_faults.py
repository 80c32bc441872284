"""Kinds of files that Pillow is known to read wrongly, in one version or in all: mended or refused by name.

A model must not change its mind because its host's Pillow was upgraded; so what is right since Pillow 13 only is
refused with Pillow 13, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

from PIL import Image, ImageFile

from clip_toolkit.errors import ImageError

_FOOTER = 26  # of a Truevision TGA 2.0 file, at its end
_PSD_GREY, _PSD_RGB = 1, 3
_SAVE = "Save it as PNG first."


def check_faults(image: ImageFile.ImageFile, file: IO[bytes]) -> None:
    """Refuse an opened image of a kind that would come out wrong.

    Raises:
        ImageError: it is; the message names the kind.
    """
    check = _CHECKS.get(image.format or "")
    if check is not None:
        check(image, file)


def without_void_alpha(image: Image.Image, file: IO[bytes]) -> Image.Image:
    """Return a loaded image without an alpha channel that its TGA file calls void: Pillow would make it transparent."""
    if image.format != "TGA" or image.mode not in ("RGBA", "LA", "P"):
        return image
    is_void = _at(file, 17, 1)[0] & 0x0F == 0 or _tga_attributes(file) in (0, 1, 2)  # TGA 2.0, fields 5.6 and 24
    return image.convert("RGB" if image.mode == "RGBA" else "L") if is_void and image.mode != "P" else image


def _tga_attributes(file: IO[bytes]) -> int | None:
    """Return what the extension area of TGA 2.0 says of the alpha channel."""
    size = file.seek(0, 2)
    footer = _at(file, max(size - _FOOTER, 0), _FOOTER)
    area = int.from_bytes(footer[:4], "little")
    return _at(file, area + 494, 1)[0] if footer[8:].startswith(b"TRUEVISION-XFILE") and 0 < area < size - 495 else None


def _check_bmp(image: ImageFile.ImageFile, _: IO[bytes]) -> None:
    if image.info.get("compression") == 2:  # BI_RLE4
        raise ImageError(f"a BMP with RLE4 compression is not read. {_SAVE}")


def _check_pcx(image: ImageFile.ImageFile, file: IO[bytes]) -> None:
    palette = _at(file, 16, 6)
    if image.mode == "1" and palette not in (bytes(6), b"\0\0\0\xff\xff\xff"):
        raise ImageError(f"a PCX of 1 bit with a palette is not read. {_SAVE}")


def _check_psd(image: ImageFile.ImageFile, file: IO[bytes]) -> None:
    header = _at(file, 12, 14)
    channels, depth = int.from_bytes(header[:2], "big"), int.from_bytes(header[10:12], "big")
    mode = int.from_bytes(header[12:14], "big")
    if (mode, channels, depth) not in ((_PSD_RGB, 3, 8), (_PSD_GREY, 1, 8)):
        raise ImageError(f"a Photoshop document that is not plain grey or RGB of 8 bits is not read. {_SAVE}")
    resources = getattr(image, "resources", [])
    if any(number == 1057 and data[4:5] == b"\0" for number, _, data in resources):  # VersionInfo, hasRealMergedData
        raise ImageError(f"a Photoshop document saved without its composite has no picture to read. {_SAVE}")


def _check_jpeg2000(_: ImageFile.ImageFile, file: IO[bytes]) -> None:
    head = _at(file, 0, 4096)
    codestream = head[: head.find(b"\xff\x4f\xff\x51") + 1] or head
    if b"pclr" in codestream:
        raise ImageError(f"a JPEG 2000 with a palette is not read. {_SAVE}")


def _check_png(image: ImageFile.ImageFile, file: IO[bytes]) -> None:
    depth, colour = _at(file, 24, 2)
    if "transparency" in image.info and (colour, depth) in ((0, 2), (0, 4), (2, 16)):
        raise ImageError(f"a PNG of {depth} bits with a transparent colour is not read. Save it with an alpha channel.")


def _at(file: IO[bytes], offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count).ljust(count, b"\0")


_CHECKS: dict[str, Callable[[ImageFile.ImageFile, IO[bytes]], None]] = {
    "BMP": _check_bmp,
    "JPEG2000": _check_jpeg2000,
    "PCX": _check_pcx,
    "PNG": _check_png,
    "PSD": _check_psd,
}
