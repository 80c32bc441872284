"""Files of a notebook's answers: every format reads the same, and what proves nothing is refused by name."""

from __future__ import annotations

import csv
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from clip_export.expect import save
from clip_export.expect.answers import Answers
from clip_export.expect.reading import read_answers
from clip_toolkit.errors import ExpectError

LABELS = ("ant", "bee", "cow")
LOGITS = np.random.default_rng(3).normal(0, 2, (20, 3)).astype(np.float32)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    (tmp_path / "images").mkdir()
    found = [tmp_path / "images" / f"{number}.png" for number in range(len(LOGITS))]
    for path in found:
        Image.new("RGB", (4, 4)).save(path)
    return found


def write_csv(path: Path, header: list[str], rows: list[list[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def written(kind: str, folder: Path, paths: list[Path]) -> Path:
    names = [path.relative_to(folder).as_posix() for path in paths]
    path = folder / f"expect.{kind}"
    headings = [f"logit:{label}" for label in LABELS]
    rows = zip(names, LOGITS.tolist(), strict=True)
    if kind == "npz":
        np.savez(path, image=names, logits=LOGITS, labels=LABELS)
    elif kind == "csv":
        write_csv(path, ["path", *headings], [[name, *row] for name, row in rows])
    elif kind == "jsonl":
        path.write_text(
            "\n".join(json.dumps({"path": name} | dict(zip(headings, row, strict=True))) for name, row in rows)
        )
    else:
        save_file({"logits": LOGITS}, path, {"image": json.dumps(names), "labels": json.dumps(LABELS)})
    return path


@pytest.mark.parametrize("kind", ["npz", "csv", "jsonl", "safetensors"])
def test_every_format_reads_the_same(kind: str, tmp_path: Path, paths: list[Path]):
    answers = read_answers(written(kind, tmp_path, paths))
    assert answers.images == tuple(map(str, paths))
    np.testing.assert_allclose(answers.logits, LOGITS, rtol=1e-6)
    assert (answers.labels, answers.compared) == (LABELS, "logits")


def test_save_writes_what_is_read(tmp_path: Path, paths: list[Path]):
    save(tmp_path / "e.npz", paths, torch.from_numpy(LOGITS).requires_grad_(), labels=LABELS)
    answers = read_answers(tmp_path / "e.npz")
    assert answers.images == tuple(map(str, paths))
    np.testing.assert_array_equal(answers.logits, LOGITS)
    assert np.load(tmp_path / "e.npz")["image"][0] == "images/0.png"  # moves together with its images


def test_saved_images_and_features(tmp_path: Path):
    pictures = [Image.new("RGB", (4, 4), (number, 0, 0)) for number in range(20)]
    save(tmp_path / "e.npz", pictures, probabilities=np.full((20, 2), 0.5))
    answers = read_answers(tmp_path / "e.npz")
    assert len(answers) == 20
    assert all(isinstance(image, bytes) and image.startswith(b"\x89PNG") for image in answers.images)
    save(tmp_path / "f.npz", features=np.ones((5, 8)), logits=torch.zeros(5, 2, dtype=torch.bfloat16))
    assert read_answers(tmp_path / "f.npz").features.shape == (5, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"logits": LOGITS}, "images, or else features"),
        ({"images": ["a.png"]}, "logits or probabilities"),
        ({"images": ["a.png"], "logits": LOGITS}, "numbers of rows differ"),
        ({"images": [3], "logits": LOGITS[:1]}, "got int"),
    ],
)
def test_what_cannot_be_saved(tmp_path: Path, arguments: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        save(tmp_path / "e.npz", **arguments)


def test_labels_alone(tmp_path: Path, paths: list[Path]):
    path = write_csv(tmp_path / "e.csv", ["path", "label"], [[path, "ant"] for path in paths])
    answers = read_answers(path)
    assert (answers.compared, answers.decisions) == ("labels", ("ant",) * 20)


def test_a_single_column_stands_for_two_labels(tmp_path: Path, paths: list[Path]):
    np.savez(tmp_path / "e.npz", image=[str(path) for path in paths], probabilities=np.linspace(0, 1, 20))
    fitted = read_answers(tmp_path / "e.npz").fitted_to(("cat", "dog"))
    np.testing.assert_allclose(fitted.probabilities[:, 1], np.linspace(0, 1, 20))
    np.testing.assert_allclose(fitted.probabilities.sum(1), 1)


def test_columns_are_ordered_by_name(tmp_path: Path, paths: list[Path]):
    answers = read_answers(written("csv", tmp_path, paths)).fitted_to(("cow", "ant", "bee"))
    np.testing.assert_allclose(answers.logits, LOGITS[:, [2, 0, 1]], rtol=1e-6)


def test_missing_images_are_counted_and_named(tmp_path: Path, paths: list[Path]):
    path = written("npz", tmp_path, paths)
    for image in paths[:5]:
        image.unlink()
    with pytest.raises(ExpectError, match=r"5 of 20 images are not there: .*0\.png.* and 2 more\. Paths count from"):
        read_answers(path)


def test_other_label_names(tmp_path: Path, paths: list[Path]):
    answers = read_answers(written("npz", tmp_path, paths))
    with pytest.raises(ExpectError, match="answers for ant, bee, cow, but the labels are ant, bee, dog"):
        answers.fitted_to(("ant", "bee", "dog"))
    with pytest.raises(ExpectError, match="3 columns of answers, but there are 4 labels"):
        answers.fitted_to(("ant", "bee", "cow", "dog"))


PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
NAN = np.where(np.arange(60).reshape(20, 3) == 31, np.nan, LOGITS)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"logits": NAN}, "logits: row 10 holds NaN or infinity"),
        ({"probabilities": LOGITS}, "goes beyond 0 to 1 .* If they are logits, name them so"),
        ({"logits": LOGITS, "probabilities": PROBABILITIES[::-1]}, "contradict each other"),
        ({"logits": LOGITS[:7]}, "expected 20 rows"),
        ({"logits": LOGITS[:, :, None]}, "expected 20 rows"),
        ({"logits": np.array(["a"] * 20)}, "logits: expected numbers"),
        ({}, "neither logits, nor probabilities, nor a label"),
    ],
)
def test_answers_that_prove_nothing(tmp_path: Path, paths: list[Path], columns: dict[str, np.ndarray], message: str):
    np.savez(tmp_path / "e.npz", image=[str(path) for path in paths], **columns)
    with pytest.raises(ExpectError, match=message) as caught:
        read_answers(tmp_path / "e.npz")
    assert str(tmp_path / "e.npz") in str(caught.value)


def test_softmax_sigmoid_and_tempered_probabilities_do_not_contradict(tmp_path: Path, paths: list[Path]):
    for chances in (PROBABILITIES, 1 / (1 + np.exp(-LOGITS))):
        np.savez(tmp_path / "e.npz", image=[str(p) for p in paths], logits=LOGITS, probabilities=chances)
        assert read_answers(tmp_path / "e.npz").compared == "logits"


class Exploit:
    """Would create a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.trace,)


def test_nothing_in_an_archive_is_run(tmp_path: Path, paths: list[Path]):
    np.savez(tmp_path / "e.npz", image=np.array([Exploit(tmp_path / "trace")] * 20), logits=LOGITS, allow_pickle=True)
    with pytest.raises(ExpectError, match=r"holds Python objects .*\[str\(path\) for path in paths\]"):
        read_answers(tmp_path / "e.npz")
    np.savez(tmp_path / "paths.npz", image=np.array(paths), logits=LOGITS, allow_pickle=True)
    with pytest.raises(ExpectError, match="holds Python objects"):
        read_answers(tmp_path / "paths.npz")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("kind", ["npz", "csv", "jsonl", "safetensors", "npy"])
def test_damage_and_other_kinds(tmp_path: Path, kind: str):
    path = tmp_path / f"e.{kind}"
    with pytest.raises(ExpectError, match=r"there is no such file|ending in"):
        read_answers(path)
    for content in (
        b"",
        b"\xff\xfe damage",
        pickle.dumps({"logits": 3}),
        b"PK\x03\x04",
        b"[1]\n",
        b"path\n",
        b"[" * 9999,
    ):
        path.write_bytes(content)
        with pytest.raises(ExpectError):
            read_answers(path)


def test_an_archive_of_huge_claims_is_refused(tmp_path: Path):
    with (
        zipfile.ZipFile(tmp_path / "e.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("logits.npy", "w") as file,
    ):
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (100000000000, 3), }"
        file.write(b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n")
    with pytest.raises(ExpectError, match="not a readable"):
        read_answers(tmp_path / "e.npz")


def test_labels_beside_logits_leave_the_columns_their_names():
    answers = Answers(("a.png",), logits=np.array([[1.0, 2.0]]), decisions=("bee",), labels=("ant", "bee"))
    fitted = answers.fitted_to(("bee", "ant"))
    assert fitted.logits is not None
    assert fitted.logits.tolist() == [[2.0, 1.0]]
    with pytest.raises(ExpectError, match="has 2 columns"):
        answers.fitted_to(("ant", "bee", "cow"))
