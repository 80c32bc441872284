"""The golden vectors: small pictures, and texts where the model reads some, that travel in the file with answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder, text_features, token_ids
from clip_export.proof.reference import reference
from clip_export.samples.pictures import golden_files
from clip_export.samples.texts import GOLDEN_TEXTS
from clip_toolkit import Classifier, Outputs
from clip_toolkit.spec.classifier import GoldenVector, ModelSpec

Floats = tuple[float, ...]


def golden_vectors(
    encoder: Encoder, tower: TextEncoder | None, head: nn.Module, spec: ModelSpec
) -> tuple[GoldenVector, ...]:
    """Answer each golden picture, with its text if there is a text tower, in PyTorch."""
    files = golden_files(encoder.preprocessing.resize)
    features = None if tower is None else text_features(tower, GOLDEN_TEXTS, batch_size=1)
    answers = reference(encoder, head, files, spec.task, spec.temperature, texts=features)
    outputs = Outputs(answers.probabilities, answers.logits, answers.embedding)
    vectors = [GoldenVector(file, *row) for file, row in zip(files, map(_floats, *outputs), strict=True)]
    if tower is None:
        return tuple(vectors)
    return tuple(
        replace(vector, text=text, input_ids=token_ids(tower, text))
        for vector, text in zip(vectors, GOLDEN_TEXTS, strict=True)
    )


def own_golden_vectors(classifier: Classifier, golden: Sequence[GoldenVector]) -> tuple[GoldenVector, ...]:
    """Record what a quantized file answers: elsewhere it has to answer the same, however far from PyTorch."""
    texts = None if classifier.tokenizer is None else [vector.text or "" for vector in golden]
    answers = classifier.predict_many([vector.png for vector in golden], batch_size=1, texts=texts)
    return tuple(
        GoldenVector(
            vector.png, *_floats(*(getattr(answer, name) for name in Outputs._fields)), vector.text, vector.input_ids
        )
        for vector, answer in zip(golden, answers, strict=True)
    )


def _floats(*outputs: NDArray[np.float32]) -> tuple[Floats, Floats, Floats]:
    probabilities, logits, embedding = (tuple(map(float, values)) for values in outputs)
    return probabilities, logits, embedding
