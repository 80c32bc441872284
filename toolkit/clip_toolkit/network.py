"""The network in a model file: pixels in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.errors import ImageError, ModelError
from clip_toolkit.images.preprocess import normalise
from clip_toolkit.runtime.graph_check import check_graph
from clip_toolkit.runtime.session import Session
from clip_toolkit.spec.classifier import ModelSpec, TaskSpec
from clip_toolkit.spec.tasks import EXPLAIN, NOVELTY, RELEVANCE, output_names
from clip_toolkit.text.pairs import check_pairing
from clip_toolkit.text.tokenization import INPUTS as TEXT_INPUTS
from clip_toolkit.text.tokenization import Tokens

NO_RELEVANCE = "the file has no output relevance. Export it again with clip-export --explain."

NO_NOVELTY = (
    "the file does not tell how far an image is from the training images. Train its head with clip-train --novelty, "
    "and export it again."
)


class Outputs(NamedTuple):
    """What the network returns for a batch, float32.

    Attributes:
        probabilities: ``[batch, classes]``; ``[batch, 0]`` for a regression.
        logits: ``[batch, classes]``; the values of a regression.
        embedding: ``[batch, dim]``.
    """

    probabilities: NDArray[np.float32]
    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]


class Network:
    """The network of an open file, for one of its heads.

    Attributes:
        spec: what the file says of itself, or of that head.
    """

    def __init__(self, spec: ModelSpec, session: Session, head: str | None = None) -> None:
        """Wrap an open session; its graph is held against the spec unless it is one head of a file held so before.

        Args:
            spec: of the file, or of one of its heads.
            session: of the file.
            head: what the names of that head's outputs end in; None for the whole file.

        Raises:
            ModelError: the graph is not what the spec says.
        """
        if head is None:
            check_graph(spec, session)
        self.spec, self._session, self._head = spec, session, head or ""
        self._can_leave_maps_out = spec.relevance is not None and session.may_take(EXPLAIN)

    def run(self, image: NDArray[np.uint8], tokens: Tokens | None = None) -> Outputs:
        """Run the network on a batch of equally large images, with the resize inside the graph.

        Args:
            image: uint8 RGB ``[batch, height, width, 3]``; of the model's own size for files that take
                ``pixel_values``.
            tokens: of the file's tokenizer, one text for each image, in models that read text.

        Raises:
            ImageError: another rank, dtype or number of channels, a zero side, or a size that the file cannot take.
            TextError: the model reads text and there are no tokens, or the other way round.
            ModelError: ONNX Runtime fails on it.
        """
        return self._run(image, tokens, [(self.spec, self._head)])[0][0]

    def novelty(self, image: NDArray[np.uint8], tokens: Tokens | None = None) -> NDArray[np.float32]:
        """Return how far each image of a batch is from the training images, float32 ``[batch]``.

        Args:
            image: as in `run`.
            tokens: likewise.

        Raises:
            ModelError: the file has no such output, or what `run` raises.
        """
        if self.spec.novelty is None:
            raise ModelError(NO_NOVELTY)
        return self._run(image, tokens, [(self.spec, self._head)])[1][NOVELTY]

    def relevance(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return what speaks for the label with the largest logit, float32 ``[batch, rows, columns]``.

        Args:
            image: as in `run`.

        Raises:
            ModelError: the file has no such output, or what `run` raises.
        """
        if self.spec.relevance is None:
            raise ModelError(NO_RELEVANCE)
        return self._run(image, None, [(self.spec, self._head)], explain=True)[1][RELEVANCE]

    def _run(
        self,
        image: NDArray[np.uint8],
        tokens: Tokens | None,
        heads: Sequence[tuple[ModelSpec | TaskSpec, str]],
        *,
        explain: bool = False,
    ) -> tuple[list[Outputs], dict[str, NDArray[np.float32]]]:
        """Run the network once, for heads and what the names of their outputs end in, and further outputs by name."""
        check_pairing(self.spec, tokens is not None)
        feeds = self._feeds(image) | {name: getattr(tokens, name) for name in TEXT_INPUTS if tokens is not None}
        names = [output_names(head.task, ending) for head, ending in heads]
        if self._can_leave_maps_out:
            feeds[EXPLAIN] = np.array([len(image) if explain else 0], np.int64)
        told = (NOVELTY, RELEVANCE) if explain else (NOVELTY,)
        further = [name for name in told if getattr(self.spec, name) is not None]
        wanted = [*dict.fromkeys(chain(*names)), *further]
        found = dict(zip(wanted, self._session.run(wanted, feeds), strict=True))
        return [_outputs([found[name] for name in own]) for own in names], {name: found[name] for name in further}

    def _feeds(self, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        if image.dtype != np.uint8 or image.ndim != 4 or image.shape[-1] != 3 or 0 in image.shape:
            raise ImageError(
                "image: expected uint8 RGB [batch, height, width, 3] with no zero side, "
                f"got {image.dtype} {list(image.shape)}"
            )
        if self.spec.input == "image":
            return {"image": image}
        size = self.spec.preprocessing.size
        if image.shape[1:3] != (size, size):
            raise ImageError(f"image: this file takes {size}x{size} only, got {image.shape[2]}x{image.shape[1]}")
        return {"pixel_values": normalise(image, self.spec.preprocessing)}


def _outputs(found: list[NDArray[np.float32]]) -> Outputs:
    """Of a regression, which has no probabilities, the values stand as logits."""
    if len(found) == len(Outputs._fields):
        return Outputs(*found)
    values, embedding = found
    return Outputs(values[:, :0], values, embedding)
