"""What a frozen encoder makes of image files: computed once, so that no epoch has to run the encoder again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_export.encoders.image import Encoder
from clip_export.features.augment import augmented
from clip_export.features.backends import Backend, choose_backend
from clip_export.features.rows import Row, RowCache
from clip_toolkit import ImageError, open_image, preprocess
from clip_toolkit.images import MAX_PIXELS
from clip_toolkit.images.preprocess import by_shape, check_aspect, check_resized
from clip_toolkit.runtime.processor import usable_cores
from clip_toolkit.spec.classifier import Preprocessing


@dataclass(frozen=True)
class ReadFiles:
    """How image files were read.

    Attributes:
        kept: index of each file that could be read.
        contents: SHA-256 of the bytes of each of those, in hexadecimal.
        errors: why each of the other files was skipped.
        computed: how many the encoder had to be run for.
        backend: who ran it, or ``cache``.
    """

    kept: list[int]
    contents: list[str]
    errors: list[ImageError]
    computed: int
    backend: str


@dataclass(frozen=True)
class Features(ReadFiles):
    """Features of the files that could be read.

    Attributes:
        values: float32 ``[readable, dim]``, on the CPU; with ``all_depths`` ``[readable, blocks, poolings, width]``.
    """

    values: Tensor

    @property
    def reading(self) -> ReadFiles:
        """How the files were read, without what the encoder made of them."""
        return ReadFiles(self.kept, self.contents, self.errors, self.computed, self.backend)


def image_features(
    encoder: Encoder,
    files: Sequence[Path],
    batch_size: int = 32,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda _: None,
    *,
    backend: str = "auto",
    cache: RowCache | None = None,
    view: int = 0,
    all_depths: bool = False,
) -> Features:
    """Run the encoder over image files, skipping those that cannot be read.

    Args:
        encoder: the encoder; it is moved to ``device``.
        files: image files.
        batch_size: images per run.
        device: a PyTorch device.
        progress: called with the number of files just done.
        backend: one of `clip_export.training.options.BACKENDS`.
        cache: where features are looked up and kept; what was computed is kept even when this is interrupted.
        view: number of the augmented view, as in `clip_export.features.augment.augmented`.
        all_depths: of an encoder whose feature is of a depth, keep those of all depths, which one pass makes.

    Raises:
        DeviceError: the device has too little memory for ``batch_size`` images.
    """
    keep = (lambda rows: rows) if all_depths else encoder.feature_of
    gathered = _Gathered(encoder, device, backend, cache=cache, batch_size=batch_size, files=len(files), keep=keep)
    try:
        for index, item in enumerate(read_images(encoder.preprocessing, files, view, cache, batch_size)):
            gathered.add(index, item)
            progress(1)
        return gathered.finish()
    finally:
        if cache is not None:
            cache.flush()


def row_key(content: bytes, view: int = 0) -> bytes:
    """Where a cache keeps the row of a view of a file with a SHA-256."""
    return hashlib.sha256(content + view.to_bytes(4, "big")).digest()


class ReadImage(NamedTuple):
    """A file's hash and key, and its row from the cache, its pixels, or what is wrong with it."""

    content: str
    key: bytes
    found: Row | NDArray[np.uint8] | ImageError


def read_images(
    rule: Preprocessing, files: Sequence[Path], view: int, cache: RowCache | None, batch_size: int
) -> Iterator[ReadImage]:
    """Files in order, read by several threads one batch ahead of the encoder, so that neither waits for the other."""
    read = partial(_read, rule=rule, view=view, cache=cache)
    waiting = iter(files)
    with ThreadPoolExecutor(usable_cores()) as pool:
        ahead = pool.map(read, list(islice(waiting, batch_size)))
        while batch := list(ahead):
            ahead = pool.map(read, list(islice(waiting, batch_size)))
            yield from batch


def _read(file: Path, rule: Preprocessing, view: int, cache: RowCache | None) -> ReadImage:
    try:
        content = hashlib.sha256(file.read_bytes())
    except OSError:
        content = hashlib.sha256()  # decoding will say what is wrong with the file
    key = row_key(content.digest(), view)
    row = cache.get(key) if cache is not None else None
    if row is not None:
        return ReadImage(content.hexdigest(), key, row)
    try:
        image = open_image(file)
        check_aspect(image.height, image.width)
        seen = augmented(image, content.digest(), view)
        check_resized(seen.height, seen.width, rule, MAX_PIXELS)
        pixels = preprocess(seen, rule)
    except ImageError as error:
        named = error if str(file) in str(error) else ImageError(f"{file}: {error}")
        return ReadImage(content.hexdigest(), key, named)
    return ReadImage(content.hexdigest(), key, pixels)


class _Gathered:
    """Rows that fill up as batches of pixels go through the encoder."""

    def __init__(
        self,
        encoder: Encoder,
        device: str,
        wanted: str,
        *,
        cache: RowCache | None,
        batch_size: int,
        files: int,
        keep: Callable[[Tensor], Tensor],
    ) -> None:
        self.choose = partial(choose_backend, encoder, device, wanted)
        self.keep = keep
        self.backend: Backend | None = None
        self.cache, self.batch_size, self.files = cache, batch_size, files
        self.values = torch.empty(files, *keep(torch.empty(1, *encoder.row_shape)).shape[1:])
        self.kept: list[int] = []
        self.contents: list[str] = []
        self.errors: list[ImageError] = []
        self.pending: list[tuple[int, bytes, NDArray[np.uint8]]] = []
        self.computed = 0

    def add(self, index: int, item: ReadImage) -> None:
        if isinstance(item.found, ImageError):
            self.errors.append(item.found)
            return
        self.kept.append(index)
        self.contents.append(item.content)
        if item.found.dtype == np.float32:
            self.values[index] = self.keep(torch.from_numpy(np.array(item.found))[None])[0]
            return
        self.pending.append((index, item.key, item.found.astype(np.uint8, copy=False)))
        if len(self.pending) == self.batch_size:
            self._run()

    def finish(self) -> Features:
        if self.pending:
            self._run()
        name = self.backend.name if self.backend else "cache"
        values = self.values if len(self.kept) == self.files else self.values[self.kept]
        return Features(self.kept, self.contents, self.errors, self.computed, name, values)

    def _run(self) -> None:
        for group in by_shape([image for _, _, image in self.pending]):
            self._run_alike([self.pending[i] for i in group])
        self.pending = []

    def _run_alike(self, pending: list[tuple[int, bytes, NDArray[np.uint8]]]) -> None:
        indices, keys, images = zip(*pending, strict=True)
        pixels = np.stack(images)
        if self.backend is None:  # whoever is chosen, it is for what is left
            self.backend = self.choose(self.files - indices[0], pixels)
        rows = self.backend.run(pixels)
        self.values[list(indices)] = self.keep(torch.from_numpy(rows))
        self.computed += len(rows)
        if self.cache is not None:
            for key, row in zip(keys, rows, strict=True):
                self.cache.put(key, row)
