"""Search a folder of images by picture or by words, with the embeddings of the model file that classifies.

from clip_toolkit import load
from clip_search import SearchIndex

with SearchIndex.open("photos.index", load("model.onnx"), create=True) as index:
    index.update("photos")
    for hit in index.query("image.jpg", k=5):
        print(hit.path, hit.score)
"""

from clip_search.index import SearchIndex
from clip_search.indexing import UpdateReport
from clip_search.results.duplicates import Duplicate
from clip_search.results.hits import Hit
from clip_search.store.identity import EncoderIdentity

__all__ = ["Duplicate", "EncoderIdentity", "Hit", "SearchIndex", "UpdateReport"]
