"""The images of a report that a model is wrong about, and what speaks for its answers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from textwrap import shorten
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_toolkit.data.dataset import Dataset
from clip_toolkit.explaining.overlay import explained, laid_over
from clip_toolkit.judging.answers import Answers
from clip_toolkit.judging.mistakes import Mistake
from clip_toolkit.judging.page import Thumbnail
from clip_toolkit.spec.classifier import Preprocessing

_CAPTION = 60  # characters of a text below a thumbnail

MAPS_NOTE = (
    "Below an image, in grey, the part that the model sees; in colour what speaks for its largest logit, from violet "
    "(a little) to light yellow (the most in that image)."
)


class Relevance(NamedTuple):
    """What speaks for the label with the largest logit: maps ``[rows, columns]`` over what the encoder sees.

    Attributes:
        maps: of examples, by their row in the answers.
        rule: the encoder's.
    """

    maps: Mapping[int, NDArray[np.float32]]
    rule: Preprocessing

    def draw(self, row: int, image: Image.Image) -> Image.Image:
        """Lay the map of an example over its image."""
        return laid_over(image, self.maps[row], self.rule)


def mistake_thumbnail(
    mistake: Mistake, answers: Answers, dataset: Dataset, index: int, relevance: Relevance | None
) -> Thumbnail:
    """Show an image with its text, if it has one, what was said, what is so, and its map, if there is one.

    Args:
        mistake: the wrong answer.
        answers: in which it is.
        dataset: in which the image is.
        index: its place there.
        relevance: the maps of some examples.

    Raises:
        ImageError: the image cannot be decoded.
    """
    text = [] if dataset.texts is None else [shorten(dataset.texts[index], _CAPTION, placeholder="...")]
    lines, draw = [*text, f"predicted {mistake.said}", f"true: {mistake.true}"], None
    if relevance is not None and mistake.row in relevance.maps:
        lines.append(f"in colour: {explained(answers.labels, answers.logits[mistake.row], answers.task)}")
        draw = partial(relevance.draw, mistake.row)
    return Thumbnail.of(dataset.files[index], dataset.relative(index), lines, draw)
