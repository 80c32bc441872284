"""Retraining on the data and the corrections, in a process of its own, and the comparison that follows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from clip_app.comparing import Comparison, compare, held_out
from clip_app.corrections import Corrections
from clip_app.options import RetrainingOptions
from clip_app.shown import ShownModel
from clip_toolkit.data.manifest import read_manifest
from clip_toolkit.errors import ClipToolkitError, MissingDependencyError
from clip_toolkit.files.atomic import check_writable

_MODULE = "clip_export.commands.retrain"


class Retraining:
    """Makes a candidate beside the shown model, which stays as it is until the candidate is accepted.

    Attributes:
        candidate: path of the candidate.
        corrections: what is learnt beside the data.
    """

    def __init__(self, shown: ShownModel, corrections: Corrections, options: RetrainingOptions) -> None:
        """Check what can be checked beforehand.

        Raises:
            MissingDependencyError: the extra ``export`` is not installed.
            ClipToolkitError: there is no such head file.
            OutputError: the candidate could not be written beside the model.
        """
        if find_spec("torch") is None:
            raise MissingDependencyError("retraining needs torch. Install: pip install 'clip-toolkit[app,export,cpu]'")
        if not options.head.is_file():
            raise ClipToolkitError(f"{options.head}: there is no such head file. Make one with clip-train.")
        self.candidate = shown.beside("retrained")
        check_writable(self.candidate)
        self.corrections, self._shown, self._options = corrections, shown, options
        self._process: subprocess.Popen[str] | None = None

    def train(self) -> Iterator[str]:
        """Train a head, export the candidate, and yield what the commands say, line by line.

        Raises:
            ClipToolkitError: there are no corrections, or a command failed; the message is its last line.
        """
        if not self.corrections.rows():
            raise ClipToolkitError("there is nothing to learn yet: correct some answers first")
        last = ""
        with subprocess.Popen(  # noqa: S603  # our own command
            self._command(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=os.environ | {"PYTHONUTF8": "1"},
        ) as self._process:
            assert self._process.stdout is not None  # a pipe
            try:
                for line in self._process.stdout:
                    last = line.rstrip()
                    yield last
            finally:
                self.stop()
        if self._process.returncode != 0:
            raise ClipToolkitError(last or f"the training ended with exit code {self._process.returncode}")

    def stop(self) -> None:
        """End a training that is under way."""
        if self._process is not None and self._process.poll() is None and self._process.stdout is not None:
            self._process.terminate()

    def _command(self) -> list[str]:
        spec, options = self._shown.classifier.spec, self._options
        quantized = [] if spec.quantization is None else ["--quantize", spec.quantization.mode]
        data = [] if options.data is None else ["--data", str(options.data)]
        paths = ["--head", str(options.head), "--corrections", str(self.corrections.manifest)]
        explained = [] if spec.relevance is None else ["--explain"]
        form = ["--input", spec.input, "--ops", spec.ops, *quantized, *explained]
        return [sys.executable, "-m", _MODULE, *paths, *data, *form, "--model", str(self.candidate)]

    def compare(self) -> dict[str, Comparison]:
        """Compare the shown model with the candidate, by what they are judged on.

        Raises:
            ClipToolkitError: there is no candidate, or it has other labels than the shown model.
        """
        candidate = self._shown.open(self.candidate)
        if candidate.spec.labels != self._shown.classifier.spec.labels:
            raise ClipToolkitError(
                f"{self._options.head}: has the labels {', '.join(candidate.spec.labels)}, and the model shown has "
                f"others. Name the head that {self._shown.path.name} was exported from."
            )
        shown = self._shown.classifier
        manifests = (self.corrections.manifest.with_name("training.csv"), self.corrections.manifest)
        data, corrected = (read_manifest(path, shown.spec.task, labels=shown.spec.labels) for path in manifests)
        judged, learnt = held_out(data), compare(shown, candidate, corrected)
        return {
            "held-out images": compare(shown, candidate, judged),
            "corrected images, which it has learnt": learnt._replace(mended=[], broken=[]),  # their names are hashes
        }

    def accept(self) -> Path:
        """Show the candidate from now on; return where the model so far is kept.

        Raises:
            ModelError, OutputError: as in `clip_app.shown.ShownModel.replace`.
        """
        return self._shown.replace(self.candidate)
