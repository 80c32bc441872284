"""DICOM: shown as its own tags say, worked out here by hand."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clip_toolkit import ImageError, decode

pydicom = pytest.importorskip("pydicom")
STORED = np.array([[0, 500, 1000], [1500, 2000, 4095]], np.uint16)


def dicom(values: NDArray[Any], **tags: object) -> bytes:
    """An uncompressed image of one frame."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    dataset = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel = 1 if values.ndim == 2 else values.shape[2]
    dataset.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * values.itemsize
    dataset.BitsStored, dataset.HighBit = (8, 7) if values.itemsize == 1 else (12, 11)
    dataset.PixelRepresentation = 0
    dataset.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def grey(data: bytes) -> list[list[int]]:
    return decode(data)[..., 0].tolist()


def test_without_a_window_the_smallest_value_is_black_and_the_largest_white():
    assert grey(dicom(STORED)) == [[0, 31, 62], [93, 125, 255]]
    assert grey(dicom(STORED, PixelPaddingValue=4095))[0] == [0, 64, 128]


def test_the_first_window_of_the_file_decides():
    # PS3.3, C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5) of white
    expected = [[0, 0, 0], [128, 255, 255]]
    assert grey(dicom(STORED, WindowCenter=["1500", "9"], WindowWidth=["1000", "9"])) == expected
    exact = dicom(STORED, WindowCenter=1500, WindowWidth=2000, VOILUTFunction="LINEAR_EXACT")
    assert grey(exact) == [[0, 0, 64], [128, 191, 255]]


def test_the_rescale_slope_comes_before_the_window():
    data = dicom(STORED, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1000.5, WindowWidth=2001)
    assert grey(data) == [[0, 0, 128], [255, 255, 255]]


def test_monochrome1_is_turned_around():
    inverted = dicom(STORED, PhotometricInterpretation="MONOCHROME1")
    assert (255 - decode(inverted)[..., 0]).tolist() == grey(dicom(STORED))


def test_colour_is_kept():
    colour = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    assert np.array_equal(decode(dicom(colour)), colour)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR, which are not read"),
        ({"WindowCenter": 5, "WindowWidth": 0}, "window 0 wide"),
        ({"Rows": 60000, "Columns": 60000}, "--max-pixels"),
        ({"Rows": 9}, "cannot be decoded"),
    ],
)
def test_what_is_not_shown_is_refused(tags: dict[str, object], reason: str):
    with pytest.raises(ImageError, match=reason):
        decode(dicom(STORED, **tags))
