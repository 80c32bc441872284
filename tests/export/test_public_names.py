"""The public face of clip_export: which names it has, and that they are there without waiting for torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import clip_export
from clip_toolkit.lazy import module_of

NAMES = """
    Dataset Encoder EncoderReference Evaluation Examples ExportOptions FeatureCache Features FinetuningOptions
    Limits LowerHalf QuantizationOptions Split TextEncoder TrainedHead Training TrainingOptions Tuned TuningData
    VLMtoMLP evaluate examples export_classifier export_text_tower finetune hidden_cache hidden_states
    image_features load_head read_image_folder read_manifest save_head save_with_encoder split_dataset text_features
    train_head tune with_groups zero_shot_head
"""


def test_public_names():
    assert sorted(clip_export.__all__) == NAMES.split()
    assert dir(clip_export) == sorted(clip_export.__all__)
    for name in clip_export.__all__:
        assert getattr(clip_export, name).__module__.startswith(("clip_export.", "clip_toolkit.data."))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Encoders'"):
        _ = clip_export.Encoders


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(clip_export.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    typed = {
        alias.asname: node.module
        for node in imports
        for alias in node.names
        if alias.asname is not None and node.module is not None
    }
    assert typed == {name: module_of("clip_export", home) for name, home in clip_export._HOMES.items()}


def test_importing_the_face_imports_no_torch():
    code = "import sys, clip_export; print([name for name in ('torch', 'transformers', 'onnx') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
