"""Pixels given in Python: what each kind means, and the line that mends those without a meaning."""

import numpy as np
import pytest
from numpy.typing import NDArray

from clip_toolkit import ImageError, decode

RGB = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10


class Tensor:
    """As much of a PyTorch tensor as is asked of one: these tests run without PyTorch."""

    def __init__(self, values: NDArray[np.generic], kind: str = "torch.uint8") -> None:
        self.values, self.shape, self.dtype = values, values.shape, kind

    def permute(self, *axes: int) -> "Tensor":
        return Tensor(self.values.transpose(axes), self.dtype)

    def detach(self) -> "Tensor":
        return self

    def cpu(self) -> "Tensor":
        return self

    def float(self) -> "Tensor":
        return Tensor(self.values.astype(np.float32), "torch.float32")

    def numpy(self) -> NDArray[np.generic]:
        return self.values


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (RGB, RGB),
        (RGB[:, ::-1], RGB[:, ::-1]),
        (RGB[..., ::-1], RGB[..., ::-1]),
        (RGB[..., 0], np.repeat(RGB[..., :1], 3, axis=2)),
        (RGB[..., :1], np.repeat(RGB[..., :1], 3, axis=2)),
        (RGB / 255, RGB),
        ((RGB / 255).astype(np.float32), RGB),
        ((RGB / 255).astype(np.float16), RGB),
        (RGB.astype(np.uint16) * 256 + 7, RGB),
        (RGB[..., 0].astype(np.uint16) * 257, np.repeat(RGB[..., :1], 3, axis=2)),
    ],
    ids=["rgb", "mirrored", "bgr turned", "grey", "one channel", "float64", "float32", "float16", "uint16", "grey16"],
)
def test_arrays_with_a_meaning(array: NDArray[np.generic], expected: NDArray[np.uint8]):
    assert np.array_equal(decode(array), expected)


def test_a_fourth_channel_is_composited_over_white():
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)
    expected = [[10, 20, 30], [255, 255, 255], [127, 127, 127]]
    assert decode(rgba)[0].tolist() == expected
    assert decode(rgba / 255)[0].tolist() == expected


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (Tensor(RGB.transpose(2, 0, 1)), RGB),
        (Tensor(RGB.transpose(2, 0, 1) / 255, "torch.float64"), RGB),
        (Tensor((RGB.transpose(2, 0, 1) / 255).astype(np.float32), "torch.bfloat16"), RGB),
        (Tensor(RGB[..., 0]), np.repeat(RGB[..., :1], 3, axis=2)),
        (Tensor(RGB[None, ..., 0]), np.repeat(RGB[..., :1], 3, axis=2)),
    ],
    ids=["uint8", "float64", "bfloat16", "grey", "one channel"],
)
def test_tensors_have_their_channels_first(tensor: Tensor, expected: NDArray[np.uint8]):
    assert np.array_equal(decode(tensor), expected)


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        (np.zeros((3, 4, 5), np.uint8), r"\[3, 4, 5\].*array.transpose\(1, 2, 0\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"predict_many\(list\(array\)\)"),
        (np.zeros((4, 4, 2), np.uint8), r"1, 3 or 4 channels, got uint8 \[4, 4, 2\]"),
        (np.zeros((0, 4, 3), np.uint8), "zero side"),
        (np.zeros((4, 0), np.uint8), "zero side"),
        (np.zeros(9, np.uint8), r"got uint8 \[9\]"),
        (np.zeros((4, 4, 3), bool), r"array.astype\(np.uint8\) \* 255"),
        (np.zeros((4, 4, 3), np.int64), r"array.astype\(np.uint8\), if its values"),
        (np.zeros((4, 4, 3), complex), "got complex128"),
        (np.full((4, 4, 3), 255.0), r"0 to 1, got 255 to 255.*astype\(np.uint8\)"),
        (np.full((4, 4, 3), -1.8), "before mean and std"),
        (np.full((4, 4, 3), np.nan), "0 to 1, got nan"),
        (Tensor(np.zeros((5, 5, 3))), r"tensor.permute\(2, 0, 1\)"),
        (Tensor(np.zeros((8, 3, 4, 4))), r"predict_many\(list\(tensor\)\)"),
        (Tensor(np.zeros(3)), r"got \[3\]"),
    ],
)
def test_what_has_no_meaning_is_refused_with_the_line_that_gives_it_one(source: object, remedy: str):
    with pytest.raises(ImageError, match=remedy):
        decode(source)
