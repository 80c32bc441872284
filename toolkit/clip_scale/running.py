"""A run: parts to an engine, what is done into a sink, until all is done or too much has failed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import asdict, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

from clip_scale.batch_classifier import BatchClassifier
from clip_scale.errors import SourceError, WorkerError
from clip_scale.feature_worker import FeatureWorker, check_encoder
from clip_scale.part_worker import Done, PartWorker, Task
from clip_scale.sink import Sink
from clip_scale.sources.labelled import LabelledSource
from clip_scale.sources.source import Source
from clip_scale.summary import Summary
from clip_toolkit.images.folder import ImageListing
from clip_toolkit.stream.records import COLUMNAR
from clip_toolkit.stream.writers import import_pyarrow
from clip_toolkit.text.pairs import check_pairing
from clip_toolkit.version import __version__

FORMS = ("parquet", "jsonl")
"""Formats of part files."""

_NOT_OF_THE_RESULTS = ("model", "threads", "max_memory")  # where the file lies; its digest counts


class Engine(Protocol):
    """What classifies parts."""

    def __call__(
        self, worker: PartWorker, tasks: Iterable[Task], stopped: Callable[[], bool] = lambda: False
    ) -> Generator[Done]:
        """Classify parts, lazily, in any order; ``stopped`` and closing the iterator end the work."""
        ...


def run(
    source: Source,
    folder: Path,
    classifier: BatchClassifier,
    engine: Engine,
    *,
    form: str = "parquet",
    resume: bool = False,
    max_errors: int | None = None,
    listing: ImageListing | None = None,
    on_part: Callable[[Summary], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Summary:
    """Classify a source into a folder of part files, whose names have the order of the source.

    Args:
        source: what is classified; of a `LabelledSource` the features and labels are written, for ``clip-train``.
        folder: of the part files; must be new, or hold the same run if ``resume``.
        classifier: which model, and how. Whether there are probabilities is up to the format, as in ``clip-infer``.
        engine: who does the work.
        form: one of `FORMS`; Parquet has a column ``p:<label>`` for each label.
        resume: go on with what an earlier run has left.
        max_errors: images that may fail; with one more the run ends. Default: any number.
        listing: remembers what folders hold that is left out.
        on_part: is told the counts of each part that is finished.
        stopped: asked again and again whether the run is to end early.

    Returns:
        The counts of all parts in the folder, those of earlier runs included.

    Raises:
        SourceError: there are no images, or the source cannot be read.
        ModelError: the file cannot be opened, or is a classifier where an encoder alone is needed.
        OutputError: the folder cannot be written, or holds another run.
        TextError: the model reads texts and the source has none, or the other way round.
        WorkerError: too many images failed.
        ClipToolkitError: what the engine raises.
    """
    if form == "parquet":
        import_pyarrow()
    if source.part_size % classifier.batch_size:
        raise SourceError(f"part_size: expected a multiple of the batch size, {classifier.batch_size}")
    classifier = replace(classifier, probabilities=form in COLUMNAR)
    check_pairing(classifier.spec, source.has_texts)
    worker = PartWorker(classifier, form)
    if isinstance(source, LabelledSource):
        check_encoder(classifier.spec, str(classifier.model))
        worker = FeatureWorker(classifier, form)
    parts = source.parts(listing)
    first = list(islice(parts, 1))
    if not first:
        raise SourceError(f"{' '.join(source.names)}: there are no images")
    with Sink(folder, form, _settings(classifier, source, form), resume=resume) as sink:
        sink.resume(source.parts())
        tasks = sink.remaining(chain(first, parts))
        with closing(engine(worker, tasks, stopped)) as results:
            for done in results:
                sink.put(done)
                on_part(done.summary)
                _check_errors(sink.summary, max_errors)
        if not stopped():
            sink.finish()
        return sink.summary


def _check_errors(summary: Summary, max_errors: int | None) -> None:
    if max_errors is not None and summary.errors > max_errors:
        raise WorkerError(
            f"{summary.errors} of {summary.images} images failed, more than --max-errors {max_errors}. Finished parts "
            "are kept: go on with --resume and a higher limit."
        )


def _settings(classifier: BatchClassifier, source: Source, form: str) -> dict[str, Any]:
    """All that decides about the records and their parts, apart from the images."""
    options = {name: value for name, value in asdict(classifier).items() if name not in _NOT_OF_THE_RESULTS}
    written = {"features": True} if isinstance(source, LabelledSource) else {}
    return {"clip_toolkit": __version__, "format": form, "part_size": source.part_size, **options, **written}
