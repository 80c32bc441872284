"""Prepared weights: the same answers, sooner, and only where they fit."""

import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from clip_toolkit import Classifier, load
from clip_toolkit.commands.infer import main
from clip_toolkit.doctor.examination import _prepared
from clip_toolkit.files import stamp
from clip_toolkit.files.locate import cache_folder
from clip_toolkit.runtime import prepared, session
from clip_toolkit.runtime.prepared import find_prepared, prepare

VERSION, MACHINE = onnxruntime.__version__.encode(), platform.machine().encode()

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "clip-toolkit" / "prepared"


@pytest.fixture
def model(demo: Path, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(demo.read_bytes())
    return path


def answers_as_before(opened: Classifier, classifier: Classifier, pixels: NDArray[np.uint8]) -> bool:
    one, other = opened.run(pixels[None]), classifier.run(pixels[None])
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_prepared_weights_give_the_same_answers_and_are_told(
    model: Path, classifier: Classifier, pixels: NDArray[np.uint8], capsys: Captured
):
    assert load(model, device="cpu").notes == ()
    assert [*_prepared(model)] == []
    assert main(["--prepare", str(model)]) == 0
    said = capsys.readouterr()
    assert "selftest passed" in said.out
    assert "prepared in " in said.err
    for prepack in (True, False):
        opened = load(model, device="cpu", prepack=prepack)
        assert opened.notes == ("prepared weights",)
        assert answers_as_before(opened, classifier, pixels)
    assert [finding.status for finding in _prepared(model)] == ["fine"]


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("model.onnx", lambda content: content + b"\x7a\x00", "the model file has been changed"),
        ("weights.bin", lambda content: content[:4999] + bytes([content[4999] ^ 1]) + content[5000:], "are damaged"),
        ("weights.bin", lambda _: b"", "are damaged"),
        ("graph.onnx", lambda content: content[:-1], "are damaged"),
        ("receipt.json", lambda content: content.replace(VERSION, b"1.0.0"), "another ONNX Runtime (1.0.0, "),
        ("receipt.json", lambda content: content.replace(b"git-branch", b"own"), "another ONNX Runtime"),
        ("receipt.json", lambda _: b"[" * 100_000, "receipt is damaged"),
        ("receipt.json", lambda content: content.replace(MACHINE, b"VAX"), "another processor"),
        ("receipt.json", lambda _: b"{", "receipt is damaged"),
        ("receipt.json", lambda _: b'["1.0.0", [], [1]]', "receipt is damaged"),
        ("receipt.json", lambda _: b"1", "receipt is damaged"),
    ],
)
def test_what_does_not_fit_is_told_and_made_anew(
    model: Path,
    classifier: Classifier,
    pixels: NDArray[np.uint8],
    name: str,
    change: Callable[[bytes], bytes],
    reason: str,
):
    folder = prepare(model)
    path = model if name == model.name else folder / name
    path.write_bytes(change(path.read_bytes()))
    opened = load(model, device="cpu")
    (note,) = opened.notes
    assert note.startswith("prepared weights are not used: ")
    assert reason in note
    assert answers_as_before(opened, classifier, pixels)
    assert [finding.status for finding in _prepared(model)] == ["note"]
    prepare(model)
    assert load(model, device="cpu").notes == ("prepared weights",)


def test_copied_files_are_read_again_once_and_fit(model: Path, monkeypatch: pytest.MonkeyPatch):
    folder = prepare(model)
    for path in (model, folder / "graph.onnx", folder / "weights.bin"):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    assert find_prepared(model).graph == folder / "graph.onnx"
    monkeypatch.setattr(stamp, "read_digest", pytest.fail)  # once
    assert find_prepared(model).graph == folder / "graph.onnx"


def test_what_is_made_anew_while_it_is_opened_is_not_mixed(
    model: Path, classifier: Classifier, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
):
    prepare(model)
    inner = session._inner

    def slow(name: str, *arguments: object, **options: bool) -> onnxruntime.InferenceSession:
        opened = inner(name, *arguments, **options)
        if name != str(model):
            prepare(model)
        return opened

    monkeypatch.setattr(session, "_inner", slow)
    opened = load(model, device="cpu")
    assert "another process has made them anew meanwhile" in opened.notes[0]
    assert answers_as_before(opened, classifier, pixels)


def test_a_selftest_of_the_model_file_proves_nothing_of_the_prepared_one(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
):
    monkeypatch.setattr(session, "find_prepared", lambda _: prepared.Prepared())
    assert main(["--prepare", str(model)]) == 1
    assert "was tried without prepared weights" in capsys.readouterr().err
    assert [*cache.iterdir()] == []


def test_a_model_that_fails_its_selftest_is_not_prepared(edited: Callable[..., Path], cache: Path):
    broken = edited(lambda data: data["golden"][0]["logits"].reverse())
    assert main(["--prepare", str(broken)]) == 1
    assert [*cache.iterdir()] == []


def test_several_processes_may_prepare_at_once(model: Path, cache: Path):
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(prepare, [model] * 4))) == 1
    assert load(model, device="cpu").notes == ("prepared weights",)
    assert len([*cache.iterdir()]) == 1


def test_what_vanishes_while_it_is_opened_is_not_missed(model: Path, monkeypatch: pytest.MonkeyPatch):
    (prepare(model) / "weights.bin").unlink()
    monkeypatch.setattr(prepared, "_fitting_receipt", lambda *_: "")
    (note,) = load(model, device="cpu").notes
    assert note.startswith("prepared weights are not used: ")


def test_a_limit_of_memory_counts_weights_that_are_laid_out(model: Path, monkeypatch: pytest.MonkeyPatch):
    prepare(model)
    opened = session.Opening(model, "cpu")
    monkeypatch.setattr(session, "memory_in_force", lambda: None)
    assert session._open(model, opened, "ort").notes == ("prepared weights",)
    monkeypatch.setattr(session, "find_prepared", pytest.fail)
    monkeypatch.setattr(session, "_inner", lambda *_, **__: onnxruntime.InferenceSession(model))
    monkeypatch.setattr(session, "memory_in_force", lambda: 100)
    assert session._open(model, opened, "ort").notes == ()


def test_a_model_that_changes_meanwhile_is_refused(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    write = prepared._write

    def slow(path: Path, folder: Path) -> None:
        write(path, folder)
        path.write_bytes(path.read_bytes())

    monkeypatch.setattr(prepared, "_write", slow)
    assert main(["--prepare", str(model)]) == 1
    assert "was changed while it was prepared" in capsys.readouterr().err
    assert [*cache.iterdir()] == []


def test_a_relative_cache_folder_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, "cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "clip-toolkit"


def test_a_cache_folder_that_cannot_be_written(model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured):
    monkeypatch.setenv("XDG_CACHE_HOME", str(model))
    assert load(model, device="cpu").notes == ()
    assert main(["--prepare", str(model)]) == 1
    assert "what is prepared of it cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--device", "cuda"], ["--device", "fastest"], ["--max-memory", "100"], ["a.jpg"]])
def test_what_does_not_go_with_it(options: list[str], capsys: Captured):
    with pytest.raises(SystemExit) as stopped:
        main([*options, "--prepare"])
    assert stopped.value.code == 2
    assert "--prepare" in capsys.readouterr().err
