"""One callable for every data engine: columns of encoded images in, columns of predictions out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_scale.columns import (
    Columns,
    arrow_schema,
    arrow_table,
    column_names,
    inputs_of,
    numpy_column,
    result_columns,
)
from clip_scale.model_copy import locate
from clip_toolkit.classifier import Classifier, load
from clip_toolkit.errors import ImageError
from clip_toolkit.images import MAX_PIXELS, ImageSource
from clip_toolkit.images.limits import raise_pillows_limit
from clip_toolkit.images.sources import is_url
from clip_toolkit.runtime.memory import limit_memory
from clip_toolkit.runtime.processor import usable_cores
from clip_toolkit.spec.classifier import ModelSpec, check_one_head
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.stream.inputs import Input
from clip_toolkit.stream.records import EMBEDDING, Record, record

if TYPE_CHECKING:
    from clip_toolkit.prediction import Prediction

EMBEDDINGS = ("float32", "float16")
"""Types in which embeddings are given."""

_OPENING = threading.Lock()


@dataclass(frozen=True)
class BatchClassifier:
    """A model that travels to other processes by its name, and is opened once in each.

    Called with a batch of columns, a mapping or a pyarrow Table, it returns the same kind with the columns that it was
    given, the bytes left out, and those of `clip_toolkit.stream.records.record`: ``label``, ``probability``, ``top``,
    ``provider``, ``error``, and ``labels``, ``values`` or ``text_truncated`` where the model has them. A bad image is a
    row with its ``error``.

    Attributes:
        model: path of the file, which every machine has to have, or a URL that fsspec can open.
        top_k: labels of each image in ``top``.
        probabilities: add a column ``p:<label>`` for each label.
        embedding: add the column ``embedding``: ``float32`` (or True) or ``float16``.
        threads: CPU threads; default ``$OMP_NUM_THREADS``, which Ray and Spark set to the task's share of the
            machine, or else all cores that the process may use.
        batch_size: images a run of the network.
        bytes_column: column of the bytes of image files.
        path_column: column of their paths. Where there are bytes too, it names them in errors, and is not opened.
        text_column: column of the texts, for a model that reads one with each image.
        max_memory: MiB that the network may take in each process on the CPU, for model files from strangers.
        sha256: of the model file; found where it is not given. A process that finds another file refuses it.

    ``device``, ``resize``, ``max_pixels``, ``allow_truncated`` and ``fast_decode`` are those of `clip_toolkit.load`.

    Raises:
        ModelError: the file cannot be read or has several heads; when called, also what `clip_toolkit.load` raises.
        ValueError: an option is out of range.
        SourceError: when it is called: a column is missing, holds something else, or has the name of a new one.
        TextError: likewise: the model reads texts, and there is no column of them.
    """

    model: str | os.PathLike[str]
    _: KW_ONLY
    top_k: int = 1
    probabilities: bool = False
    embedding: str | bool = False
    threads: int | None = None
    device: str = "auto"
    batch_size: int = 8
    resize: str = "pillow"
    max_pixels: int = MAX_PIXELS
    allow_truncated: bool = False
    fast_decode: bool | None = None
    bytes_column: str = "bytes"
    path_column: str = "path"
    text_column: str = "text"
    max_memory: int | None = None
    sha256: str = ""

    def __post_init__(self) -> None:
        """Check the options, and find out which file is meant."""
        if self.embedding is True:
            object.__setattr__(self, "embedding", EMBEDDINGS[0])
        if self.embedding not in (False, *EMBEDDINGS):
            raise ValueError(f"embedding: expected False, True or one of {', '.join(EMBEDDINGS)}, got {self.embedding}")
        for name in ("top_k", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        model = os.fspath(self.model)
        object.__setattr__(self, "model", model if is_url(model) else str(Path(model).absolute()))
        if not self.sha256:
            object.__setattr__(self, "sha256", locate(str(self.model))[1])

    @property
    def columns(self) -> Columns:
        """Which columns of a batch are read."""
        return Columns(self.bytes_column, self.path_column, self.text_column)

    @property
    def spec(self) -> ModelSpec:
        """What the file says of itself; it is not opened for this."""
        return _spec(str(self.model), self.sha256)

    def __call__(self, batch: Any) -> Any:
        """Classify a batch; the columns of a mapping come back as `clip_scale.columns.numpy_column` makes them."""
        inputs = list(inputs_of(batch, self.columns, self.spec))
        kept, added = result_columns(self._template, column_names(batch), self.columns)
        records = list(self.records(inputs)) if inputs else []
        if not isinstance(batch, Mapping):
            return arrow_table(batch, records, kept, arrow_schema(self.spec, added, self.embedding_type))
        columns = {name: [item[name] for item in records] for name in added}
        return {name: batch[name] for name in kept} | {
            name: numpy_column(name, values, self.spec, self.embedding_type) for name, values in columns.items()
        }

    def result_schema(self, names: Iterable[str]) -> Any:
        """Return the Arrow schema of the columns that are added to a batch of these columns.

        Raises:
            SourceError: a name would be twice.
        """
        _, added = result_columns(self._template, names, self.columns)
        return arrow_schema(self.spec, added, self.embedding_type)

    @property
    def embedding_type(self) -> str | None:
        """The type of the embeddings, or None where there are none."""
        return self.embedding or None  # type: ignore[return-value]  # True is replaced

    def records(self, inputs: Iterable[Input]) -> Iterator[Record]:
        """Classify images, lazily and in order; their records are those of ``clip-infer``.

        Raises:
            ModelError: ONNX Runtime fails.
        """
        for item, result in self.predictions(inputs):
            yield self._record(item, result, self.opened().provider, self.spec)

    def predictions(self, inputs: Iterable[Input]) -> Iterator[tuple[Input, Prediction | ImageError]]:
        """Classify images, lazily and in order.

        Raises:
            ModelError: ONNX Runtime fails.
        """
        classifier = self.opened()
        named, asked = tee(inputs)
        texts: Iterator[str] | None = None
        if classifier.spec.text is not None:
            asked, read = tee(asked)
            texts = (item.text or "" for item in read)
        images = (_image(item, needs_text=texts is not None) for item in asked)
        results = classifier.predict_many(images, self.batch_size, errors="return", texts=texts)
        yield from zip(named, results, strict=True)

    def opened(self) -> Classifier:
        """Return the model, opened once in this process."""
        with _OPENING:
            return _opened(self)

    @property
    def _template(self) -> Record:
        return self._record(Input(""), ImageError(""), "", self.spec)

    def _record(self, item: Input, result: Prediction | ImageError, provider: str, spec: ModelSpec) -> Record:
        found = record(item.name, result, self.top_k, provider, spec, text=item.text, columns=self.probabilities)
        if self.embedding_type is not None:
            vector = None if isinstance(result, ImageError) else result.embedding.astype(self.embedding_type)
            found[EMBEDDING] = None if vector is None else vector.tolist()
        return found


@lru_cache(maxsize=4)
def _spec(model: str, sha256: str) -> ModelSpec:
    spec = read_spec(locate(model, sha256)[0])
    check_one_head(spec, "clip-scale", "clip-infer or clip-serve")
    return spec


@lru_cache(maxsize=4)
def _opened(settings: BatchClassifier) -> Classifier:
    raise_pillows_limit(settings.max_pixels)
    if settings.max_memory is not None:
        limit_memory(settings.max_memory)
    classifier = load(
        locate(str(settings.model), settings.sha256)[0],
        settings.device,
        settings.threads or _share_of_cores(),
        settings.resize,
        max_pixels=settings.max_pixels,
        allow_truncated=settings.allow_truncated,
        fast_decode=settings.fast_decode,
        throughput=True,
    )
    classifier.explains = False  # records hold no maps
    return classifier


def _share_of_cores() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(given), usable_cores()) if given.isdigit() and int(given) else usable_cores()


def _image(item: Input, *, needs_text: bool) -> ImageSource | ImageError:
    """Return what is classified; the text of an image that has none is not taken for an empty one."""
    if needs_text and item.text is None:
        return ImageError(f"{item.name}: the row has no text, and the model reads one with each image")
    return item.name if item.image is None else item.image
