"""Encoders at another input size: transformers' own interpolation, all the way to the runtime, and refusals."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clip_export.commands.train_options import parse_args
from clip_export.encoders.image import Encoder
from clip_export.features.cache import encoder_identity
from clip_export.graph.vit_weights import canonical_vit
from clip_export.heads.files import load_head
from clip_export.heads.tuned_encoder import referenced_encoder
from clip_toolkit.errors import EncoderError
from clip_toolkit.spec.model_file import read_spec
from commands_in_process import classified, train

pytestmark = pytest.mark.transformers

ADDED = [("clip", 24, 24), ("clip-crop", 24, 28), ("clip", 40, 40), ("siglip", 24, 24), ("blip", 24, 24)]
ADDED += [("metaclip2", 24, 24), ("chinese-clip", 24, 24), ("altclip", 24, 24)]
OF_ANY_SIZE = [("mlcd", 24, 24), ("dinov3", 24, 24)]


@pytest.mark.parametrize(("name", "size", "edge"), ADDED + OF_ANY_SIZE)
@torch.inference_mode()
def test_it_is_transformers_interpolation_in_tower_and_graph(
    checkpoint: Callable[[str], Path], name: str, size: int, edge: int
):
    folder = str(checkpoint(name))
    own, used = Encoder.from_pretrained(folder), Encoder.from_pretrained(folder, input_size=size)
    values = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    interpolated = {} if (name, size, edge) in OF_ANY_SIZE else {"interpolate_pos_encoding": True}
    expected = own.tower(pixel_values=values, **interpolated).pooler_output
    torch.testing.assert_close(used.features(values), expected)
    torch.testing.assert_close(canonical_vit(used, takes_pixel_values=True)(values), expected, atol=1e-4, rtol=1e-4)
    assert (used.preprocessing.size, used.preprocessing.resize) == (size, edge)
    made = used.processor(images=[Image.new("RGB", (60, 50))], return_tensors="pt")["pixel_values"]
    assert made.shape[2:] == (size, size)
    assert encoder_identity(used) != encoder_identity(own)


def test_the_own_size_changes_nothing(encoder: Callable[..., Encoder], checkpoint: Callable[[str], Path]):
    same = Encoder.from_pretrained(str(checkpoint("clip")), input_size=32)
    assert same.input_size is None
    assert encoder_identity(same) == encoder_identity(encoder("clip"))


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("clip", 30, r"30 pixels a side are not made of patches of 8\. Nearest are 24 or 32\."),
        ("clip", 3, r"Nearest are 8 or 16\."),
        ("clip", 8000, r"Nearest are 4096\."),
        ("siglip2-naflex", 24, r"encoders have one input size\. Leave out --input-size"),
    ],
)
def test_sizes_that_an_encoder_cannot_take(checkpoint: Callable[[str], Path], name: str, size: int, said: str):
    with pytest.raises(EncoderError, match=said):
        Encoder.from_pretrained(str(checkpoint(name)), input_size=size)


def test_from_training_to_runtime(tmp_path: Path):
    rng = np.random.default_rng(4)
    for number in range(24):
        path = tmp_path / "photos" / ("dark", "light")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.normal(160 if number % 2 else 100, 40, (70, 80, 3))
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(path)
    cut = ("--feature", "class+mean@2", "--input-size", 48)
    done = train(tmp_path / "photos", *cut, "--epochs", 3, "--lr", "1e-2", "--no-cache", cwd=tmp_path)
    assert "input of 48 pixels a side, for which the table of positions is interpolated" in done.stdout
    files = sorted((tmp_path / "photos").rglob("*.png"))[:6]
    assert len(classified(tmp_path, *files)) == 6  # the export has proved the file against torch
    spec, head = read_spec(tmp_path / "model.onnx"), load_head(tmp_path / "head.pt")
    assert (spec.preprocessing.size, head.encoder.input_size) == (48, 48)
    assert referenced_encoder(tmp_path / "head.pt", head.encoder).input_size == 48


def test_blocks_are_tuned_at_the_own_size(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        parse_args(["photos", "--encoder", "x", "--input-size", "160", "--unfreeze", "1"])
    assert stopped.value.code == 2
    assert "--input-size does not go with --unfreeze: blocks are tuned at" in capsys.readouterr().err
