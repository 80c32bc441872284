"""Each usual reason provoked in a notebook, and named with what to do about it; two at once as well."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from notebooks import HIDDEN, LABELS, Notebook, features_of, make_notebook
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional

from clip_export.encoders.image import Encoder
from clip_export.expect.answers import Answers, sigmoid
from clip_export.expect.diagnosis import diagnose
from clip_export.expect.fitting import Setting, fits
from clip_export.expect.variants import Subject
from clip_export.heads.alternatives import alternatives
from clip_export.heads.files import load_head
from clip_export.proof.reference import pixel_values
from clip_toolkit.spec.tasks import SINGLE_LABEL

EncoderOf = Callable[..., Encoder]
SETTING = Setting(SINGLE_LABEL, LABELS, 1.0, 1e-3)


@pytest.fixture(scope="module")
def notebook(encoder: EncoderOf, tmp_path_factory: pytest.TempPathFactory) -> Notebook:
    return make_notebook(encoder("clip-crop"), tmp_path_factory.mktemp("notebook"))


@pytest.fixture(scope="module")
def squashing(encoder: EncoderOf, tmp_path_factory: pytest.TempPathFactory) -> Notebook:
    """A notebook whose encoder's own rule is a square, with 0.5 and 0.5."""
    return make_notebook(encoder("siglip"), tmp_path_factory.mktemp("squashing"))


def diagnosed(notebook: Notebook, **answers: object) -> str:
    given = {name: _float64(values) if isinstance(values, Tensor) else values for name, values in answers.items()}
    paths = [str(path) for path in notebook.paths]
    subject = Subject(notebook.encoder, alternatives(load_head(notebook.file)), paths)
    return diagnose(Answers(tuple(paths), **given), subject, SETTING)  # type: ignore[arg-type]


def _float64(values: Tensor) -> np.ndarray:
    return values.double().numpy()


def unit(features: Tensor) -> Tensor:
    return functional.normalize(features, dim=-1)


def opened(notebook: Notebook) -> list[Image.Image]:
    return [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in notebook.paths]


def processed(notebook: Notebook, images: list[Image.Image]) -> Tensor:
    """Features by the checkpoint's processor, of images that were opened in another way."""
    found = [notebook.encoder.processor(images=[image], return_tensors="pt")["pixel_values"] for image in images]
    return features_of(notebook.encoder, found)


def resized(notebook: Notebook, resize: Callable[[Tensor, tuple[int, int]], Tensor], *, square: bool = False) -> Tensor:
    """Features of tensors that were resized by hand, cropped and normalised, as notebooks with torchvision do."""
    rule, found = notebook.encoder.preprocessing, []
    for image in opened(notebook):
        height, width = (rule.size, rule.size) if square else _edges(image, rule.resize)
        values = resize(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float(), (height, width))
        top, left = round((height - rule.size) / 2.0), round((width - rule.size) / 2.0)
        cropped = values.round().clamp(0, 255)[..., top : top + rule.size, left : left + rule.size] / 255
        found.append((cropped - torch.tensor(rule.mean).view(3, 1, 1)) / torch.tensor(rule.std).view(3, 1, 1))
    return features_of(notebook.encoder, found)


def _edges(image: Image.Image, size: int) -> tuple[int, int]:
    short = min(image.size)
    return int(size * image.height / short), int(size * image.width / short)


def bicubic(values: Tensor, size: tuple[int, int], *, antialias: bool = True) -> Tensor:
    return functional.interpolate(values, size, mode="bicubic", antialias=antialias, align_corners=False)


def test_normalised_feature(notebook: Notebook):
    text = diagnosed(notebook, logits=notebook.logits(unit(notebook.features)))
    assert "divided the feature by its L2 norm" in text
    assert "To do: export with --feature-norm l2." in text


@pytest.mark.parametrize("name", ["gelu", "silu", "tanh", "leaky_relu", "elu", "sigmoid"])
def test_activation(notebook: Notebook, name: str):
    activation = torch.tanh if name == "tanh" else getattr(functional, name)
    text = diagnosed(notebook, logits=notebook.logits(notebook.features, activation))
    assert f"To do: export with --activation {name}." in text


def test_label_order(notebook: Notebook):
    text = diagnosed(notebook, logits=notebook.answers[:, [2, 0, 1]])
    assert "To do: export with --labels bee cow ant." in text


def test_label_order_from_labels_alone(notebook: Notebook):
    order = ("bee", "cow", "ant")
    said = tuple(order[i] for i in notebook.answers.argmax(1))
    assert "export with --labels bee cow ant" in diagnosed(notebook, decisions=said)


def test_sigmoid(notebook: Notebook):
    text = diagnosed(notebook, probabilities=notebook.answers.sigmoid())
    assert "made probabilities with a sigmoid. To do: export with --task multi-label." in text


@pytest.mark.parametrize("factor", [0.5, 2.5])
def test_temperature(notebook: Notebook, factor: float):
    for answers in (
        {"logits": notebook.answers / factor},
        {"probabilities": (notebook.answers / factor).softmax(1)},
    ):
        assert f"To do: export with --temperature {factor:g}" in diagnosed(notebook, **answers)


def test_pooled_against_projected(encoder: EncoderOf, tmp_path: Path):
    """Of a checkpoint whose features have one width, so that the shapes do not tell."""
    projected = encoder("clip-square", "projected")
    assert projected.dim == encoder("clip-square").dim
    found = make_notebook(encoder("clip-square"), tmp_path)
    pixels = [pixel_values(projected, path.read_bytes()) for path in found.paths]
    text = diagnosed(found, logits=found.logits(features_of(projected, pixels)))
    assert "read the projected feature" in text
    assert "To do: export with --feature projected." in text


@pytest.mark.parametrize(("name", "taken"), [("class", lambda h: h[:, 0]), ("mean", lambda h: h.mean(1))])
def test_other_hidden_states(notebook: Notebook, name: str, taken: Callable[[Tensor], Tensor]):
    pixels = torch.cat([pixel_values(notebook.encoder, path.read_bytes()) for path in notebook.paths])
    with torch.inference_mode():
        states = notebook.encoder.tower(pixel_values=pixels).last_hidden_state
    text = diagnosed(notebook, logits=notebook.logits(taken(states)))
    assert f"the {'class token' if name == 'class' else 'mean'} of last_hidden_state" in text


def test_orientation_not_applied(notebook: Notebook):
    features = processed(notebook, [Image.open(path).convert("RGB") for path in notebook.paths])
    assert "did not apply the EXIF orientation" in diagnosed(notebook, logits=notebook.logits(features))


def test_bgr(notebook: Notebook):
    features = processed(notebook, [Image.fromarray(np.array(image)[..., ::-1].copy()) for image in opened(notebook)])
    assert "read images in BGR order" in diagnosed(notebook, logits=notebook.logits(features))


def test_torchvisions_resize(notebook: Notebook):
    text = diagnosed(notebook, logits=notebook.logits(resized(notebook, bicubic)))
    assert "resized tensors as torchvision does" in text
    assert "use_fast=False" in text


def test_antialias_off(notebook: Notebook):
    features = resized(notebook, lambda values, size: bicubic(values, size, antialias=False))
    assert "resized without antialiasing" in diagnosed(notebook, logits=notebook.logits(features))


def by_pillow(resample: Image.Resampling) -> Callable[[Tensor, tuple[int, int]], Tensor]:
    def resize(values: Tensor, size: tuple[int, int]) -> Tensor:
        image = Image.fromarray(values[0].permute(1, 2, 0).byte().numpy()).resize(size[::-1], resample)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()

    return resize


def by_opencv(values: Tensor, size: tuple[int, int]) -> Tensor:
    image = cv2.resize(values[0].permute(1, 2, 0).byte().numpy(), size[::-1])
    return torch.from_numpy(image).permute(2, 0, 1)[None].float()


def test_squashed(notebook: Notebook):
    features = resized(notebook, by_pillow(Image.Resampling.BICUBIC), square=True)
    assert "squashed images to a square" in diagnosed(notebook, logits=notebook.logits(features))


def test_squashed_bilinearly(notebook: Notebook):
    features = resized(notebook, by_pillow(Image.Resampling.BILINEAR), square=True)
    assert "squashed images to a square bilinearly" in diagnosed(notebook, logits=notebook.logits(features))


def test_bilinear(notebook: Notebook):
    features = resized(notebook, by_pillow(Image.Resampling.BILINEAR))
    text = diagnosed(notebook, logits=notebook.logits(features))
    assert "the notebook resized bilinearly, torchvision's default" in text


def test_torchvisions_crop(notebook: Notebook):
    """Half of an odd difference is rounded to even there, where the checkpoint's processor truncates."""
    features = resized(notebook, by_pillow(Image.Resampling.BICUBIC))
    text = diagnosed(notebook, logits=notebook.logits(features))
    assert "the notebook cropped by torchvision's rule" in text


def test_cropped_in_place_of_a_square(squashing: Notebook):
    features = resized(squashing, by_pillow(Image.Resampling[squashing.encoder.preprocessing.resample.upper()]))
    text = diagnosed(squashing, logits=squashing.logits(features))
    assert "the notebook resized the shorter edge and cropped the centre" in text


def test_opencvs_resize(notebook: Notebook):
    few = replace(notebook, paths=notebook.paths[:8])  # OpenCV's rounding leaves a rest: every reason is tried
    text = diagnosed(few, logits=few.logits(resized(few, by_opencv, square=True)))
    assert "Closest: the notebook resized as OpenCV does, to a square and without antialiasing" in text


def normalised(notebook: Notebook, mean: list[float], std: list[float]) -> str:
    processor = copy.deepcopy(notebook.encoder.processor)
    processor.image_mean, processor.image_std = mean, std
    found = [processor(images=[image], return_tensors="pt")["pixel_values"] for image in opened(notebook)]
    return diagnosed(notebook, logits=notebook.logits(features_of(notebook.encoder, found)))


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "normalised pixels with ImageNet's"),
        ([0.5] * 3, [0.5] * 3, "normalised pixels with 0.5 and 0.5"),
        ([0.0] * 3, [1.0] * 3, "did not normalise pixels"),
    ],
)
def test_normalisation(notebook: Notebook, mean: list[float], std: list[float], said: str):
    assert f"the notebook {said}" in normalised(notebook, mean, std)


def test_clips_normalisation(squashing: Notebook):
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    assert "the notebook normalised pixels with CLIP's mean" in normalised(squashing, mean, std)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm])
@pytest.mark.parametrize(
    ("position", "names"),
    [
        ("after", ("first", "norm", "last")),  # attributes, whose names say nothing: before is assumed
        ("before", ("0", "2", "5")),  # a Dropout between the two layers: after is assumed
    ],
)
def test_norm_position(
    notebook: Notebook, tmp_path: Path, norm: type[nn.BatchNorm1d | nn.LayerNorm], position: str, names: tuple[str, ...]
):
    between = norm(HIDDEN).eval()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        for value in between.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape) + 0.5)
    layers = dict(zip(names, (notebook.head[0], between, notebook.head[3]), strict=True))
    state = {f"{name}.{own}": value for name, layer in layers.items() for own, value in layer.state_dict().items()}
    torch.save(state, tmp_path / "head.pt")

    def activation(values: Tensor) -> Tensor:
        return between(values).relu() if position == "before" else between(values.relu())

    text = diagnosed(
        replace(notebook, file=tmp_path / "head.pt"), logits=notebook.logits(notebook.features, activation)
    )
    assert f"had the head's normalisation {position} its activation" in text
    assert f"To do: export with --norm-position {position}." in text


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision(notebook: Notebook, precision: torch.dtype):
    tower, head = (copy.deepcopy(part).to(precision) for part in (notebook.encoder.tower, notebook.head))
    pixels = torch.cat([pixel_values(notebook.encoder, path.read_bytes()) for path in notebook.paths])
    with torch.inference_mode():
        logits = head(tower(pixel_values=pixels.to(precision)).pooler_output).float()
    text = diagnosed(notebook, logits=logits)
    assert f"computed in {str(precision).removeprefix('torch.')}" in text
    assert "--expect-tolerance" in text


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_weights_that_were_rounded_when_they_were_saved(notebook: Notebook, tmp_path: Path, precision: torch.dtype):
    state = {name: value.to(precision) for name, value in notebook.head.state_dict().items()}
    torch.save(state, tmp_path / "head.pt")
    rounded = replace(notebook, file=tmp_path / "head.pt")
    name = str(precision).removeprefix("torch.")
    assert f"had weights with more digits than the {name}" in diagnosed(rounded, logits=notebook.answers)
    assert "saved in" not in diagnosed(rounded, logits=notebook.logits(unit(notebook.features)))


def test_two_at_once_in_the_head(notebook: Notebook):
    text = diagnosed(notebook, logits=notebook.logits(unit(notebook.features), functional.gelu))
    assert "--feature-norm l2" in text
    assert "--activation gelu" in text


def test_two_at_once_in_what_becomes_of_the_logits(notebook: Notebook):
    text = diagnosed(notebook, probabilities=(notebook.answers[:, [2, 0, 1]] / 2).softmax(1))
    assert "--labels bee cow ant" in text
    assert "--temperature 2" in text


def test_two_at_once_before_and_in_the_head(notebook: Notebook):
    features = processed(notebook, [Image.fromarray(np.array(image)[..., ::-1].copy()) for image in opened(notebook)])
    text = diagnosed(notebook, logits=notebook.logits(features, functional.gelu))
    assert "BGR" in text
    assert "--activation gelu" in text


def test_two_at_once_before_the_head(notebook: Notebook):
    features = resized(notebook, lambda values, size: bicubic(values.flip(1), size, antialias=False))
    rule = notebook.encoder.preprocessing
    assert rule.mode == "crop"
    text = diagnosed(notebook, logits=notebook.logits(features))
    assert "BGR" in text
    assert "without antialiasing" in text


def test_what_no_usual_reason_explains(notebook: Notebook):
    """A residual connection."""
    residual = notebook.answers + notebook.features[:, :3] * 2
    assert "--head-class" in diagnosed(notebook, logits=residual)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_the_weights_of_another_training(notebook: Notebook, size: float):
    """Of any size: dividing by a large temperature brings all logits near to small answers, and explains none."""
    weight = torch.randn(3, notebook.encoder.dim, generator=torch.Generator().manual_seed(5)) * size
    assert "None of the usual reasons explains it" in diagnosed(notebook, logits=notebook.features @ weight.T)


def test_probabilities_beside_logits_tell_a_sigmoid_from_a_softmax():
    logits = np.random.default_rng(0).standard_normal((20, 3))
    answers = Answers(logits=logits, probabilities=sigmoid(logits), images=("",) * 20)
    setting = Setting(SINGLE_LABEL, ("a", "b", "c"), temperature=1.0, tolerance=1e-3)
    (found,) = (fit for fit in fits(answers, logits, setting, 1) if fit.left.passed)
    assert [reason.remedy for reason in found.reasons] == ["export with --task multi-label"]
