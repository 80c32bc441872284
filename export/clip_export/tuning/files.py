"""The files that candidates would become, without their proof: written, timed, and asked for features."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_export.encoders.feature_names import POOLED
from clip_export.graph.network import Answers, network_graph
from clip_export.heads.mlp import VLMtoMLP
from clip_export.quantization.evidence.feeds import Feeds
from clip_export.quantization.layers.feature import feature_of
from clip_export.quantization.layers.linears import find_linears, with_plain_linears
from clip_export.quantization.modes.int8 import Int8Scheme, quantize_int8
from clip_export.quantization.ranges import RANGES, observe, run
from clip_export.quantization.targets import find_target
from clip_export.tuning.candidates import FLOAT32, INT8, Found, reading
from clip_export.tuning.heads import HIDDEN
from clip_export.tuning.subject import Subject
from clip_export.tuning.timing import Run, runner, timed_in_turns
from clip_toolkit.judging.figures import Interval

_CALIBRATION = 64


@dataclass
class Files:
    """Writes candidates to a folder, one feature at a time."""

    folder: Path
    _reference: Run | None = field(default=None, init=False)

    def write(self, subject: Subject, found: Found) -> dict[str, Path]:
        """Write the files of a feature in both precisions, in place of the last one's.

        The head has the sizes of the candidate's, and random weights: neither time nor size depends on them.
        """
        encoder, train = reading(subject.encoder, found.feature), subject.split.train
        head = VLMtoMLP(encoder.dim, HIDDEN[found.head], len(subject.dataset.labels))
        model = network_graph(encoder, head, "image", "ort", Answers(subject.dataset.task))
        typical = train[:: max(1, len(train) // _CALIBRATION)][:_CALIBRATION]
        paths = {precision: self.folder / f"{precision}.onnx" for precision in (FLOAT32, INT8)}
        paths[FLOAT32].write_bytes(model.SerializeToString())
        paths[INT8].write_bytes(static_int8(model, subject.pixels[typical]).SerializeToString())
        return paths

    def measure(self, found: Found, path: Path, subject: Subject, first: Subject) -> tuple[float, float, float, int]:
        """Return seconds of the reference, the time of a candidate's file in those, its scatter, and bytes.

        Args:
            found: the candidate.
            path: its file.
            subject: its encoder.
            first: the encoder whose pooled feature, in float32, is the reference.
        """
        candidate = runner(path, subject.encoder.preprocessing.size)
        if self._reference is None:
            is_reference = (found.encoder, found.feature, found.precision) == (first.name, POOLED, FLOAT32)
            self._reference = candidate if is_reference else self._reference_run(first)
        return *timed_in_turns(self._reference, candidate), path.stat().st_size

    def _reference_run(self, first: Subject) -> Run:
        """Write the reference anew, where its own results are known from before an interruption."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            whole = Found(first.name, POOLED, FLOAT32, "linear", Interval(0, 0, 0))
            path = Files(Path(folder)).write(first, whole)[FLOAT32]
            return runner(path, first.encoder.preprocessing.size)


def static_int8(model: onnx.ModelProto, images: NDArray[np.generic], ops: str = "ort") -> onnx.ModelProto:
    """Quantize as clip-export begins to: static ranges. Its own search starts there, and ends no slower."""
    plain = with_plain_linears(model)
    feeds = Feeds({model.graph.input[0].name: images})
    seen = observe(plain, feeds, [layer.source for layer in find_linears(plain).values()])
    ranges = {name: RANGES["min-max"](activation) for name, activation in seen.items()}
    return quantize_int8(plain, Int8Scheme(find_target("auto"), ops, ranges))


def features_by_file(path: Path, images: NDArray[np.uint8]) -> Tensor:
    """Return the features ``[n, dim]`` that a file computes of images ``[n, size, size, 3]``."""
    model, name = feature_of(onnx.load(path))
    rows = [values for (values,) in run(model, Feeds({"image": images}), [name])]
    return torch.from_numpy(np.concatenate(rows))
