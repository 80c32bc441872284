"""`SearchIndex`: a folder of images, their embeddings, and questions to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from clip_search.indexing import OnFile, UpdateReport
from clip_search.results.duplicates import THRESHOLD, Duplicate, duplicates
from clip_search.results.hits import Hit, hits
from clip_search.results.labelling import Unsure, check_chooses, choose, margin
from clip_search.scan.exact import nearest
from clip_search.store.database import TIMEOUT, Database
from clip_search.store.derived import Derived
from clip_search.store.embedding import embedded, finite
from clip_search.store.identity import EncoderIdentity, check_shared_space
from clip_search.store.opening import open_database
from clip_search.updating import claim_root, root_of, update
from clip_toolkit.classifier import Classifier
from clip_toolkit.errors import ImageError, SearchIndexError
from clip_toolkit.images import ImageSource
from clip_toolkit.images.folder import ImageListing
from clip_toolkit.text_encoder import TextEncoder


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
        return cls(place, *open_database(place, classifier, create, timeout), classifier)

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
        root = root_of(self._database, self.folder)
        if root is None:
            raise SearchIndexError(f"{self.folder}: nothing is indexed yet. Run: clip-search index DIR")
        return root

    def __len__(self) -> int:
        """Return the number of images that can be found."""
        return self._database.count()

    def update(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        retry: bool = False,
        listing: ImageListing | None = None,
        on_file: OnFile = lambda _path, _error: None,
        on_plan: Callable[[int], None] = lambda _count: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> UpdateReport:
        """Bring the index up to date with its folder.

        What is done is in the database after every batch: an update that was stopped or killed goes on where it was.

        Args:
            root: the folder of images; default the one of the last update.
            retry: try once more what could not be decoded, such as after an upgrade of Pillow.
            listing: which files of the folder count, and where to ask afterwards what was left out.
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
        folder = claim_root(self._database, classifier, self.folder, None if root is None else Path(root))
        self._database.check()
        report = update(
            self._database,
            classifier,
            self.folder,
            folder,
            retry=retry,
            listing=listing or ImageListing(),
            on_file=on_file,
            on_plan=on_plan,
            stopped=stopped,
        )
        if not report.stopped:
            self._derived.matrix()
        return report

    def failures(self) -> Iterator[tuple[Path, str]]:
        """Files of the folder that cannot be found, and why."""
        root = self.root
        for row in self._database.failures():
            yield root / row.path, str(row.error)

    def query(self, image: ImageSource, k: int = 10) -> list[Hit]:
        """Find the images most like an image, best first; equal ones by path.

        Raises:
            ImageError: the picture cannot be decoded.
            ModelError: the network's embedding is not finite.
            SearchIndexError, ValueError: as in `query_vector`, or the index was opened without a classifier.
        """
        embedding = embedded(self._needed_classifier(), image).embedding
        return self.query_vector(finite(embedding, "the picture"), k)

    def query_text(self, encoder: TextEncoder, text: str, k: int = 10) -> list[Hit]:
        """Find the images most like a description, best first; equal ones by path.

        Raises:
            SearchIndexError: as in `query_vector`, or the encoder's texts share no space with the index's images.
            ModelError: the network's embedding is not finite.
        """
        check_shared_space(str(self.folder), self.identity, encoder.spec.encoder)
        [embedding] = encoder.encode([text])
        return self.query_vector(finite(embedding, "the text"), k)

    def query_vector(self, embedding: NDArray[np.floating], k: int = 10) -> list[Hit]:
        """Find the images whose embeddings have the largest products with one, largest first; ties by path.

        Args:
            embedding: ``[dim]``, of any length: that of L2 norm 1 gives cosines.
            k: how many; at least 1.

        Raises:
            SearchIndexError: nothing is indexed, or the database is damaged or locked.
            OutputError: derived files have to be rebuilt and cannot be written.
            ValueError: another shape, a number that is not finite in float32, or ``k`` below 1.
        """
        with np.errstate(over="ignore"):
            query = embedding.astype(np.float32)
        if query.shape != (self.identity.dim,) or not np.isfinite(query).all():
            raise ValueError(
                f"embedding: expected {self.identity.dim} finite numbers of float32, got {embedding.shape}"
            )
        if k < 1:
            raise ValueError(f"k: expected at least 1, got {k}")
        root = self.root
        matrix = self._derived.matrix()
        rows, scores = nearest(matrix.embeddings, matrix.codes, query, k)
        paths = map(matrix.path, rows.tolist())
        return hits(self._database, root, zip(paths, scores.tolist(), strict=True))

    def duplicates(self, threshold: float = THRESHOLD) -> list[list[Duplicate]]:
        """Group images that have the same content, or a cosine similarity of at least ``threshold``.

        Args:
            threshold: above 0; from 1 on only the same content counts.

        Raises:
            SearchIndexError, OutputError: as in `query_vector`.
        """
        return duplicates(self.root, self._derived.matrix(), self._database.copies(), threshold)

    def next_to_label(
        self,
        k: int = 10,
        *,
        labelled: Collection[Path] = (),
        batch_size: int = 8,
        step: Callable[[bool], None] = lambda _: None,
    ) -> list[Unsure]:
        """Choose images to label: the classifier is unsure of them, and they are unlike one another.

        It runs over all images but the labelled ones; those that cannot be read any more are left out.

        Args:
            k: how many; at least 1.
            labelled: full paths of images to leave out.
            batch_size: images per run.
            step: called for each image with whether it failed.

        Raises:
            SearchIndexError, OutputError: as in `query_vector`; or the classifier is of a regression, which is never
                unsure, of several heads, or reads a text with each image.
        """
        classifier, root, matrix = self._needed_classifier(), self.root, self._derived.matrix()
        check_chooses(classifier.spec)
        known = {path.resolve() for path in labelled}
        paths = [root / matrix.path(row) for row in range(len(matrix.embeddings))]
        paths = [path for path in paths if path.resolve() not in known]
        kept, margins, embeddings = [], [], []
        for path, found in zip(paths, classifier.predict_many(paths, batch_size, "return"), strict=True):
            step(isinstance(found, ImageError))
            if not isinstance(found, ImageError):
                kept.append((path, found.label))
                margins.append(margin(found))
                embeddings.append(found.embedding)
        if not kept:
            return []
        rows = choose(np.array(margins), np.stack(embeddings), k)
        return [Unsure(*kept[row], margins[row]) for row in rows]

    def _needed_classifier(self) -> Classifier:
        if self._classifier is None:
            raise ValueError("the index was opened without a classifier: SearchIndex.open(folder, classifier)")
        return self._classifier
