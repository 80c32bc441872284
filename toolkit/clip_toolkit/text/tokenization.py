"""Texts in, tokens out, exactly as the text tower was trained: by the tokenizer that travels in the model file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.errors import MissingDependencyError, SpecError, TextError
from clip_toolkit.spec.tokenizer import TokenizerSpec
from clip_toolkit.text.growth import check_growth

INPUTS = ("input_ids", "attention_mask")
"""Names of the graph's inputs of tokens, int64 ``[batch, tokens]`` each; fields of `Tokens`."""


class Tokens(NamedTuple):
    """A batch of texts as a text tower takes it.

    Attributes:
        input_ids: int64 ``[texts, tokens]``.
        attention_mask: int64 ``[texts, tokens]``: 1 where there is text, 0 where there is padding.
        truncated: of each text, whether it went beyond the context and lost its end.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    truncated: tuple[bool, ...]


class Tokenizer:
    """The tokenizer of a spec. Safe to share between threads."""

    def __init__(self, spec: TokenizerSpec) -> None:
        """Build the tokenizer.

        Raises:
            MissingDependencyError: the ``text`` extra is not installed.
            SpecError: the spec's JSON is not that of a tokenizer.
        """
        self.spec = spec
        self._tokenizer = _built(spec)

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Tokenize texts.

        Args:
            texts: any text, the empty one included.

        Returns:
            As many tokens for each as the longest has, and at least one, or the context where the tower was trained so.

        Raises:
            TextError: ``texts`` is a single text, or one of them is no text.
        """
        check_texts(texts)
        encodings = self._tokenizer.encode_batch(list(texts))
        rows = [encoding.ids for encoding in encodings]
        width = self.spec.context if self.spec.pad_to_context else max(map(len, rows), default=0) or 1
        ids = np.full((len(rows), width), self.spec.pad_id, np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            place = slice(len(row)) if self.spec.padding_side == "right" else slice(width - len(row), None)
            ids[i, place], mask[i, place] = row, 1
        return Tokens(ids, mask, tuple(bool(encoding.overflowing) for encoding in encodings))


def is_valid_unicode(text: str) -> bool:
    """Tell whether a text can be encoded: one of undecodable bytes, or with half of a surrogate pair, cannot."""
    return text.encode(errors="replace").decode() == text


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what are no texts.

    Raises:
        TextError: ``texts`` is a single text, or one of them is no text.
    """
    if isinstance(texts, (str, bytes)):
        raise TextError("texts: expected a list of texts, got a single one. Put it into a list: [text]")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TextError(f"texts[{i}]: expected a str, got {type(text).__name__}. Decode bytes, and leave out None.")
        if not is_valid_unicode(text):
            raise TextError(f"texts[{i}]: is not valid Unicode (it has half of a surrogate pair): {text[:40]!a}")


def _built(spec: TokenizerSpec) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingDependencyError(
            "texts need the tokenizers package. Install: pip install 'clip-toolkit[text]'"
        ) from error
    try:
        check_growth(spec.json)
        tokenizer = tokenizers.Tokenizer.from_str(spec.json)
        tokenizer.no_padding()
        tokenizer.enable_truncation(spec.context)
    except SpecError:
        raise
    except Exception as error:  # the library raises plain Exception
        reason = " ".join(str(error).split())[:200]
        raise SpecError(f"spec.tokenizer: the tokenizers package cannot read it ({reason}). Upgrade it.") from error
    return tokenizer
