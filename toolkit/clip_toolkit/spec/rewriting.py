"""A copy of a model file with another operating point, and every other byte as it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.metadata import SPEC_KEY, parsed
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.wire import mapped, metadata_entries, metadata_entry


def write_with_thresholds(path: Path, output: Path, thresholds: Mapping[str, float], how: str) -> None:
    """Write a copy of a model file that decides by other thresholds.

    Args:
        path: the model file.
        output: the copy; a file there is overwritten.
        thresholds: as in `clip_toolkit.spec.classifier.ModelSpec`.
        how: how they were chosen, for people: the training summary's ``operating point``.

    Raises:
        ModelError: as `clip_toolkit.spec.model_file.read_spec`.
        SpecError: the thresholds do not suit the model.
        OSError: the copy cannot be written.
    """
    read_spec(path)
    with path.open("rb") as file, mapped(file, path) as data:
        *_, (text, (start, end)) = ((value, span) for key, value, span in metadata_entries(data) if key == SPEC_KEY)
        spec = parsed(text.decode())
        spec |= {"thresholds": dict(thresholds), "training": spec.get("training", {}) | {"operating point": how}}
        changed = json.dumps(spec, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        ModelSpec.from_json(changed)
        with output.open("wb") as copy, memoryview(data) as view:
            copy.write(view[:start])
            copy.write(metadata_entry(SPEC_KEY, changed))
            copy.write(view[end:])
