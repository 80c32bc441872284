"""Reading manifests of labelled images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clip_toolkit.data.manifest import read_manifest
from clip_toolkit.errors import DatasetError
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[[str], Path]:
    def make(text: str) -> Path:
        path = tmp_path / "data.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return make


Manifest = Callable[[str], Path]


def test_a_manifest_names_labels_sides_and_groups(manifest: Manifest):
    path = manifest("path,label,split,group\na.png,cat,train,p1\nsub/b.png,dog,Valid,p2\nc.png,cat,,\n")
    data = read_manifest(path)
    assert (data.labels, data.targets.tolist()) == (("cat", "dog"), [0, 1, 0])
    assert (data.sides, data.groups) == (("train", "val", ""), ("p1", "p2", ""))
    assert data.files[1] == path.parent / "sub" / "b.png"


def test_a_manifest_of_several_labels(manifest: Manifest):
    data = read_manifest(manifest('path,label\na,"red;round"\nb,\nc, round \n'), MULTI_LABEL)
    assert data.labels == ("red", "round")
    assert data.targets.tolist() == [[1, 1], [0, 0], [0, 1]]


def test_a_manifest_of_numbers(manifest: Manifest):
    data = read_manifest(manifest("path,age,group,weight\na,1.5,x,70\nb,-2,y,6e1\n"), REGRESSION)
    assert data.labels == ("age", "weight")
    np.testing.assert_allclose(data.targets, [[1.5, 70], [-2, 60]])


BAD_MANIFESTS = {
    "no heading": ("", SINGLE_LABEL, "expected a column 'path'"),
    "no label column": ("path,class\na,b\n", SINGLE_LABEL, "expected a column 'label', found path, class"),
    "label missing": ("path,label\na,x\nb,\n", SINGLE_LABEL, "line 3: the label is missing"),
    "path missing": ("path,label\n,x\n", SINGLE_LABEL, "line 2: the path is missing"),
    "line ends": ('path,note,label\na,"two\nlines",x\nb,,\n', SINGLE_LABEL, "line 4: the label is missing"),
    "number": ('path,"a\nge"\na,"1"\nb,old\n', REGRESSION, "line 4: expected a number"),
    "no rows": ("path,label\n", SINGLE_LABEL, "no images"),
    "one label": ("path,label\na,x\nb,x\n", SINGLE_LABEL, "at least 2 labels"),
    "text": ("path,age\na,1\nb,old\n", REGRESSION, "line 3: expected a number in column 'age', got 'old'"),
    "infinite": ("path,age\na,inf\n", REGRESSION, "line 2: expected a number"),
    "no values": ("path,group\na,1\n", REGRESSION, "expected a column of numbers"),
    "side": ("path,label,split\na,x,holdout\nb,y,\n", SINGLE_LABEL, "line 2: expected the split"),
    "no labels at all": ("path,label\na,\nb,;\n", MULTI_LABEL, "no image has a label"),
}


@pytest.mark.parametrize(("text", "task", "said"), BAD_MANIFESTS.values(), ids=BAD_MANIFESTS.keys())
def test_bad_manifests_name_the_line(manifest: Manifest, text: str, task: str, said: str):
    with pytest.raises(DatasetError, match=said):
        read_manifest(manifest(text), task)


def test_manifest_in_another_encoding(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes("path,label\na,gr\xfcn\n".encode("latin-1"))
    with pytest.raises(DatasetError, match="UTF-8"):
        read_manifest(tmp_path / "a.csv")


def test_json_lines_are_rows_too(tmp_path: Path):
    path = tmp_path / "data.jsonl"
    path.write_text(
        '{"path": "a.png", "label": ["red", "round"], "group": 7}\n\n{"label": [], "path": "b.png"}\n'
        '{"path": "c.png", "label": "red", "group": null}\n',
        encoding="utf-8",
    )
    data = read_manifest(path, MULTI_LABEL)
    assert (data.labels, data.targets.tolist()) == (("red", "round"), [[1, 1], [0, 0], [1, 0]])
    assert data.groups == ("7", "", "")
    path.write_text('{"path": "a.png", "age": 1.5, "weight": -2}\n', encoding="utf-8")
    assert read_manifest(path, REGRESSION).targets.tolist() == [[1.5, -2]]


BAD_LINES = {
    "no JSON": ('{"path": "a", "label": "x"}\n{"path"\n', "JSON lines in UTF-8 .line 2"),
    "no object": ("[1]\n", "line 1: expected an object"),
    "nested": ('{"path": "a", "label": {"x": 1}}\n', "line 1: expected text, numbers or a list"),
    "separator": ('{"path": "a", "label": ["x;y"]}\n', "';' separates values"),
    "no label": ('{"path": "a"}\n', "expected a column 'label', found path"),
    "label missing": ('{"path": "a", "label": "x"}\n{"path": "b"}\n', "line 2: the label is missing"),
    "deep": ('{"path": "a", "label": ' + 100_000 * "[" + "\n", "line 1"),
    "empty": ("", "expected a column 'path', found none"),
}


@pytest.mark.parametrize(("text", "said"), BAD_LINES.values(), ids=BAD_LINES.keys())
def test_bad_json_lines_are_named(tmp_path: Path, text: str, said: str):
    (tmp_path / "data.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=said):
        read_manifest(tmp_path / "data.jsonl")


def test_labels_of_a_model_come_first(manifest: Manifest):
    path = manifest("path,label,site\na,dog,n\nb,dog,s\n")
    data = read_manifest(path, labels=("cat", "dog"), columns=("site",))
    assert (data.labels, data.targets.tolist()) == (("cat", "dog"), [1, 1])
    assert data.subset([1]).columns == {"site": ("s",)}
    with pytest.raises(DatasetError, match="line 2: the model has no label 'dog'; it has cat, cow"):
        read_manifest(path, labels=("cat", "cow"))
    numbers = manifest("path,note,weight,age\na,old,70,3\n")
    assert read_manifest(numbers, REGRESSION, labels=("age", "weight")).targets.tolist() == [[3, 70]]
