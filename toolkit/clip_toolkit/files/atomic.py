"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clip_toolkit.errors import ClipToolkitError, OutputError


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed onto it when the block ends and removed when it raises.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    except OSError as error:
        raise _explained(error, path) from error
    finally:
        with suppress(OSError):  # such as that there is none
            temporary.unlink()


def check_writable(path: Path) -> None:
    """Find out before minutes of work whether their result can be written.

    Raises:
        OutputError: the folder is missing or not writable, or the path is a folder.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder. Name a file.")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: is no ordinary file, and would be replaced by one. Name another.")
    temporary = _temporary(path)
    try:
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise _explained(error, path) from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def flush(path: Path) -> None:
    """Make sure that the bytes have reached the disk before the name does."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _explained(error: OSError, path: Path) -> ClipToolkitError:
    if isinstance(error, ClipToolkitError):  # raised inside the block, about something else
        return error
    remedy = "" if path.parent.is_dir() else f" Make the folder first: mkdir -p {path.parent}"
    return OutputError(f"{path}: cannot be written ({error.strerror or error}).{remedy}")
