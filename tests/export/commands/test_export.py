"""The command lines as their users run them: real processes, real files, a hub on the loopback interface."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from clip_export.commands.export import _differences
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.references import EncoderReference
from clip_toolkit.files.signature import verify
from clip_toolkit.spec.licenses import License
from clip_toolkit.spec.model_file import read_spec
from commands_in_process import Done
from commands_in_process import run as run_here
from forked_process import run_forked
from hub_server import COMMIT, serve
from tiny_models import TINY_CLIP

Checkpoint = Callable[[str], Path]

MODULES = {
    "clip-train": "clip_export.commands.train",
    "clip-export": "clip_export.commands.export",
    "clip-infer": "clip_toolkit.commands.infer",
}


def main_of(command: str) -> Callable[[list[str]], int]:
    return importlib.import_module(MODULES[command]).main


def run(command: str, *arguments: object, cwd: Path) -> Done:
    """Run a command of ours in a process of its own; whatever goes wrong, its users must not see a traceback."""
    done = run_forked(main_of(command), [str(item) for item in arguments], cwd=cwd)
    assert "Traceback" not in done.stderr
    return done


def failed(command: str, *arguments: object, cwd: Path) -> str:
    """The one line of stderr of a command that fails as it should."""
    done = run_here(command, *arguments, cwd=cwd)
    assert done.returncode == 1, done.stdout + done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(f"{command}: ")
    return line


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve drawings each of discs and boxes, of several sizes."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    rng = np.random.default_rng(4)
    for name in ("box", "disc"):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            image = Image.new("RGB", (60 + 7 * number, 80), tuple(rng.integers(0, 90, 3).tolist()))
            draw = ImageDraw.Draw(image)
            shape = draw.ellipse if name == "disc" else draw.rectangle
            shape((10, 10, 55, 65), fill=tuple(rng.integers(160, 256, 3).tolist()))
            image.save(folder / name / f"{number}.jpg")
    return folder


@pytest.fixture(scope="module")
def workshop(photos: Path, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which training and export have been run with default names."""
    folder = tmp_path_factory.mktemp("workshop")
    trained = run("clip-train", photos, "--encoder", checkpoint("clip"), "--epochs", 5, cwd=folder)
    assert trained.returncode == 0, trained.stderr
    assert "validation accuracy" in trained.stdout
    exported = run("clip-export", "--head", "head.pt", cwd=folder)
    assert exported.returncode == 0, exported.stderr
    assert "graph resize" in exported.stdout
    return folder


@pytest.mark.transformers
def test_train_export_infer(workshop: Path, photos: Path):
    images = [photos / "box" / "1.jpg", photos / "disc" / "2.jpg"]
    done = run("clip-infer", *images, "--format", "jsonl", cwd=workshop)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["image"] for record in records] == [str(image) for image in images]
    assert {record["label"] for record in records} <= {"box", "disc"}
    assert sum(score["probability"] for score in records[0]["top"]) == pytest.approx(1)


def test_the_model_file_tells_how_it_was_trained(workshop: Path):
    spec = read_spec(workshop / "model.onnx")
    assert spec.labels == ("box", "disc")
    assert (spec.training["images"], spec.training["train"], spec.training["validation"]) == (24, 20, 4)
    assert re.fullmatch(r"[1-5] of 5", spec.training["epoch"])


def test_stdout_of_a_pipe_holds_no_progress_bar(workshop: Path, photos: Path, checkpoint: Checkpoint):
    done = run("clip-train", photos, "--encoder", checkpoint("clip"), "--epochs", 2, "--out", "two.pt", cwd=workshop)
    assert all(line.startswith(("clip-train: no baseline", "clip-train: hint: ")) for line in done.stderr.splitlines())
    assert [line.partition(":")[0] for line in done.stdout.splitlines()][1:4] == ["features", "train", "validation"]


def test_training_is_reproducible_and_safetensors_does_the_same(workshop: Path, photos: Path, checkpoint: Checkpoint):
    options = ("--encoder", checkpoint("clip"), "--epochs", 5, "--out", "again.safetensors")
    assert run_here("clip-train", photos, *options, cwd=workshop).returncode == 0
    export = ("clip-export", "--head", "again.safetensors", "-o", "again.onnx", "--triton", "repository")
    assert "again_images takes encoded images" in run_here(*export, cwd=workshop).stdout
    assert (workshop / "repository/again/1/model.onnx").read_bytes() == (workshop / "again.onnx").read_bytes()
    first, again = read_spec(workshop / "model.onnx"), read_spec(workshop / "again.onnx")
    assert first.golden == again.golden


def test_unreadable_training_images_are_named_counted_and_skipped(photos: Path, checkpoint: Checkpoint, tmp_path: Path):
    data = tmp_path / "data"
    for name in ("box", "disc"):
        (data / name).mkdir(parents=True)
        for number in range(4):
            (data / name / f"{number}.jpg").write_bytes((photos / name / f"{number}.jpg").read_bytes())
    (data / "box" / "1.jpg").write_bytes(b"broken")
    done = run_here("clip-train", data, "--encoder", checkpoint("clip"), "--epochs", 2, cwd=tmp_path)
    assert done.returncode == 0
    assert "box/1.jpg" in done.stderr
    assert "skipped 1 of 8 files" in done.stderr


IN_TURN = """
import json, os, sys
from clip_export.commands import export, train
mains = {"clip-train": train.main, "clip-export": export.main, "rm": lambda paths: os.unlink(*paths) or 0}
print(json.dumps([mains[command](arguments) for command, *arguments in json.loads(sys.argv[1])]))
"""


def run_in_turn(*commands: tuple[object, ...], cwd: Path, **environment: str) -> tuple[list[int], str]:
    """Exit codes and stderr of commands in one process of its own, which loads torch but once."""
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, json.dumps([[*map(str, command)] for command in commands])],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.transformers
def test_hub_by_id_and_revision_and_then_from_the_cache(photos: Path, tmp_path: Path):
    train = ("clip-train", photos, "--encoder", "someone/tiny", "--epochs", 2)
    export = ("clip-export", "--head", "head.pt")
    named = ("--encoder", "someone/tiny", "--revision", COMMIT, "-o", "named.onnx")
    with serve("someone/tiny", TINY_CLIP) as address:
        empty = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "empty"), "HF_HUB_DISABLE_XET": "1"}
        filled = empty | {"HF_HOME": str(tmp_path / "cache")}
        main, unknown = ((*train, "--revision", revision) for revision in ("main", "v9"))
        codes, said = run_in_turn(main, unknown, (*train[:3], "someone/other"), cwd=tmp_path, **filled)
        assert codes == [0, 1, 1], said
        unknown_revision, unknown_id = said.splitlines()[-2:]
        assert "v9" in unknown_revision
        assert "someone/other" in unknown_id
    [card] = (tmp_path / "cache").rglob("README.md")
    codes, said = run_in_turn(export, ("rm", card), (*export, *named), train, cwd=tmp_path, **filled)
    assert codes == [0, 0, 0, 0], said
    spec, again = (read_spec(tmp_path / name) for name in ("model.onnx", "named.onnx"))
    assert (spec.encoder.id, spec.encoder.revision) == ("someone/tiny", COMMIT)
    assert again.golden == spec.golden
    assert spec.encoder.licenses == again.encoder.licenses == (License("mit"),)  # at last as the head remembers it
    codes, said = run_in_turn(train, cwd=tmp_path, **empty)
    assert codes == [1]
    assert "local folder" in said


@pytest.mark.transformers
def test_notebook_head_with_encoder_and_labels(checkpoint: Checkpoint, photos: Path, tmp_path: Path):
    head = VLMtoMLP(48, 16, 2)
    torch.save({f"net.{name}": tensor for name, tensor in head.layers.state_dict().items()}, tmp_path / "notebook.pt")
    export = ("clip-export", "--head", "notebook.pt")
    assert "--encoder" in failed(*export, cwd=tmp_path)
    assert "--labels" in failed(*export, "--encoder", checkpoint("clip"), cwd=tmp_path)
    wrong = failed(*export, "--encoder", checkpoint("clip"), "--labels", "a", "b", "c", cwd=tmp_path)
    assert "2 outputs, but 3 labels" in wrong
    done = run_here(*export, "--encoder", checkpoint("clip"), "--labels", "cat", "dog", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert run_here("clip-infer", photos / "box" / "0.jpg", cwd=tmp_path).stdout.count("cat") == 1


def test_bad_data_encoder_and_output(photos: Path, checkpoint: Checkpoint, tmp_path: Path):
    encoder = ("--encoder", checkpoint("clip"))
    assert "no such folder" in failed("clip-train", tmp_path / "none", *encoder, cwd=tmp_path)
    assert "expected at least 2 class" in failed("clip-train", photos.parent, *encoder, cwd=tmp_path)
    assert "mkdir -p" in failed("clip-train", photos, *encoder, "--out", "no/head.pt", cwd=tmp_path)
    assert "ending in .pt" in failed("clip-train", photos, *encoder, "--out", "head.bin", cwd=tmp_path)
    assert "device tpu" in failed("clip-train", photos, *encoder, "--device", "tpu", cwd=tmp_path)
    assert "no such head file" in failed("clip-export", "--head", "none.pt", cwd=tmp_path)
    assert "no ordinary file" in failed("clip-export", "--head", "none.pt", "-o", "/dev/null", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_wrong_encoder_says_both_numbers(workshop: Path):
    export = ("clip-export", "--head", "head.pt", "--feature", "projected", "-o", "wrong.onnx")
    line = failed(*export, cwd=workshop)
    assert "48" in line
    assert "24" in line
    assert not (workshop / "wrong.onnx").exists()


def test_signed_by_a_key_or_not_written_at_all(tmp_path: Path):
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(secret)
    (tmp_path / "key.pub").write_bytes(public)
    signed = ("--encoder-only", "--encoder", TINY_CLIP, "-o", "signed.onnx", "--sign")
    assert "key.pub: is not a private key" in failed("clip-export", *signed, "key.pub", cwd=tmp_path)
    assert not (tmp_path / "signed.onnx").exists()
    assert run_here("clip-export", *signed, "key.pem", cwd=tmp_path).stdout.endswith("key.pem: signed.onnx.sig\n")
    verify(tmp_path / "signed.onnx", tmp_path / "key.pub")


def test_an_encoder_that_changed_after_the_training_is_refused(photos: Path, checkpoint: Checkpoint, tmp_path: Path):
    encoder = Path(shutil.copytree(checkpoint("clip"), tmp_path / "encoder"))
    assert run_here("clip-train", photos, "--encoder", encoder, "--epochs", 2, cwd=tmp_path).returncode == 0
    shutil.copytree(checkpoint("clip-gelu"), encoder, dirs_exist_ok=True)
    line = failed("clip-export", "--head", "head.pt", cwd=tmp_path)
    assert f"{encoder} is not what this head was trained on" in line
    assert "--encoder" in line
    assert not (tmp_path / "model.onnx").exists()
    named = run_here("clip-export", "--head", "head.pt", "--encoder", encoder, cwd=tmp_path)
    assert named.returncode == 0
    assert f"assumed: {encoder} of revision " in named.stdout
    moved = shutil.copytree(checkpoint("clip"), tmp_path / "moved")
    same = run_here("clip-export", "--head", "head.pt", "--encoder", moved, cwd=tmp_path)
    assert same.returncode == 0
    assert "assumed" not in same.stdout


def test_a_feature_that_the_head_was_not_trained_on_is_said():
    trained = EncoderReference("org/clip", "1" * 40, "pooled")
    assert list(_differences(trained, trained)) == []
    unknown = replace(trained, revision=None)
    assert list(_differences(unknown, trained)) == []
    (line,) = _differences(unknown, replace(trained, id="other/clip"))
    assert line.startswith("assumed: other/clip of revision 111111111111 does as org/clip of revision unknown,")
    (line,) = _differences(trained, replace(trained, feature="projected"))
    assert line == "assumed: the head takes the projected feature, though it was trained on the pooled one."


def export_in_small_files() -> int:
    import resource  # which Windows has not

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    return main_of("clip-export")(["--head", "head.pt"])


def test_a_full_disk_leaves_what_was_there(workshop: Path):
    """A limit on the size of files gives the same error a full disk does, without filling one."""
    before = (workshop / "model.onnx").read_bytes()
    done = run_forked(export_in_small_files, cwd=workshop)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot be written" in done.stderr
    assert (workshop / "model.onnx").read_bytes() == before
    assert not list(workshop.glob(".model*"))


@pytest.mark.parametrize("command", MODULES)
def test_help_and_version_import_neither_torch_nor_onnxruntime(command: str, tmp_path: Path):
    for option in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", MODULES[command], option],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert not imported & {"torch", "transformers", "onnxruntime", "onnx", "onnxscript"}
        assert command in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("clip-train",),
        ("clip-train", "photos"),
        ("clip-train", "photos", "--encoder", "x", "--lr", "-1"),
        ("clip-train", "photos", "--encoder", "x", "--lr", "nan"),
        ("clip-train", "photos", "--encoder", "x", "--dropout", "1"),
        ("clip-train", "photos", "--encoder", "x", "--val-fraction", "0"),
        ("clip-export",),
        ("clip-export", "--head", "h.pt", "--ops", "fast"),
    ],
)
def test_usage_errors_exit_with_2(arguments: tuple[str, ...], tmp_path: Path):
    with pytest.raises(SystemExit, match="2"):
        run_here(*arguments, cwd=tmp_path)


@pytest.mark.parametrize("command", ["clip-train", "clip-export"])
def test_without_the_extra_the_command_says_what_to_install(command: str, tmp_path: Path):
    arguments = {"clip-train": ["photos", "--encoder", "x"], "clip-export": ["--head", "head.pt"]}[command]
    code = (
        "import importlib.util as u, sys; real = u.find_spec; "
        "u.find_spec = lambda name, *a: None if name in ('torch', 'transformers') else real(name, *a); "
        f"from {MODULES[command]} import main; sys.exit(main({arguments!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        f"{command}: this command needs torch, transformers. Install: pip install 'clip-toolkit[export,cpu]'"
    )


def test_python_without_docstrings_is_named_before_anything_is_loaded(tmp_path: Path):
    command = [sys.executable, "-OO", "-m", MODULES["clip-train"], "photos", "--encoder", "x"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("clip-train: Python runs without docstrings (-OO, PYTHONOPTIMIZE=2)")
