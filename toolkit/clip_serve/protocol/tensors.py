"""Tensors of the Open Inference Protocol, version 2, from and to JSON and Triton's binary extension.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clip_serve.errors import TOO_LARGE, RequestError

_LENGTH = struct.Struct("<I")  # before each element of a binary BYTES tensor

_MOST_VALUES = 1_000_000
"""Values of a JSON body, a 640x480 image's worth: a few megabytes of brackets would take seconds and gigabytes."""

_JSON_KINDS = {dict: "an object", list: "a list", str: "a string", int: "a whole number", bool: "true or false"}


def json_object(body: bytes) -> dict[str, Any]:
    """Parse a body.

    Raises:
        RequestError: it is no JSON object, is nested too deep, or has too many values.
    """
    if body.count(b",") > _MOST_VALUES:
        raise RequestError(f"JSON of more than {_MOST_VALUES:,} values: send binary tensors", TOO_LARGE)
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not JSON ({error})") from error
    found: dict[str, Any] = checked(parsed, dict, "the body")
    return found


def checked(value: Any, kind: type[Any], where: str) -> Any:
    """Return a value of JSON.

    Raises:
        RequestError: it is of another type.
    """
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        found = _JSON_KINDS[type(value)] if isinstance(value, (dict, list)) else json.dumps(value)[:40]
        raise RequestError(f"{where}: expected {_JSON_KINDS[kind]}, got {found}")
    return value


def from_base64(text: Any, where: str) -> bytes:
    """Decode base64, as it is or in a ``data:`` URL.

    Raises:
        RequestError: it is no such text, or another URL.
    """
    checked(text, str, where)
    if text.startswith(("http://", "https://")):
        raise RequestError(f"{where}: URLs are not fetched. Send the image itself.")
    head, _, rest = text.partition(",") if text.startswith("data:") else ("", "", text)
    if head and not head.endswith(";base64"):
        raise RequestError(f"{where}: expected a data: URL in base64")
    try:
        return base64.b64decode(rest, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"{where}: expected base64 ({error})") from error


class InputTensor:
    """One input of a request.

    Attributes:
        name: of the input.
        datatype: such as ``UINT8``.
        shape: sizes, outermost first.
    """

    def __init__(self, header: Any, binary: bytes | None) -> None:
        """Read the header; ``binary`` is the tensor's share of what follows the JSON, if it has one.

        Raises:
            RequestError: a field is missing, or of another type.
        """
        header = checked(header, dict, "inputs: an element")
        self.name: str = checked(header.get("name"), str, "inputs: name")
        self.datatype: str = checked(header.get("datatype"), str, f"{self.name}: datatype")
        self.shape = [checked(size, int, f"{self.name}: shape") for size in self._list(header, "shape")]
        if any(size < 1 for size in self.shape):
            raise RequestError(f"{self.name}: shape: expected sizes of at least 1, got {self.shape}")
        self._binary = binary
        self._data = [] if binary is not None else self._list(header, "data")

    def _list(self, header: dict[str, Any], key: str) -> list[Any]:
        found: list[Any] = checked(header.get(key), list, f"{self.name}: {key}")
        return found

    def pixels(self) -> NDArray[np.uint8]:
        """Return a UINT8 tensor.

        Raises:
            RequestError: the data are no such numbers, or not as many as the shape says.
        """
        array = self._from_json() if self._binary is None else np.frombuffer(self._binary, np.uint8)
        if array.size != math.prod(self.shape):
            raise RequestError(f"{self.name}: shape {self.shape} has {math.prod(self.shape)} values, got {array.size}")
        return array.reshape(self.shape)

    def _from_json(self) -> NDArray[np.uint8]:
        try:
            array = np.array(self._data)
        except ValueError as error:  # lists of different lengths
            raise RequestError(
                f"{self.name}: data: rows differ in length; images of one tensor have one size"
            ) from error
        if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
            raise RequestError(f"{self.name}: data: expected whole numbers from 0 to 255")
        if array.ndim > 1 and list(array.shape) != self.shape:
            raise RequestError(f"{self.name}: data of shape {list(array.shape)} do not have the shape {self.shape}")
        return array.astype(np.uint8)

    def elements(self, *, text: bool) -> list[Any]:
        """Return the elements of a BYTES tensor of shape ``[n]`` or ``[n, 1]``: str, or bytes, in JSON as base64.

        Raises:
            RequestError: the shape is another, the data are cut short, or are no text where text is asked for.
        """
        if self.shape[1:] not in ([], [1]):
            raise RequestError(f"{self.name}: BYTES: expected the shape [n] or [n, 1], got {self.shape}")
        where = f"{self.name}: data"
        if self._binary is not None:
            found: list[Any] = [_text(item, where) if text else item for item in _split(self._binary, self.name)]
        else:
            flat = [item for row in self._data for item in (row if isinstance(row, list) else [row])]
            found = [checked(item, str, where) if text else from_base64(item, where) for item in flat]
        if len(found) != math.prod(self.shape):
            raise RequestError(
                f"{self.name}: shape {self.shape} has {math.prod(self.shape)} elements, got {len(found)}"
            )
        return found


def _text(item: bytes, where: str) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"{where}: expected text in UTF-8 ({error})") from error


def _split(binary: bytes, name: str) -> list[bytes]:
    found, position = [], 0
    while position < len(binary):
        start = position + _LENGTH.size
        end = start + _LENGTH.unpack(binary[position:start])[0] if start <= len(binary) else len(binary) + 1
        if end > len(binary):
            raise RequestError(f"{name}: binary data: an element ends beyond the tensor")
        found.append(binary[start:end])
        position = end
    return found


def output_tensor(
    name: str, values: NDArray[np.float32] | list[list[str]], *, binary: bool
) -> tuple[dict[str, Any], bytes]:
    """Return the header of an output and its share of what follows the JSON.

    Args:
        name: of the output.
        values: float32 ``[batch, size]``, or texts of that shape.
        binary: whether the values go behind the JSON.
    """
    if isinstance(values, list):
        header: dict[str, Any] = {"name": name, "datatype": "BYTES", "shape": [len(values), len(values[0])]}
        flat: list[Any] = [text for row in values for text in row]
        data = b"".join(_LENGTH.pack(len(text.encode())) + text.encode() for text in flat) if binary else b""
    else:
        header = {"name": name, "datatype": "FP32", "shape": list(values.shape)}
        flat, data = ([], values.astype("<f4").tobytes()) if binary else (values.ravel().tolist(), b"")
    return header | ({"parameters": {"binary_data_size": len(data)}} if binary else {"data": flat}), data
