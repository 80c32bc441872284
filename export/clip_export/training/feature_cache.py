"""Features on disk, so that an image goes through an encoder once and never again.

A cache is a folder of shards, each a safetensors file that appears whole or not at all and is never changed. Several
processes may therefore write at once, and one that is killed loses at most what its last shard would have held. A
feature is found by the hash of what made it: the encoder's weights and preprocessing (its folder), the bytes of the
image file and the number of the augmented view (its key). File names and dates play no part.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import asdict
from pathlib import Path

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save

from clip_export.encoder import Encoder
from clip_toolkit.atomic import written_atomically
from clip_toolkit.errors import OutputError

_FORMAT = 1
_SHARD = 1024  # rows that are gathered before they are written

Row = NDArray[np.float32]


def default_folder() -> Path:
    """Where caches lie unless another place is named: the user's cache folder (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "clip-toolkit" / "features"


def encoder_identity(encoder: Encoder) -> dict[str, object]:
    """Everything about an encoder that decides its features."""
    digest = hashlib.sha256()
    modules = [encoder.tower] + ([encoder.projection] if encoder.projection is not None else [])
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {
        "format": _FORMAT,
        "encoder": encoder.spec().id,
        "revision": encoder.revision,
        "feature": encoder.feature,
        "weights": digest.hexdigest(),
        "preprocessing": asdict(encoder.preprocessing),
    }


class FeatureCache:
    """The features of one encoder on disk. Whatever is wrong with the disk, training goes on without it.

    Attributes:
        folder: of this encoder, below the one that was asked for.
        notes: what was wrong, one line each.
    """

    def __init__(self, base: Path, encoder: Encoder) -> None:
        """Open the cache of an encoder below ``base``, and read what it holds; a missing folder is made."""
        identity = encoder_identity(encoder)
        text = json.dumps(identity, sort_keys=True)
        self._owner = hashlib.sha256(text.encode()).hexdigest()
        self._dim = encoder.dim
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
            self.notes.append(f"feature cache {self.folder}: cannot be used ({error.strerror or error})")

    def __len__(self) -> int:
        """Features at hand."""
        return len(self._where.keys() | self._fresh.keys())

    def get(self, key: bytes) -> Row | None:
        """The feature of a key, float32 ``[dim]``, or None."""
        if key in self._fresh:
            return self._fresh[key]
        if key not in self._where:
            return None
        shard, row = self._where[key]
        return self._shards[shard][row]

    def put(self, key: bytes, row: Row) -> None:
        """Remember a feature; it reaches the disk with the next `flush`, or by itself after enough others."""
        self._fresh[key] = row
        if len(self._fresh) >= _SHARD:
            self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet. A full disk is noted and costs a later run time, not this one its result."""
        if not self._fresh:
            return
        keys = np.frombuffer(b"".join(self._fresh), np.uint8).reshape(len(self._fresh), -1)
        rows = np.stack(list(self._fresh.values()))
        content = save({"keys": keys, "rows": rows}, metadata={"owner": self._owner, "sha256": _digest(keys, rows)})
        try:
            with written_atomically(self.folder / f"{secrets.token_hex(8)}.safetensors") as temporary:
                temporary.write_bytes(content)
        except OutputError as error:
            if not any("not kept" in note for note in self.notes):
                self.notes.append(f"features are not kept for the next run: {error}")
        self._add(keys, rows)
        self._fresh = {}

    def _read(self, path: Path) -> None:
        try:
            with safetensors.safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
                keys, rows = file.get_tensor("keys"), file.get_tensor("rows")
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            self._discard(path, f"damaged ({str(error).partition(chr(10))[0]})")
            return
        if metadata.get("owner") != self._owner or rows.shape[1:] != (self._dim,):
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


def _digest(keys: NDArray[np.uint8], rows: NDArray[np.float32]) -> str:
    digest = hashlib.sha256(keys.tobytes())
    digest.update(np.ascontiguousarray(rows).data)
    return digest.hexdigest()
