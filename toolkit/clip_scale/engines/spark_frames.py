"""The callable on a Spark DataFrame: Arrow batches in, Arrow batches out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from clip_scale.errors import SourceError
from clip_toolkit.errors import MissingDependencyError
from clip_toolkit.stream.records import EMBEDDING
from clip_toolkit.stream.writers import import_pyarrow

if TYPE_CHECKING:
    from clip_scale.batch_classifier import BatchClassifier


def classify_spark(frame: Any, classify: BatchClassifier) -> Any:
    """Return a Spark DataFrame with the columns that `BatchClassifier` adds, and without the bytes.

    How many rows are in memory at once is Spark's ``spark.sql.execution.arrow.maxRecordsPerBatch``, 10,000 by default:
    set some 64 for a column of bytes.

    Args:
        frame: with a column of bytes or paths.
        classify: its model has to be where every executor sees it, and so has this package.

    Raises:
        MissingDependencyError: Spark is not installed.
        SourceError: the frame has a column of a new one's name, or embeddings are to be float16, which Spark lacks.
    """
    try:
        from pyspark.sql.pandas.types import from_arrow_schema
        from pyspark.sql.types import StructType
    except ImportError as error:
        raise MissingDependencyError("Spark is not installed: pip install 'clip-toolkit[cpu,spark]'") from error
    if classify.embedding_type == "float16":
        raise SourceError("embedding: Spark has no float16. Use float32.")
    added = from_arrow_schema(classify.result_schema(frame.columns))
    kept = [field for field in frame.schema.fields if field.name != classify.bytes_column]

    def work(batches: Iterable[Any]) -> Iterator[Any]:
        for batch in batches:
            yield from _without_fixed_sizes(classify(batch)).to_batches()

    return frame.mapInArrow(work, StructType([*kept, *added.fields]))


def _without_fixed_sizes(table: Any) -> Any:
    """Turn embeddings into lists of any size: Spark takes no others back."""
    if EMBEDDING not in table.column_names:
        return table
    arrow = import_pyarrow()
    place = table.column_names.index(EMBEDDING)
    return table.set_column(place, EMBEDDING, table.column(EMBEDDING).cast(arrow.list_(arrow.float32())))
