"""The search index, in the one thread that it allows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clip_search import EncoderIdentity, Hit, SearchIndex
from clip_serve.errors import RequestError
from clip_serve.models.kinds import Images, Kind, Texts
from clip_toolkit.errors import SearchIndexError


class Indexable(Protocol):
    """What an index asks of a model: `Opened` and `Served` have it."""

    @property
    def name(self) -> str:
        """Under which it is served."""

    @property
    def kind(self) -> Kind[Any, Any]:
        """The file, opened."""


class Index:
    """An open index, and the served models whose embeddings it holds."""

    def __init__(self, folder: Path, models: Iterable[Indexable]) -> None:
        """Open it.

        Raises:
            SearchIndexError: it is missing or damaged, or none of the models has made it.
        """
        self._thread = ThreadPoolExecutor(1, "clip_serve_index")
        self.images, self.texts = "", ""
        candidates = list(models)
        self._index = self._thread.submit(self._open, folder, candidates).result()
        for opened in candidates:
            if isinstance(opened.kind, Texts) and self._shares_space(opened.kind):
                self.texts = opened.name

    def _open(self, folder: Path, models: Sequence[Indexable]) -> SearchIndex:
        refusal = SearchIndexError(f"{folder}: none of the models served is a classifier, whose index it could be")
        for opened in models:
            if isinstance(opened.kind, Images):
                try:
                    found = SearchIndex.open(folder, opened.kind.model)
                except SearchIndexError as error:
                    refusal = error
                else:
                    self.images = opened.name
                    return found
        raise refusal

    def _shares_space(self, kind: Texts) -> bool:
        identity = self._index.identity
        return identity.feature == "projected" and EncoderIdentity.of(kind.spec.encoder) == identity

    async def query(self, embedding: NDArray[np.float32], k: int) -> list[dict[str, Any]]:
        """Find the nearest images: ``path`` within the indexed folder, ``score`` and ``state``.

        Raises:
            SearchIndexError: as `SearchIndex.query_vector`.
        """
        if not np.isfinite(embedding).all():
            raise RequestError("the network's embedding of it is not finite: nothing can be compared with it")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._query, embedding, k)

    def _query(self, embedding: NDArray[np.float32], k: int) -> list[dict[str, Any]]:
        root = self._index.root
        return [self._shown(hit, root) for hit in self._index.query_vector(embedding, k)]

    @staticmethod
    def _shown(hit: Hit, root: Path) -> dict[str, Any]:
        return {"path": hit.path.relative_to(root).as_posix(), "score": hit.score, "state": hit.state}

    def close(self) -> None:
        """Close the database, after the queries in flight."""
        self._thread.submit(self._index.close)
        self._thread.shutdown(wait=False)
