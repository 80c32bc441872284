"""Save a notebook's answers, to be proved through the file that is exported from it."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

SNIPPET = """\
    import numpy as np  # in the notebook; paths: the image files, logits: the head's output for them, one row each
    known = {"logits": logits, "probabilities": logits.softmax(-1)}  # .sigmoid() of one logit, or of several labels
    known = {name: values.detach().cpu().numpy() for name, values in known.items()}
    np.savez("expect.npz", image=[str(path) for path in paths], labels=labels, **known)
"""
"""A few lines for a notebook on a machine without clip-toolkit; they write what `save` writes."""

SNIPPET_OF_SEVERAL = """\
    import numpy as np  # in the notebook; paths: the image files, logits and labels: dicts by the names of the heads
    known = {f"{name}.logits": values for name, values in logits.items()}
    known |= {f"{name}.probabilities": values.softmax(-1) for name, values in logits.items()}  # not of plain values
    known = {name: values.detach().cpu().numpy() for name, values in known.items()}
    known |= {f"{name}.labels": names for name, names in labels.items()}
    np.savez("expect.npz", image=[str(path) for path in paths], **known)
"""
"""The same for several heads, each by its name."""


def save(
    path: str | os.PathLike[str],
    images: Sequence[Any] | None = None,
    logits: ArrayLike | None = None,
    *,
    probabilities: ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    features: ArrayLike | None = None,
) -> None:
    """Save a model's answers for ``clip-export --expect``.

    Args:
        path: the ``.npz`` file to write.
        images: one for each row of answers: paths, encoded images (bytes), or Pillow images, which are kept as PNG.
        logits: ``[n, outputs]``, an array or a tensor on any device.
        probabilities: ``[n, labels]``, likewise, beside the logits or in their place.
        labels: names of the columns, in training order.
        features: ``[n, dim]``, what the head read, in place of images: a weaker proof, of the head alone.

    Raises:
        ValueError: neither images nor features, neither logits nor probabilities, or numbers of rows that differ.
    """
    if (images is None) == (features is None):
        raise ValueError("expect: give images, or else features")
    if logits is None and probabilities is None:
        raise ValueError("expect: give logits or probabilities")
    given = {"logits": logits, "probabilities": probabilities, "features": features}
    arrays = {name: _array(values) for name, values in given.items() if values is not None}
    if images is not None:
        arrays |= _image_column(images, Path(path).absolute().parent)
    if labels is not None:
        arrays["labels"] = np.array([str(label) for label in labels])
    rows = {name: len(values) for name, values in arrays.items() if name != "labels"}
    if len(set(rows.values())) != 1:
        raise ValueError(f"expect: the numbers of rows differ: {rows}")
    np.savez(path, allow_pickle=True, **arrays)


def _array(values: Any) -> NDArray[np.float32]:
    if hasattr(values, "detach"):  # a tensor, of any device, and of dtypes that NumPy lacks
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, np.float32)


def _image_column(images: Sequence[Any], folder: Path) -> dict[str, NDArray[Any]]:
    """``image``, with paths relative to the file's folder where they lie beneath it; or ``bytes``."""
    if all(isinstance(image, (str, os.PathLike)) for image in images):
        return {"image": np.array([_relative(Path(image).absolute(), folder) for image in images])}
    column = np.empty(len(images), object)
    column[:] = [_encoded(image) for image in images]
    return {"bytes": column}


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _encoded(image: Any) -> bytes:
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()
    if isinstance(image, (str, os.PathLike)):
        return Path(image).read_bytes()
    if isinstance(image, (bytes, bytearray)):
        return bytes(image)
    raise ValueError(f"expect: expected a path, encoded bytes or a Pillow image, got {type(image).__name__}")
