"""From files to rows of the database: only a content that the index has not seen goes through the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clip_search.store.database import Database, Row
from clip_search.store.embedding import embedded_many
from clip_search.store.folder import FoundFile
from clip_toolkit.classifier import Classifier
from clip_toolkit.errors import ImageError, TransientImageError
from clip_toolkit.files.stamp import Stamp, read_digest, stamp_of
from clip_toolkit.prediction import Prediction

_ROWS_A_COMMIT = 32
"""What a killed run loses at most: with a commit below 1 ms, and images of 10 ms each, not worth more or fewer."""

_ONE_BY_ONE = 1
"""Images a run of the network. Dynamic int8 takes its ranges over the whole batch, and some products sum in another
order in larger ones: an embedding must not depend on its neighbours, or an updated index would differ from a fresh
one."""

OnFile = Callable[[str, str | None], None]
"""Called with the path of each file that was looked at, and its error."""


@dataclass(frozen=True)
class UpdateReport:
    """What an update did, in files.

    Attributes:
        embedded: went through the network.
        recognised: new or renamed, of a content that the index knew.
        unchanged: of the size and time that the index knew.
        removed: gone from the folder.
        failed: looked at, and without an embedding.
        stopped: whether the update was asked to stop before the end.
    """

    embedded: int = 0
    recognised: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: int = 0
    stopped: bool = False


class Embedder:
    """Files in, rows in the database out, a batch of them a transaction.

    Attributes:
        embedded, recognised, failed: as in `UpdateReport`.
    """

    def __init__(
        self, database: Database, classifier: Classifier, root: Path, derived: tuple[str, ...], on_file: OnFile
    ) -> None:
        """Prepare; ``derived`` are the keys of the meta table that a changed row makes void."""
        self.embedded = self.recognised = self.failed = 0
        self._database, self._classifier, self._root = database, classifier, root
        self._derived, self._on_file = derived, on_file
        self._finished: list[Row] = []
        self._waiting: deque[tuple[str, Stamp, bytes]] = deque()

    def embed(self, files: Iterable[FoundFile]) -> None:
        """Take files one after another, decoding ahead of the network as `Classifier.predict_many` does.

        Raises:
            SearchIndexError: the database cannot be written.
            ModelError: ONNX Runtime fails.
        """
        try:
            for result in embedded_many(self._classifier, self._unknown(files), _ONE_BY_ONE):
                self._finish(self._row(*self._waiting.popleft(), result))
        finally:
            self._commit()

    def _unknown(self, files: Iterable[FoundFile]) -> Iterator[str]:
        """Full paths of the files that need the network; the others are finished on the way."""
        for file in files:
            path = self._root / file.path
            try:
                stamp, digest = read_digest(path)
            except OSError as error:
                self.failed += 1
                self._finish(Row(file.path, *file.stamp, None, None, f"cannot be read ({error.strerror})"))
                continue
            embedding = self._database.embedding_of(digest)
            if embedding is not None:
                self.recognised += 1
                self._finish(Row(file.path, *stamp, digest, embedding, None))
                continue
            self._waiting.append((file.path, stamp, digest))
            yield str(path)

    def _row(self, path: str, stamp: Stamp, digest: bytes, result: Prediction | ImageError) -> Row:
        if stamp_of(self._root / path) != stamp:  # the network may have seen another content than was hashed
            self.failed += 1
            return Row(path, *stamp, None, None, "was changed while it was read")
        if isinstance(result, ImageError):
            self.failed += 1
            # An error of the machine says nothing of the content: without a digest, the next update tries it again.
            judged = None if isinstance(result, TransientImageError) else digest
            return Row(path, *stamp, judged, None, str(result).removeprefix(f"{self._root / path}: "))
        if not np.isfinite(result.embedding).all():
            self.failed += 1
            return Row(path, *stamp, digest, None, "the network's embedding is not finite")
        self.embedded += 1
        return Row(path, *stamp, digest, result.embedding.astype("<f2").tobytes(), None)

    def _finish(self, row: Row) -> None:
        self._finished.append(row)
        self._on_file(row.path, row.error)
        if len(self._finished) >= _ROWS_A_COMMIT:
            self._commit()

    def _commit(self) -> None:
        if self._finished:
            with self._database.writing():
                self._database.forget(*self._derived)
                self._database.put(self._finished)
            self._finished = []
