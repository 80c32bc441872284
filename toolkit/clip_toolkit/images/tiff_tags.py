"""The tags of a TIFF's first image (TIFF 6.0, section 2; BigTIFF): read alike whatever Pillow is installed."""

from __future__ import annotations

import struct
from typing import IO, Any, Literal

from clip_toolkit.errors import ImageError

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_TYPES = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 13: "L", 16: "Q", 17: "q", 18: "Q"}
"""Of whole numbers; tags of the other types are known to be there, and empty."""
_MOST_TAGS, _MOST_VALUES = 4096, 2**24


class Tags(dict[int, tuple[int, ...]]):
    """Whole-number values by tag number.

    Attributes:
        order: byte order of the file, ``<`` or ``>``.
    """

    def __init__(self, order: Literal["<", ">"]) -> None:
        """Start without any."""
        super().__init__()
        self.order = order

    def one(self, number: int, default: Any) -> Any:
        """Return the first value of a tag."""
        values = self.get(number)
        return values[0] if values else default

    def all(self, number: int) -> tuple[int, ...]:
        """All values of a tag."""
        return self.get(number, ())


def read_tags(file: IO[bytes]) -> Tags:
    """Read the first directory.

    Raises:
        ImageError: it is cut short, or names a tag twice.
    """
    head = file.read(16)
    tags = Tags("<" if head.startswith(b"II") else ">")
    big = b"+" in head[2:4]
    pointer, width = ("Q", 8) if big else ("L", 4)
    try:
        (start,) = struct.unpack_from(tags.order + pointer, head, width)
        file.seek(start)
        (count,) = struct.unpack(tags.order + ("Q" if big else "H"), file.read(8 if big else 2))
        if not 1 <= count <= _MOST_TAGS:
            raise ImageError(f"a TIFF with {count} tags is damaged.")
        size = 20 if big else 12
        directory = file.read(size * count)
        for position in range(0, size * count, size):
            _read_tag(file, tags, directory[position : position + size], pointer)
    except (struct.error, OverflowError) as error:
        raise ImageError("the tags of the TIFF are cut short. Is it a complete image file?") from error
    return tags


def _read_tag(file: IO[bytes], tags: Tags, entry: bytes, pointer: str) -> None:
    number, kind, count = struct.unpack_from(f"{tags.order}HH{pointer}", entry)
    if number in tags:
        raise ImageError(f"a TIFF that has tag {number} twice is damaged.")
    letter = _TYPES.get(kind)
    if letter is None or count > _MOST_VALUES:
        tags[number] = ()
        return
    form = f"{tags.order}{count}{letter}"
    inline = entry[-struct.calcsize(f"{tags.order}{pointer}") :]
    if struct.calcsize(form) > len(inline):
        file.seek(struct.unpack(tags.order + pointer, inline)[0])
        inline = file.read(struct.calcsize(form))
    tags[number] = struct.unpack_from(form, inline)
