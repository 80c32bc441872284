"""A tuned encoder and its head in one file: the tuned model is what is exported."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clip_export.encoders.image import Encoder
from clip_export.exporting import export_classifier
from clip_export.heads.files import load_head
from clip_export.heads.whole_checkpoint import with_tower
from clip_export.proof.reference import pixel_values
from clip_export.samples.pictures import picture
from clip_toolkit import load
from clip_toolkit.errors import HeadError

EncoderOf = Callable[..., Encoder]
LABELS = ("ant", "bee", "cow")


def tuned(encoder: Encoder) -> Encoder:
    """The encoder with all its weights moved."""
    generator = torch.Generator().manual_seed(2)
    tower, projection = copy.deepcopy((encoder.tower, encoder.projection))
    with torch.no_grad():
        for value in [*tower.parameters(), *(projection.parameters() if projection is not None else ())]:
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return replace(encoder, tower=tower, projection=projection)


def save_whole(encoder: Encoder, head: nn.Module, path: Path) -> None:
    """A notebook's model with the encoder as an attribute: all in one state_dict."""
    weights: dict[str, Tensor] = {
        f"vision_encoder.vision_model.{name}": value for name, value in encoder.tower.state_dict().items()
    }
    if encoder.projection is not None:
        weights["vision_encoder.visual_projection.weight"] = encoder.projection.weight
    weights |= {f"mlp_head.{name}": value for name, value in head.state_dict().items()}
    torch.save({"model_state_dict": weights, "classes": list(LABELS)}, path)


def save_apart(encoder: Encoder, head: nn.Module, path: Path) -> None:
    """The same model as two state_dicts in one file, under names of the notebook's own."""
    weights = {f"vision_model.{name}": value for name, value in encoder.tower.state_dict().items()}
    if encoder.projection is not None:
        weights["visual_projection.weight"] = encoder.projection.weight
    torch.save({"epoch": 3, "head": head.state_dict(), "backbone": weights, "classes": list(LABELS)}, path)


def logits_of(encoder: Encoder, head: nn.Module, images: list[bytes]) -> NDArray[np.float32]:
    with torch.inference_mode():
        logits: Tensor = head(encoder.features(torch.cat([pixel_values(encoder, image) for image in images])))
        return logits.numpy()


def drawn(number: int) -> bytes:
    buffer = io.BytesIO()
    picture(40, 60, number).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("feature", "save"), [("pooled", save_whole), ("projected", save_whole), ("projected", save_apart)]
)
def test_the_file_answers_as_the_tuned_model(
    feature: str, save: Callable[[Encoder, nn.Module, Path], None], encoder: EncoderOf, tmp_path: Path
):
    frozen = encoder("clip", feature)
    moved = tuned(frozen)
    torch.manual_seed(1)
    head = nn.Sequential(nn.Linear(frozen.dim, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    save(moved, head, tmp_path / "all.pt")
    spec = export_classifier(load_head(tmp_path / "all.pt"), frozen, tmp_path / "m.onnx").spec
    assert spec.labels == LABELS
    assert spec.encoder.revision != frozen.revision
    images = [drawn(number) for number in range(4)]
    classifier = load(tmp_path / "m.onnx", device="cpu")
    found = np.stack([classifier.predict(image).logits for image in images])
    assert np.abs(found - logits_of(moved, head, images)).max() < 1e-4
    assert np.abs(found - logits_of(frozen, head, images)).max() > 1e-2


def test_an_encoder_of_unknown_names_beside_the_head_is_refused(tmp_path: Path):
    encoder = {"visual.conv1.weight": torch.zeros(8, 3, 4, 4), "visual.proj": torch.zeros(8, 8)}
    torch.save({"clip": encoder, "head": nn.Linear(8, 2).state_dict()}, tmp_path / "all.pt")
    with pytest.raises(HeadError, match="holds an encoder under 'clip'"):
        load_head(tmp_path / "all.pt")


def test_a_tuned_tower_is_never_paired_with_the_old_projection(encoder: EncoderOf, tmp_path: Path):
    moved = replace(tuned(encoder("clip")), projection=None)
    save_whole(moved, nn.Linear(encoder("clip", "projected").dim, 3), tmp_path / "all.pt")
    weights = load_head(tmp_path / "all.pt").tower
    with pytest.raises(HeadError, match="holds a tuned encoder, but not the visual_projection"):
        with_tower(encoder("clip", "projected"), weights)
    assert with_tower(encoder("clip"), weights).projection is None


def test_weights_that_do_not_fit_name_the_encoder(encoder: EncoderOf):
    with pytest.raises(HeadError, match=r"does not fit .* Name the checkpoint that it was tuned from"):
        with_tower(encoder("clip"), {"post_layernorm.bias": torch.zeros(3)})
