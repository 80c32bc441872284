"""What every spec in a model file has in common: its key, its version, and how it is opened and checked."""

from __future__ import annotations

import json
import re
from typing import Any

from clip_toolkit.errors import SpecError

SPEC_KEY = "clip_toolkit"
"""The one key in ``metadata_props`` that holds the spec."""

SPEC_VERSION = "1.0"
"""``major.minor`` of what is written. A reader accepts every minor version of the major ones it knows."""

SEVERAL_HEADS = "2.0"
"""Version of files with several heads: a reader of 1.x would answer for the main one, and drop the others unsaid."""

OLDEST_ONNXRUNTIME = "1.22"
"""What plain files run on, and those that name no version."""

MAX_SPEC_BYTES = 64 * 2**20
"""Length beyond which a spec is taken for damage: a real one has a few hundred kilobytes, with a tokenizer of 256,000
words some twenty megabytes."""

CLASSIFIER, TEXT = "classifier", "text"

_KINDS = {
    CLASSIFIER: "an image classifier: open it with clip_toolkit.load or clip-infer --model",
    TEXT: "a text tower, which takes no images: open it with clip_toolkit.load_text",
}
"""What a file may hold, and what it is opened with. Files that do not say are classifiers."""


def parsed(text: str) -> dict[str, Any]:
    """Parse the JSON object stored under `SPEC_KEY`.

    Raises:
        SpecError: not JSON, no object, too large, or of a newer major version.
    """
    if len(text) > MAX_SPEC_BYTES:
        raise SpecError(
            f"spec: {len(text)} characters of metadata, more than {MAX_SPEC_BYTES}. Export the model again."
        )
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"spec: the metadata is not valid JSON ({error}). Export the model again.") from error
    if not isinstance(data, dict):
        raise SpecError(f"spec: expected a JSON object, got {type(data).__name__}. Export the model again.")
    _check_version(data)
    return data


def kind_of(data: dict[str, Any]) -> str:
    """Return what the file of a parsed spec holds, `CLASSIFIER` or `TEXT`.

    Raises:
        SpecError: something that this version does not know.
    """
    kind = data.get("kind", CLASSIFIER)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise SpecError(
            f"spec.kind: expected {' or '.join(_KINDS)}, got {kind!r}. Upgrade with: pip install -U clip-toolkit"
        )
    return kind


def require_kind(data: dict[str, Any], kind: str) -> None:
    """Refuse the spec of another kind of file.

    Raises:
        SpecError: it is of another kind; the message says what opens it.
    """
    found = kind_of(data)
    if found != kind:
        raise SpecError(f"spec.kind: the file holds {_KINDS[found]}.")


def require(holds: bool, name: str, expected: str, got: object) -> None:
    """Raise `SpecError` about the field ``name`` unless ``holds``."""
    if not holds:
        raise SpecError(f"spec.{name}: expected {expected}, got {got!r}. Export the model again.")


def check_onnxruntime(version: str) -> None:
    """Refuse a version of ONNX Runtime that cannot be compared.

    Raises:
        SpecError: it is not of the form ``major.minor``.
    """
    is_version = re.fullmatch(r"[0-9]{1,4}\.[0-9]{1,4}", version) is not None
    require(is_version, "onnxruntime", f"a version like {OLDEST_ONNXRUNTIME}", version)


def _check_version(data: dict[str, Any]) -> None:
    version = data.get("version")
    major = str(version).partition(".")[0]
    if not isinstance(version, str) or not re.fullmatch(r"[0-9]{1,6}\.[0-9]{1,6}", version):
        raise SpecError(f"spec: expected a version like {SPEC_VERSION}, got {version!r}. Export the model again.")
    if int(major) > int(SEVERAL_HEADS.partition(".")[0]):
        raise SpecError(
            f"spec: the file has format version {version}, this clip-toolkit reads up to {SEVERAL_HEADS}. "
            "Upgrade with: pip install -U clip-toolkit"
        )
