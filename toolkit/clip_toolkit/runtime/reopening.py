"""Open model files in other processes: what is pickled is how a file was opened, and which model it held."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from clip_toolkit.errors import ModelError
from clip_toolkit.runtime.session import Opening, Session, open_session
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.text_tower import TextTowerSpec

Spec = TypeVar("Spec", ModelSpec, TextTowerSpec)


def remember(session: Session, spec: ModelSpec | TextTowerSpec) -> tuple[Opening, str]:
    """Tell what to pickle in the place of an open file, for `reopen`.

    Raises:
        TypeError: the session has no file.
    """
    if session.opening is None:
        raise TypeError("a model that was not opened from a file cannot be pickled")
    return session.opening, _digest(spec)


def reopen(opening: Opening, digest: str, read: Callable[[Path], Spec]) -> tuple[Spec, Session]:
    """Open a file as it was opened in the process that pickled what `remember` told.

    Raises:
        ModelError: the file holds another model by now; or what ``read`` and `open_session` raise.
    """
    spec = read(opening.path)
    if _digest(spec) != digest:
        raise ModelError(f"{opening.path}: holds another model than when this one was pickled. Load it again.")
    path, device, threads, prepack, throughput = opening
    return spec, open_session(path, device, threads, spec.ops, prepack, throughput=throughput, needs=spec.onnxruntime)


def _digest(spec: ModelSpec | TextTowerSpec) -> str:
    """Golden vectors are in a spec, so that other weights have another digest."""
    return hashlib.sha256(spec.to_json().encode()).hexdigest()
