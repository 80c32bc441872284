"""The callable that engines take: columns in, columns out, and the very records of clip-infer."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_fused_model import png

from clip_scale import BatchClassifier, SourceError
from clip_scale.batch_classifier import _opened
from clip_toolkit import ModelError, ModelNotFoundError, TextError, load
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS

Inferred = Callable[..., list[dict[str, Any]]]
RED = png((200, 30, 40))


def batch_of(photos: Path) -> dict[str, Any]:
    paths = sorted(photos.iterdir())
    return {"path": [str(path) for path in paths], "bytes": [path.read_bytes() for path in paths]}


@pytest.mark.parametrize("task", TASKS)
def test_rows_are_the_records_of_clip_infer(task: str, models: dict[str, Path], photos: Path, inferred: Inferred):
    expected = inferred(models[task], photos)
    found = BatchClassifier(models[task], top_k=3)(batch_of(photos))
    assert list(found) == ["path", *(name for name in expected[0] if name != "image")]
    assert list(found["path"]) == [row["image"] for row in expected]
    for name in set(found) - {"path", "probability"}:
        assert list(found[name]) == [row[name] for row in expected], name
    probabilities = [None if np.isnan(value) else value for value in found["probability"]]
    assert probabilities == [row["probability"] for row in expected]


def test_bytes_and_paths_give_the_same(models: dict[str, Path], photos: Path):
    classify, batch = BatchClassifier(models[SINGLE_LABEL]), batch_of(photos)
    by_path, by_bytes = classify({"path": batch["path"]}), classify(batch)
    assert {name: repr(values) for name, values in by_path.items()} == {
        name: repr(values) for name, values in by_bytes.items()
    }


def test_columns_of_the_batch_stay_and_the_bytes_go(models: dict[str, Path]):
    found = BatchClassifier(models[SINGLE_LABEL])({"id": np.array([5, 6]), "bytes": [RED, None]})
    assert list(found["id"]) == [5, 6]
    assert "bytes" not in found
    assert list(found["error"]) == [None, "<bytes>: the row has no bytes"]


def test_embeddings_and_probabilities(models: dict[str, Path], photos: Path):
    batch = {"path": [str(photos / "01.png"), str(photos / "07b.jpg")]}
    full = BatchClassifier(models[SINGLE_LABEL], embedding=True, probabilities=True)(batch)
    prediction = load(models[SINGLE_LABEL]).predict(batch["path"][0])
    assert full["embedding"].dtype == np.float32
    np.testing.assert_array_equal(full["embedding"][0], prediction.embedding)
    assert np.isnan(full["embedding"][1]).all()
    assert [full["p:normal"][0], full["p:pneumonia"][0]] == [*map(float, prediction.probabilities)]
    half = BatchClassifier(models[SINGLE_LABEL], embedding="float16")(batch)["embedding"]
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half[0], prediction.embedding.astype(np.float16))


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_arrow_tables_have_the_same_values_and_types_even_when_empty(
    task: str, probabilities: bool, models: dict[str, Path], photos: Path
):
    arrow = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    classify = BatchClassifier(models[task], embedding="float16", probabilities=probabilities, top_k=2)
    table = arrow.table(batch_of(photos))
    found, empty = classify(table), classify(table.slice(0, 0))
    assert found.schema == empty.schema
    assert found.schema.field("embedding").type == arrow.list_(arrow.float16(), 3)
    plain = classify(batch_of(photos))
    assert found.column_names == list(plain)
    for name in ("label", "error", "provider", *(["labels"] if task == MULTI_LABEL else [])):
        assert found.column(name).to_pylist() == list(plain[name])
    if task == REGRESSION:
        assert found.column("values").to_pylist()[0] == plain["values"][0]


def test_a_model_that_reads_texts(models: dict[str, Path], photos: Path):
    classify = BatchClassifier(models["fused"], text_column="caption")
    batch = {"path": [str(photos / "01.png")] * 2, "caption": ["red circle", None]}
    found = classify(batch)
    prediction = load(models["fused"]).predict(batch["path"][0], "red circle")
    assert (found["label"][0], found["probability"][0]) == (prediction.label, prediction.probability)
    assert "has no text" in found["error"][1]
    with pytest.raises(TextError, match="reads a text with each image"):
        classify({"path": ["a.png"]})


def test_it_travels_and_opens_once_in_a_process(models: dict[str, Path]):
    classify = BatchClassifier(models[SINGLE_LABEL])
    sent = pickle.dumps(classify)
    assert len(sent) < 1000
    _opened.cache_clear()
    assert pickle.loads(sent).opened() is classify.opened()  # noqa: S301  # our own
    assert _opened.cache_info().misses == 1


def test_another_file_than_the_one_meant_is_refused(models: dict[str, Path]):
    classify = BatchClassifier(models[SINGLE_LABEL])
    models[SINGLE_LABEL].write_bytes(models[MULTI_LABEL].read_bytes())
    with pytest.raises(ModelError, match=r"is another file here .* Put the same file on every machine"):
        classify({"bytes": [RED]})


@pytest.mark.parametrize(("given", "threads"), [("1", 1), ("0", None), ("all", None), (None, None)])
def test_threads_are_the_share_that_the_engine_gives(
    given: str | None, threads: int | None, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("clip_scale.batch_classifier.usable_cores", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    _opened.cache_clear()
    assert BatchClassifier(models[SINGLE_LABEL]).opened().threads == (threads or 3)
    assert BatchClassifier(models[SINGLE_LABEL], threads=2).opened().threads == 2


def test_a_limit_on_memory_is_set_before_the_model_is_opened(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    limits: list[int] = []
    monkeypatch.setattr("clip_scale.batch_classifier.limit_memory", limits.append)
    BatchClassifier(models[SINGLE_LABEL], max_memory=64)({"bytes": [RED]})
    assert limits == [64]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"image": [RED]}, "expected a column 'bytes' or 'path', found image"),
        ({"bytes": ["photo.jpg"]}, "row 0: expected the bytes of an image file, got str"),
        ({"bytes": [RED, np.zeros((4, 4, 3))]}, "row 1: expected the bytes of an image file, got ndarray"),
        ({"bytes": np.array([RED])}, "drops zeros at the end"),
        ({"path": [3]}, "column 'path', row 0: expected text, got int"),
        ({"bytes": [RED], "label": ["cat"]}, "has a column 'label' already"),
        ([RED], "expected a mapping of columns or a pyarrow Table, got list"),
    ],
)
def test_what_is_no_batch_is_refused(batch: Any, message: str, models: dict[str, Path]):
    with pytest.raises(SourceError, match=message):
        BatchClassifier(models[SINGLE_LABEL])(batch)


def test_options_out_of_range(models: dict[str, Path], tmp_path: Path):
    with pytest.raises(ValueError, match="embedding: expected False, True or one of float32, float16"):
        BatchClassifier(models[SINGLE_LABEL], embedding="int8")
    with pytest.raises(ValueError, match="top_k: expected at least 1"):
        BatchClassifier(models[SINGLE_LABEL], top_k=0)
    with pytest.raises(ModelNotFoundError, match="there is no such model file"):
        BatchClassifier(tmp_path / "none.onnx")


def test_a_model_at_a_url_is_kept_by_its_content(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fsspec = pytest.importorskip("fsspec", reason="needs the remote extra")
    monkeypatch.setattr("clip_scale.model_copy._cache_folder", lambda: tmp_path / "cache")
    store = fsspec.filesystem("memory")
    store.pipe("/models/a.onnx", models[SINGLE_LABEL].read_bytes())
    classify = BatchClassifier("memory://models/a.onnx")
    assert [path.stem for path in (tmp_path / "cache").iterdir()] == [classify.sha256]
    store.rm("/models", recursive=True)
    expected = BatchClassifier(models[SINGLE_LABEL])({"bytes": [RED]})
    assert repr(classify({"bytes": [RED]})) == repr(expected)
    with pytest.raises(ModelNotFoundError, match=r"memory://models/a\.onnx: there is no such model file"):
        BatchClassifier("memory://models/a.onnx")
    with pytest.raises(ModelError, match=r"unknown://a\.onnx: cannot be read"):
        BatchClassifier("unknown://a.onnx")
