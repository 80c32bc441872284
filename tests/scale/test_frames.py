"""The callable on DataFrames of Daft and Spark: the records of clip-infer, whatever the engine."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_scale import BatchClassifier, SourceError, classify_daft, classify_spark
from clip_toolkit import load

pytestmark = pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")

Records = list[dict[str, Any]]


def check(rows: Records, expected: Records, model: Path, photos: Path) -> None:
    """Compare rows, of any order, with the records of ``clip-infer``, and one embedding with the runtime's."""
    found = {row["path"]: row for row in rows}
    assert len(rows) == len(found) == len(expected)
    for record in expected:
        row = found[record.pop("image")]
        assert {name: row[name] for name in record} == record
        assert "bytes" not in row
    picture = str(photos / "05.png")
    assert list(found[picture]["embedding"]) == load(model).predict(picture).embedding.tolist()
    assert found[picture]["id"] == 5


def columns(photos: Path) -> dict[str, list[Any]]:
    paths = sorted(photos.iterdir())
    return {
        "path": [str(path) for path in paths],
        "bytes": [path.read_bytes() for path in paths],
        "id": [int(path.stem[:2]) for path in paths],
    }


@pytest.mark.parametrize("left_out", ["bytes", None])
def test_daft(left_out: str | None, model: Path, photos: Path, inferred: Records):
    daft = pytest.importorskip("daft", reason="needs the daft extra")
    frame = daft.from_pydict({name: values for name, values in columns(photos).items() if name != left_out})
    found = classify_daft(frame, BatchClassifier(model, top_k=3, embedding=True), batch_size=8)
    check(found.to_pylist(), inferred, model, photos)
    with pytest.raises(SourceError, match="Daft has no float16"):
        classify_daft(frame, BatchClassifier(model, embedding="float16"))
    with pytest.raises(SourceError, match="has a column 'label' already"):
        classify_daft(frame.with_column_renamed("id", "label"), BatchClassifier(model))


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """A session with two workers on this machine."""
    sql = pytest.importorskip("pyspark.sql", reason="needs the spark extra")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 8)
    yield session
    session.stop()


@pytest.mark.parametrize("left_out", ["bytes", None])
def test_spark(spark: Any, left_out: str | None, model: Path, photos: Path, inferred: Records):
    wanted = {name: values for name, values in columns(photos).items() if name != left_out}
    frame = spark.createDataFrame([*zip(*wanted.values(), strict=True)], [*wanted]).coalesce(2)
    found = classify_spark(frame, BatchClassifier(model, top_k=3, embedding=True))
    check([row.asDict(recursive=True) for row in found.collect()], inferred, model, photos)
    with pytest.raises(SourceError, match="Spark has no float16"):
        classify_spark(frame, BatchClassifier(model, embedding="float16"))
    with pytest.raises(SourceError, match="has a column 'label' already"):
        classify_spark(frame.withColumnRenamed("id", "label"), BatchClassifier(model))
