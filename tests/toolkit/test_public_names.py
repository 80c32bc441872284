"""The public faces of the packages without torch: their names are there without waiting for a library."""

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import clip_app
import clip_scale
import clip_search
import clip_serve
import clip_toolkit

FACES = pytest.mark.parametrize(
    "face", [clip_toolkit, clip_search, clip_serve, clip_app, clip_scale], ids=lambda face: face.__name__
)
NAMES = {
    "clip_toolkit": """
        Classifier ClipToolkitError DeviceError Drift ImageError ImageNotFoundError MissingDependencyError ModelError
        ModelNotFoundError ModelSpec Outputs Prediction Score SpecError TextEncoder TextError TextOutputs TextTowerSpec
        TextTruncatedWarning Tokenizer Tokens __version__ decode load load_text open_image preprocess selftest
        selftest_text
    """,
    "clip_search": """
        Duplicate Embeddings EncoderIdentity Hit ImportReport SearchIndex UpdateReport export_index import_embeddings
    """,
    "clip_serve": "ServeOptions create_app",
    "clip_app": "AppOptions create_app",
    "clip_scale": """
        BatchClassifier Columns LabelledSource LocalEngine RayEngine Source SourceError Summary WorkerError
        classify_daft classify_spark run
    """,
}


@FACES
def test_public_names(face: ModuleType):
    assert sorted(face.__all__) == NAMES[face.__name__].split()
    assert dir(face) == sorted(face.__all__)
    if face is clip_app:
        pytest.importorskip("gradio", reason="needs the app extra")
    for name in face.__all__:
        assert isinstance(getattr(face, name), str) or getattr(face, name).__module__.startswith(face.__name__)


@FACES
def test_an_unknown_name_is_an_attribute_error(face: ModuleType):
    with pytest.raises(AttributeError, match=f"module '{face.__name__}' has no attribute 'unheard'"):
        _ = face.unheard


@FACES
def test_type_checkers_see_the_same_names(face: ModuleType):
    tree = ast.parse(Path(str(face.__file__)).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module is not None]
    typed = {alias.asname: node.module for node in imports for alias in node.names if alias.asname is not None}
    assert typed == {name: f"{face.__name__}.{home}" for name, home in face._HOMES.items()}


def test_a_module_of_a_name_does_not_hide_it():
    code = "import clip_toolkit as face, clip_toolkit.replay; print(*(getattr(face, name) for name in face.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "<module" not in done.stdout


@pytest.mark.parametrize("code", ["import clip_toolkit", "from clip_toolkit.commands.infer_options import parse_args"])
def test_the_start_imports_no_library(code: str):
    told = f"{code}; import sys; print([name for name in ('numpy', 'PIL', 'onnxruntime') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
