"""A reader of the protobuf wire format, as far as it takes to find metadata and references to other files."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from clip_toolkit.errors import ModelError

_LARGEST_TAG = 2**32 - 1

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_MODEL_METADATA = 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2

Span = tuple[int, int]
"""First byte and end of a message inside the file."""


class WireError(ValueError):
    """The bytes do not follow the protobuf wire format."""


def fields(data: mmap.mmap, message: Span) -> Iterator[tuple[int, int | Span]]:
    """Yield number and value of each field: an int for varints, where the bytes are for everything else."""
    position, end = message
    while position < end:
        tag, position = _varint(data, position, end)
        number, wire_type = tag >> 3, tag & 7
        if number == 0 or tag > _LARGEST_TAG:  # other readers cut a tag to 32 bits and would see another field
            raise WireError(f"field number {number}")
        if wire_type == _VARINT:
            value, position = _varint(data, position, end)
            yield number, value
            continue
        length, position = _length(data, position, end, wire_type)
        if position + length > end:
            raise WireError("cut short")
        yield number, (position, position + length)
        position += length


def _length(data: mmap.mmap, position: int, end: int, wire_type: int) -> tuple[int, int]:
    if wire_type == _BYTES:
        return _varint(data, position, end)
    if wire_type == _FIXED64:
        return 8, position
    if wire_type == _FIXED32:
        return 4, position
    raise WireError(f"wire type {wire_type}")


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise WireError("cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise WireError("a varint of more than 10 bytes")


def mapped(file: IO[bytes], path: Path) -> mmap.mmap:
    """Map a file into memory, to be read.

    Raises:
        ModelError: it is empty.
    """
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise ModelError(f"{path}: the file is empty. Export the model again.") from error


def metadata_entries(data: mmap.mmap) -> Iterator[tuple[str, bytes, Span]]:
    """Yield key, value and place of each entry of a model's metadata, its tag and length included."""
    for number, entry in fields(data, (0, len(data))):
        if not isinstance(entry, tuple):
            continue
        if number == _MODEL_METADATA:
            pair = {key: data[slice(*text)] for key, text in fields(data, entry) if isinstance(text, tuple)}
            head = len(_field_head(_MODEL_METADATA, entry[1] - entry[0]))
            yield pair.get(_ENTRY_KEY, b"").decode(), pair.get(_ENTRY_VALUE, b""), (entry[0] - head, entry[1])


def metadata_entry(key: str, value: str) -> bytes:
    """Return the bytes of an entry of a model's metadata."""
    pair = ((_ENTRY_KEY, key.encode()), (_ENTRY_VALUE, value.encode()))
    content = b"".join(_field_head(number, len(text)) + text for number, text in pair)
    return _field_head(_MODEL_METADATA, len(content)) + content


def _field_head(number: int, length: int) -> bytes:
    return _written_varint(number << 3 | _BYTES) + _written_varint(length)


def _written_varint(value: int) -> bytes:
    low = bytes([value & 0x7F | (0x80 if value > 0x7F else 0)])
    return low + (_written_varint(value >> 7) if value > 0x7F else b"")
