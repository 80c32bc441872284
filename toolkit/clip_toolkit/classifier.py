"""Images in, predictions out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.cpu import saturates
from clip_toolkit.devices import CPU, ONE_RUN_AT_A_TIME, RESIZES, OpenSession, open_session
from clip_toolkit.errors import ImageError, ModelError
from clip_toolkit.images import MAX_PIXELS, DecodeOptions, ImageSource, open_image, source_name
from clip_toolkit.locate import find_model
from clip_toolkit.model_file import read_spec
from clip_toolkit.prediction import Prediction
from clip_toolkit.preprocess import check_aspect, normalise, preprocess
from clip_toolkit.spec import ModelSpec
from clip_toolkit.stream.pipeline import chunks, in_order
from clip_toolkit.tasks import OUTPUTS, REGRESSION


def load(
    model: str | os.PathLike[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    resize: str = "pillow",
    *,
    max_pixels: int = MAX_PIXELS,
    allow_truncated: bool = False,
    fast_decode: bool = False,
    prepack: bool = True,
) -> Classifier:
    """Open a model file of ``clip-export``.

    Args:
        model: path; without one `clip_toolkit.locate.find_model` decides.
        device: ``auto``, ``cpu``, ``cuda``, ``tensorrt``, ``openvino``, ``coreml`` or ``directml``.
        threads: CPU threads; default all cores this process may use.
        resize: ``pillow``, bit for bit what the transformers processor does, or ``graph``, the file's own: one image
            a run, and within the tolerance that the parity receipt states.
        max_pixels: width times height beyond which an image is refused before it is decoded.
        allow_truncated: decode what there is of a file that is cut short, instead of refusing it.
        fast_decode: let JPEGs be scaled down while they are decoded: faster, and not quite the same pixels
            (docs/runtime.md gives the drift).
        prepack: lay out the weights anew for speed. Without, the model opens sooner and takes less memory, which pays
            for a handful of images.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: the file is damaged, foreign, keeps weights in other files, or cannot resize as asked.
        DeviceError: a device asked for by name is not there.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    path = find_model(model).path
    spec = read_spec(path)
    options = DecodeOptions(max_pixels, allow_truncated, spec.preprocessing.resize if fast_decode else None)
    return Classifier(spec, open_session(path, device, threads, spec.ops, prepack), resize, options)


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


class Classifier:
    """A model file, opened. Safe to share between threads.

    Attributes:
        spec: what the file says of itself.
        provider: the ONNX Runtime execution provider that runs it.
        notes: remarks on the device, one line each.
        threads: CPU threads, of the network and of `predict_many`.
        options: how images are decoded.
        resize: ``pillow`` or ``graph``.
    """

    def __init__(
        self, spec: ModelSpec, opened: OpenSession, resize: str = "pillow", options: DecodeOptions | None = None
    ) -> None:
        """Wrap an open session; most callers want `load`.

        Raises:
            ModelError: ``resize`` is unknown, or ``graph`` where the graph has no faithful one.
        """
        _check_resize(resize, spec, opened.provider)
        _check_graph(spec, opened)
        self.spec = spec
        self.provider = opened.provider
        self.notes = (*opened.notes, *_quantization_notes(spec, opened.provider))
        self._session = opened.session
        self.threads = opened.threads
        self.resize = resize
        self.options = options or DecodeOptions()
        self._turn = Lock() if opened.provider in ONE_RUN_AT_A_TIME else nullcontext()

    def predict(self, image: ImageSource) -> Prediction:
        """Classify one image.

        Args:
            image: path, file bytes, binary file object, Pillow image, or uint8 RGB array ``[height, width, 3]``.

        Raises:
            ImageError: the image cannot be decoded, or the array has another shape or dtype.
        """
        return self._predictions([self.pixels(image)])[0]

    def predict_many(
        self, images: Iterable[ImageSource], batch_size: int = 8, errors: str = "raise"
    ) -> Iterator[Prediction | ImageError]:
        """Classify many images, lazily and in order, ``batch_size`` at a time; sizes may differ.

        As many batches as there are threads are decoded and run at once; no more than one beyond those is taken from
        ``images``.

        Args:
            images: anything `predict` takes.
            batch_size: images per run of the network.
            errors: ``raise`` stops at the first bad image; ``return`` yields its `ImageError` in its place.

        Raises:
            ImageError: a bad image, with ``errors="raise"``.
            ValueError: ``batch_size`` or ``errors`` is out of range.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        if errors not in ("raise", "return"):
            raise ValueError(f"errors: expected 'raise' or 'return', got {errors!r}")
        return self._stream(images, batch_size, errors)

    def pixels(self, image: ImageSource) -> NDArray[np.uint8]:
        """Decode one image and, unless the graph does it, resize and crop it.

        Returns:
            uint8 RGB ``[size, size, 3]``, or ``[height, width, 3]`` with ``resize="graph"``.

        Raises:
            ImageError: as in `predict`.
        """
        picture = open_image(image, self.options)
        try:
            check_aspect(picture.height, picture.width)
            return np.asarray(picture) if self.resize == "graph" else preprocess(picture, self.spec.preprocessing)
        except ImageError as error:
            raise ImageError(f"{source_name(image)}: {error}") from error

    def run(self, image: NDArray[np.uint8]) -> Outputs:
        """Run the network on a batch of equally large images, with the resize inside the graph.

        Args:
            image: uint8 RGB ``[batch, height, width, 3]``; of the model's own size for files that take
                ``pixel_values``.

        Raises:
            ImageError: another rank, dtype or number of channels, a zero side, or a size that the file cannot take.
            ModelError: ONNX Runtime fails on it.
        """
        feeds = self._feeds(image)
        try:
            with self._turn:
                outputs = self._session.run(list(OUTPUTS[self.spec.task]), feeds)
        except Exception as error:
            raise ModelError(f"ONNX Runtime failed on {self.provider}: {error}") from error
        if self.spec.task != REGRESSION:
            return Outputs(*outputs)
        values, embedding = outputs
        return Outputs(values[:, :0], values, embedding)

    def _feeds(self, image: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8] | NDArray[np.float32]]:
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

    def _stream(self, images: Iterable[ImageSource], batch_size: int, errors: str) -> Iterator[Prediction | ImageError]:
        for results in in_order(chunks(images, batch_size), self._results, self.threads):
            for result in results:
                if isinstance(result, ImageError) and errors == "raise":
                    raise result
                yield result

    def _results(self, images: list[ImageSource]) -> list[Prediction | ImageError]:
        prepared = [self._pixels_or_error(image) for image in images]
        predictions = iter(self._predictions([item for item in prepared if not isinstance(item, ImageError)]))
        return [item if isinstance(item, ImageError) else next(predictions) for item in prepared]

    def _pixels_or_error(self, image: ImageSource) -> NDArray[np.uint8] | ImageError:
        try:
            return self.pixels(image)
        except ImageError as error:
            return _without_frames(error)

    def _predictions(self, pixels: list[NDArray[np.uint8]]) -> list[Prediction]:
        if not pixels:
            return []
        # With the graph's resize sizes differ, and a result must not depend on its neighbours: one by one.
        batches = [image[None] for image in pixels] if self.resize == "graph" else [np.stack(pixels)]
        return [
            Prediction(self.spec.labels, *row, self.provider, self.spec.task, self.spec.thresholds)
            for batch in batches
            for row in zip(*self.run(batch), strict=True)
        ]


def _without_frames(error: ImageError) -> ImageError:
    """Tracebacks keep every local variable alive, among them half-decoded images of hundreds of megabytes."""
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
    return error


def _check_graph(spec: ModelSpec, opened: OpenSession) -> None:
    """The graph must be the one that the metadata speaks of."""
    found = {output.name: output.shape[-1:] for output in opened.session.get_outputs()}
    classes, dim = len(spec.labels), spec.encoder.dim
    expected = {name: [dim if name == "embedding" else classes] for name in OUTPUTS[spec.task]}
    if found != expected:
        raise ModelError(f"the metadata speaks of outputs {expected}, the graph has {found}. Export the model again.")
    name = "image" if spec.input == "image" else "pixel_values"
    inputs = [item.name for item in opened.session.get_inputs()]
    if inputs != [name]:
        raise ModelError(f"the metadata speaks of the input {name}, the graph has {inputs}. Export the model again.")


def _quantization_notes(spec: ModelSpec, provider: str) -> tuple[str, ...]:
    receipt = spec.quantization
    if receipt is None or provider != CPU or not saturates(receipt.target):
        return ()
    return (
        (
            f"this int8 file was made for {receipt.target}, and may saturate on this processor, which has no VNNI. "
            "Check with --selftest, or export it again with --target x86."
        ),
    )


def _check_resize(resize: str, spec: ModelSpec, provider: str) -> None:
    if resize not in RESIZES:
        raise ModelError(f"resize: expected one of {', '.join(RESIZES)}, got {resize!r}")
    if resize == "graph" and spec.input != "image":
        raise ModelError("resize: this file takes pixel_values and has no resize in it. Use resize='pillow'.")
    if resize == "graph" and provider != CPU:
        # CUDA: microsoft/onnxruntime#25264; OpenVINO: openvinotoolkit/openvino#35893
        raise ModelError(f"resize: the graph's is not known to be right on {provider}. Use resize='pillow'.")
