"""Which file formats are opened: an allow-list, because some of Pillow's plugins run other programs.

Left out are EPS (Ghostscript), IPTC (opens whatever it contains, EPS included), WMF and EMF (the Windows API), BUFR,
GRIB and HDF5 (whatever handler a program registered), MPEG (named but never decoded), FPX and MIC (need olefile).
"""

from __future__ import annotations

from functools import cache

from PIL import Image

# fmt: off
FORMATS = (
    "AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GBR", "GIF", "HEIF", "ICNS", "ICO", "IM",
    "IMT", "JPEG", "JPEG2000", "MCIDAS", "MPO", "MSP", "PCD", "PCX", "PIXAR", "PNG", "PPM", "PSD", "QOI", "SGI",
    "SPIDER", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM", "XVTHUMB",
)
# fmt: on
"""Pillow's names of the formats that may be opened."""

COMMON = ("BMP", "GIF", "JPEG", "PNG", "PPM")
"""Those that Pillow tries first itself. Importing the plugins of all the others takes longer than decoding a photo."""


@cache
def registered_formats() -> tuple[str, ...]:
    """The formats of `FORMATS` that this installation can open; AVIF and HEIF are optional."""
    Image.preinit()
    Image.init()
    _register_heif()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _register_heif() -> None:
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()
