"""What OpenCLIP does to texts around a tokenizer of transformers: ``HFTokenizer`` in open_clip/tokenizer.py.

It is added to the fast tokenizer itself, so that it travels in the file of the text tower.
"""

from __future__ import annotations

import re
import string
from typing import Any

from tokenizers import Regex, normalizers, processors

from clip_toolkit.errors import EncoderError

_OPTIONS = {"clean", "strip_sep_token"}

_SPACES = [normalizers.Replace(Regex(r"[\s\x1c-\x1f\x85]+"), " "), normalizers.Strip()]
_CLEANING = {
    "whitespace": _SPACES,
    "lower": [*_SPACES, normalizers.Lowercase()],
    "canonicalize": [
        normalizers.Replace("_", " "),
        normalizers.Replace(Regex(f"[{re.escape(string.punctuation)}]"), ""),
        normalizers.Lowercase(),
        *_SPACES,
    ],
}


def add_cleaning(tokenizer: Any, text: dict[str, Any]) -> None:
    """Make a transformers tokenizer give the tokens that OpenCLIP gives.

    Args:
        tokenizer: of a checkpoint; changed in place.
        text: its ``text_cfg``. One without ``hf_tokenizer_name`` has CLIP's own tokenizer, which cleans by itself
            and pads with token 0.

    Raises:
        EncoderError: an option is not supported, or the tokenizer is one that runs in Python.
    """
    if not text.get("hf_tokenizer_name"):
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)  # which MobileCLIP's texts see
        return
    options = text.get("tokenizer_kwargs") or {}
    cleaning = _CLEANING.get(options.get("clean", "whitespace"))
    if cleaning is None or set(options) - _OPTIONS or text.get("tokenizer_mode"):
        raise EncoderError(f"text_cfg.tokenizer_kwargs {options!r} are not supported. Supported: {sorted(_OPTIONS)}.")
    if not tokenizer.is_fast:
        raise EncoderError(
            f"{type(tokenizer).__name__} runs in Python alone. Save a fast tokenizer beside the weights."
        )
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence([*cleaning, *([backend.normalizer] if backend.normalizer else [])])
    if options.get("strip_sep_token"):  # OpenCLIP puts token 0 in its place
        zero, begin = tokenizer.convert_ids_to_tokens(0), tokenizer.cls_token
        marks = [(zero, 0), (begin, tokenizer.cls_token_id)]
        backend.post_processor = processors.TemplateProcessing(f"{begin} $A {zero}", None, marks)
