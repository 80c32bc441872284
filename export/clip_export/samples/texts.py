"""Texts to prove an export on: short and long, empty, of many scripts, with what tokenizers stumble over."""

from __future__ import annotations

_LONG = "a photo of a small red circle beside two large blue squares on a grey ground, seen from above, "

GOLDEN_TEXTS = ("a photo of a red circle", "", "Дом, 東京 and São Paulo: 3 cafés!", _LONG * 12)
"""To keep in the model file: plain, empty, of several scripts, and longer than any tower's context."""

PROOF_TEXTS = (
    *GOLDEN_TEXTS,
    "blue",
    "A Photo of a BLUE Square",
    "a photo of a cat",
    "two dogs, one ball; no cats (at all)!",
    "it's the artist's own: don't, we'll, they've",
    "  spaces   before,\tbetween\nand after  ",
    "1234567890 3.14159 50% $20 #1",
    "snake_case and-hyphens/slashes\\back @home <b>bold</b> {} []",
    "naïve façade, Ångström, straße, İstanbul",
    "e\u0301 is \u00e9, \ufb01ne \u2460 \uff21\uff22\uff23 \u00bd",
    "日本語のテキスト。中文\uff0c没有空格。 한국어 문장",
    "مرحبا بالعالم שלום עולם नमस्ते दुनिया สวัสดี",
    "🎈 two balloons 🎈🎈 👩\u200d🚀 flag 🇫🇷",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "\u200bzero\u00a0width \u2028line\u3000ideographic",
    "x" * 300,
    "slow " * 300,
)
"""All that an export is proved on."""
