"""Open or make an index's database, for the right encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clip_search.store.database import Database
from clip_search.store.identity import EncoderIdentity, check_same, probe
from clip_toolkit.classifier import Classifier
from clip_toolkit.errors import SearchIndexError

ROOT = "root"
"""Key of the meta table: the indexed folder, without which an index holds nothing."""

_PROBE = np.dtype("<f2")

DATABASE = "index.sqlite"
"""The file in an index's folder from which all others can be made."""


def open_database(
    folder: Path, classifier: Classifier | None, create: bool, timeout: float
) -> tuple[Database, EncoderIdentity]:
    """Open the database of an index, or make it for the encoder of ``classifier``.

    Raises:
        SearchIndexError: there is no index; the database is damaged, locked or foreign; or the index is of another
            encoder.
    """
    if create and classifier is not None:
        _make(folder)
    elif not (folder / DATABASE).is_file():
        raise SearchIndexError(f"{folder}: there is no index. Make one with: clip-search index DIR --index {folder}")
    database = Database(folder / DATABASE, timeout)
    try:
        if create and classifier is not None and database.meta(ROOT) is None:
            return database, EncoderIdentity.of(classifier.spec.encoder)
        return database, _checked_identity(folder, database, classifier)
    except BaseException:
        database.close()
        raise


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise SearchIndexError(f"{folder}: cannot be made ({error.strerror}). Name another --index.") from error


def claim(folder: Path, database: Database, classifier: Classifier, root: bytes) -> None:
    """Note which folder an index is of, and with the first one whose embeddings it holds.

    Raises:
        SearchIndexError: another process was faster, with another encoder.
    """
    with database.writing():
        if database.meta(ROOT) is None:
            database.set_meta("encoder", EncoderIdentity.of(classifier.spec.encoder).to_json())
            database.set_meta("probe", probe(classifier).astype(_PROBE).tobytes())
        else:
            _checked_identity(folder, database, classifier)
        database.set_meta(ROOT, root)


def _checked_identity(folder: Path, database: Database, classifier: Classifier | None) -> EncoderIdentity:
    identity, expected = database.meta("encoder"), database.meta("probe")
    if identity is None:
        raise SearchIndexError(f"{folder}: nothing is indexed yet. Run: clip-search index DIR")
    try:
        known = EncoderIdentity.from_json(str(identity))
    except (ValueError, TypeError, RecursionError) as error:
        raise database.damaged("it does not name its encoder") from error
    if not isinstance(expected, bytes) or len(expected) != known.dim * _PROBE.itemsize:
        raise database.damaged("the embedding of its test picture has the wrong length")
    vector = np.frombuffer(expected, _PROBE)
    if classifier is not None:
        check_same(str(folder), known, vector, classifier)
    return known
