"""How much longer a tokenizer may make texts: a few steps that double them make terabytes of a word."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from clip_toolkit.spec.metadata import require

_MOST_GROWTH = 10_000
_MOST_ADDED = 2**26  # characters

_UNICODE_GROWTH = {"NFC": 3, "NFD": 4, "NFKC": 18, "NFKD": 18, "Lowercase": 3, "BertNormalizer": 12}
"""Most characters that one becomes (https://www.unicode.org/faq/normalization.html#12 gives those of the forms)."""

_EMPTY = {"type": "BPE", "vocab": {}, "merges": []}


def check_growth(tokenizer: str) -> None:
    """Refuse a tokenizer.json that would take any amount of memory, before it is built: its own tokens grow by then.

    Raises:
        SpecError: its normalizer lengthens texts, or the tokens that are added to its vocabulary, too much.
        Exception: anything, on what is no tokenizer.json.
    """
    import tokenizers

    document = json.loads(tokenizer)
    alone = {"model": _EMPTY, "normalizer": document.get("normalizer")}
    normalizer = tokenizers.Tokenizer.from_str(json.dumps(alone)).normalizer
    growth = 1 if normalizer is None else _growth(json.loads(normalizer.__getstate__()))
    require(growth <= _MOST_GROWTH, "tokenizer", f"texts to grow {_MOST_GROWTH} times at most", growth)
    added = growth * sum(len(token["content"]) for token in document.get("added_tokens") or ())
    require(added <= _MOST_ADDED, "tokenizer", f"added tokens of {_MOST_ADDED} characters at most", added)


def _growth(normalizer: dict[str, Any]) -> int:
    """Return how many times longer a text may become."""
    kind = normalizer["type"]
    if kind == "Sequence":
        return math.prod(map(_growth, normalizer["normalizers"]))
    if kind == "Replace":
        content, literal = normalizer["content"], normalizer["pattern"].get("String")
        return 1 + len(content) if literal is None else max(1, -(-len(content) // max(1, len(literal))))
    if kind == "Prepend":
        return 1 + len(normalizer["prepend"])
    if kind == "Precompiled":  # the size of a trie, the trie, and what characters become, each ended by a zero byte
        table = base64.b64decode(normalizer["precompiled_charsmap"])
        return max(map(len, table[4 + int.from_bytes(table[:4], "little") :].split(b"\0")), default=1) or 1
    return _UNICODE_GROWTH.get(kind, 1)
