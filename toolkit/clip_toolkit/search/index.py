"""`SearchIndex`: a folder of images, their embeddings, and questions to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.classifier import Classifier
from clip_toolkit.errors import SearchIndexError
from clip_toolkit.images import ImageSource
from clip_toolkit.search.approximate import nearest_in_graph
from clip_toolkit.search.database import Database
from clip_toolkit.search.derived import VOID_WHEN_CHANGED, Derived
from clip_toolkit.search.duplicates import THRESHOLD, Duplicate, duplicates
from clip_toolkit.search.folder import found_files, is_unchanged
from clip_toolkit.search.identity import EncoderIdentity, check_same, probe
from clip_toolkit.search.indexing import Embedder, OnFile, UpdateReport, plan
from clip_toolkit.search.scan import nearest
from clip_toolkit.search.text import TextEncoder, check_shared_space

DATABASE = "index.sqlite"
"""The file in an index's folder from which all others can be made."""

PRESENT, CHANGED, MISSING = "present", "changed", "missing"

TIMEOUT = 30.0
"""Seconds to wait for another process that writes."""


@dataclass(frozen=True)
class Hit:
    """An image that was found.

    Attributes:
        path: full path.
        score: cosine similarity with the query, at most 1; float16 keeps it to about 3e-4.
        state: ``present``, or ``changed`` or ``missing`` since it was indexed.
    """

    path: Path
    score: float
    state: str


class SearchIndex:
    """The index of one folder of images. For one thread; several processes may use the same index.

    Attributes:
        folder: where the index is.
        identity: whose embeddings it holds.
    """

    def __init__(
        self, folder: Path, database: Database, identity: EncoderIdentity, classifier: Classifier | None
    ) -> None:
        """Wrap an open database; callers want `open`."""
        self.folder, self.identity = folder, identity
        self._database, self._classifier = database, classifier
        self._derived = Derived(database, folder, identity.dim)

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        classifier: Classifier | None = None,
        *,
        create: bool = False,
        timeout: float = TIMEOUT,
    ) -> Self:
        """Open an index.

        Args:
            folder: of the index, not of the images.
            classifier: the model that made it, or a file with another head on the same encoder; needed by `update` and
                `query`.
            create: make the index if there is none, for the encoder of ``classifier``.
            timeout: seconds to wait for another process that writes.

        Raises:
            SearchIndexError: there is no index; the database is damaged, locked or foreign; or the index is of another
                encoder.
        """
        place = Path(folder).resolve()
        if create and classifier is not None:
            _make(place)
        elif not (place / DATABASE).is_file():
            raise SearchIndexError(
                f"{folder}: there is no index. Make one with: clip-search index DIR --index {folder}"
            )
        database = Database(place / DATABASE, timeout)
        try:
            return cls(place, database, _identity(place, database, classifier, create), classifier)
        except BaseException:
            database.close()
            raise

    def __enter__(self) -> Self:
        """Nothing more than the opening did."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the database."""
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    @property
    def root(self) -> Path:
        """The indexed folder.

        Raises:
            SearchIndexError: nothing was indexed yet.
        """
        root = self._database.meta("root")
        if root is None:
            raise SearchIndexError(f"{self.folder}: nothing is indexed yet. Run: clip-search index DIR")
        return Path(os.path.normpath(self.folder / os.fsdecode(root)))

    def __len__(self) -> int:
        """Number of images that can be found."""
        return self._database.count()

    def update(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        retry: bool = False,
        on_file: OnFile = lambda _path, _error: None,
        on_plan: Callable[[int], None] = lambda _count: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> UpdateReport:
        """Bring the index up to date with its folder.

        What is done is in the database after every batch: an update that was stopped or killed goes on where it was.

        Args:
            root: the folder of images; default the one of the last update.
            retry: try once more what could not be decoded, such as after an upgrade of Pillow.
            on_file: called with the path and the error, or None, of each file that was looked at.
            on_plan: called with the number of files to look at.
            stopped: asked before each file; when it says so, the update ends with those in flight.

        Raises:
            SearchIndexError: the index is of another folder; the database is damaged or locked; the folder is not
                there, or is empty where the index is not.
            ModelError: ONNX Runtime fails.
            ValueError: the index was opened without a classifier.
        """
        classifier = self._needed_classifier()
        folder = self._claimed_root(root)
        self._database.check()
        pending, gone, unchanged = plan(self._database, folder, self.folder, retry)
        on_plan(len(pending))
        embedder = Embedder(self._database, classifier, folder, VOID_WHEN_CHANGED, on_file)
        embedder.embed(takewhile(lambda _: not stopped(), pending))
        if stopped():
            gone = []
        if gone:
            with self._database.writing():
                self._database.forget(*VOID_WHEN_CHANGED)
                self._database.remove(gone)
        if not stopped():
            self._derived.matrix()
        return embedder.report(unchanged=unchanged, removed=len(gone), stopped=stopped())

    def failures(self) -> Iterator[tuple[Path, str]]:
        """Files of the folder that cannot be found, and why."""
        root = self.root
        for row in self._database.failures():
            yield root / row.path, str(row.error)

    def query(self, image: ImageSource, k: int = 10, *, approximate: bool = False) -> list[Hit]:
        """The images most like a picture, best first; equal ones by path.

        Raises:
            ImageError: the picture cannot be decoded.
            SearchIndexError, ValueError: as in `query_vector`, or the index was opened without a classifier.
        """
        embedding = self._needed_classifier().predict(image).embedding
        return self.query_vector(embedding, k, approximate=approximate)

    def query_text(self, encoder: TextEncoder, text: str, k: int = 10, *, approximate: bool = False) -> list[Hit]:
        """The images most like a description, best first; equal ones by path.

        Raises:
            SearchIndexError: as in `query_vector`, or the encoder's texts share no space with the index's images.
        """
        check_shared_space(str(self.folder), self.identity, encoder.spec.encoder)
        [embedding] = encoder.encode([text])
        return self.query_vector(embedding, k, approximate=approximate)

    def query_vector(self, embedding: NDArray[np.floating], k: int = 10, *, approximate: bool = False) -> list[Hit]:
        """The images whose embeddings have the largest products with one, largest first; equal ones by path.

        Args:
            embedding: ``[dim]``, of L2 norm 1.
            k: how many; at least 1.
            approximate: ask a usearch graph instead of all embeddings; it is built if it is not there.

        Raises:
            SearchIndexError: nothing is indexed, or the database is damaged or locked.
            OutputError: derived files have to be rebuilt and cannot be written.
            MissingDependencyError: ``approximate`` without usearch.
            ValueError: another shape, a number that is not finite, or ``k`` below 1.
        """
        if embedding.shape != (self.identity.dim,) or not np.isfinite(embedding).all():
            raise ValueError(f"embedding: expected {self.identity.dim} finite numbers, got {embedding.shape}")
        if k < 1:
            raise ValueError(f"k: expected at least 1, got {k}")
        root, query = self.root, embedding.astype(np.float32)
        matrix = self._derived.matrix()
        if approximate:
            rows, scores = nearest_in_graph(self._derived.graph(matrix), matrix, query, k)
        else:
            rows, scores = nearest(matrix.embeddings, matrix.codes, query, k)
        paths = [matrix.path(row) for row in rows.tolist()]
        return [
            Hit(root / path, min(score, 1.0), self._state(root, path))
            for path, score in zip(paths, scores.tolist(), strict=True)
        ]

    def build_approximate(self) -> None:
        """Build the usearch graph now rather than at the first query that asks for it.

        Raises:
            MissingDependencyError: usearch is not installed.
            SearchIndexError, OutputError: as in `query_vector`.
        """
        self._derived.graph(self._derived.matrix())

    def duplicates(self, threshold: float = THRESHOLD) -> list[list[Duplicate]]:
        """Groups of images that have the same content, or a cosine similarity of at least ``threshold``.

        Args:
            threshold: above 0; from 1 on only the same content counts.

        Raises:
            SearchIndexError, OutputError: as in `query_vector`.
        """
        return duplicates(self.root, self._derived.matrix(), self._database.copies(), threshold)

    def _state(self, root: Path, path: str) -> str:
        row = self._database.file(path)
        unchanged = is_unchanged(root, path, row.size, row.mtime_ns) if row else None
        return MISSING if unchanged is None else PRESENT if unchanged else CHANGED

    def _needed_classifier(self) -> Classifier:
        if self._classifier is None:
            raise ValueError("the index was opened without a classifier: SearchIndex.open(folder, classifier)")
        return self._classifier

    def _claimed_root(self, root: str | os.PathLike[str] | None) -> Path:
        """The folder to index, absolute, noted in the database."""
        known = self._database.meta("root")
        folder = self.root if root is None else Path(root).resolve()
        if known is not None and folder != self.root and self.root.is_dir():
            raise SearchIndexError(
                f"{self.folder}: is the index of {self.root}, not of {folder}. Name another --index."
            )
        if not folder.is_dir():
            raise SearchIndexError(f"{folder}: there is no such folder")
        if next(found_files(folder, self.folder), None) is None and next(self._database.files(), None) is not None:
            raise SearchIndexError(
                f"{folder}: is empty, and the index holds files of it. Is it mounted? Otherwise remove {self.folder}."
            )
        with self._database.writing():
            self._database.set_meta("root", os.fsencode(os.path.relpath(folder, self.folder)))
        return folder


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise SearchIndexError(f"{folder}: cannot be made ({error.strerror}). Name another --index.") from error


def _identity(folder: Path, database: Database, classifier: Classifier | None, create: bool) -> EncoderIdentity:
    """The index's encoder, which must be the classifier's; a new index takes the classifier's."""
    if create and classifier is not None and database.meta("encoder") is None:
        with database.writing():
            database.set_meta("encoder", EncoderIdentity.of(classifier.spec.encoder).to_json())
            database.set_meta("probe", probe(classifier).tobytes())
    identity, expected = database.meta("encoder"), database.meta("probe")
    if identity is None:
        raise SearchIndexError(f"{folder}: nothing is indexed yet. Run: clip-search index DIR")
    try:
        known = EncoderIdentity.from_json(str(identity))
        vector = np.frombuffer(expected if isinstance(expected, bytes) else b"", np.float16)
    except (ValueError, TypeError) as error:
        raise database.damaged("it does not name its encoder") from error
    if classifier is not None:
        check_same(str(folder), known, vector, classifier)
    return known
