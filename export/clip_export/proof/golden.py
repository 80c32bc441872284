"""The golden vectors: small pictures, and texts where the model reads some, that travel in the file with answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder, text_features, token_ids
from clip_export.proof.reference import reference
from clip_export.samples.pictures import golden_files
from clip_export.samples.texts import GOLDEN_TEXTS
from clip_toolkit import Classifier, Outputs
from clip_toolkit.spec.classifier import GoldenVector, ModelSpec


def golden_vectors(
    encoder: Encoder, tower: TextEncoder | None, head: nn.Module, spec: ModelSpec
) -> tuple[GoldenVector, ...]:
    """Answer each golden picture, with its text if there is a text tower, in PyTorch."""
    files = golden_files(encoder.preprocessing.resize)
    features = None if tower is None else text_features(tower, GOLDEN_TEXTS, batch_size=1)
    answers = reference(encoder, head, files, spec.task, spec.temperature, texts=features)
    rows = zip(answers.probabilities, answers.logits, answers.embedding, strict=True)
    return tuple(
        GoldenVector(file, *(tuple(map(float, values)) for values in arrays), *text)
        for file, arrays, text in zip(files, rows, _texts(tower, len(files)), strict=True)
    )


def _texts(tower: TextEncoder | None, count: int) -> Sequence[tuple[()] | tuple[str, tuple[int, ...]]]:
    """Each golden text with its tokens; nothing without a text tower."""
    if tower is None:
        return [()] * count
    return [(text, token_ids(tower, text)) for text in GOLDEN_TEXTS]


def own_golden_vectors(classifier: Classifier, golden: Sequence[GoldenVector]) -> tuple[GoldenVector, ...]:
    """Record what a quantized file answers: elsewhere it has to answer the same, however far from PyTorch."""
    texts = None if classifier.tokenizer is None else [vector.text or "" for vector in golden]
    answers = classifier.predict_many([vector.png for vector in golden], batch_size=1, texts=texts)
    return tuple(
        replace(vector, **{name: tuple(map(float, getattr(answer, name))) for name in Outputs._fields})
        for vector, answer in zip(golden, answers, strict=True)
    )
