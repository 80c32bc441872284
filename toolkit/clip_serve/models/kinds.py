"""The two kinds of model file, as the service runs them: what they take, what they give, which batches are exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_toolkit.classifier import Classifier
from clip_toolkit.errors import TextError
from clip_toolkit.explaining.overlay import laid_over_seen
from clip_toolkit.prediction import Prediction
from clip_toolkit.replay import Drift, selftest, selftest_text
from clip_toolkit.runtime.graph_check import output_sizes
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.tasks import OUTPUTS, output_names
from clip_toolkit.spec.text_tower import TextTowerSpec
from clip_toolkit.text.pairs import check_pairing
from clip_toolkit.text.tokenization import Tokens, check_texts
from clip_toolkit.text_encoder import TextEncoder

Source = tuple[Any, str | None]
"""What a request asks about: an encoded image or uint8 RGB ``[height, width, 3]``, or None; and a text, or None."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Kind(Protocol, Generic[Item, Result]):
    """What the service needs of a model. ``prepare`` and ``compute`` run in threads."""

    @property
    def model(self) -> Classifier | TextEncoder:
        """The file, opened."""

    @property
    def spec(self) -> ModelSpec | TextTowerSpec:
        """What the file says of itself."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Which of ``image`` and ``text`` are asked for."""

    @property
    def outputs(self) -> dict[str, int]:
        """Length of each output's row, by name."""

    def prepare(self, source: Source) -> Item:
        """Decode, resize, tokenize."""

    def compute(self, items: list[Item]) -> list[Result]:
        """Run the network once."""

    def row(self, result: Result, output: str) -> NDArray[np.float32]:
        """Return one output of a result."""

    def replay(self) -> list[Drift]:
        """Compare with the answers that the file holds."""

    def trials(self, count: int) -> list[Item]:
        """Return different items to compare batches by; none where batches are never tried."""


class _Pixels(NamedTuple):
    pixels: NDArray[np.uint8]
    text: str | None


class Images:
    """A classifier. What it answers is what `Classifier.predict` gives, to the bit."""

    def __init__(self, classifier: Classifier) -> None:
        """Take it opened."""
        self.model, self.spec = classifier, classifier.spec
        classifier.explains = False  # only where an overlay is asked for
        self.inputs = ("image", "text") if self.spec.text else ("image",)
        self.outputs = output_sizes(self.spec)
        self._rows = {
            output: (ending, name, head.labels)
            for head, ending in reversed(self.spec.endings)
            for output, name in zip(output_names(head.task, ending), OUTPUTS[head.task], strict=True)
        }

    def prepare(self, source: Source) -> _Pixels:
        """Decode and resize; raise what `Classifier.predict` does."""
        image, text = source
        check_pairing(self.spec, text is not None)
        check_texts([] if text is None else [text])
        return _Pixels(self.model.pixels(image), text)

    def compute(self, items: list[_Pixels]) -> list[Prediction]:
        """Run the network once."""
        return self.model.predict_pixels([item.pixels for item in items], [item.text for item in items])

    def row(self, result: Prediction, output: str) -> NDArray[np.float32]:
        """Return one output of a result, float32 ``[size]``."""
        head, name, _ = self._rows[output]
        found = result.tasks[head] if head else result
        return {"embedding": found.embedding, "probabilities": found.probabilities}.get(name, found.logits)

    def labels_of(self, output: str) -> tuple[str, ...]:
        """Return the names of an output's elements; none of the embedding, whose elements have none."""
        return () if output == "embedding" else self._rows[output][2]

    @property
    def explains(self) -> bool:
        """Whether the file tells what speaks for its labels."""
        return self.spec.relevance is not None

    def overlay(self, item: _Pixels) -> Image.Image:
        """Run the network again for what speaks for the label, and lay it over the image; of a file that `explains`."""
        (relevance,) = self.model.relevance(item.pixels[None])
        return laid_over_seen(Image.fromarray(item.pixels), relevance)

    def replay(self) -> list[Drift]:
        """Compare with the answers that the file holds."""
        return selftest(self.model)

    def trials(self, count: int) -> list[_Pixels]:
        """Return noise of growing contrast: ranges that are found at run time differ between any two.

        None for a model that reads texts, whose lengths differ.
        """
        if self.spec.text is not None:
            return []
        size = self.spec.preprocessing.size
        noise = np.random.default_rng(0).random((count, size, size, 3))
        contrast = np.linspace(0.2, 1, count)[:, None, None, None]
        return [_Pixels(pixels, None) for pixels in (noise * contrast * 255).astype(np.uint8)]


class TextRow(NamedTuple):
    """What a text tower says of one text, float32 ``[dim]`` each.

    Attributes:
        embedding: of L2 norm 1.
        features: before normalisation.
        truncated: whether the end of the text was not read.
        tokens: how many were.
    """

    embedding: NDArray[np.float32]
    features: NDArray[np.float32]
    truncated: bool
    tokens: int


class Texts:
    """A text tower. What it answers is what ``TextEncoder.encode`` gives for one text, to the bit."""

    inputs = ("text",)

    def __init__(self, encoder: TextEncoder) -> None:
        """Take it opened."""
        self.model, self.spec = encoder, encoder.spec
        self.outputs = dict.fromkeys(("embedding", "features"), self.spec.encoder.dim)

    def prepare(self, source: Source) -> Tokens:
        """Tokenize; raise what `TextEncoder.encode` does."""
        image, text = source
        if image is not None or text is None:
            raise TextError("image: this model reads texts alone. Give it a text, or use a model that reads images.")
        return self.model.tokenizer.encode([text])

    def compute(self, items: list[Tokens]) -> list[TextRow]:
        """Run the network once a text."""
        return [self._row(tokens) for tokens in items]

    def row(self, result: TextRow, output: str) -> NDArray[np.float32]:
        """Return one output of a result."""
        found: NDArray[np.float32] = getattr(result, output)
        return found

    def replay(self) -> list[Drift]:
        """Compare with the answers that the file holds."""
        return selftest_text(self.model)

    def trials(self, count: int) -> list[Tokens]:  # noqa: ARG002  # the protocol's
        """Return none: texts differ in length, and run one by one."""
        return []

    def _row(self, tokens: Tokens) -> TextRow:
        embedding, features = self.model.run(tokens)
        return TextRow(embedding[0], features[0], tokens.truncated[0], int(tokens.attention_mask.sum()))


def exact_sizes(
    trials: Sequence[Any], compute: Callable[[list[Any]], list[Any]], rows: Callable[[Any], list[NDArray[np.float32]]]
) -> tuple[int, ...]:
    """Return the batch sizes, powers of two, in which every image gets the bits that it gets alone.

    A product of other shape may sum in another order, and int8 ranges that are found at run time span the whole batch;
    both depend on file, processor and ONNX Runtime, so it is tried.
    """
    alone = [[row.tobytes() for row in rows(compute([item])[0])] for item in trials]
    sizes = [1]
    while (size := 2 * sizes[-1]) <= len(trials):
        together = [[row.tobytes() for row in rows(result)] for result in compute(list(trials[:size]))]
        if together != alone[:size]:
            break
        sizes.append(size)
    return tuple(sizes)
