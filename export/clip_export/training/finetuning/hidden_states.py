"""Hidden states below the blocks that learn: computed once and kept on disk, so that an epoch need not run the rest."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clip_export.features.backends import Runner, on_device
from clip_export.features.cache import configuration, weights_digest
from clip_export.features.images import read_images
from clip_export.features.memory import memory_named
from clip_export.features.rows import RowCache
from clip_export.training.epochs import Inputs
from clip_export.training.finetuning.halves import LowerHalf
from clip_export.training.finetuning.pooling import TokenReader
from clip_toolkit import ImageError
from clip_toolkit.errors import DatasetError, OutputError

_FORMAT = 2

Lower: TypeAlias = LowerHalf | TokenReader


class HiddenStates:
    """Hidden states of some images by number, float32 ``[images, tokens, width]``, read from disk where asked for.

    Attributes:
        cache: where they lie.
        keys: of each image, in the cache.
        computed: how many were not there before.
    """

    def __init__(self, cache: HiddenCache, keys: Sequence[bytes], computed: int = 0) -> None:
        """Name rows of a cache."""
        self.cache, self.keys, self.computed = cache, list(keys), computed

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.keys)

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        """Those of some images, by number or in a row."""
        numbers = range(len(self))[which] if isinstance(which, slice) else which.tolist()
        rows = [self.cache.get(self.keys[number]) for number in numbers]
        return torch.from_numpy(np.stack(rows))  # type: ignore[arg-type]  # put there before their keys were noted

    def __add__(self, other: HiddenStates) -> HiddenStates:
        """Join these with others of the same cache."""
        return HiddenStates(self.cache, self.keys + other.keys, self.computed + other.computed)


class HiddenCache(RowCache):
    """Hidden states on disk. They may be larger than memory, so that without the disk there is no going on."""

    def _unusable(self, error: OutputError) -> None:
        raise OutputError(f"{error} Name another disk with --cache, or train on fewer images.") from error


def hidden_cache(base: Path, lower: Lower) -> HiddenCache:
    """Open the cache of a lower half's hidden states: below ``base``, by what the half is.

    Raises:
        OutputError: it cannot be used; so do its methods that write.
    """
    identity = {
        "format": _FORMAT,
        "blocks": lower.depth,
        "weights": weights_digest([lower]),
        "configuration": configuration(lower.config),
        "preprocessing": asdict(lower.preprocessing),
    }
    return HiddenCache(base, identity, lower.shape)


def check_room(cache: HiddenCache, keys: Iterable[bytes]) -> None:
    """Find out before the encoder runs whether the disk has room for what is not in the cache yet.

    Args:
        cache: the cache.
        keys: of all images and views, as `clip_export.features.images.row_key` makes them.

    Raises:
        OutputError: it has not.
    """
    missing = sum(key not in cache for key in set(keys)) * cache.row_bytes
    free = shutil.disk_usage(cache.folder).free
    if missing > free:
        raise OutputError(
            f"{cache.folder}: {missing / 2**30:.1f} GiB of hidden states are to be kept here, and {free / 2**30:.1f} "
            "GiB are free. Name another disk with --cache, or train on fewer images."
        )


def hidden_states(
    lower: Lower,
    files: Sequence[Path],
    cache: HiddenCache,
    *,
    batch_size: int = 32,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda _: None,
    view: int = 0,
) -> HiddenStates:
    """Run a lower half over image files that are not in the cache yet.

    Args:
        lower: the lower half; it is moved to ``device``.
        files: image files.
        cache: its cache; what was computed is kept even when this is interrupted.
        batch_size: images per run.
        device: a PyTorch device.
        progress: called with the number of files just done.
        view: number of the augmented view, as in `clip_export.features.augment.augmented`.

    Raises:
        DatasetError: a file cannot be read.
        DeviceError: the device has too little memory for ``batch_size`` images.
        OutputError: the disk is full.
    """
    run = on_device(lower.to(device), lower.preprocessing, device)
    keys: list[bytes] = []
    pending: list[tuple[bytes, NDArray[np.uint8]]] = []
    computed = 0
    try:
        for item in read_images(lower.preprocessing, files, view, cache, batch_size):
            if isinstance(item.found, ImageError):
                raise DatasetError(f"{item.found} It could be read a moment ago.")
            keys.append(item.key)
            if item.found.dtype == np.uint8:
                pending.append((item.key, item.found.astype(np.uint8, copy=False)))
            if len(pending) == batch_size:
                computed += _run(run, pending, cache)
            progress(1)
        computed += _run(run, pending, cache)
    finally:
        cache.flush()
    return HiddenStates(cache, keys, computed)


def _run(run: Runner, pending: list[tuple[bytes, NDArray[np.uint8]]], cache: HiddenCache) -> int:
    """Put the hidden states of pending images into the cache; say how many there were."""
    count = len(pending)
    if pending:
        keys, images = zip(*pending, strict=True)
        for key, row in zip(keys, run(np.stack(images)), strict=True):
            cache.put(key, row)
        pending.clear()
    return count


@torch.no_grad()
def features_of(upper: nn.Module, states: Inputs, batch_size: int = 32, device: str = "cpu") -> Tensor:
    """Run an upper half on a device over hidden states; return float32 ``[images, dim]`` on the CPU.

    Raises:
        DeviceError: the device has too little memory for ``batch_size`` images.
    """
    with memory_named(device, batch_size):
        upper.to(device).eval()
        return torch.cat([upper(part.to(device)).cpu() for part in _batches(states, batch_size)])


def _batches(states: Inputs, size: int) -> Iterator[Tensor]:
    for start in range(0, len(states), size):
        yield states[start : start + size]
