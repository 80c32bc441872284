"""The derived files of an index: what a scan needs, memory-mapped, rebuilt from the database at will.

``embeddings.npy``: float16 ``[n, dim]``, by path. ``codes.npy``: the same in int8. ``bounds.npy``: float32 ``[3, n]``,
the scale, rest and length of `clip_search.scan.codes`. ``paths.bin``: the path of each row, ended by a zero byte.
The same embeddings give the same bytes, whatever the history of the index.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from clip_search.scan.checksum import digest_of, is_still
from clip_search.scan.codes import Codes
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.stream.pipeline import chunks

_EMBEDDINGS, _CODES, _BOUNDS, _PATHS = FILES = ("embeddings.npy", "codes.npy", "bounds.npy", "paths.bin")
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Matrix:
    """The embeddings of an index, by path.

    Attributes:
        digest: checksum of its files.
        embeddings: float16 ``[n, dim]``, memory-mapped.
        codes: the same in int8, memory-mapped.
    """

    digest: str
    embeddings: NDArray[np.float16]
    codes: Codes
    _paths: NDArray[np.uint8]
    _ends: NDArray[np.int64]

    def path(self, row: int) -> str:
        """Return the path of a row, relative to the indexed folder."""
        start = self._ends[row - 1] + 1 if row else 0
        return os.fsdecode(self._paths[start : self._ends[row]].tobytes())


def read_matrix(folder: Path, digest: str) -> Matrix | None:
    """Open the derived files; None where one is missing, damaged, or of another state of the index than ``digest``."""
    places = [folder / name for name in FILES]
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in places]
            if digest_of(places) != digest or not all(map(is_still, files, places)):
                return None
            embeddings, codes, bounds, names = files
            paths = np.fromfile(names, np.uint8)
            coded = Codes(_mapped(codes), *np.load(bounds))
            return Matrix(digest, _mapped(embeddings), coded, paths, np.flatnonzero(paths == 0))
    except OSError:
        return None


def write_matrix(folder: Path, dim: int, count: int, rows: Iterable[tuple[bytes, bytes]]) -> str:
    """Write the derived files.

    Args:
        folder: where.
        dim: length of an embedding.
        count: number of rows.
        rows: path and little-endian float16 embedding of each.

    Returns:
        The digest that `read_matrix` asks for.

    Raises:
        OutputError: a file cannot be written.
        ValueError: an embedding has another length.
    """
    with ExitStack() as stack:
        temporary = [stack.enter_context(written_atomically(folder / name)) for name in FILES]
        embeddings, codes, bounds, paths = (stack.enter_context(path.open("wb")) for path in temporary)
        _write_header(embeddings, "<f2", (count, dim))
        _write_header(codes, "|i1", (count, dim))
        scales = [np.empty((3, 0), np.float32)]
        for names, vectors in _blocks(rows, dim):
            block = Codes.of(vectors)
            embeddings.write(vectors.tobytes())
            codes.write(block.values.tobytes())
            paths.write(b"".join(name + b"\0" for name in names))
            scales.append(np.stack([block.scale, block.rest, block.length]))
        np.save(bounds, np.concatenate(scales, axis=1))
    return digest_of(folder / name for name in FILES)


def _blocks(rows: Iterable[tuple[bytes, bytes]], dim: int) -> Iterator[tuple[list[bytes], NDArray[np.float16]]]:
    for some in chunks(rows, _ROWS_AT_ONCE):
        names, blobs = zip(*some, strict=True)
        yield list(names), np.frombuffer(b"".join(blobs), "<f2").reshape(len(names), dim)


def _write_header(file: IO[bytes], kind: str, shape: tuple[int, int]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})


def _mapped(file: IO[bytes]) -> Any:
    """Map what `_write_header` began; `numpy.load` would map the file that has the name now."""
    np.lib.format.read_magic(file)
    shape, _, kind = np.lib.format.read_array_header_1_0(file)
    return np.memmap(file, kind, "r", file.tell(), shape)
