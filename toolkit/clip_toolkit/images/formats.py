"""Which file formats are opened: an allow-list of those whose pixels are held against independent readers.

Some of Pillow's plugins run other programs or open files of any format: EPS (Ghostscript), IPTC, WMF and EMF (the
Windows API), BUFR, GRIB and HDF5, MPEG, FPX and MIC. Others read rare formats that nobody checks against a second
reader, and a wrong picture is worse than none: textures (BLP, DDS, FTEX), scientific and historic ones.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib import import_module

from PIL import Image, features

FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "HEIF", "ICNS", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "PSD", "QOI"),
    *("TIFF", "WEBP"),
    "TGA",  # the last, because it has no mark to be known by
)
"""Pillow's names of the formats that it may open."""

COMMON = ("BMP", "GIF", "JPEG", "PNG", "PPM")
"""Those that Pillow tries first itself. Importing the plugins of all the others takes longer than decoding a photo."""

# fmt: off
SUFFIXES = frozenset((
    "apng", "avif", "avifs", "bmp", "dcm", "dib", "dicom", "fit", "fits", "fts", "gif", "heic", "heif", "hif", "icns",
    "ico", "j2c", "j2k", "jfif", "jp2", "jpc", "jpe", "jpeg", "jpf", "jpg", "jpx", "mpo", "pbm", "pcx", "pfm", "pgm",
    "png", "pnm", "ppm", "psd", "qoi", "tga", "tif", "tiff", "webp",
    "arw", "bpg", "cr2", "cr3", "dds", "dng", "eps", "exr", "hdr", "jxl", "jxr", "nef", "orf", "pam", "psb", "raf",
    "ras", "rw2", "sgi", "xcf",
))
# fmt: on
"""Endings, in lower case, by which a file of a folder is taken for an image: also of formats that are refused (the
last two lines), because an image that cannot be read should be heard of."""


@cache
def registered_formats() -> tuple[str, ...]:
    """Return the formats of `FORMATS` that this installation can open; AVIF and HEIF are optional."""
    Image.preinit()
    Image.init()
    _register_heif()
    missing = () if features.check("avif") else ("AVIF",)  # its plugin is registered all the same
    return tuple(name for name in FORMATS if name in Image.OPEN and name not in missing)


def _register_heif() -> None:
    for name in ("pi_heif", "pillow_heif"):  # the same reader, without an encoder under the GPL and with it
        with suppress(ImportError):
            import_module(name).register_heif_opener()
            return
