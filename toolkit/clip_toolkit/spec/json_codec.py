"""Frozen dataclasses to JSON values and back, checked field by field.

Tuples travel as arrays, bytes as base64, nested dataclasses as objects. Unknown keys are ignored, so that a file
written by a newer minor version still reads.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import types
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from clip_toolkit.errors import SpecError

T = TypeVar("T")

LATER: dict[str, Any] = {"later": True}
"""Metadata of a dataclass's field that the format has not always had: at its default it is left out, so that what does
without it keeps its bytes."""

_MOST_NESTED = 32  # of what people write for people; deeper, no writer of JSON takes it


def to_json(value: Any) -> Any:
    """Convert a dataclass, tuple, bytes or plain value to its JSON form."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field for field in dataclasses.fields(value) if not _is_left_out(field, value)]
        return {field.name: to_json(getattr(value, field.name)) for field in fields}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    return value


def _is_left_out(field: dataclasses.Field[Any], value: Any) -> bool:
    return "later" in field.metadata and bool(getattr(value, field.name) == field.default)


def from_json(kind: type[T], value: Any, where: str) -> T:
    """Read a JSON value as ``kind``.

    Raises:
        SpecError: a field is missing or of another type; the message names it by its path, such as ``encoder.dim``.
    """
    result: T = _read(kind, value, where)
    return result


def _read(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return None if value is None else _read(get_args(kind)[0], value, where)
    if origin is tuple:
        return tuple(
            _read(get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(_typed(list, value, where))
        )
    if origin is dict:
        items = _typed(dict, value, where)
        return {_text(key, where): _read(get_args(kind)[1], item, f"{where}.{key}") for key, item in items.items()}
    if kind is bytes:
        return _read_bytes(value, where)
    return _any(value, where, _MOST_NESTED) if kind is Any else _typed(kind, value, where)


def _any(value: Any, where: str, depth: int) -> Any:
    """Return a JSON value of any form, as long as it can be written again."""
    if depth == 0:
        raise SpecError(f"{where}: is nested more than {_MOST_NESTED} deep")
    if isinstance(value, dict):
        return {_text(key, where): _any(item, where, depth - 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_any(item, where, depth - 1) for item in value]
    if isinstance(value, float):
        return _finite(value, where)
    return _text(value, where) if isinstance(value, str) else value


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    items = _typed(dict, value, where)
    hints = get_type_hints(kind)
    arguments = {}
    for field in dataclasses.fields(kind):
        if field.name in items:
            arguments[field.name] = _read(hints[field.name], items[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SpecError(f"{where}: the field '{field.name}' is missing")
    return kind(**arguments)


def _read_bytes(value: Any, where: str) -> bytes:
    try:
        return base64.b64decode(_typed(str, value, where), validate=True)
    except ValueError as error:  # binascii.Error, or characters beyond ASCII
        raise SpecError(f"{where}: expected base64, got {str(value)[:20]!r}") from error


def _typed(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return _finite(value, where)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise SpecError(f"{where}: expected {kind.__name__}, got {type(value).__name__} ({str(value)[:40]!r})")
    return _text(value, where) if kind is str else value


def _text(text: str, where: str) -> str:
    """Return the text, if it can be printed and written to a file: JSON may hold halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SpecError(f"{where}: is not valid Unicode: {text[:40]!a}") from error
    return text


def _finite(value: float, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SpecError(f"{where}: expected a finite number, got {number}")
    return number
