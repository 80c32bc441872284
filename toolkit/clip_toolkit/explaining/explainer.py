"""One overlay a classified image, into a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_toolkit.classifier import Classifier
from clip_toolkit.errors import ModelError, OutputError
from clip_toolkit.explaining.occlusion import occlusion
from clip_toolkit.explaining.overlay import explained_label, overlay
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.images import open_image
from clip_toolkit.images.preprocess import preprocess
from clip_toolkit.network import NO_RELEVANCE
from clip_toolkit.prediction import Prediction
from clip_toolkit.spec.classifier import check_one_head
from clip_toolkit.spec.tasks import FILE


class Explainer:
    """Draws what speaks for the label of each image."""

    def __init__(self, classifier: Classifier, way: str = FILE) -> None:
        """Take an open model and one of `clip_toolkit.spec.tasks.WAYS`.

        Raises:
            ModelError: the file has no maps of its own, and was asked for them.
            SpecError: it has several heads.
        """
        check_one_head(classifier.spec, "--explain", "a file of one head")
        if way == FILE and classifier.spec.relevance is None:
            raise ModelError(f"{NO_RELEVANCE} Or find it by covering parts of the image: --explain-by occlusion.")
        self.classifier, self.way = classifier, way

    def overlay(self, image: Image.Image, prediction: Prediction) -> Image.Image:
        """Draw the map of an image that has been classified.

        Args:
            image: as `clip_toolkit.images.open_image` returns it.
            prediction: what `classifier` said of it.
        """
        title = explained_label(prediction)
        novel = " - the image is unlike the training images" if prediction.is_novel else ""
        return overlay(image, self._map(image, prediction), title + novel, self.classifier.spec.preprocessing)

    def _map(self, image: Image.Image, prediction: Prediction) -> NDArray[np.float32]:
        if self.way == FILE:
            assert prediction.relevance is not None  # the file has them
            return prediction.relevance
        pixels = preprocess(image, self.classifier.spec.preprocessing)
        return occlusion(self.classifier, pixels, prediction.text)


class OverlayFolder:
    """A folder of overlays, ``0001-cat.png`` of the first image ``cat.jpg`` and so on; errors leave gaps."""

    def __init__(self, folder: Path, explainer: Explainer) -> None:
        """Create the folder.

        Raises:
            OutputError: it cannot be created, or holds something.
        """
        with _told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise OutputError(f"{folder}: is not empty. Name a new folder with --explain.")
        self.folder, self.explainer = folder, explainer

    def add(self, number: int, name: str, prediction: Prediction) -> None:
        """Draw the image at a path, which has been classified as the ``number``th.

        Raises:
            ImageError: it has changed since, and cannot be read any more.
            OutputError: the overlay cannot be written.
        """
        page = self.explainer.overlay(open_image(name, self.explainer.classifier.options), prediction)
        with written_atomically(self.folder / f"{number:04}-{Path(name).stem}.png") as temporary:
            page.save(temporary, "png")


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{folder}: cannot be a folder of overlays ({error.strerror or error})") from error
