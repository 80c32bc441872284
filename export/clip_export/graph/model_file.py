"""A network and its spec as bytes of one model file."""

from __future__ import annotations

from pathlib import Path

import onnx

from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.metadata import SPEC_KEY
from clip_toolkit.spec.text_tower import TextTowerSpec


def save_model(model: onnx.ModelProto, spec: ModelSpec | TextTowerSpec, path: Path) -> None:
    """Write a model file, in place: callers give a temporary path."""
    model.producer_name, model.producer_version = "clip-toolkit", spec.tools["clip-toolkit"]
    onnx.helper.set_model_props(model, {SPEC_KEY: spec.to_json()})
    path.write_bytes(model.SerializeToString())
