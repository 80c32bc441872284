"""What a file is that is no image in a format that is opened, told by its first bytes, and what to do about it."""

from __future__ import annotations

import re
from typing import NamedTuple

from clip_toolkit.errors import ImageError
from clip_toolkit.images.formats import registered_formats

_TO_PNG = "Convert it to PNG or JPEG."
_FRAMES = "clip-infer --frames FILE classifies its frames; ffmpeg -i FILE -vf fps=1 frame-%05d.png takes them out."
_PAGES = "Turn its pages into pictures first: pdftoppm -png FILE page"
_DEVELOP = "Develop it to JPEG, PNG or TIFF."


class _Kind(NamedTuple):
    start: str
    name: str
    remedy: str


_KINDS = [
    _Kind(r"%PDF-", "a PDF document", _PAGES),
    _Kind(r"%!|\xc5\xd0\xd3\xc6", "PostScript", "Render it first: pdftoppm, or gs -sDEVICE=png16m"),
    _Kind(r"....ftyp(avif|avis)", "AVIF", "This Pillow was built without it: pip install --upgrade pillow"),
    _Kind(r"....ftyp(hei[cxms]|hev[cx])", "HEIC", "pip install 'clip-toolkit[heif]', or convert it."),
    _Kind(r"....ftypcrx ", "a camera's raw file (CR3)", _DEVELOP),
    _Kind(r"....(ftyp(?!mif1|msf1)|moov|mdat)|\x1aE\xdf\xa3|RIFF....AVI |FLV\x01|\0\0\x01[\xba\xb3]|0&\xb2u|OggS",
          "a video", _FRAMES),
    _Kind(r"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>)?\s*(<!--.*?-->\s*)*(<!DOCTYPE svg[^>]*>\s*)?<svg", "an SVG drawing",
          "Render it first: rsvg-convert FILE -o FILE.png"),
    _Kind(r"(\xef\xbb\xbf)?\s*(<!DOCTYPE html|<html|<\?xml)", "a web page or XML, not the image that it may show",
          "Download the image itself."),
    _Kind(r"version https://git-lfs", "a pointer of Git LFS, not the file itself", "Fetch it: git lfs pull"),
    _Kind(r"/annex/objects/|(\.\./)*\.git/annex", "a pointer of git-annex, not the file itself",
          "Fetch it: git annex get"),
    _Kind(r"outs:\n- md5:", "a pointer of DVC, not the file itself", "Fetch it: dvc pull"),
    _Kind(r"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL", "Convert it: djxl FILE FILE.png"),
    _Kind(r"II\xbc\x01", "JPEG XR", _TO_PNG),
    _Kind(r"8BPS\0\x02", "a large Photoshop document (PSB)", _TO_PNG),
    _Kind(r"v/1\x01", "OpenEXR", "Map its tones and save it as PNG."),
    _Kind(r"#\?(RADIANCE|RGBE)", "Radiance HDR", "Map its tones and save it as PNG."),
    _Kind(r"(FUJIFILMCCD-RAW|II(RO|RS|U\0)|MMOR|FOVb|\0MRM|II\x1a\0\0\0HEAPCCDR)", "a camera's raw file", _DEVELOP),
    _Kind(r"DDS |BLP[12]|FTEX|VTF\0|\xabKTX", "a texture", _TO_PNG),
    _Kind(r"gimp xcf", "a GIMP project", "Export it as PNG."),
    _Kind(r"P7\n", "a PAM image", _TO_PNG),
    _Kind(r"BPG\xfb", "BPG", _TO_PNG),
    _Kind(r"\x01\xda[\0\x01][\x01\x02]", "an SGI image", _TO_PNG),
    _Kind(r"Y\xa6j\x95", "a Sun raster image", _TO_PNG),
    _Kind(r"\0\0\x02\0[^\0]\0", "a mouse pointer (CUR)", _TO_PNG),
    _Kind(r"/\* XPM|! XPM|#define \S+_width", "an X bitmap or pixmap", _TO_PNG),
    _Kind(r"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", "a Windows metafile", _TO_PNG),
    _Kind(r"GRIB|BUFR|CDF[\x01\x02\x05]|\x89HDF\r\n", "a data file (GRIB, BUFR, netCDF or HDF5)",
          "Save the array in it as PNG or TIFF."),
    _Kind(r"\x93NUMPY", "a NumPy array", "In Python: classifier.predict(numpy.load(FILE))"),
    _Kind(r"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ", "an archive", "Unpack it first."),
]  # fmt: skip

_PATTERNS = [(kind, re.compile(kind.start.encode("latin-1"), re.DOTALL)) for kind in _KINDS]
_BY_PLUGIN = {"AVIF": "AVIF", "HEIC": "HEIF"}


def check_known(head: bytes) -> None:
    """Refuse by name what is known not to be opened.

    Args:
        head: the first bytes of the file.

    Raises:
        ImageError: it is such a file; the message says what it is and what to do.
    """
    if not head:
        raise ImageError("is empty. Fetch or export it again.")
    for kind, pattern in _PATTERNS:
        if pattern.match(head):
            if _BY_PLUGIN.get(kind.name) in registered_formats():
                return
            raise ImageError(f"is {kind.name}, which is not read. {kind.remedy}")
