"""NumPy archives from strangers: arrays of numbers, text and bytes, and nothing that could run code."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from clip_toolkit.errors import ClipToolkitError

_MOST_BYTES = 2**31
"""Of an array once unpacked: more than a notebook's answers or a head ever take."""

_PARTS = {
    (module, name)
    for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
    for name in ("ndarray", "dtype", "_reconstruct")
}


class _Unpickler(pickle.Unpickler):
    """Knows what an array of bytes or text is made of. Any other name in a pickle could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PARTS:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


class _DamagedArrayError(Exception):
    pass


def read_npz(path: Path, error_type: type[ClipToolkitError]) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz`` file by name; arrays of objects may hold bytes and text alone.

    Raises:
        error_type: the file is damaged, or holds other Python objects; the message does not name it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {item.filename.removesuffix(".npy"): _array(archive, item) for item in archive.infolist()}
    except pickle.UnpicklingError as error:
        raise error_type(
            f"holds Python objects ({error}), and loading those could run any code. Save plain values: paths as "
            "[str(path) for path in paths], tensors as .detach().cpu().numpy()."
        ) from error
    except Exception as error:  # zipfile, NumPy and pickle raise nearly anything on damage
        raise error_type(f"not a readable .npz file ({error})") from error


def _array(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> NDArray[Any]:
    if item.file_size > _MOST_BYTES:
        raise _DamagedArrayError(f"{item.filename}: {item.file_size / 2**30:.1f} GiB unpacked, at most 2 are read")
    content = io.BytesIO(archive.read(item))
    version = npy.read_magic(content)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = header(content)
    if dtype.hasobject:
        found = _Unpickler(content).load()
        if not isinstance(found, np.ndarray) or found.shape != shape:
            raise _DamagedArrayError(f"{item.filename}: the array is damaged")
        return found
    content.seek(0)
    return np.asarray(npy.read_array(content, allow_pickle=False))
