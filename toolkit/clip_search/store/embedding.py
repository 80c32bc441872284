"""Images to embeddings. Of a model that reads a text with each image, the text is left empty: no text moves them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import tee

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.classifier import Classifier
from clip_toolkit.errors import ImageError, ModelError
from clip_toolkit.images import ImageSource
from clip_toolkit.prediction import Prediction


def embedded(classifier: Classifier, image: ImageSource) -> Prediction:
    """Predict one image; raise what `Classifier.predict` does."""
    return classifier.predict(image, text=None if classifier.tokenizer is None else "")


def finite(embedding: NDArray[np.float32], of: str) -> NDArray[np.float32]:
    """Return the embedding itself.

    Raises:
        ModelError: the network made numbers of it that are not finite.
    """
    if not np.isfinite(embedding).all():
        raise ModelError(
            f"the network's embedding of {of} is not finite. Is the model damaged? Try clip-infer --selftest."
        )
    return embedding


def embedded_many(
    classifier: Classifier, images: Iterable[ImageSource], batch_size: int
) -> Iterator[Prediction | ImageError]:
    """Predict each image, lazily, or say what is wrong with it."""
    if classifier.tokenizer is None:
        return classifier.predict_many(images, batch_size, errors="return")
    images, counted = tee(images)
    return classifier.predict_many(images, batch_size, errors="return", texts=("" for _ in counted))
