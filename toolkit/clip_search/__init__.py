"""Search a folder of images by picture or by words, with the embeddings of the model file that classifies.

from clip_toolkit import load
from clip_toolkit.search import SearchIndex

with SearchIndex.open("photos.index", load("model.onnx"), create=True) as index:
    index.update("photos")
    for hit in index.query("image.jpg", k=5):
        print(hit.path, hit.score)
"""

from clip_toolkit.search.duplicates import Duplicate
from clip_toolkit.search.hits import Hit
from clip_toolkit.search.identity import EncoderIdentity
from clip_toolkit.search.index import SearchIndex
from clip_toolkit.search.indexing import UpdateReport

__all__ = ["Duplicate", "EncoderIdentity", "Hit", "SearchIndex", "UpdateReport"]
