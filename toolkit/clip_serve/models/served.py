"""A model file in service: its name and version, its queue, and what it has done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from clip_serve.metrics import Metrics
from clip_serve.models.batching import Answer, Batcher
from clip_serve.models.kinds import Images, Kind, Source, Texts, exact_sizes
from clip_serve.options import ServeOptions
from clip_toolkit.classifier import load
from clip_toolkit.errors import ImageError, ModelError
from clip_toolkit.files.locate import missing
from clip_toolkit.files.signature import verify
from clip_toolkit.files.stamp import sha256_of
from clip_toolkit.images.sources import source_name
from clip_toolkit.runtime.processor import usable_cores
from clip_toolkit.spec.model_file import read_any_spec
from clip_toolkit.spec.text_tower import TextTowerSpec
from clip_toolkit.text_encoder import load_text

_DIGITS = 12  # of a version

ONE_BY_ONE = "batches would change digits (int8 ranges found at run time, or products of other shape): runs one by one"


_Named = tuple[Source, str]
"""A source and its name for errors."""


class Pools:
    """The threads of the service: those that decode, and those that wait for the network."""

    def __init__(self, threads: int | None) -> None:
        """Start none yet."""
        self.count = threads or usable_cores()
        self.prepare = ThreadPoolExecutor(self.count, "clip_serve_prepare")
        self.compute = ThreadPoolExecutor(self.count, "clip_serve_compute")


@dataclass(frozen=True)
class Opened:
    """A file, read and tried.

    Attributes:
        name: of the file, without its suffix.
        version: the first digits of the file's SHA-256: another content is another version.
        kind: the model.
        sizes: batch sizes that change no digit.
    """

    name: str
    version: str
    kind: Kind[Any, Any]
    sizes: tuple[int, ...]


def open_model(path: Path, options: ServeOptions) -> Opened:
    """Read a model file, which has to be signed where the options name a key.

    Raises:
        SignatureError: it is not.
        ModelError: it is missing, foreign or damaged, was replaced meanwhile, or gives other answers than its own.
        DeviceError, MissingDependencyError: as in `clip_toolkit.load`.
    """
    digest = _digest(path)
    if options.verify is not None:
        verify(path, options.verify)
    spec = read_any_spec(path)
    device, limits = options.device, options.limits
    kind: Kind[Any, Any]
    if isinstance(spec, TextTowerSpec):
        kind = Texts(load_text(path, device.device, device.threads))
    else:
        isolate = options.isolation.limits if options.isolation else None
        classifier = load(
            path,
            device.device,
            device.threads,
            max_pixels=limits.max_pixels,
            allow_truncated=limits.allow_truncated,
            throughput=options.batching.throughput,
            isolate=isolate,
        )
        kind = Images(classifier)
    if _digest(path) != digest:
        raise ModelError(f"{path}: was replaced while it was read. Try again.")
    _check_answers(path, kind)
    trials = kind.trials(options.batching.max_batch)
    sizes = exact_sizes(trials, kind.compute, lambda result: [kind.row(result, name) for name in kind.outputs])
    return Opened(path.stem, digest[:_DIGITS], kind, sizes)


def _check_answers(path: Path, kind: Kind[Any, Any]) -> None:
    """Refuse a file that does not give its own golden answers: half of it may be another's, written over in place."""
    if kind.spec.golden:
        for drift in kind.replay():
            if not drift.passed:
                raise ModelError(
                    f"{path}: does not give the answers that it was exported with: {drift.output} differ by "
                    f"{drift.drift:.2g}, at most {drift.tolerance:.2g} is allowed. Copy or export the file again."
                )


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except FileNotFoundError as error:
        raise missing(path) from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error


class Served:
    """A model that answers requests."""

    def __init__(self, opened: Opened, options: ServeOptions, pools: Pools, metrics: Metrics) -> None:
        """Start with an empty queue."""
        self.name, self.version, self.kind, self.sizes = opened.name, opened.version, opened.kind, opened.sizes
        self.figures = metrics.of_model(self.name, self.version)
        batching = options.batching
        self._batcher = Batcher[_Named, Any, Any](
            self._prepare,
            self.kind.compute,
            self.sizes,
            batching.max_delay_ms / 1000,
            pools.compute,
            runs=pools.count,
            preparing=None if batching.throughput else pools.prepare,
            on_run=self.figures.ran,
        )
        self.figures.pending = lambda: self._batcher.pending

    def retire(self) -> None:
        """Let go of the queue once its last request is done: another version has taken this one's place."""
        self.figures.pending = lambda: 0

    async def answer(self, sources: Sequence[Source], names: Sequence[str]) -> list[Answer[Any, Any]]:
        """Answer a request: all of its sources, or the error of one of them.

        Args:
            sources: what it asks about.
            names: of the sources, for errors.

        Raises:
            ImageError, TextError: a source cannot be used.
            ModelError: ONNX Runtime fails.
        """
        start = perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._answer(named)) for named in zip(sources, names, strict=True)]
        except BaseExceptionGroup as errors:
            self.figures.failed()
            raise errors.exceptions[0] from None
        except asyncio.CancelledError:
            self.figures.failed()
            raise
        self.figures.succeeded(perf_counter() - start)
        return [task.result() for task in tasks]

    async def _answer(self, named: _Named) -> Answer[Any, Any]:
        answer = await self._batcher.answer(named)
        self.figures.answered(answer.result, answer.prepared, answer.queued)
        return answer

    def _prepare(self, named: _Named) -> Any:
        source, name = named
        try:
            return self.kind.prepare(source)
        except ImageError as error:
            error.args = (str(error).replace(source_name(source[0]), name, 1),)
            raise
