"""A device that is too small, said in a line with a batch size that may fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from clip_toolkit.errors import DeviceError


@contextmanager
def memory_named(device: str, size: int, things: str = "images", *, remedy: str | None = None) -> Iterator[None]:
    """Say what to do when a device is out of memory.

    Args:
        device: a PyTorch device.
        size: how many things go through at a time.
        things: what they are.
        remedy: what to try, in place of half as many.

    Raises:
        DeviceError: in place of PyTorch's error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        remedy = remedy or f"--batch-size {max(1, size // 2)}"
        raise DeviceError(f"device {device}: out of memory with {size} {things} at a time. Try {remedy}.") from error
