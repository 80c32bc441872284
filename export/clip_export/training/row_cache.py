"""Rows of numbers on disk, found by the hash of what made them.

A cache is a folder of shards, each a safetensors file that appears whole or not at all and is never changed. Several
processes may therefore write at once, and one that is killed loses at most what its last shard would have held. Shards
are mapped into memory, so that rows that are larger than it in all can be read as well.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save

from clip_toolkit.atomic import written_atomically
from clip_toolkit.errors import OutputError

# What is gathered before it is written: so many rows, or bytes of large ones.
_SHARD_ROWS = 1024
_SHARD_BYTES = 2**26

Row = NDArray[np.float32]


class RowCache:
    """The rows of one maker on disk. Whatever is wrong with the disk, work goes on without it.

    Attributes:
        folder: of this maker, below the one that was asked for.
        shape: of every row.
        row_bytes: of a row.
        notes: what was wrong, one line each.
    """

    def __init__(self, base: Path, identity: Mapping[str, object], shape: tuple[int, ...]) -> None:
        """Open the cache below ``base`` and read what it holds; a missing folder is made.

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
        self._shards: list[NDArray[np.float32]] = []
        self._where: dict[bytes, tuple[int, int]] = {}
        self._fresh: dict[bytes, Row] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(self.folder.glob("*.safetensors")):
                self._read(path)
        except OSError as error:
            self.notes.append(f"cache {self.folder}: cannot be used ({error.strerror or error})")

    def __len__(self) -> int:
        """Rows at hand."""
        return len(self._where.keys() | self._fresh.keys())

    def get(self, key: bytes) -> Row | None:
        """The row of a key, float32 of `shape`, or None."""
        if key in self._fresh:
            return self._fresh[key]
        if key not in self._where:
            return None
        shard, row = self._where[key]
        return self._shards[shard][row]

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
        content = save({"keys": keys, "rows": rows}, metadata={"owner": self._owner, "sha256": _digest(keys, rows)})
        path = self.folder / f"{secrets.token_hex(8)}.safetensors"
        try:
            with written_atomically(path) as temporary:
                temporary.write_bytes(content)
            _, rows, _ = _mapped(path)  # leaves the memory
        except OutputError as error:
            if not any("not kept" in note for note in self.notes):
                self.notes.append(f"features are not kept for the next run: {error}")
        self._add(keys, rows)
        self._fresh = {}

    def _read(self, path: Path) -> None:
        try:
            keys, rows, metadata = _mapped(path)
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            self._discard(path, f"damaged ({str(error).partition(chr(10))[0]})")
            return
        if metadata.get("owner") != self._owner or rows.shape[1:] != self.shape:
            self._discard(path, "from another encoder")
        elif metadata.get("sha256") != _digest(keys, rows):
            self._discard(path, "damaged (its checksum differs)")
        else:
            self._add(keys, rows)

    def _discard(self, path: Path, reason: str) -> None:
        self.notes.append(f"{path}: {reason}; its features are computed again")
        path.rename(path.with_suffix(".discarded"))

    def _add(self, keys: NDArray[np.uint8], rows: NDArray[np.float32]) -> None:
        self._where.update((key.tobytes(), (len(self._shards), row)) for row, key in enumerate(keys))
        self._shards.append(rows)


def _mapped(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32], dict[str, str]]:
    """Keys, rows and metadata of a shard. Of the libraries that safetensors serves only torch gets a mapped file."""
    with safetensors.safe_open(path, framework="pt") as file:
        return file.get_tensor("keys").numpy(), file.get_tensor("rows").numpy(), file.metadata() or {}


def _digest(keys: NDArray[np.uint8], rows: NDArray[np.float32]) -> str:
    digest = hashlib.sha256(keys.tobytes())
    digest.update(np.ascontiguousarray(rows).data)
    return digest.hexdigest()
