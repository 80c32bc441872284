"""From the tokenizer of a transformers checkpoint to the `TokenizerSpec` that travels in the model file."""

from __future__ import annotations

import tokenizers

from clip_export.encoders.sentencepiece import converted_siglip
from clip_export.encoders.text import TextEncoder, tokenised
from clip_export.samples.texts import PROOF_TEXTS
from clip_toolkit.errors import EncoderError
from clip_toolkit.spec.tokenizer import TokenizerSpec
from clip_toolkit.text.tokenization import Tokenizer


def tokenizer_spec(tower: TextEncoder) -> TokenizerSpec:
    """Return the tower's tokenizer, checked to give the very tokens that transformers gives.

    Raises:
        EncoderError: it is of a kind that cannot be carried over, or gives other tokens.
    """
    tokenizer = tower.tokenizer
    backend = _backend(tower)
    backend.no_truncation()
    backend.no_padding()
    spec = TokenizerSpec(
        json=backend.to_str(),
        context=tower.context,
        pad_id=tokenizer.pad_token_id,
        pad_to_context=tower.rules.pads_to_context,
        padding_side=tokenizer.padding_side,
    )
    _check_padding(tower, spec)
    _check_equal(tower, spec)
    return spec


def _backend(tower: TextEncoder) -> tokenizers.Tokenizer:
    """Return the checkpoint's tokenizer in the form of the ``tokenizers`` package, to be changed at will."""
    if tower.tokenizer.is_fast:
        return tokenizers.Tokenizer.from_str(tower.tokenizer.backend_tokenizer.to_str())
    kind = type(tower.tokenizer).__name__
    if kind != "SiglipTokenizer":
        raise EncoderError(
            f"{tower.id}: {kind} runs in Python alone, and cannot travel in the file. Save a fast tokenizer beside the "
            "checkpoint (AutoTokenizer.from_pretrained(..., use_fast=True).save_pretrained)."
        )
    return converted_siglip(tower.tokenizer)


def _check_padding(tower: TextEncoder, spec: TokenizerSpec) -> None:
    if spec.padding_side == "left" and not spec.pad_to_context:
        raise EncoderError(
            f"{tower.id}: its tokenizer pads on the left, which would move the positions of {tower.family.name}'s "
            'words. Set "padding_side": "right" in its tokenizer_config.json.'
        )


def _check_equal(tower: TextEncoder, spec: TokenizerSpec) -> None:
    ours = Tokenizer(spec)
    for text in PROOF_TEXTS:
        expected = tokenised(tower, [text])["input_ids"][0].tolist()
        found = ours.encode([text]).input_ids[0].tolist()
        if found != expected:
            raise EncoderError(
                f"{tower.id}: the tokenizers package makes other tokens of {text[:60]!r} than transformers does "
                f"({found[:20]} instead of {expected[:20]}). Please report this with the encoder's name."
            )
