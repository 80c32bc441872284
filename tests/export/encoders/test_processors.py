"""Reading an image processor's rule, and refusing what the graph cannot follow."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import CLIPImageProcessor, EfficientNetImageProcessor, SiglipImageProcessor

from clip_export.encoders.processors import load_processor, preprocessing_of
from clip_toolkit.errors import EncoderError

pytestmark = pytest.mark.transformers


def crop(**changes: Any) -> CLIPImageProcessor:
    options = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return CLIPImageProcessor(**options | changes)


def test_crop_rule():
    rule = preprocessing_of(crop(size={"shortest_edge": 40}))
    assert (rule.mode, rule.resize, rule.size, rule.resample) == ("crop", 40, 32, "bicubic")
    assert rule.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert rule.scale == pytest.approx(1 / 255)


def test_squash_rule():
    rule = preprocessing_of(SiglipImageProcessor(size={"height": 48, "width": 48}, resample=2))
    assert (rule.mode, rule.resize, rule.size, rule.resample) == ("squash", 48, 48, "bilinear")


def test_without_normalisation_nothing_is_subtracted():
    rule = preprocessing_of(crop(do_normalize=False))
    assert (rule.mean, rule.std) == ((0, 0, 0), (1, 1, 1))


REFUSED = {
    "lanczos": ({"resample": 1}, "resample 1"),
    "no resize": ({"do_resize": False}, "do_resize"),
    "no rescale": ({"do_rescale": False}, "do_rescale"),
    "no crop": ({"do_center_crop": False}, "do_center_crop=False"),
    "padding crop": ({"crop_size": {"height": 64, "width": 64}}, "pads"),
    "oblong crop": ({"crop_size": {"height": 32, "width": 16}}, "not square"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses_what_the_graph_cannot_follow(options: dict[str, Any], said: str):
    with pytest.raises(EncoderError, match=said):
        preprocessing_of(crop(**options))


def test_refuses_an_oblong_squash():
    with pytest.raises(EncoderError, match="not square"):
        preprocessing_of(SiglipImageProcessor(size={"height": 48, "width": 24}))


def test_refuses_an_unknown_step_by_name():
    processor = crop()
    processor.do_thumbnail = True
    with pytest.raises(EncoderError, match="do_thumbnail"):
        preprocessing_of(processor)


VALUES = {
    "mean that is a number": {"image_mean": 0.5},
    "mean of one channel": {"image_mean": [0.5]},
    "mean that is not a number": {"image_mean": [0.5, float("nan"), 0.5]},
    "std of zero": {"image_std": [0.0, 1.0, 1.0]},
    "resample by name": {"resample": "bicubic"},
    "no resample": {"resample": None},
    "no scale": {"rescale_factor": None},
    "scale of zero": {"rescale_factor": 0},
    "gigantic size": {"size": {"shortest_edge": 10**6}},
    "size that is text": {"size": {"shortest_edge": "32"}},
    "size of zero": {"crop_size": {"height": 0, "width": 0}},
}


@pytest.mark.parametrize("changes", VALUES.values(), ids=VALUES.keys())
def test_values_out_of_range_are_refused_by_name(tmp_path: Path, changes: dict[str, Any]):
    crop().save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    (name,) = changes
    with pytest.raises(EncoderError, match=rf"image processor.*{name}"):
        preprocessing_of(load_processor(tmp_path, "CLIPImageProcessor"))


def test_a_crop_of_the_resized_square_is_a_squash():
    rule = preprocessing_of(crop(size={"height": 32, "width": 32}))
    assert (rule.mode, rule.resize, rule.size) == ("squash", 32, 32)


def test_processors_whose_rules_are_unknown_are_refused(tmp_path: Path):
    EfficientNetImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match=r"EfficientNetImageProcessor.*CLIPImageProcessor"):
        load_processor(tmp_path, "CLIPImageProcessor")


def test_a_missing_processor_is_not_guessed(tmp_path: Path):
    with pytest.raises(EncoderError, match=r"has no image processor, preprocessor_config\.json"):
        load_processor(tmp_path, "CLIPImageProcessor")
