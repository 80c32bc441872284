"""Compare what two machines answered: `compare.py HERE.jsonl ARM64.jsonl`; exit code 1 where they do not agree."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

LEAST_AGREEMENT = 0.99
"""Of decisions, the bound of the gate of a quantization."""


def main() -> int:
    """Print how many pixels and decisions differ, and how far probabilities moved."""
    here, there = ([json.loads(line) for line in Path(name).read_text().splitlines()] for name in sys.argv[1:])
    pairs = [*zip(here, there, strict=True)]
    pixels = sum(a["pixels"] != b["pixels"] for a, b in pairs)
    labels = sum(a["label"] != b["label"] for a, b in pairs)
    moved = max(float(np.abs(np.subtract(a["probabilities"], b["probabilities"])).max()) for a, b in pairs)
    model = Path(sys.argv[1]).stem.removesuffix("-here")
    print(
        f"{model}: of {len(pairs)} images {pixels} have other pixels and {labels} "
        f"another label; probabilities moved by {moved:.1e} at most"
    )
    return int(pixels > 0 or labels > len(pairs) * (1 - LEAST_AGREEMENT))


if __name__ == "__main__":
    sys.exit(main())
