"""Search a folder of images by picture or by words, with the embeddings of the model file that classifies.

from clip_toolkit import load
from clip_search import SearchIndex

with SearchIndex.open("photos.index", load("model.onnx"), create=True) as index:
    index.update("photos")
    for hit in index.query("image.jpg", k=5):
        print(hit.path, hit.score)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clip_toolkit.lazy import lazy_names

_HOMES = {
    "Duplicate": "results.duplicates",
    "Embeddings": "exchange.reading",
    "EncoderIdentity": "store.identity",
    "Hit": "results.hits",
    "ImportReport": "exchange.importing",
    "SearchIndex": "index",
    "UpdateReport": "indexing",
    "export_index": "exchange.exporting",
    "import_embeddings": "exchange.importing",
}
"""Where each public name lives."""

__all__ = list(_HOMES)

if TYPE_CHECKING:
    from clip_search.exchange.exporting import export_index as export_index
    from clip_search.exchange.importing import ImportReport as ImportReport
    from clip_search.exchange.importing import import_embeddings as import_embeddings
    from clip_search.exchange.reading import Embeddings as Embeddings
    from clip_search.index import SearchIndex as SearchIndex
    from clip_search.indexing import UpdateReport as UpdateReport
    from clip_search.results.duplicates import Duplicate as Duplicate
    from clip_search.results.hits import Hit as Hit
    from clip_search.store.identity import EncoderIdentity as EncoderIdentity
else:
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
