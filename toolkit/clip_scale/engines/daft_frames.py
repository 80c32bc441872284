"""The callable on a Daft DataFrame, on this machine or on Daft's own runners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clip_scale.errors import SourceError
from clip_toolkit.errors import MissingDependencyError
from clip_toolkit.stream.writers import import_pyarrow

if TYPE_CHECKING:
    from clip_scale.batch_classifier import BatchClassifier

_RESULTS = "__clip_scale"


def classify_daft(frame: Any, classify: BatchClassifier, *, batch_size: int = 64) -> Any:
    """Return a Daft DataFrame with the columns that `BatchClassifier` adds, and without the bytes.

    Args:
        frame: with a column of bytes or paths.
        classify: its model has to be where every worker sees it, and so has this package.
        batch_size: rows that are in memory at once, for each worker.

    Raises:
        MissingDependencyError: Daft is not installed.
        SourceError: the frame has a column of a new one's name, or embeddings are to be float16, which Daft lacks.
    """
    try:
        import daft
    except ImportError as error:
        raise MissingDependencyError("Daft is not installed: pip install 'clip-toolkit[cpu,daft]'") from error
    if classify.embedding_type == "float16":
        raise SourceError("embedding: Daft has no float16. Use float32.")
    arrow, present = import_pyarrow(), frame.column_names
    added = classify.result_schema(present)
    read = [name for name in vars(classify.columns).values() if name in present]
    types = {field.name: daft.DataType.from_arrow_type(field.type) for field in added}

    def results(*columns: Any) -> Any:
        table = classify(arrow.table([column.to_arrow() for column in columns], names=read))
        return table.select(added.names).to_struct_array().combine_chunks()

    kept = [name for name in present if name != classify.bytes_column]
    function = daft.udf(return_dtype=daft.DataType.struct(types), batch_size=batch_size)(results)
    found = frame.with_column(_RESULTS, function(*(frame[name] for name in read)))
    return found.select(*kept, found[_RESULTS].unnest())
