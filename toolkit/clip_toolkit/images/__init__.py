"""The decode rule: one way from any image source to RGB pixels, shared by training, export and inference.

1. **Formats.** An allow-list (`clip_toolkit.images.formats`), told by content. TIFF, FITS and DICOM are read here,
   the others by Pillow; kinds that Pillow reads wrongly are refused by name (`images.pillow_faults`), and so is what
   else a file may be (`images.foreign`). What would take too much memory or time is refused before it is decoded
   (`images.limits`), and so is a file that is cut short.
2. **Frame.** The first one, or the one that the format calls its image (the largest icon of an ICO).
3. **Orientation.** EXIF's, applied once. EXIF that cannot be read counts as none.
4. **Depth.** Deep samples are scaled to 8 bits, never clipped: Pillow's own conversion would turn an X-ray white
   (python-pillow/Pillow#3011). See `clip_toolkit.images.depth`.
5. **Alpha** is composited over white.
6. **Colour.** Palette, CMYK, LAB, YCbCr, HSV, 1-bit and grey go through Pillow's conversion to RGB. ICC profiles are
   ignored, because the encoders' own processors ignore them: the encoder was trained on such pixels.
"""

from clip_toolkit.images.decoding import decode, open_image
from clip_toolkit.images.limits import MAX_PIXELS, DecodeOptions
from clip_toolkit.images.sources import ImageSource, source_name

__all__ = ["MAX_PIXELS", "DecodeOptions", "ImageSource", "decode", "open_image", "source_name"]
