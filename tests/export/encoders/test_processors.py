"""Reading an image processor's rule, and refusing what the graph cannot follow."""

from typing import Any

import pytest
from transformers import CLIPImageProcessor, SiglipImageProcessor

from clip_export.encoders.processors import preprocessing_of
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
