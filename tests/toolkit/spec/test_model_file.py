"""What is refused before ONNX Runtime sees it."""

from pathlib import Path

import numpy as np
import pytest
from onnx_bytes import EXTERNAL, GRAPH, field, metadata, nested

from clip_toolkit import ClipToolkitError, ModelError, ModelNotFoundError, SpecError, load
from clip_toolkit.spec.model_file import read_spec


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_missing_file_and_folder(tmp_path: Path):
    with pytest.raises(ModelNotFoundError, match=r"none\.onnx.*clip-export"):
        load(tmp_path / "none.onnx")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        load(tmp_path)


def test_empty_file(tmp_path: Path):
    with pytest.raises(ModelError, match="is empty"):
        load(write(tmp_path / "m.onnx", b""))


@pytest.mark.parametrize("content", [b"\x00" * 64, b"PK\x03\x04" * 30, b"<html></html>", "ä".encode() * 50])
def test_other_files(tmp_path: Path, content: bytes):
    with pytest.raises(ModelError, match="expected an ONNX file"):
        load(write(tmp_path / "m.onnx", content))


def test_random_bytes_raise_nothing_else(tmp_path: Path):
    rng = np.random.default_rng(0)
    for _ in range(300):
        path = write(tmp_path / "m.onnx", rng.bytes(int(rng.integers(1, 400))))
        with pytest.raises(ModelError):
            read_spec(path)


def test_the_model_cut_anywhere_is_refused(demo: Path, tmp_path: Path):
    whole = demo.read_bytes()
    for share in np.linspace(0.001, 0.999, 40):
        with pytest.raises(ModelError):
            load(write(tmp_path / "m.onnx", whole[: int(len(whole) * share)]), device="cpu")


def test_a_foreign_model_says_whose_files_can_be_run(tmp_path: Path):
    with pytest.raises(SpecError, match=r"without 'clip_toolkit' metadata.*clip-export"):
        load(write(tmp_path / "m.onnx", field(GRAPH, field(2, b"somebody's")) + metadata("{}", "other")))


@pytest.mark.parametrize("content", EXTERNAL.values(), ids=EXTERNAL.keys())
def test_weights_in_other_files_are_refused_wherever_they_hide(demo: Path, tmp_path: Path, content: bytes):
    with pytest.raises(ModelError, match=r"refused for safety|field number"):
        load(write(tmp_path / "m.onnx", demo.read_bytes() + content))


LOOP = field(GRAPH, field(1, field(4, b"Loop") + field(5, field(1, b"body") + field(6, field(2, b"endless")))))
FUNCTION = field(25, field(1, b"twice"))


@pytest.mark.parametrize("content", [LOOP, FUNCTION], ids=["loop", "function"])
def test_what_a_small_file_could_run_for_ever_with_is_refused(demo: Path, tmp_path: Path, content: bytes):
    with pytest.raises(ModelError, match="refused for safety"):
        load(write(tmp_path / "m.onnx", demo.read_bytes() + content))


@pytest.mark.parametrize("depth", [3, 200, 5000])
def test_deep_nesting_ends_in_an_error_and_not_in_the_stack(tmp_path: Path, depth: int):
    with pytest.raises(ClipToolkitError):
        read_spec(write(tmp_path / "m.onnx", nested(depth)))


def test_a_graph_that_onnxruntime_refuses(demo: Path, tmp_path: Path):
    spec = read_spec(demo).to_json()
    with pytest.raises(ModelError, match="ONNX Runtime cannot open it"):
        load(write(tmp_path / "m.onnx", field(1, 10) + field(GRAPH, field(2, b"empty")) + metadata(spec)), device="cpu")


def test_metadata_that_is_no_text(demo: Path, tmp_path: Path):
    with pytest.raises(ModelError, match="expected an ONNX file"):
        read_spec(write(tmp_path / "m.onnx", demo.read_bytes() + field(14, field(1, b"\xff\xfe"))))


def test_a_path_that_no_file_can_have():
    with pytest.raises(ModelError):
        read_spec("a\0b.onnx")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("head.pt", b"PK\x03\x04 a zip archive"),
        ("head.pth", b"\x80\x02\x8a\x0a a pickle"),
        ("head.safetensors", (2).to_bytes(8, "little") + b"{}"),
    ],
)
def test_a_head_file_is_said_to_be_one(name: str, content: bytes, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=r"Export it first: clip-export --head .*head\."):
        read_spec(tmp_path / name)
