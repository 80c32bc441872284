"""AltCLIP's text tower: where it is no BERT, piece by piece against transformers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tiny_tokenizers
from clip_export.encoders.text import TextEncoder, text_features, tokenised
from clip_export.graph.text_weights import canonical_text

pytestmark = pytest.mark.transformers


@pytest.fixture
def tower(checkpoint: Callable[[str], Path]) -> TextEncoder:
    return TextEncoder.from_pretrained(str(checkpoint("altclip")))


@torch.inference_mode()
def test_two_linear_layers_become_one(tower: TextEncoder):
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    expected = tower.projection(tower.model.transformation(x))
    torch.testing.assert_close(canonical_text(tower).projection(x), expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_padding_counts_for_no_position_even_where_a_text_spells_it_out(tower: TextEncoder):
    texts = ["red <pad> circle", "<pad>", "a"]
    tokens = tokenised(tower, texts)
    assert tokens["input_ids"][0].tolist().index(1) < 9, "the mark is one token in the middle of the text"
    found = canonical_text(tower)(**tokens)
    torch.testing.assert_close(found, text_features(tower, texts), atol=2e-5, rtol=1e-5)


def test_the_context_leaves_out_the_positions_that_no_token_takes(tower: TextEncoder):
    assert tower.context == tiny_tokenizers.CONTEXT
    assert tower.model.config.max_position_embeddings == tiny_tokenizers.CONTEXT + 2
    assert canonical_text(tower).positions.shape == (tiny_tokenizers.CONTEXT + 1, 32)
