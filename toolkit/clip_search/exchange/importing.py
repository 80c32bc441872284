"""Embeddings from elsewhere into an index, if they are what its model makes of the images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clip_search.exchange.reading import Batch, Embeddings
from clip_search.store.database import TIMEOUT, Database, Row
from clip_search.store.derived import VOID_WHEN_CHANGED, Derived
from clip_search.store.embedding import embedded
from clip_search.store.identity import EncoderIdentity
from clip_search.store.opening import open_database
from clip_search.updating import claim_root
from clip_toolkit.classifier import Classifier
from clip_toolkit.errors import ImageError, SearchIndexError
from clip_toolkit.files.stamp import read_digest

_COMPARED = 3  # images, spread over the first batch
_LEAST_COSINE = 0.99  # int8 and other resizes of tiny-clip stay above 0.999, another encoder is nowhere near
_LENGTH = 1e-2  # by which that of a vector in float16 may be off


@dataclass
class ImportReport:
    """What an import did.

    Attributes:
        images: that can be found now.
        missing: paths that lead to no file that can be read below the folder.
        example: one of them.
        scaled: embeddings that did not have length 1, and were divided by theirs.
        cosine: the least, of the images that the model was run on, with what was imported.
    """

    images: int = 0
    missing: int = 0
    example: str = ""
    scaled: int = 0
    cosine: float = 1.0


def import_embeddings(
    index: Path, root: Path, source: Embeddings, classifier: Classifier, *, timeout: float = TIMEOUT
) -> ImportReport:
    """Put embeddings into an index, which is made if there is none; those of the same paths are replaced.

    Args:
        index: its folder.
        root: the folder of the images, which have to be there: their content is hashed, not decoded.
        source: the embeddings. Relative paths start from ``root`` unless they lead there from the working folder.
        classifier: the model that they are of. Some images go through it to see whether that is so.
        timeout: seconds to wait for another process that writes.

    Raises:
        SearchIndexError: they cannot be read; are of another length, encoder or model; one is not finite or 0; no image
            is there; or the index is another folder's or encoder's.
    """
    identity, found = EncoderIdentity.of(classifier.spec.encoder), source.identity()
    if found is not None and found != identity:
        raise SearchIndexError(f"{source.file}: holds embeddings of {found}, and this model is {identity}.")
    folder, report = root.resolve(), ImportReport()
    batches = (_Placed.of(batch, folder, identity.dim, source.file, report) for batch in source.batches())
    first = next((batch for batch in batches if batch.rows), None)
    if first is None:
        raise SearchIndexError(f"{source.file}: none of its {report.missing} images is in {folder}.")
    report.cosine = _least_cosine(first, folder, classifier, source.file)
    place = index.resolve()
    database, _ = open_database(place, classifier, True, timeout)
    try:
        claim_root(database, classifier, place, folder)
        _put(database, first)
        for batch in batches:
            _put(database, batch)
        Derived(database, place, identity.dim).matrix()
        report.images = database.count()
    finally:
        database.close()
    return report


@dataclass(frozen=True)
class _Placed:
    """Rows of the database without their embeddings, and those, float16 ``[count, dim]``, of length 1."""

    rows: list[Row]
    vectors: NDArray[np.float16]

    @classmethod
    def of(cls, batch: Batch, folder: Path, dim: int, file: Path, report: ImportReport) -> _Placed:
        """Look for the images of a batch, and scale their embeddings."""
        if batch.paths and batch.vectors.shape[1] != dim:
            raise SearchIndexError(f"{file}: has embeddings of {batch.vectors.shape[1]} numbers, and the model {dim}.")
        rows = [_row(name, folder) for name in batch.paths]
        kept = [number for number, row in enumerate(rows) if row is not None]
        missing = [name for name, row in zip(batch.paths, rows, strict=True) if row is None]
        report.missing += len(missing)
        report.example = report.example or next(iter(missing), "")
        vectors = batch.vectors[kept].astype(np.float64)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        bad = np.flatnonzero(~((lengths > 0) & (lengths < np.inf)))
        if len(bad):
            raise SearchIndexError(f"{file}: the embedding of {batch.paths[kept[bad[0]]]} is 0 or not finite.")
        report.scaled += int((np.abs(lengths - 1) > _LENGTH).sum())
        return cls([row for row in rows if row is not None], (vectors / lengths).astype(np.float16))


def _row(name: str, folder: Path) -> Row | None:
    path = Path(name).absolute()
    path = path if path.is_relative_to(folder) else folder / name
    try:
        relative = path.resolve().relative_to(folder).as_posix()
        stamp, digest = read_digest(path)
    except (OSError, ValueError):
        return None
    return Row(relative, *stamp, digest, None, None)


def _least_cosine(batch: _Placed, folder: Path, classifier: Classifier, file: Path) -> float:
    cosines = list(_cosines(batch, folder, classifier, file))
    if not cosines:
        raise SearchIndexError(
            f"{file}: of its images some were tried, and none can be decoded: nothing tells the model."
        )
    return min(cosines)


def _cosines(batch: _Placed, folder: Path, classifier: Classifier, file: Path) -> Iterator[float]:
    """Compare some embeddings with the model's own."""
    for number in {*np.linspace(0, len(batch.rows) - 1, _COMPARED).astype(int).tolist()}:
        path = folder / batch.rows[number].path
        try:
            own = embedded(classifier, path).embedding
        except ImageError:
            continue
        cosine = float(own.astype(np.float64) @ batch.vectors[number].astype(np.float64))
        if not cosine >= _LEAST_COSINE:
            raise SearchIndexError(
                f"{file}: the embedding of {path} is not what this model makes of it (cosine {cosine:.4f}, expected "
                f"{_LEAST_COSINE}). Name the model that they were computed by."
            )
        yield cosine


def _put(database: Database, batch: _Placed) -> None:
    pairs = zip(batch.rows, batch.vectors, strict=True)
    with database.writing():
        database.forget(*VOID_WHEN_CHANGED)
        database.put(row._replace(embedding=vector.astype("<f2").tobytes()) for row, vector in pairs)
