"""DICOM, through pydicom: the first frame as its own tags say it is to be shown (PS3.3, C.11.1, C.11.2 and C.7.6.3)."""

from __future__ import annotations

from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_toolkit.errors import ImageError
from clip_toolkit.images.depth import eight_bit
from clip_toolkit.images.limits import DecodeOptions, check_size

MAGIC_AT, MAGIC = 128, b"DICM"  # PS3.10, section 7.1

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def read_dicom(file: IO[bytes], options: DecodeOptions) -> Image.Image:
    """Decode the first frame.

    Grey goes through the rescale slope and the first window of the file, from black to white; without a window, from
    the frame's smallest value to its largest, padding left out. MONOCHROME1 is turned around. Colour of 8 bits is
    converted to RGB.

    Returns:
        A Pillow image of mode L or RGB.

    Raises:
        ImageError: pydicom is not installed, or it has no picture of a kind that is read, or is too large.
    """
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise ImageError("is DICOM: install what reads it with pip install 'clip-toolkit[dicom]'") from error
    try:
        dataset = pydicom.dcmread(file)
    except (InvalidDicomError, ValueError) as error:
        raise ImageError(f"is DICOM that cannot be read ({error})") from error
    interpretation = str(dataset.get("PhotometricInterpretation", "none"))
    if "PixelData" not in dataset or interpretation not in _GREY + _COLOURS:
        raise ImageError(f"is DICOM with the pixels {interpretation}, which are not read. Save it as PNG or TIFF.")
    check_size(int(dataset.Columns), int(dataset.Rows), 24, options)
    values = _frame(dataset)
    if interpretation in _COLOURS:
        if values.dtype != np.uint8:
            raise ImageError("is DICOM in colours of more than 8 bits, which is not read. Save it as PNG.")
        return Image.fromarray(values)
    grey = _windowed(dataset, values)
    return Image.fromarray(255 - grey if interpretation == "MONOCHROME1" else grey)


def _frame(dataset: Any) -> NDArray[Any]:
    from pydicom.pixels.utils import pixel_array

    try:
        values: NDArray[Any] = pixel_array(dataset, index=0)
    except Exception as error:  # its decoders raise anything, and name the package that a compression needs
        raise ImageError(f"is DICOM whose pixels cannot be decoded ({error})") from error
    return values


def _windowed(dataset: Any, stored: NDArray[Any]) -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    values = apply_modality_lut(stored, dataset)
    if "WindowCenter" in dataset and "WindowWidth" in dataset:
        return _in_window(dataset, values.astype(np.float64))
    if "VOILUTSequence" in dataset:
        return eight_bit(apply_voi(values, dataset), 2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    padding = dataset.get("PixelPaddingValue")
    shown = values[stored != padding] if padding is not None and (stored != padding).any() else values
    low, high = float(shown.min()), float(shown.max())
    return eight_bit(((values - low) / max(high - low, 1e-9)).clip(0, 1).astype(np.float64))


def _in_window(dataset: Any, values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Section C.11.2.1.2: the first of the windows that the file names."""
    centre, width = (float(np.atleast_1d(dataset[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
    function = dataset.get("VOILUTFunction", "LINEAR")
    if width < (1 if function == "LINEAR" else 1e-9):
        raise ImageError(f"is DICOM with a window {width:g} wide, which is not read. Save it as PNG.")
    if function == "SIGMOID":
        return eight_bit(1 / (1 + np.exp(-4 * (values - centre) / width)))
    if function == "LINEAR":
        centre, width = centre - 0.5, max(width - 1, 1e-9)
    return eight_bit(((values - centre) / width + 0.5).clip(0, 1))
