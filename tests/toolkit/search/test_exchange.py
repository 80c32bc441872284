"""Embeddings out of an index and into one: the same answers, and refusals where they would be others."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clip_search import SearchIndex
from clip_search.commands.search import main
from clip_search.exchange.exporting import IDENTITY, export_index
from clip_search.exchange.importing import import_embeddings
from clip_search.exchange.reading import Embeddings
from clip_toolkit import Classifier
from clip_toolkit.errors import MissingDependencyError, OutputError, SearchIndexError

pa = pytest.importorskip("pyarrow", reason="needs the parquet extra")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the parquet extra")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder, rng = tmp_path / "photos", np.random.default_rng(2)
    (folder / "below").mkdir(parents=True)
    for number in range(6):
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        path = folder / ("below" if number % 2 else ".") / f"{number}.png"
        Image.fromarray(pixels).resize((72, 64), Image.Resampling.NEAREST).save(path)
    return folder


@pytest.fixture
def index(tmp_path: Path, photos: Path, classifier: Classifier) -> Path:
    with SearchIndex.open(tmp_path / "index", classifier, create=True) as opened:
        opened.update(photos)
    return tmp_path / "index"


@pytest.fixture
def exported(index: Path) -> Path:
    assert export_index(index, index.with_name("out.parquet")) == 6
    return index.with_name("out.parquet")


def embeddings(index: Path) -> bytes:
    return (index / "embeddings.npy").read_bytes() + (index / "paths.bin").read_bytes()


def test_what_is_exported_can_be_imported(exported: Path, index: Path, photos: Path, classifier: Classifier):
    report = import_embeddings(index.with_name("other"), photos, Embeddings(exported), classifier)
    assert (report.images, report.missing, report.scaled) == (6, 0, 0)
    assert report.cosine > 0.999
    assert embeddings(index.with_name("other")) == embeddings(index)
    with SearchIndex.open(index.with_name("other"), classifier) as opened:
        assert opened.query(photos / "below/3.png", 1)[0].path == photos / "below/3.png"
        assert opened.update().unchanged == 6


def test_arrays_of_any_length_become_directions(exported: Path, index: Path, photos: Path, classifier: Classifier):
    table = pq.read_table(exported).to_pydict()
    np.save(index.with_name("all.npy"), 3 * np.array(table["embedding"], np.float64))
    paths = index.with_name("paths.txt")
    paths.write_text("\n".join(str(photos / name) for name in table["path"]), encoding="utf-8")
    source = Embeddings(index.with_name("all.npy"), paths)
    report = import_embeddings(index.with_name("other"), photos, source, classifier)
    assert (report.images, report.scaled) == (6, 6)
    ours, theirs = (np.load(each / "embeddings.npy") for each in (index.with_name("other"), index))
    assert np.abs(ours.astype(np.float32) - theirs).max() < 1e-3
    with pytest.raises(SearchIndexError, match=r"has no paths.*--paths"):
        import_embeddings(index, photos, replace(source, paths=None), classifier)
    paths.write_text("1.png\n", encoding="utf-8")
    with pytest.raises(SearchIndexError, match=r"for the 1 lines of .*got float64 \[6, "):
        import_embeddings(index, photos, source, classifier)


def test_images_that_are_not_there_are_left_out(
    exported: Path, index: Path, photos: Path, demo: Path, capsys: pytest.CaptureFixture[str]
):
    (photos / "below/1.png").unlink()
    command = ["import", str(exported), str(photos), "--index", str(index.with_name("other")), "--model", str(demo)]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "1 images are not in" in said
    assert "such as below/1.png" in said
    assert "5 images can be found" in said


def column(change: Any) -> Any:
    """A table whose embeddings were changed by a function of an array."""

    def changed(table: Any) -> Any:
        values: NDArray[Any] = change(np.array(table["embedding"].to_pylist(), np.float32))
        return pa.table({"path": table["path"], "embedding": pa.array(list(values))})

    return changed


def with_nan(values: NDArray[Any]) -> NDArray[Any]:
    values[0, 0] = np.nan
    return values


def other_encoder(table: Any) -> Any:
    told = table.schema.metadata[IDENTITY].replace(b'"pooled"', b'"other"')
    return table.replace_schema_metadata({IDENTITY: told})


REFUSED = {
    "another encoder": (other_encoder, "holds embeddings of .*other.* and this model is"),
    "other numbers": (column(lambda values: values[::-1]), r"is not what this model makes of it \(cosine "),
    "another length": (column(lambda values: values[:, 1:]), r"has embeddings of \d+ numbers, and the model"),
    "not finite": (column(with_nan), "is 0 or not finite"),
    "nothing": (column(lambda values: 0 * values), "is 0 or not finite"),
    "no column": (lambda table: table.drop_columns(["embedding"]), "expected a column 'embedding', found path"),
    "integers": (column(lambda values: values.astype(np.int64)), "lists of floating-point numbers"),
    "no image": (
        lambda table: table.set_column(0, "path", pa.array([f"none/{i}.png" for i in range(6)])),
        "none of its 6 images is in",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_answer_otherwise_is_refused(
    what: str, exported: Path, index: Path, photos: Path, classifier: Classifier
):
    change, said = REFUSED[what]
    pq.write_table(change(pq.read_table(exported)), exported)
    before = embeddings(index)
    with pytest.raises(SearchIndexError, match=said):
        import_embeddings(index, photos, Embeddings(exported), classifier)
    assert embeddings(index) == before


def test_other_outputs_are_refused(index: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(OutputError, match=r"ending in \.parquet or \.lance"):
        export_index(index, index.with_name("out.csv"))
    monkeypatch.setitem(__import__("sys").modules, "lancedb", None)
    with pytest.raises(MissingDependencyError, match=r"clip-toolkit\[lance\]"):
        export_index(index, index.with_name("out.lance"))
