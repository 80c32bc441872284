"""Rows of numbers on disk, found by the hash of what made them.

A cache is a folder of shards, each a safetensors file that appears whole or not at all and is never changed. Several
processes may therefore write at once, and one that is killed loses at most what its last shard would have held. Shards
are mapped into memory, so that rows that are larger than it in all can be read as well, and checked before the first of
their rows is used.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save

from clip_toolkit.errors import OutputError, first_line
from clip_toolkit.files.atomic import remove_leftovers, written_atomically

# What is gathered before it is written: so many rows, or bytes of large ones.
_SHARD_ROWS = 1024
_SHARD_BYTES = 2**26

Row = NDArray[np.float32]


class RowCache:
    """The rows of one maker on disk. Whatever is wrong with the disk, work goes on without it.

    Several threads may `get` while one puts.

    Attributes:
        folder: of this maker, below the one that was asked for.
        shape: of every row.
        row_bytes: of a row.
        notes: what was wrong, one line each.
    """

    def __init__(self, base: Path, identity: Mapping[str, object], shape: tuple[int, ...]) -> None:
        """Open the cache below ``base`` and see what it holds; a missing folder is made.

        Args:
            base: folder of many caches.
            identity: everything about the maker that decides its rows; as JSON.
            shape: of a row.
        """
        text = json.dumps(identity, sort_keys=True)
        self._owner = hashlib.sha256(text.encode()).hexdigest()
        self.shape = shape
        self.row_bytes = 4 * math.prod(shape)
        self._shard_rows = max(1, min(_SHARD_ROWS, _SHARD_BYTES // self.row_bytes))
        self.folder = base / self._owner[:24]
        self.notes: list[str] = []
        self._where: dict[bytes, tuple[_Shard, int]] = {}
        self._fresh: dict[bytes, Row] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.folder)
            for path in sorted(self.folder.glob("*.safetensors")):
                self._open(path)
        except OSError as error:
            self._unusable(OutputError(f"cache {self.folder}: cannot be used ({error.strerror or error})."))

    def __contains__(self, key: bytes) -> bool:
        """Whether there is a row of a key, as far as can be told without reading it."""
        return key in self._where or key in self._fresh

    def get(self, key: bytes) -> Row | None:
        """Return the row of a key, float32 of `shape`, or None."""
        fresh, place = self._fresh.get(key), self._where.get(key)
        if fresh is not None or place is None:
            return fresh
        shard, row = place
        return shard.rows[row] if self._intact(shard) else None

    def put(self, key: bytes, row: Row) -> None:
        """Remember a row; it reaches the disk with the next `flush`, or by itself after enough others."""
        self._fresh[key] = row
        if len(self._fresh) >= self._shard_rows:
            self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet. A full disk is noted and costs a later run time, not this one its result."""
        if not self._fresh:
            return
        keys = np.frombuffer(b"".join(self._fresh), np.uint8).reshape(len(self._fresh), -1)
        rows = np.stack(list(self._fresh.values()))
        path = self.folder / f"{secrets.token_hex(8)}.safetensors"
        shard = _Shard(path, keys, rows, self._owner, None, intact=True)
        try:
            shard.write()
        except OutputError as error:
            self._unusable(error)
        self._add(shard)
        self._fresh = {}

    def _unusable(self, error: OutputError) -> None:
        """Go on without the disk, or raise."""
        if not any("not kept" in note for note in self.notes):
            self.notes.append(f"features are not kept for the next run: {error}")

    def _open(self, path: Path) -> None:
        try:
            shard = _Shard.mapped(path)
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            self._discard(path, f"damaged ({first_line(error)})")
            return
        if shard.owner != self._owner or shard.rows.shape[1:] != self.shape:
            self._discard(path, "from another encoder")
        else:
            self._add(shard)

    def _discard(self, path: Path, reason: str) -> None:
        self.notes.append(f"{path}: {reason}; its features are computed again")
        with suppress(OSError):  # somebody else did so, or may
            path.rename(path.with_suffix(".discarded"))

    def _add(self, shard: _Shard) -> None:
        self._where.update((key.tobytes(), (shard, row)) for row, key in enumerate(shard.keys))

    def _intact(self, shard: _Shard) -> bool:
        with shard.lock:  # the first of several threads looks
            if shard.intact is None:
                shard.intact = shard.sha256 == _digest(shard.keys, shard.rows)
                if not shard.intact:
                    self._discard(shard.path, "damaged (its checksum differs)")
            return shard.intact


@dataclass(eq=False)
class _Shard:
    """A file of rows, mapped into memory.

    Attributes:
        path: of the file.
        keys: uint8 ``[rows, bytes]``.
        rows: float32 ``[rows, *shape]``.
        owner: hash of the maker's identity.
        sha256: what keys and rows should have.
        intact: whether they do, or None before anybody looked.
        lock: of whoever looks.
    """

    path: Path
    keys: NDArray[np.uint8]
    rows: NDArray[np.float32]
    owner: str | None
    sha256: str | None
    intact: bool | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def mapped(cls, path: Path) -> _Shard:
        """Of the libraries that safetensors serves only torch gets a mapped file."""
        with safetensors.safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            keys, rows = (file.get_tensor(name).numpy() for name in ("keys", "rows"))
            return cls(path, keys, rows, told.get("owner"), told.get("sha256"))

    def write(self) -> None:
        """Write it, and let the rows leave the memory."""
        told = {"owner": self.owner or "", "sha256": _digest(self.keys, self.rows)}
        with written_atomically(self.path) as temporary:
            temporary.write_bytes(save({"keys": self.keys, "rows": self.rows}, metadata=told))
        self.rows = self.mapped(self.path).rows


def _digest(keys: NDArray[np.uint8], rows: NDArray[np.float32]) -> str:
    digest = hashlib.sha256(keys.tobytes())
    digest.update(np.ascontiguousarray(rows).data)
    return digest.hexdigest()
