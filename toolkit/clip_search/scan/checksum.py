"""A checksum of large files, by all cores: against damage and mix-ups, not against forgery."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO

from clip_toolkit.runtime.processor import usable_cores

_PIECE = 4 * 2**20


def digest_of(paths: Iterable[Path]) -> str:
    """SHA-256 over the files' sizes and the CRC-32 of their pieces of 4 MiB, in hexadecimal.

    CRC-32 is several times as fast as SHA-256, which would take longer than a search.

    Raises:
        OSError: a file is missing or cannot be read.
    """
    whole = hashlib.sha256()
    with ThreadPoolExecutor(usable_cores()) as pool:
        for path in paths:
            size = path.stat().st_size
            whole.update(size.to_bytes(8, "little"))
            for piece in pool.map(partial(_crc_of_piece, path), range(0, size, _PIECE)):
                whole.update(piece.to_bytes(4, "little"))
    return whole.hexdigest()


def is_still(file: IO[bytes], path: Path) -> bool:
    """Whether a path still names the file that was opened there, and so did throughout: an open file keeps its number.

    What is opened, then read by its path, and then still there, is what was read.

    Raises:
        OSError: there is nothing any more.
    """
    return os.path.samestat(os.fstat(file.fileno()), path.stat())


def _crc_of_piece(path: Path, start: int) -> int:
    with path.open("rb") as file:  # read, not mapped: mapped pages would count as this process's memory
        file.seek(start)
        return zlib.crc32(file.read(_PIECE))
