"""Features and labels as Parquet: of folders and manifests, and refused where a head would learn something else."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import tiny_task_model
from tiny_fused_model import png

from clip_scale import BatchClassifier, LabelledSource
from clip_scale.commands.scale import main
from clip_scale.feature_worker import FeatureWorker
from clip_toolkit.spec.tasks import SINGLE_LABEL
from clip_toolkit.stream.feature_table import FeatureSource

pa = pytest.importorskip("pyarrow", reason="needs the parquet extra")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the parquet extra")
RED, BLUE = (200, 30, 40), (10, 90, 250)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(tiny_task_model.encoder())
    return path


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """A folder that is split, with one file that is no image."""
    for name, content in {"train/blue/1.png": BLUE, "train/red/2.png": RED, "val/red/deep/3.png": RED}.items():
        path = tmp_path / "classes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(content))
    (tmp_path / "classes/train/red/4.png").write_bytes(b"junk")
    return tmp_path / "classes"


def features(encoder: Path, *source: object, options: tuple[str, ...] = ()) -> tuple[int, list[dict[str, Any]]]:
    """The exit code and the rows."""
    sink = encoder.with_name("out")
    fixed = ["--workers", "1", "--part-size", "8", "--quiet", "--model", str(encoder)]
    code = main(["features", *map(str, source), str(sink), *fixed, *options])
    return code, pq.read_table(sink).to_pylist() if sink.exists() else []


def test_a_folder_gives_labels_sides_hashes_and_plain_features(encoder: Path, classes: Path):
    code, rows = features(encoder, classes)
    assert code == 1  # for one file is no image
    kept = [(row["label"], row["split"], row["feature"]) for row in rows if row["error"] is None]
    assert kept == [("blue", "train", [*BLUE]), ("red", "train", [*RED]), ("red", "val", [*RED])]
    (bad,) = [row for row in rows if row["error"] is not None]
    assert bad["feature"] is None
    assert "4.png" in bad["error"]
    for row in rows:
        assert row["sha256"] == hashlib.sha256(Path(row["path"]).read_bytes()).hexdigest()


def test_the_files_name_their_encoder(encoder: Path, classes: Path):
    features(encoder, classes)
    spec = BatchClassifier(encoder).spec
    metadata = pq.read_schema(encoder.with_name("out") / "part-00000000.parquet").metadata
    assert FeatureSource.of(metadata) == FeatureSource(spec.encoder, spec.preprocessing)


@pytest.mark.parametrize("form", ["csv", "paths", "bytes"])
def test_manifests_give_labels_sides_and_groups(form: str, encoder: Path, classes: Path):
    names = ["train/blue/1.png", "val/red/deep/3.png"]
    told = {"what": ["blue", "red"], "split": ["train", "val"], "group": [0, 7]}
    if form == "csv":
        lines = [
            "path,what,split,group",
            *(f"{name},{told['what'][i]},{told['split'][i]},{told['group'][i]}" for i, name in enumerate(names)),
        ]
        path = classes / "list.csv"
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        images = {"bytes": [(classes / name).read_bytes() for name in names]} if form == "bytes" else {"path": names}
        path = classes / "list.parquet"
        pq.write_table(pa.table(told | images), path, row_group_size=1)
    code, rows = features(encoder, path, options=("--label-column", "what"))
    assert code == 0
    assert [(row["label"], row["split"], row["group"]) for row in rows] == [("blue", "train", "0"), ("red", "val", "7")]
    assert [row["feature"] for row in rows] == [[*BLUE], [*RED]]


def test_a_classifier_is_no_encoder(models: dict[str, Path], classes: Path, capsys: pytest.CaptureFixture[str]):
    assert features(models[SINGLE_LABEL], classes) == (1, [])
    assert "is a classifier" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("1.png", b"", "has no labels"),
        ("list.csv", b"path\n1.png\n", "expected a column 'label'"),
        ("list.parquet", None, "expected a column 'label', found path"),
        ("numbers.parquet", None, "expected texts in the column 'label', found the type int64"),
    ],
)
def test_sources_without_labels(
    name: str, content: bytes | None, said: str, encoder: Path, capsys: pytest.CaptureFixture[str]
):
    path = encoder.with_name(name)
    if content is None:
        pq.write_table(pa.table({"path": ["1.png"]} | ({"label": [1]} if name == "numbers.parquet" else {})), path)
    else:
        path.write_bytes(content)
    assert features(encoder, path) == (1, [])
    assert said in capsys.readouterr().err


def test_other_labels_are_another_run(encoder: Path, classes: Path, capsys: pytest.CaptureFixture[str]):
    features(encoder, classes)
    (classes / "train/blue/5.png").write_bytes(png(RED))
    (classes / "train/blue/1.png").rename(classes / "train/red/1.png")
    code, _ = features(encoder, classes, options=("--resume",))
    assert code == 1
    assert "the source has changed" in capsys.readouterr().err


def test_labels_travel_with_their_parts(encoder: Path, classes: Path):
    source = LabelledSource((str(classes),), part_size=8)
    task = pickle.dumps((FeatureWorker(BatchClassifier(encoder), "parquet"), (0, next(source.parts()))))
    worker, part = pickle.loads(task)  # noqa: S301  # of our own
    summary = worker(part).summary
    assert (summary.images, summary.errors, summary.labels) == (4, 1, {"red": 2, "blue": 1})
