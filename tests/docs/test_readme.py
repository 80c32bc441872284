"""Every command and every line of Python in the README, run as it stands."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

import clip_export
from clip_export.heads.mlp import VLMtoMLP
from hub_server import serve

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENCODER = "openai/clip-vit-base-patch32"
TINY_CLIP = ROOT / "models" / "tiny-clip"
TOOLS = {"clip-train", "clip-export", "clip-infer", "clip-eval", "clip-search", "clip-scale"}


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README speaks of: photos, two images, a head from a notebook."""
    folder = tmp_path_factory.mktemp("desk")
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
    return folder


def test_every_command_and_program_of_the_readme_works(desk: Path):
    commands = [line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines() if line.strip()]
    assert len(commands) >= 12
    tools = str(Path(sys.executable).parent)
    with serve(ENCODER, TINY_CLIP) as address:  # the hub's id, answered by the small model
        environment = os.environ | {
            "HF_ENDPOINT": address,
            "HF_HOME": str(desk / "cache"),
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        }
        for command in commands:
            assert command.split()[0] in TOOLS
            done = subprocess.run(
                shlex.split(command), cwd=desk, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    [tuned] = desk.glob("tuned.pt.encoder-*")
    assert (tuned / "tokenizer.json").is_file()  # not needed for training, but for a whole checkpoint
    for program in blocks("python"):
        done = subprocess.run([sys.executable, "-c", program], cwd=desk, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "(128,)" in done.stdout


def test_every_link_of_the_documentation_leads_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_make_targets_the_readme_names_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^    make (\w+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile


def test_the_api_reference_has_every_public_name_of_clip_export():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: clip_export\.(\w+)$", page, re.MULTILINE)) == sorted(clip_export.__all__)
