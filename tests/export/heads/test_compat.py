"""Head files that version 0.1.0 wrote still open, and answer as they did: tests/data/compat/README.md."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clip_export.heads.files import TrainedHead, load_head

COMPAT = Path(__file__).parents[2] / "data" / "compat"
ANSWERS = json.loads((COMPAT / "answers.json").read_text(encoding="utf-8"))["heads"]


def answered(head: TrainedHead) -> np.ndarray:
    """The logits of a feature of ones and of one that counts up."""
    width = head.module.spec.layers[0]
    with torch.inference_mode():
        return head.module(torch.stack([torch.ones(width), torch.arange(width) / width])).numpy()


@pytest.mark.parametrize("name", ANSWERS)
def test_a_head_answers_as_it_did(name: str):
    head, expected = load_head(COMPAT / name), ANSWERS[name]
    np.testing.assert_allclose(answered(head), expected["logits"], rtol=1e-5, atol=1e-5)
    assert (list(head.labels) if head.labels else None) == expected["labels"]
    assert (head.task, head.temperature) == (expected["task"], expected["temperature"])
    assert (head.encoder.feature if head.encoder else None) == expected["feature"]
