"""Heads that read a text together with the picture: manifests with texts, features, what both are worth, bad input."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from questions import write_questions

from clip_export.encoders.text import TextEncoder, text_features
from clip_export.features.images import Features
from clip_export.features.texts import TextCache, encoded_texts, fused
from clip_export.heads.files import load_head
from clip_toolkit.data.manifest import read_manifest
from clip_toolkit.errors import DatasetError
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION
from commands_in_process import failed, run, train
from tiny_models import LONG_TEXT, TEXT_FAMILIES, TINY_CLIP


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of 400 drawn pictures with a question each."""
    return write_questions(tmp_path_factory.mktemp("questions"), 400, seed=1)


@pytest.fixture(scope="module")
def answered(asked: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a training on them, and what it said."""
    folder = tmp_path_factory.mktemp("answered")
    options = ("--text-column", "question", "--lr", "1e-3", "--patience", "20", "--test-fraction", "0.3")
    return folder, train(asked, *options, cwd=folder).stdout


def test_both_beat_either_alone_by_twenty_points(answered: tuple[Path, str]):
    said = re.search(r"image alone ([\d.]+)%, text alone ([\d.]+)%, both ([\d.]+)%", answered[1])
    assert said is not None, answered[1]
    image, text, both = map(float, said.groups())
    assert both >= max(image, text) + 20


def test_the_head_knows_that_it_reads_text(answered: tuple[Path, str], asked: Path):
    head = load_head(answered[0] / "head.pt")
    assert head.encoder is not None
    assert head.data is not None
    assert (head.encoder.text, head.data.text_column) == (True, "question")
    assert head.module.spec.layers[0] == 128 + 64  # pooled feature of the picture, projected feature of the text
    assert head.training["different texts"] == len(set(read_manifest(asked, text_column="question").texts or ()))


def manifest(folder: Path, text: str) -> Path:
    path = folder / "data.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_texts_are_read_as_they_are(tmp_path: Path):
    data = read_manifest(manifest(tmp_path, 'path,label,words\na,x," Rot, Grün "\nb,y,\n'), text_column="words")
    assert data.texts == (" Rot, Grün ", "")
    assert data.subset([1]).texts == ("",)
    assert read_manifest(data.source).texts is None


def test_texts_go_with_every_task(tmp_path: Path):
    several = read_manifest(manifest(tmp_path, "path,label,words\na,x;y,one\nb,,two\n"), MULTI_LABEL, "words")
    assert (several.labels, several.texts) == (("x", "y"), ("one", "two"))
    values = read_manifest(manifest(tmp_path, "path,words,price\na,one,1\nb,two,2\n"), REGRESSION, "words")
    assert (values.labels, values.texts, values.targets.tolist()) == (("price",), ("one", "two"), [[1], [2]])


@pytest.mark.parametrize(
    ("rows", "column", "message"),
    [
        ("path,label\na,x\nb,y\n", "words", "expected a column 'words', found path, label"),
        ("path,label,words\na,x,\nb,y, \n", "words", "every text in column 'words' is empty"),
        ("path,label\na,x\nb,y\n", "label", "a meaning of its own"),
    ],
)
def test_columns_without_texts_are_refused(tmp_path: Path, rows: str, column: str, message: str):
    with pytest.raises(DatasetError, match=message):
        read_manifest(manifest(tmp_path, rows), text_column=column)


@pytest.mark.parametrize("name", TEXT_FAMILIES)
def test_each_different_text_is_encoded_once_and_kept(checkpoint: Callable[[str], Path], name: str, tmp_path: Path):
    tower = TextEncoder.from_pretrained(str(checkpoint(name)))
    texts = ["a red circle", "", "круг", LONG_TEXT, "a red circle"]
    first = encoded_texts(tower, texts, 2, cache=TextCache(tmp_path, tower))
    expected = torch.cat([text_features(tower, [text]) for text in texts])
    assert torch.allclose(first.values, expected, atol=1e-5)
    assert (first.computed, first.different, first.cut, first.empty) == (4, 4, 1, 1)
    assert any("too long" in note for note in first.notes)
    again = encoded_texts(tower, [*texts, "new"], cache=TextCache(tmp_path, tower))
    assert again.computed == 1
    assert torch.equal(again.values[:5], first.values)


def test_another_tower_has_a_cache_of_its_own(checkpoint: Callable[[str], Path], tmp_path: Path):
    towers = [TextEncoder.from_pretrained(str(checkpoint(name))) for name in ("clip", "clip-gelu")]
    encoded_texts(towers[0], ["red"], cache=TextCache(tmp_path, towers[0]))
    assert encoded_texts(towers[1], ["red"], cache=TextCache(tmp_path, towers[1])).computed == 1


def test_features_stand_side_by_side():
    images = Features([0, 1], ["a", "b"], [], 2, "PyTorch", torch.tensor([[1.0], [2.0]]))
    assert fused(images, torch.tensor([[3.0, 4.0], [5.0, 6.0]])).values.tolist() == [[1, 3, 4], [2, 5, 6]]


def test_views_and_the_second_training(asked: Path, tmp_path: Path):
    options = ("--text-column", "question", "--epochs", "1", "--augment", "1", "--cache", "cache")
    first = train(asked, *options, cwd=tmp_path).stdout
    second = train(asked, *options, "-o", "other.pt", cwd=tmp_path).stdout
    assert re.search(r"texts: (\d+) different ones, \1 computed", first)
    assert re.search(r"texts: (\d+) different ones, 0 computed, \1 from the cache", second)
    heads = [load_head(tmp_path / name).module.state_dict() for name in ("head.pt", "other.pt")]
    assert all(torch.equal(value, heads[1][name]) for name, value in heads[0].items())


def test_a_picture_with_two_texts_is_two_examples(asked: Path, tmp_path: Path):
    rows = list(csv.reader(asked.open(encoding="utf-8")))[1:41]
    both = [[path, f"{text} {label}", label] for path, text, label in rows for label in ("no", "yes")]
    contradiction = [rows[0], [*rows[0][:2], {"no": "yes", "yes": "no"}[rows[0][2]]]]
    for name, lines in (("both", both), ("contradiction", [*rows, *contradiction])):
        with (asked.parent / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["path", "question", "label"], *lines])
    options = ("--text-column", "question", "--epochs", "1")
    assert "different labels" not in train(asked.parent / "both.csv", *options, cwd=tmp_path).stderr
    assert "different labels" in train(asked.parent / "contradiction.csv", *options, cwd=tmp_path).stderr


def test_the_report_says_what_each_is_worth(asked: Path, tmp_path: Path):
    train(asked, "--text-column", "question", "--epochs", "2", "--report", "report", cwd=tmp_path)
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "in colour: " not in page
    assert re.search(r"on the image alone [\d.]+%, on the text alone [\d.]+%, on both [\d.]+%", page)


def test_an_interrupted_comparison_keeps_the_head(asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options = ("--text-column", "question", "--epochs", "2", "--encoder", TINY_CLIP)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("clip_export.training.fusion.train_head", interrupted)
        done = run("clip-train", asked, *options, cwd=tmp_path)
    assert done.returncode == 130
    assert "continue with --resume" in done.stderr
    assert "resuming after epoch 2" in run("clip-train", asked, *options, "--resume", cwd=tmp_path).stderr
    assert run("clip-train", asked, *options, "-o", "whole.pt", cwd=tmp_path).returncode == 0
    heads = [load_head(tmp_path / name).module.state_dict() for name in ("head.pt", "whole.pt")]
    assert all(torch.equal(value, heads[1][name]) for name, value in heads[0].items())


def test_bad_input(asked: Path, tmp_path: Path):
    assert "expected a column 'words'" in failed(asked, "--text-column", "words", cwd=tmp_path)
    with pytest.raises(SystemExit, match="2"):
        run("clip-train", asked.parent, "--text-column", "question", "--encoder", TINY_CLIP, cwd=tmp_path)


def test_an_encoder_without_text_is_refused_by_name(asked: Path, checkpoint: Callable[[str], Path], tmp_path: Path):
    arguments = (asked, "--text-column", "question", "--encoder", checkpoint("blip"))
    done = run("clip-train", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "BlipForConditionalGeneration has no text tower" in done.stderr
