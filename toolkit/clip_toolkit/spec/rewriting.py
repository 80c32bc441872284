"""A copy of a model file that says something else of itself, and every other byte as it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.json_codec import to_json
from clip_toolkit.spec.metadata import SPEC_KEY, parsed
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.wire import mapped, metadata_entries, metadata_entry


def write_with(path: Path, output: Path, fields: Mapping[str, Any], notes: Mapping[str, str | None]) -> None:
    """Write a copy of a model file with other fields in its spec.

    Args:
        path: the model file.
        output: the copy; a file there is overwritten.
        fields: of `clip_toolkit.spec.classifier.ModelSpec`, to be replaced; None for one to leave out.
        notes: lines of the training summary, for people: how they were chosen; likewise.

    Raises:
        ModelError: as `clip_toolkit.spec.model_file.read_spec`.
        SpecError: the fields do not suit the model.
        OSError: the copy cannot be written.
    """
    read_spec(path)
    with path.open("rb") as file, mapped(file, path) as data:
        *_, (text, (start, end)) = ((value, span) for key, value, span in metadata_entries(data) if key == SPEC_KEY)
        spec = parsed(text.decode())
        spec = _replaced(spec, {name: to_json(value) for name, value in fields.items()})
        spec["training"] = _replaced(spec.get("training", {}), notes)
        changed = json.dumps(spec, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        ModelSpec.from_json(changed)
        with output.open("wb") as copy, memoryview(data) as view:
            copy.write(view[:start])
            copy.write(metadata_entry(SPEC_KEY, changed))
            copy.write(view[end:])


def _replaced(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**values, **others}.items() if name not in others or value is not None}
