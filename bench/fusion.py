"""``bench/fusion.py``: what a head makes of picture, text and both; rewrites its section of docs/benchmarks.md.

The questions of models/questions.py behind tiny-clip: neither the picture nor the question alone says anything of the
answer, and every question is asked about as many pictures that it is true of as of others.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap

import numpy as np
import torch
from sections import replaced_section

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder
from clip_export.features.images import image_features
from clip_export.features.texts import encoded_texts, fused
from clip_export.training.epochs import Examples
from clip_export.training.judging.baseline import fit_baseline
from clip_export.training.judging.decisions import plain_score
from clip_export.training.loop import train_head
from clip_export.training.objective import score
from clip_export.training.options import TrainingOptions
from clip_export.training.preparation import examples
from clip_toolkit.data.manifest import read_manifest
from clip_toolkit.spec.tasks import SINGLE_LABEL

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "models"))

from questions import write_questions  # noqa: E402  (models is no package)

ENCODER = ROOT / "models" / "tiny-clip"
TITLE = "Picture and text"
SIZES = (150, 300, 600, 1200)  # questions to learn from, a fifth of them to stop by
TEST = 600
SEEDS = (100, 101, 102)
OPTIONS = TrainingOptions(learning_rate=1e-3, patience=20)


def drawn(seed: int, folder: Path, encoder: Encoder, tower: TextEncoder) -> Examples:
    """All questions of a seed: both features side by side, and the answers."""
    data = read_manifest(write_questions(folder, max(SIZES) + TEST, seed), text_column="question")
    features = fused(image_features(encoder, data.files), encoded_texts(tower, data.texts or ()).values)
    return examples(features, data, range(len(data.files)))


def accuracies(questions: Examples, size: int, width: int) -> list[float]:
    """Test accuracy of heads on the image alone, the text alone and both, and of logistic regression on both."""
    found = []
    for part in (slice(None, width), slice(width, None), slice(None)):
        train, validation, test = sides(questions, size, part)
        head = train_head(train, validation, 2, OPTIONS).head
        with torch.inference_mode():
            found.append(score(head(test.features), test.targets, SINGLE_LABEL))
    return [*found, plain_score(fit_baseline(train, SINGLE_LABEL), test)]


def sides(questions: Examples, size: int, part: slice) -> list[Examples]:
    """Training, validation and test examples with a part of the features."""
    learnt = size * 4 // 5
    rows = (slice(learnt), slice(learnt, size), slice(-TEST, None))
    return [Examples(questions.features[row, part].contiguous(), questions.targets[row]) for row in rows]


def table() -> Iterator[str]:
    """Yield the section's lines."""
    encoder, tower = Encoder.from_pretrained(str(ENCODER)), TextEncoder.from_pretrained(str(ENCODER))
    with tempfile.TemporaryDirectory() as folder:
        drawings = [drawn(seed, Path(folder, str(seed)), encoder, tower) for seed in SEEDS]
    yield from wrap(
        "Drawn pictures, each with a question about it (`models/questions.py`), behind tiny-clip: yes or no? "
        f"Accuracy on {TEST} others, mean of {len(SEEDS)} drawings; the same head (256 hidden units, Adam 1e-3, early "
        "stopping) on the image's feature, the text's, and both side by side. The answer is in neither, and in no "
        "weighted sum of both, so that logistic regression does not find it either.",
        width=118,
    )
    yield ""
    yield "| questions | image alone | text alone | **both** | both, logistic regression |"
    yield "| --- | --- | --- | --- | --- |"
    for size in SIZES:
        mean = np.mean([accuracies(questions, size, encoder.dim) for questions in drawings], axis=0)
        image, text, both, plain = (f"{value:.1%}" for value in mean)
        yield f"| {size} | {image} | {text} | **{both}** | {plain} |"


def main() -> None:
    """Measure and rewrite the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    page = parser.parse_args().page
    lines = list(table())
    print("\n".join(lines))
    page.write_text(replaced_section(page.read_text(encoding="utf-8"), TITLE, lines), encoding="utf-8")


if __name__ == "__main__":
    main()
