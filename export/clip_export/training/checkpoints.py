"""Checkpoints of a training: written whole or not at all, and only ever continued with the same data and options."""

from __future__ import annotations

import hashlib
import io
import time
from pathlib import Path

import torch

from clip_export.training.epochs import Examples
from clip_export.training.state import TrainingState
from clip_toolkit.errors import HeadError
from clip_toolkit.files.atomic import written_atomically

INTERVAL = 2.0
"""Seconds between two checkpoints: any of them leads to the same head, so that more would only cost time."""


def checkpoint_path(head: Path, part: str = "") -> Path:
    """Where the checkpoint of a head file lies, or that of another ``part`` that trains with it."""
    return head.with_name(f"{head.name}{f'.{part}' if part else ''}.checkpoint")


def fingerprint(train: Examples, validation: Examples, options: object, task: str) -> str:
    """Hash everything that decides a training."""
    digest = hashlib.sha256(f"{options} {task}".encode())
    for tensor in (*train, *validation):
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


class Checkpoints:
    """The checkpoint file of one training."""

    def __init__(self, path: Path, owner: str) -> None:
        """Keep checkpoints at ``path``, of the training that ``owner`` (a `fingerprint`) describes."""
        self.path, self.owner = path, owner
        self._latest: TrainingState | None = None
        self._written = time.monotonic()

    def keep(self, state: TrainingState) -> None:
        """Note a state, and write it if the last one is a while ago."""
        self._latest = state
        if time.monotonic() - self._written >= INTERVAL:
            self.write()

    def write(self) -> bool:
        """Write the latest state; say whether there is one.

        Raises:
            OutputError: the file cannot be written.
        """
        if self._latest is None:
            return False
        buffer = io.BytesIO()
        torch.save({"owner": self.owner, **vars(self._latest)}, buffer)
        with written_atomically(self.path) as temporary:
            temporary.write_bytes(buffer.getvalue())
        self._written = time.monotonic()
        return True

    def read(self) -> TrainingState | None:
        """Return the state that was written last, or None where there is no file.

        Raises:
            HeadError: the file is damaged, or of a training with other data or options.
        """
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            owner = content.pop("owner")
            state = TrainingState(**content)
        except Exception as error:  # torch raises anything on damaged files
            raise HeadError(f"{self.path}: the checkpoint is damaged. Remove it to start over.") from error
        if owner != self.owner:
            raise HeadError(
                f"{self.path}: the checkpoint is of other data or options. Give those it was made with, or remove "
                "it to start over."
            )
        return state
