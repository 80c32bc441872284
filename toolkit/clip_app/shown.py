"""The model that the app shows."""

from __future__ import annotations

import shutil
from pathlib import Path

from clip_toolkit.classifier import Classifier, load
from clip_toolkit.commands.running_options import DeviceOptions
from clip_toolkit.errors import ModelError
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.spec.classifier import check_one_head


class ShownModel:
    """An open model file, and a way to put another in its place.

    Attributes:
        path: of the file.
        classifier: the open model.
    """

    def __init__(self, path: Path, device: DeviceOptions) -> None:
        """Open the file.

        Raises:
            ModelError: it is missing, foreign or damaged, reads a text with each image, or has several heads.
            DeviceError, MissingDependencyError: as in `clip_toolkit.load`.
        """
        self.path, self._device = path.resolve(), device
        self.classifier = self.open(path)
        if self.classifier.spec.text is not None:
            raise ModelError(f"{path}: reads a text with each image; this app shows images alone. Use clip-serve.")

    def open(self, path: Path) -> Classifier:
        """Open a file on the same device.

        Raises:
            ModelError: it is missing, foreign or damaged, or has several heads.
        """
        classifier = load(path, self._device.device, self._device.threads)
        check_one_head(classifier.spec, "this app", "clip-serve or clip-infer")
        return classifier

    def beside(self, kind: str) -> Path:
        """Name a file beside the model's, such as ``model.previous.onnx``."""
        return self.path.with_name(f"{self.path.stem}.{kind}.onnx")

    def replace(self, candidate: Path) -> Path:
        """Show another model from now on, under the same name; return where the one so far is kept.

        Raises:
            ModelError: the candidate cannot be opened; nothing has changed.
            OutputError: the file so far cannot be copied; nothing has changed.
        """
        opened, previous = self.open(candidate), self.beside("previous")
        with written_atomically(previous) as temporary:
            shutil.copyfile(self.path, temporary)
        candidate.replace(self.path)  # as one step: a service may read it at any time
        self.classifier = opened
        return previous
