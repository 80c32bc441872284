"""Images and the texts that go with them: each image has one in a model that reads text, and none in any other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import repeat, zip_longest
from typing import Any, NamedTuple

from PIL import Image

from clip_toolkit.errors import ImageError, TextError
from clip_toolkit.images import ImageSource
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.text.tokenization import check_texts


class Pair(NamedTuple):
    """An image, and the text that goes with it if the model reads one."""

    image: ImageSource | ImageError
    text: str | None


def check_pairing(spec: ModelSpec, has_texts: bool) -> None:
    """Refuse texts that a model does not read, and none where it reads them.

    Raises:
        TextError: the message says what to give instead.
    """
    if spec.text is not None and not has_texts:
        raise TextError("text: this model reads a text with each image. Give it one: text=..., or --text on the shell.")
    if spec.text is None and has_texts:
        raise TextError("text: this model reads images alone. Leave the text out, or use a model that reads both.")


def paired(images: Iterable[ImageSource | ImageError], texts: Iterable[str] | None) -> Iterator[Pair]:
    """Pairs, lazily.

    Raises:
        ImageError: ``images`` is a single image.
        TextError: ``texts`` is a single text or cannot be iterated over, one of them is no text, or there are not as
            many as images.
    """
    if isinstance(images, (str, bytes, bytearray, os.PathLike, Image.Image)):
        raise ImageError("images: expected several, got a single one. Put it into a list: [image]")
    if texts is None:
        yield from map(Pair, images, repeat(None))
        return
    if isinstance(texts, (str, bytes)):
        check_texts(texts)  # which says what to give instead
    if not isinstance(texts, Iterable):
        raise TextError(f"texts: expected a list of texts, got {type(texts).__name__}.")
    missing: Any = object()  # unlike zip's ValueError, not to be mistaken for an error of what is iterated over
    for image, text in zip_longest(images, texts, fillvalue=missing):
        if image is missing or text is missing:
            raise TextError("texts: expected as many as there are images.")
        check_texts([text])
        yield Pair(image, text)
