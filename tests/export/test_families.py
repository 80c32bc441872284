"""Every family in every form of the file, from image bytes to the runtime: `make test-matrix`."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import transformers
from PIL import Image

from clip_export.commands.export import main as export
from clip_export.commands.train import main as train
from clip_export.encoders.families import FAMILIES
from clip_export.encoders.image import Encoder
from clip_export.samples.pictures import picture
from clip_search.commands.search import main as search
from clip_toolkit.commands.infer import main as infer
from clip_toolkit.spec.model_file import read_spec
from tiny_models import TOWERS

CheckpointOf = Callable[[str], Path]

OPTIONAL = {
    "timm": ("mobileclip", "eva02", "pe-core") if find_spec("open_clip") else (),
    "tipsv2": ("tipsv2",) if hasattr(transformers, "Tipsv2Model") else (),
}
"""Checkpoints of families that not every environment can load."""

NAMES = ("clip", "siglip", "siglip2", "siglip2-naflex", "blip-retrieval", "metaclip2", "chinese-clip", "altclip")
NAMES += ("clipa", "dinov2-registers", "dinov3", "mlcd", *sum(OPTIONAL.values(), ()))
"""One checkpoint of each family, and more of SigLIP 2."""

ALONE = tuple(kind for kind in TOWERS if hasattr(transformers, kind))
ROWS = (*NAMES, "open-clip", "open-clip-siglip", "dinov2", "dinov3-gated", *ALONE)
WITHOUT_TEXT = ("blip", "dinov2", "dinov3", "mlcd")

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 210)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of each colour, which tints them."""
    folder = tmp_path_factory.mktemp("photos")
    for number, (name, colour) in enumerate(COLOURS.items()):
        (folder / name).mkdir()
        for index in range(40):
            drawn = picture(40, 40 + index % 9, 100 * number + index)
            Image.blend(drawn, Image.new("RGB", drawn.size, colour), 0.5).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def head_file(
    checkpoint: CheckpointOf, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """A head trained on them behind a tiny encoder."""
    folder, made = tmp_path_factory.mktemp("heads"), {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = folder / f"{name}.pt"
            arguments = [photos, "--encoder", checkpoint(name), "-o", made[name], "--lr", "0.01", "--epochs", "60"]
            assert train([*map(str, arguments)]) == 0
        return made[name]

    return make


def test_no_family_is_left_out(encoder: Callable[..., Encoder]):
    loadable = {family.name for family in FAMILIES if OPTIONAL.get(family.name, True)}
    assert {encoder(name).family.name for name in NAMES} == loadable
    without = {family.name for family in FAMILIES if family.text is None}
    assert without | {"blip"} == {*WITHOUT_TEXT}  # of BLIP the retrieval checkpoints have text
    classes = {name for family in FAMILIES for name in family.architectures if "VisionModel" in name}
    assert {*TOWERS} == classes - {"MLCDVisionModel"}  # which is a row of its own


@pytest.mark.matrix
@pytest.mark.parametrize("ops", ["ort", "standard"])
@pytest.mark.parametrize("mode", ["float32", "int8"])
@pytest.mark.parametrize("name", ROWS)
def test_decides_as_pytorch(
    name: str,
    mode: str,
    ops: str,
    head_file: Callable[[str], Path],
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    model = str(tmp_path / "model.onnx")
    quantized = ["--quantize", mode] if mode == "int8" else []
    assert export(["--head", str(head_file(name)), "-o", model, "--ops", ops, *quantized]) == 0
    spec = read_spec(Path(model))
    assert spec.ops == ops
    assert spec.parity.pillow.logits <= 1e-4 * spec.parity.logit_scale
    assert (spec.quantization is None) == (mode == "float32")
    assert infer(["--selftest", model]) == 0
    assert infer(["--describe", model]) == 0
    assert spec.encoder.family in capsys.readouterr().out
    assert infer([*(str(photos / colour / "0.png") for colour in COLOURS), "--model", model, "--format", "json"]) == 0
    assert [record["label"] for record in json.loads(capsys.readouterr().out)] == [*COLOURS]


@pytest.mark.matrix
@pytest.mark.parametrize("name", ROWS)
def test_words_find_images(
    name: str,
    checkpoint: CheckpointOf,
    encoder: Callable[..., Encoder],
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    if name in ALONE or encoder(name).family.text is None:
        assert export(["--text-tower", "--encoder", str(checkpoint(name)), "-o", str(tmp_path / "text.onnx")]) == 1
        assert "no text tower" in capsys.readouterr().err
        return
    image, text, place = (str(tmp_path / item) for item in ("image.onnx", "text.onnx", "index"))
    words = ["--labels", "red", "blue", "a dot"]
    assert export(["--zero-shot", "--encoder", str(checkpoint(name)), *words, "-o", image]) == 0
    assert export(["--text-tower", "--encoder", str(checkpoint(name)), "-o", text]) == 0
    for model in (image, text):
        assert infer(["--selftest", model]) == 0
    assert search(["index", str(photos / "red"), "--index", place, "--model", image]) == 0
    capsys.readouterr()
    assert search(["query", "--text", "red", "--index", place, "--text-model", text, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)
