"""Which folder an index is of, and what has to be done to bring it up to date."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import takewhile
from pathlib import Path, PurePosixPath

from clip_search.indexing import Embedder, OnFile, UpdateReport
from clip_search.store.connecting import files_of_database
from clip_search.store.database import Database, Row
from clip_search.store.derived import DERIVED, VOID_WHEN_CHANGED
from clip_search.store.folder import FoundFile, found_files
from clip_search.store.opening import ROOT, claim
from clip_toolkit.classifier import Classifier
from clip_toolkit.errors import SearchIndexError
from clip_toolkit.images.folder import ImageListing


def root_of(database: Database, index: Path) -> Path | None:
    """Return the indexed folder; None before the first update."""
    root = database.meta(ROOT)
    if root is not None and "\0" in os.fsdecode(root):
        raise database.damaged("its folder of images has a null byte in its name")
    return None if root is None else Path(os.path.normpath(index / os.fsdecode(root)))


def claim_root(database: Database, classifier: Classifier, index: Path, asked: Path | None) -> Path:
    """Return the folder to index, absolute, and note it in the database.

    Raises:
        SearchIndexError: none is known; the index is of another folder, which is still there, or of another encoder;
            there is no such folder; or it is empty where the index is not, as if it were not mounted.
    """
    known = root_of(database, index)
    folder = known if asked is None else asked.resolve()
    if folder is None:
        raise SearchIndexError(f"{index}: nothing is indexed yet. Name the folder of images: clip-search index DIR")
    if known not in (None, folder) and known.is_dir():
        raise SearchIndexError(f"{index}: is the index of {known}, not of {folder}. Name another --index.")
    if not folder.is_dir():
        raise SearchIndexError(f"{folder}: there is no such folder")
    found = found_files(folder, _own(database, index), ImageListing(all_files=True))
    if next(found, None) is None and next(database.files(), None) is not None:
        raise SearchIndexError(
            f"{folder}: is empty, and the index holds files of it. Is it mounted? Otherwise remove {index}."
        )
    claim(index, database, classifier, os.fsencode(_from(folder, index)))
    return folder


def _from(folder: Path, index: Path) -> str:
    """Express a folder relative to the index, so that both may move together; absolute on another drive."""
    try:
        return os.path.relpath(folder, index)
    except ValueError:
        return str(folder)


def update(
    database: Database,
    classifier: Classifier,
    index: Path,
    root: Path,
    *,
    retry: bool,
    listing: ImageListing,
    on_file: OnFile,
    on_plan: Callable[[int], None],
    stopped: Callable[[], bool],
) -> UpdateReport:
    """Embed what is new or changed, then delete what is gone: a renamed file is recognised by the row it had.

    The arguments are those of `clip_search.SearchIndex.update`.
    """
    pending, gone, unchanged = _plan(database, root, index, retry, listing)
    on_plan(len(pending))
    embedder = Embedder(database, classifier, root, VOID_WHEN_CHANGED, on_file)
    embedder.embed(takewhile(lambda _: not stopped(), pending))
    was_stopped = stopped()
    if gone and not was_stopped:
        with database.writing():
            database.forget(*VOID_WHEN_CHANGED)
            database.remove(gone)
    return UpdateReport(
        embedder.embedded, embedder.recognised, unchanged, 0 if was_stopped else len(gone), embedder.failed, was_stopped
    )


def _plan(
    database: Database, root: Path, index: Path, retry: bool, listing: ImageListing
) -> tuple[list[FoundFile], list[str], int]:
    """Return the files that are new or changed, the paths that are gone, and the number of unchanged files."""
    known = {row.path: (row.stamp, _is_settled(row, retry)) for row in database.files()}
    pending, unchanged = [], 0
    for file in found_files(root, _own(database, index), listing):
        if known.pop(file.path, None) == (file.stamp, True):
            unchanged += 1
        else:
            pending.append(file)
    return pending, _gone(known, {file.path for file in pending if file.is_folder}), unchanged


def _gone(paths: Iterable[str], unreadable: set[str]) -> list[str]:
    """Return the paths that are known to be gone, unlike those in folders that cannot be read."""
    if not unreadable:
        return list(paths)
    return [path for path in paths if unreadable.isdisjoint(map(str, PurePosixPath(path).parents))]


def _own(database: Database, index: Path) -> frozenset[Path]:
    """Return the index's own files, which are no images though their folder may be the one of the images."""
    return frozenset([*files_of_database(database.path), *(index / name for name in DERIVED)])


def _is_settled(row: Row, retry: bool) -> bool:
    """Permission can be given without a trace in the file's time: what could not be read is tried again."""
    return row.digest is not None and not (retry and row.error is not None)
