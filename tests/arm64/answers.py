"""Tell a model file's answers to a folder of images, one JSON line each: `answers.py MODEL FOLDER`."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from clip_toolkit import load


def main() -> None:
    """Print label, probabilities and a digest of the resized pixels of every image, in the order of their names."""
    model, folder = map(Path, sys.argv[1:])
    classifier = load(model, device="cpu")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        pixels = classifier.pixels(path)
        (answer,) = classifier.predict_pixels([pixels], [None])
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        row = {
            "name": path.name,
            "label": answer.label,
            "probabilities": answer.probabilities.tolist(),
            "pixels": digest,
        }
        print(json.dumps(row))


if __name__ == "__main__":
    main()
