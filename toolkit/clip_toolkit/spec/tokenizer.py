"""`TokenizerSpec`: how a text becomes the tokens that a text tower takes, kept whole inside the model file."""

from __future__ import annotations

from dataclasses import dataclass, field

from clip_toolkit.spec.metadata import require


@dataclass(frozen=True)
class TokenizerSpec:
    """A tokenizer.

    Attributes:
        json: the text of a tokenizer.json, which the ``tokenizers`` libraries of Python, JavaScript and Rust read. The
            marks around a text and lower-casing are in it, truncation and padding are not.
        context: most tokens in a text, marks included; what goes beyond is cut off before the last mark.
        pad_id: token that fills up shorter texts of a batch.
        pad_to_context: fill up to the context always, and not just to the longest text: SigLIP reads the padding.
        padding_side: ``right``, or ``left`` where a tower reads the padding and was trained so.
    """

    json: str = field(repr=False)
    context: int
    pad_id: int
    pad_to_context: bool = False
    padding_side: str = "right"


_MOST_TOKENS = 2**16  # in a text; beyond it lies damage


def check_tokenizer(spec: TokenizerSpec, where: str) -> None:
    """Refuse values that cannot be.

    Raises:
        SpecError: the message names the field below ``where``.
    """
    require(2 <= spec.context <= _MOST_TOKENS, f"{where}.context", f"2 to {_MOST_TOKENS}", spec.context)
    require(isinstance(spec.pad_id, int) and spec.pad_id >= 0, f"{where}.pad_id", "at least 0", spec.pad_id)
    require(spec.padding_side in ("right", "left"), f"{where}.padding_side", "right or left", spec.padding_side)
