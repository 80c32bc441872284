"""SigLIP's tokenizer, sentencepiece behind Python code, as one that the ``tokenizers`` libraries run.

Its Python code is transformers' ``SiglipTokenizer``; each of its steps is a normaliser here.
"""

from __future__ import annotations

import re
import string
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

_SPACE = "▁"  # as sentencepiece writes it


def converted_siglip(slow: Any) -> Tokenizer:
    """Convert a transformers ``SiglipTokenizer`` to ``tokenizers``, without truncation and padding.

    Where a text spells out a mark such as ``</s>``, what follows it begins a new word here, and does not there.
    """
    from sentencepiece import sentencepiece_model_pb2 as protobuf  # what loading the slow one needed, too

    messages: Any = protobuf  # its classes are made at import
    model = messages.ModelProto.FromString(slow.sp_model.serialized_model_proto())
    tokenizer = Tokenizer(
        models.Unigram(
            [(piece.piece, piece.score) for piece in model.pieces],
            unk_id=model.trainer_spec.unk_id,
            byte_fallback=model.trainer_spec.byte_fallback,
        )
    )
    tokenizer.normalizer = normalizers.Sequence([*_canonicalised(slow.do_lower_case), *_sentencepiece(model)])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme="never")
    tokenizer.post_processor = processors.TemplateProcessing(
        f"$A {slow.eos_token}", None, [(slow.eos_token, slow.eos_token_id)]
    )
    marks = {slow.eos_token, slow.pad_token, slow.unk_token}
    tokenizer.add_special_tokens(
        [AddedToken(mark, normalized=False, lstrip=True, rstrip=True) for mark in sorted(marks)]
    )
    return tokenizer


def _canonicalised(lower_case: bool) -> list[normalizers.Normalizer]:
    """``tokenize`` and ``canonicalize_text``: a word begins the text, no upper case, no punctuation of ASCII."""
    punctuation = f"[{re.escape(string.punctuation)}]"
    return [
        normalizers.Replace(_SPACE, " "),
        normalizers.Prepend(_SPACE),
        *([normalizers.Lowercase()] if lower_case else []),
        normalizers.Replace(Regex(punctuation), ""),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(left=False),
    ]


def _sentencepiece(model: Any) -> list[normalizers.Normalizer]:
    """Rebuild what sentencepiece does by itself before it looks for pieces."""
    rule = model.normalizer_spec
    steps: list[normalizers.Normalizer] = []
    if rule.precompiled_charsmap:
        steps.append(normalizers.Precompiled(rule.precompiled_charsmap))
    if rule.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip(left=False)]
    return [*steps, normalizers.Replace(" ", _SPACE)]
