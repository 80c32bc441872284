"""The model inside the package knows what it says it knows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clip_toolkit import load
from clip_toolkit.files.locate import find_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five fresh drawings of each shape."""
    folder = tmp_path_factory.mktemp("drawn") / "pictures"
    command = [sys.executable, str(ROOT / "models/draw.py"), str(folder), "--per-class", "5", "--seed", "77"]
    subprocess.run(command, check=True, capture_output=True)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_demo_recognises_fresh_drawings(pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CLIP_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    located = find_model()
    assert located.is_demo
    classifier = load(located.path)
    assert {path.parent.name for path in pictures} == set(classifier.spec.labels)
    right = sum(
        p.label == path.parent.name for p, path in zip(classifier.predict_many(pictures), pictures, strict=True)
    )
    assert right >= 0.9 * len(pictures)


def test_tiny_clip_is_a_transformers_checkpoint_that_ties_words_to_pictures(pictures: list[Path]):
    import torch
    from PIL import Image
    from transformers import CLIPModel, CLIPProcessor

    model = CLIPModel.from_pretrained(ROOT / "models/tiny-clip").eval()
    processor = CLIPProcessor.from_pretrained(ROOT / "models/tiny-clip")
    shapes = sorted({path.parent.name for path in pictures})
    images = [Image.open(path).convert("RGB") for path in pictures]
    inputs = processor(
        text=[f"a photo of a {shape}" for shape in shapes], images=images, return_tensors="pt", padding=True
    )
    with torch.inference_mode():
        best = model(**inputs).logits_per_image.argmax(1).tolist()
    right = sum(shapes[index] == path.parent.name for index, path in zip(best, pictures, strict=True))
    assert right >= 0.9 * len(pictures)


def test_checkpoint_and_demo_are_small_and_name_no_machine():
    checkpoint = ROOT / "models/tiny-clip"
    assert sum(path.stat().st_size for path in checkpoint.iterdir()) <= 10 * 2**20
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    assert not config.get("_name_or_path")
    assert b"/home/" not in find_model(ROOT / "models/demo.onnx").path.read_bytes()
