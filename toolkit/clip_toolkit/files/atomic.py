"""Files that appear whole or not at all, and stay through a power cut once they have appeared.

A process locks its temporary files, and the system drops the locks of a process that ends, however it ends. So the next
run can tell what a killed one has left behind from what another one is writing, and removes it.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clip_toolkit.errors import ClipToolkitError, OutputError

try:
    import fcntl
except ImportError:  # Windows, where leftovers of killed processes stay
    fcntl = None  # type: ignore[assignment]

_CANNOT_FLUSH_FOLDERS = (errno.EACCES, errno.EINVAL)  # one that may not be listed; some network file systems


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, renamed onto it at the end and removed on an error.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full.
    """
    try:
        with temporary_beside(path) as temporary:
            yield temporary
            flush(temporary)
            temporary.replace(path)
            flush_folder(path.parent)
    except OSError as error:
        raise _explained(error, path) from error


@contextmanager
def temporary_beside(path: Path, *, is_folder: bool = False) -> Iterator[Path]:
    """Yield an empty file or folder beside ``path``, removed when the block ends unless it has another name by then.

    Those that killed processes left for the same ``path`` are removed first.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full.
    """
    remove_leftovers(path.parent, path.name)
    temporary, lock = _created(path, is_folder)
    try:
        yield temporary
    finally:
        _remove(temporary)
        if lock is not None:
            os.close(lock)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files and folders of killed processes: those for one name, or all in a folder."""
    ours = re.compile(rf"\.{'.+' if name is None else re.escape(name)}\.[0-9a-f]{{8}}\.tmp")
    with suppress(OSError), os.scandir(folder) as entries:
        for stale in [folder / entry.name for entry in entries if ours.fullmatch(entry.name)]:
            lock = _locked(stale, wait=False)
            if lock is not None:
                _remove(stale)
                os.close(lock)


def check_writable(path: Path) -> None:
    """Find out before minutes of work whether their result can be written.

    Raises:
        OutputError: the folder is missing or not writable, or the path is a folder.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder. Name a file.")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: is no ordinary file, and would be replaced by one. Name another.")
    try:
        with temporary_beside(path):
            pass
    except OSError as error:
        raise _explained(error, path) from error


def flush(path: Path) -> None:
    """Make sure that the bytes have reached the disk before the name does."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Make sure that new names in a folder outlast a power cut, where the file system offers that."""
    if os.name == "nt":  # where folders cannot be opened
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH_FOLDERS:
            raise


def _created(path: Path, is_folder: bool) -> tuple[Path, int | None]:
    """Return a new temporary file or folder and its lock; no lock where the file system has none."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        temporary.mkdir() if is_folder else temporary.touch(exist_ok=False)
        lock = _locked(temporary, wait=True)
        if lock is not None or temporary.exists():
            return temporary, lock
        # Another process took it for a leftover before the lock was there.


def _locked(temporary: Path, *, wait: bool) -> int | None:
    """Lock it; return the descriptor, or None if another process holds or has removed it, or locks are missing."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(temporary, os.O_RDONLY)
    except OSError:
        return None
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.path.samestat(os.fstat(descriptor), temporary.stat()):
            return descriptor
    os.close(descriptor)
    return None


def _remove(temporary: Path) -> None:
    with suppress(OSError):  # such as that it has its final name
        shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()


def _explained(error: OSError, path: Path) -> ClipToolkitError:
    if isinstance(error, ClipToolkitError):  # raised inside the block, about something else
        return error
    remedy = "" if path.parent.is_dir() else f" Make the folder first: mkdir -p {path.parent}"
    return OutputError(f"{path}: cannot be written ({error.strerror or error}).{remedy}")
