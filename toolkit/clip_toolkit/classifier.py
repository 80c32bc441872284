"""Images in, predictions out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.errors import ImageError
from clip_toolkit.files.locate import find_model
from clip_toolkit.images import MAX_PIXELS, DecodeOptions, ImageSource
from clip_toolkit.images.limits import DRAFT_FACTOR
from clip_toolkit.images.preparing import Preparation
from clip_toolkit.images.preprocess import by_shape
from clip_toolkit.network import Network, Outputs
from clip_toolkit.prediction import Prediction
from clip_toolkit.runtime.graph_check import check_resize, quantization_notes
from clip_toolkit.runtime.isolation_limits import Limits
from clip_toolkit.runtime.reopening import remember, reopen
from clip_toolkit.runtime.session import Opening, Session, open_session
from clip_toolkit.spec.classifier import ModelSpec, TaskSpec
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.tasks import NOVELTY, RELEVANCE
from clip_toolkit.stream.pipeline import chunks, in_order
from clip_toolkit.text.pairs import Pair, check_pairing, paired
from clip_toolkit.text.tokenization import Tokenizer

if TYPE_CHECKING:
    from clip_toolkit.runtime.isolation import IsolatedPreparation


def load(
    model: str | os.PathLike[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    resize: str = "pillow",
    *,
    max_pixels: int = MAX_PIXELS,
    allow_truncated: bool = False,
    fast_decode: bool | None = None,
    prepack: bool = True,
    throughput: bool = False,
    isolate: Limits | None = None,
) -> Classifier:
    """Open a model file of ``clip-export``.

    Args:
        model: path; without one `clip_toolkit.files.locate.find_model` decides.
        device: one of `clip_toolkit.runtime.plugins.ALL_DEVICES`, such as ``auto``, ``cpu`` or ``cuda``.
        threads: CPU threads; default all cores this process may use.
        resize: ``pillow``, bit for bit what the transformers processor does, or ``graph``, the file's own: one image
            a run, and within the tolerance that the parity receipt states.
        max_pixels: width times height beyond which an image is refused before it is decoded.
        allow_truncated: decode what there is of a file that is cut short, instead of refusing it.
        fast_decode: let JPEGs be scaled down while they are decoded: faster, and not quite the same pixels; by default
            where the file says that it decides them as before (docs/runtime.md).
        prepack: lay out the weights anew for speed. Without, the model opens sooner and takes less memory, which pays
            for a handful of images.
        throughput: on the CPU, give each run of the network one thread, and run as many at once as there are threads:
            more images a second with `Classifier.predict_many`, and a longer wait for a single one.
        isolate: decode images from files and bytes in worker processes within these limits, for images from strangers
            (docs/runtime.md gives the price).

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: the file is damaged, foreign, keeps weights in other files, or cannot resize as asked.
        DeviceError: a device asked for by name is not there.
        MissingDependencyError: ONNX Runtime is not installed, or, for a model that reads text, the ``text`` extra; or
            ``isolate`` on a system other than Linux.
    """
    path = find_model(model).path
    spec = read_spec(path)
    options = DecodeOptions(max_pixels, allow_truncated, _draft_side(spec, fast_decode))
    session = open_session(path, device, threads, spec.ops, prepack, throughput=throughput, needs=spec.onnxruntime)
    return Classifier(spec, session, resize, options, isolate)


def _draft_side(spec: ModelSpec, fast_decode: bool | None) -> int | None:
    judged = spec.fast_decode
    if fast_decode is False or (fast_decode is None and judged is None):
        return None
    return judged.side if judged is not None else spec.preprocessing.resize * DRAFT_FACTOR


def _decoding_notes(spec: ModelSpec, draft_side: int | None) -> tuple[str, ...]:
    if draft_side is None:
        return ()
    judged = "not judged" if spec.fast_decode is None else f"judged on {spec.fast_decode.images} images"
    return (f"JPEGs are scaled down while they are decoded, {judged}",)


def _isolated(prepare: Preparation, limits: Limits, threads: int) -> IsolatedPreparation:
    from clip_toolkit.runtime.isolation import IsolatedPreparation  # what starts processes takes long to import

    return IsolatedPreparation(prepare, limits, threads)


def _reopened(opening: Opening, digest: str, resize: str, options: DecodeOptions, isolate: Limits | None) -> Classifier:
    """Undo `Classifier.__reduce__`."""
    spec, session = reopen(opening, digest, read_spec)
    return Classifier(spec, session, resize, options, isolate)


class Classifier(Network):
    """A model file, opened. Safe to share between threads, and picklable: another process opens the file again.

    Attributes:
        spec: what the file says of itself.
        tokenizer: the tokenizer in the file, of a model that reads a text with each image, or None.
        provider: the ONNX Runtime execution provider that runs it.
        notes: remarks on the device and on how images are decoded, one line each.
        threads: CPU threads, of the network and of `predict_many`.
        options: how images are decoded.
        resize: ``pillow`` or ``graph``.
        isolate: limits of the processes that decode, or None where this one does.
        explains: whether predictions of a file that has maps carry them, as they do unless you set it to False; then
            they are several times faster.
    """

    def __init__(
        self,
        spec: ModelSpec,
        session: Session,
        resize: str = "pillow",
        options: DecodeOptions | None = None,
        isolate: Limits | None = None,
        *,
        head: str | None = None,
    ) -> None:
        """Wrap an open session; most callers want `load`.

        Args:
            spec: of the file, or of one of its heads.
            session: of the file.
            resize: as in `load`.
            options: how images are decoded.
            isolate: as in `load`.
            head: as in `Network`.

        Raises:
            ModelError: ``resize`` is unknown, or ``graph`` where the graph has no faithful one.
        """
        check_resize(resize, spec, session.provider)
        super().__init__(spec, session, head)
        self.tokenizer = Tokenizer(spec.text.tokenizer) if spec.text is not None else None
        self.provider = session.provider
        self.options = options or DecodeOptions()
        self.notes = (
            *session.notes,
            *quantization_notes(spec, session.provider),
            *_decoding_notes(spec, self.options.draft_side),
        )
        self.threads = session.threads
        self.resize = resize
        self.isolate = isolate
        self.explains = True
        prepare = Preparation(self.options, spec.preprocessing, in_graph=resize == "graph")
        self._prepare = prepare if isolate is None else _isolated(prepare, isolate, self.threads)

    def __reduce__(self) -> tuple[Callable[..., Classifier], tuple[object, ...], dict[str, object]]:
        """Pickle how the file was opened; unpickling raises `ModelError` where it holds another model by then."""
        opened = (*remember(self._session, self.spec), self.resize, self.options, self.isolate)
        return _reopened, opened, {"explains": self.explains}

    def __repr__(self) -> str:
        """Show the model and where it runs."""
        return f"<Classifier {self.spec!r} on {self.provider}, threads: {self.threads}>"

    @property
    def heads(self) -> dict[str, Classifier]:
        """Each head by its name, the main one first, as a classifier of its own, which runs the whole file.

        `predict` gives the answers of all in one run; this serves what is about one head, such as its proof.
        """
        if not self.spec.tasks:
            return {self.spec.name: self}
        opening = (self._session, self.resize, self.options, self.isolate)
        return {
            name: Classifier(spec, *opening, head=name if index else "")
            for index, (name, spec) in enumerate(self.spec.heads.items())
        }

    def predict(self, image: ImageSource, text: str | None = None) -> Prediction:
        """Classify one image, together with a text if the model reads one.

        Args:
            image: path, file bytes, binary file object, Pillow image, or uint8 RGB array ``[height, width, 3]``.
            text: any text, the empty one included; what the model cannot take of its end is not read, and
                `Prediction.text_truncated` says so.

        Raises:
            ImageError: the image cannot be decoded, or the array has another shape or dtype.
            TextError: the model reads a text and there is none, or the other way round, or it is no text.
        """
        check_pairing(self.spec, text is not None)
        (pair,) = paired([image], None if text is None else [text])
        return self.predict_pixels([self.pixels(image)], [pair.text])[0]

    def predict_many(
        self,
        images: Iterable[ImageSource | ImageError],
        batch_size: int = 8,
        errors: str = "raise",
        *,
        texts: Iterable[str] | None = None,
    ) -> Iterator[Prediction | ImageError]:
        """Classify many images, lazily and in order, ``batch_size`` at a time; sizes may differ.

        As many batches as there are threads are decoded and run at once; no more than one beyond those is taken from
        ``images``.

        Args:
            images: anything `predict` takes; an `ImageError` in its place counts as that of a bad image.
            batch_size: images per run of the network.
            errors: ``raise`` stops at the first bad image; ``return`` yields its `ImageError` in its place.
            texts: one for each image, as `predict` takes them; taken as lazily as the images.

        Raises:
            ImageError: a bad image, with ``errors="raise"``.
            TextError: as in `predict`, or there are not as many texts as images.
            ValueError: ``batch_size`` or ``errors`` is out of range.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        if errors not in ("raise", "return"):
            raise ValueError(f"errors: expected 'raise' or 'return', got {errors!r}")
        check_pairing(self.spec, texts is not None)
        return self._stream(paired(images, texts), batch_size, errors)

    def pixels(self, image: ImageSource) -> NDArray[np.uint8]:
        """Decode one image and, unless the graph does it, resize and crop it.

        Returns:
            uint8 RGB ``[size, size, 3]``, or ``[height, width, 3]`` with ``resize="graph"``.

        Raises:
            ImageError: as in `predict`.
        """
        return self._prepare(image)

    def predict_pixels(self, pixels: list[NDArray[np.uint8]], texts: list[str | None]) -> list[Prediction]:
        """Classify what `pixels` has returned: one run of the network a size, with ``resize="graph"`` one an image.

        Args:
            pixels: decoded and prepared images.
            texts: one for each, None where the model reads none.

        Raises:
            ModelError: ONNX Runtime fails.
        """
        # With the graph's resize sizes differ, and a result must not depend on its neighbours: one by one.
        rows = [[i] for i in range(len(pixels))] if self.resize == "graph" else by_shape(pixels)
        found: dict[int, Prediction] = {}
        for group in rows:
            batch = self._batch(np.stack([pixels[i] for i in group]), [texts[i] for i in group])
            found |= zip(group, batch, strict=True)
        return [found[i] for i in range(len(pixels))]

    def _stream(self, pairs: Iterable[Pair], batch_size: int, errors: str) -> Iterator[Prediction | ImageError]:
        for results in in_order(chunks(pairs, batch_size), self._results, self.threads):
            for result in results:
                if isinstance(result, ImageError) and errors == "raise":
                    raise result
                yield result

    def _results(self, pairs: list[Pair]) -> list[Prediction | ImageError]:
        prepared = [self._pixels_or_error(pair.image) for pair in pairs]
        pixels = [item for item in prepared if not isinstance(item, ImageError)]
        texts = [pair.text for item, pair in zip(prepared, pairs, strict=True) if not isinstance(item, ImageError)]
        predictions = iter(self.predict_pixels(pixels, texts))
        return [item if isinstance(item, ImageError) else next(predictions) for item in prepared]

    def _pixels_or_error(self, image: ImageSource | ImageError) -> NDArray[np.uint8] | ImageError:
        if isinstance(image, ImageError):
            return image
        try:
            return self.pixels(image)
        except ImageError as error:
            return _without_frames(error)

    def _batch(self, pixels: NDArray[np.uint8], texts: list[str | None]) -> list[Prediction]:
        tokens = None if self.tokenizer is None else self.tokenizer.encode([text or "" for text in texts])
        truncated = (False,) * len(texts) if tokens is None else tokens.truncated
        (_, *further) = self.spec.endings
        heads = [(self.spec, self._head), *further]
        outputs, found = self._run(pixels, tokens, heads, explain=self.explains)
        rows = [self._predictions(head, own) for (head, _), own in zip(heads, outputs, strict=True)]
        distances = found[NOVELTY].tolist() if NOVELTY in found else [None] * len(texts)
        maps = found.get(RELEVANCE, [None] * len(texts))
        limit = None if self.spec.novelty is None else self.spec.novelty.threshold
        quantile = None if self.spec.coverage is None else self.spec.coverage.quantile
        names = [name for _, name in further]
        return [
            replace(
                main,
                text=text,
                text_truncated=was_cut,
                tasks=dict(zip(names, others, strict=True)),
                novelty=distance,
                novelty_threshold=limit,
                set_quantile=quantile,
                relevance=relevance,
            )
            for (main, *others), text, was_cut, distance, relevance in zip(
                zip(*rows, strict=True), texts, truncated, distances, maps, strict=True
            )
        ]

    def _predictions(self, head: ModelSpec | TaskSpec, outputs: Outputs) -> list[Prediction]:
        rows = zip(*outputs, strict=True)
        return [Prediction(head.labels, *row, self.provider, head.task, head.thresholds) for row in rows]


def _without_frames(error: ImageError) -> ImageError:
    """Tracebacks keep every local variable alive, among them half-decoded images of hundreds of megabytes."""
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
    return error
