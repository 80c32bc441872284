"""Every command and program of the README, docs/training.md and docs/language.md, run as it stands."""

import contextlib
import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from clip_export.heads.mlp import VLMtoMLP
from clip_toolkit.spec.model_file import read_spec
from commands_in_process import run

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """The fenced blocks of a page that are commands or programs: language and text."""
    text = (ROOT / page).read_text(encoding="utf-8")
    yield from re.findall(r"^```(sh|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_page(page: str, folder: Path) -> str:
    """Run a page in a folder, inside this process, which has torch loaded; return what its commands print."""
    (folder / "models").symlink_to(ROOT / "models")
    shown = ""
    for language, block in blocks(page):
        lines = [block] if language == "python" else [line.partition(" # ")[0] for line in block.splitlines()]
        for line in filter(str.strip, lines):
            shown += run_program(line, folder) if language == "python" else run_line(line, folder)
    return shown


def run_program(program: str, folder: Path) -> str:
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        exec(compile(program, "page", "exec"), {"__name__": "__main__"})  # noqa: S102  # our own pages
    return printed.getvalue()


def run_line(line: str, folder: Path) -> str:
    command, *arguments = shlex.split(line)
    if command == "python":
        script = [sys.executable, *arguments]
        return subprocess.run(script, cwd=folder, capture_output=True, text=True, check=True).stdout
    done = run(command, *arguments, cwd=folder)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def draw_desk(folder: Path) -> None:
    """What the README speaks of: photos, two images, a head from a notebook; the encoder is a small one by its name."""
    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(48):
            image = Image.new("RGB", (90 + number, 70), "navy")
            draw = ImageDraw.Draw(image)
            (draw.ellipse if name == "cat" else draw.rectangle)((20, 15, 60 + number, 55), fill="gold")
            image.save(folder / "photos" / name / f"{number}.jpg")
    shutil.copy(folder / "photos/cat/0.jpg", folder / "image.jpg")
    Image.open(folder / "photos/dog/1.jpg").save(folder / "other.png")
    torch.save(VLMtoMLP(128, 256, 2).layers.state_dict(), folder / "notebook.pt")
    (folder / "openai").mkdir()
    (folder / "openai/clip-vit-base-patch32").symlink_to(ROOT / "models/tiny-clip")


def test_the_readme_works(tmp_path: Path):
    draw_desk(tmp_path)
    shown = run_page("README.md", tmp_path)
    assert sum(language == "sh" for language, _ in blocks("README.md")) >= 8
    assert "(128,)" in shown
    [tuned] = tmp_path.glob("tuned.pt.encoder-*")
    assert (tuned / "tokenizer.json").is_file()  # not needed for training, but for a whole checkpoint


def test_the_walk_through_works(tmp_path: Path):
    pytest.importorskip("sklearn", reason="needs the report extra")
    shown = run_page("docs/training.md", tmp_path)
    assert {path.name for path in (tmp_path / "report").iterdir()} >= {"report.html", "roc-pr.png", "predictions.csv"}
    assert re.search(r"test: 7\d images: normal 3\d, pneumonia 3\d", shown)
    assert re.search(r"thresholds +pneumonia from 0\.", shown)


def test_words_and_few_pictures(tmp_path: Path):
    pytest.importorskip("sklearn", reason="needs the report extra")
    draw = [sys.executable, str(ROOT / "models/draw.py"), str(tmp_path / "photos"), "--per-class", "6"]
    subprocess.run([*draw, "--classes", "circle", "heart"], check=True, capture_output=True)
    shown = run_page("docs/language.md", tmp_path)
    assert re.search(r"validation loss by start: .*zero-shot, pull \d+ \d", shown)  # in whatever order
    assert "torch.Size([2, 64])" in shown
    assert "True tiny-clip" in shown
    assert read_spec(tmp_path / "zero.onnx").training["templates"][1] == "a photo of a {}"
    assert read_spec(tmp_path / "few.onnx").labels == ("circle", "heart")
    assert re.search(r"image alone \d\d\.\d%, text alone \d\d\.\d%, both 9\d\.\d%", shown)
    assert read_spec(tmp_path / "fused.onnx").text is not None
    assert read_spec(tmp_path / "two.onnx").encoder.feature == "projected"
