"""Models that read a text with each image: from Python and from the command line, on a file made by hand."""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_fused_model as tiny
from tiny_text_model import CONTEXT

from clip_search import SearchIndex
from clip_toolkit import Classifier, ImageError, ModelError, SpecError, TextError, load, selftest
from clip_toolkit.commands.infer import main
from clip_toolkit.spec.model_file import read_spec

RED, BLUE = (200, 30, 40), (10, 90, 250)
LONG = "red " * CONTEXT

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "fused.onnx"
    file.write_bytes(tiny.model())
    return file


@pytest.fixture
def fused(path: Path) -> Classifier:
    return load(path, device="cpu")


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    for name, colour in (("red.png", RED), ("blue.png", BLUE)):
        (tmp_path / name).write_bytes(tiny.png(colour))
    return [str(tmp_path / name) for name in ("red.png", "blue.png")]


@pytest.fixture
def table(pictures: list[str]) -> Callable[..., Path]:
    folder = Path(pictures[0]).parent

    def make(*rows: tuple[str, str], heading: tuple[str, ...] = ("path", "text")) -> Path:
        file = folder / "texts.csv"
        with file.open("w", newline="", encoding="utf-8") as lines:
            csv.writer(lines).writerows([heading, *rows])
        return file

    return make


@pytest.mark.parametrize("resize", ["pillow", "graph"])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_texts_go_with_their_images_whatever_the_padding(path: Path, resize: str, batch_size: int):
    fused = load(path, device="cpu", resize=resize)
    asked = [(RED, ""), (BLUE, "red circle"), (RED, "Blue"), (BLUE, "red blue circle"), (RED, "unknown")]
    images = (tiny.png(colour) for colour, _ in asked)
    found = list(fused.predict_many(images, batch_size, texts=(text for _, text in asked)))
    assert [item.text for item in found] == [text for _, text in asked]
    np.testing.assert_allclose(
        [item.logits for item in found], [tiny.logits(*item) for item in asked], rtol=1e-4, atol=1e-4
    )


def test_a_bad_image_takes_its_text_along(fused: Classifier):
    images = [tiny.png(RED), b"junk", tiny.png(BLUE)]
    first, second, third = fused.predict_many(images, errors="return", texts=["red", "circle", "blue"])
    assert isinstance(second, ImageError)
    np.testing.assert_allclose(first.logits, tiny.logits(RED, "red"), rtol=1e-4)
    np.testing.assert_allclose(third.logits, tiny.logits(BLUE, "blue"), rtol=1e-4)


def test_what_is_cut_is_said(fused: Classifier):
    cut = fused.predict(tiny.png(RED), text=LONG)
    assert cut.text_truncated
    np.testing.assert_allclose(cut.logits, tiny.logits(RED, "red " * (CONTEXT - 2)), rtol=1e-4)
    assert not fused.predict(tiny.png(RED), text="red").text_truncated


def test_text_and_none_are_told_apart(fused: Classifier, classifier: Classifier):
    picture = tiny.png(RED)
    with pytest.raises(TextError, match="reads a text with each image"):
        fused.predict(picture)
    with pytest.raises(TextError, match="reads a text with each image"):
        fused.predict_many([picture])
    with pytest.raises(TextError, match="reads images alone"):
        classifier.predict_many([picture], texts=["red"])
    with pytest.raises(TextError, match="reads a text with each image"):
        fused.run(np.zeros((1, 4, 4, 3), np.uint8))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("red", "expected a list of texts"),
        ([None, "red"], "expected a str"),
        (["red"], "as many as"),
        (["a"] * 3, "as many as"),
        (5, "expected a list of texts, got int"),
    ],
)
def test_texts_that_are_none_are_refused(fused: Classifier, texts: object, message: str):
    with pytest.raises(TextError, match=message):
        list(fused.predict_many([tiny.png(RED), tiny.png(BLUE)], texts=texts))


@pytest.mark.parametrize("broken", ["images", "texts"])
def test_an_error_of_the_callers_own_is_passed_on(fused: Classifier, broken: str):
    def failing() -> Iterator[str]:
        yield "red"
        raise ValueError("a column is missing")

    given = {"images": [tiny.png(RED)] * 2, "texts": ["red"] * 2} | {broken: failing()}
    with pytest.raises(ValueError, match="a column is missing"):
        list(fused.predict_many(**given, errors="return"))


def test_selftest_replays_texts_and_finds_other_tokens(path: Path, fused: Classifier):
    assert all(drift.passed for drift in selftest(fused))
    first, *others = tiny.spec().golden
    path.write_bytes(tiny.model(tiny.spec(golden=(replace(first, input_ids=(2, 4, 3)), *others)).to_json()))
    failed = [drift.output for drift in selftest(load(path, device="cpu")) if not drift.passed]
    assert failed == ["tokens"]
    path.write_bytes(tiny.model(tiny.spec(golden=(replace(first, text=None), *others)).to_json()))
    with pytest.raises(SpecError, match="one of them has none"):
        selftest(load(path, device="cpu"))


def test_a_spec_that_contradicts_the_graph_or_itself(path: Path):
    narrow = replace(tiny.spec(), text=None)
    path.write_bytes(tiny.model(narrow.to_json()))
    with pytest.raises(SpecError, match=r"head.layers: expected 3 inputs"):
        load(path)
    path.write_bytes(tiny.model(replace(narrow, head=replace(narrow.head, layers=(3, 2))).to_json()))
    with pytest.raises(ModelError, match=r"declares the inputs \['image'\]"):
        load(path, device="cpu")
    broken = replace(tiny.spec(), text=replace(tiny.spec().text, dim=5))
    path.write_bytes(tiny.model(broken.to_json()))
    with pytest.raises(SpecError, match=r"head.layers: expected 8 inputs"):
        load(path)


def test_the_spec_travels_whole(path: Path):
    assert read_spec(path) == tiny.spec()


def test_one_text_for_all_images(path: Path, pictures: list[str], capsys: Captured):
    assert main([*pictures, "--model", str(path), "--text", "red circle", "--format", "jsonl"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(item["image"], item["text"], item["text_truncated"]) for item in records] == [
        (name, "red circle", False) for name in pictures
    ]
    assert main([*pictures, "--model", str(path), "--text", "red circle"]) == 0
    assert f"{pictures[0]}: red circle" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_of_texts(path: Path, table: Callable[..., Path], tmp_path: Path, form: str, capsys: Captured):
    if form == "parquet":
        pytest.importorskip("pyarrow")
    file = table(("red.png", "Red, circle"), ("blue.png", LONG), ("missing.png", "blue"), ("red.png", ""))
    output = tmp_path / f"out.{form}"
    assert main(["--texts", str(file), "--model", str(path), "--format", form, "--output", str(output)]) == 1
    said = capsys.readouterr().err
    assert f"blue.png: its text has more than {CONTEXT} tokens" in said
    if form == "parquet":
        import pyarrow.parquet

        records = pyarrow.parquet.read_table(output).to_pylist()
    else:
        records = list(csv.DictReader(output.read_text(encoding="utf-8").splitlines()))
    assert [str(item["text"]) for item in records] == ["Red, circle", LONG, "blue", ""]
    assert [str(item["text_truncated"]) for item in records] == ["False", "True", "False", "False"]
    assert [bool(item["label"]) for item in records] == [True, True, False, True]


def test_other_columns_will_do(path: Path, table: Callable[..., Path], capsys: Captured):
    file = table(("red.png", "yes", "red"), heading=("path", "label", "question"))
    arguments = ["--texts", str(file), "--model", str(path), "--format", "jsonl"]
    assert main([*arguments, "--text-column", "question"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "red"
    assert main(arguments) == 1
    assert "expected a column 'text', found path, label, question. Name the one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,text\n,red\n", "line 2: the path is missing"),
        (b"\xff\xfe", "cannot be read as a CSV"),
        (b'path,text\nred.png,"two\nlines"\n,red\n', "line 4: the path is missing"),
        (None, "cannot be read"),
    ],
)
def test_tables_that_are_none(path: Path, tmp_path: Path, content: bytes | None, message: str, capsys: Captured):
    file = tmp_path / "texts.csv"
    if content is not None:
        file.write_bytes(content)
    assert main(["--texts", str(file), "--model", str(path)]) == 1
    assert message in capsys.readouterr().err


def test_a_missing_table_is_found_before_the_model_is_loaded(
    path: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("clip_toolkit.commands.classify.load", lambda *_, **__: pytest.fail("the model was loaded"))
    assert main(["--texts", str(tmp_path / "none.csv"), "--model", str(path)]) == 1
    assert "none.csv: cannot be read" in capsys.readouterr().err


def test_a_broken_off_run_goes_on_with_the_same_texts_only(
    path: Path, table: Callable[..., Path], tmp_path: Path, capsys: Captured
):
    rows = [("red.png", "red"), ("blue.png", "blue"), ("red.png", "circle"), ("blue.png", "")]
    arguments = ["--texts", str(table(*rows)), "--model", str(path), "--format", "jsonl", "--batch-size", "2"]
    assert main([*arguments, "--output", str(tmp_path / "whole")]) == 0
    whole = (tmp_path / "whole").read_bytes()
    settings_of_a_run = _interrupted([*arguments, "--output", str(tmp_path / "out")], tmp_path / "out", whole)
    (tmp_path / "out.part").write_bytes(settings_of_a_run)
    assert main([*arguments, "--output", str(tmp_path / "out"), "--resume"]) == 0
    assert (tmp_path / "out").read_bytes() == whole
    (tmp_path / "out.part").write_bytes(settings_of_a_run)
    table(("red.png", "another"), *rows[1:])
    assert main([*arguments, "--output", str(tmp_path / "out"), "--resume"]) == 1
    assert "red.png' with the text 'red', now it is" in capsys.readouterr().err


def _interrupted(arguments: list[str], output: Path, whole: bytes) -> bytes:
    """What a run leaves that was broken off after two of its records."""
    from clip_toolkit.stream.journal import line
    from clip_toolkit.stream.part_file import PartFile

    settings: list[dict[str, object]] = []
    with pytest.MonkeyPatch.context() as patch:
        opening = PartFile.__init__
        patch.setattr(PartFile, "__init__", lambda self, *args: (settings.append(args[1]), opening(self, *args))[1])
        assert main(arguments) == 0
    output.unlink()
    return b"".join([line(settings[0]), *(line(json.loads(record)) for record in whole.splitlines()[:2])])


def test_without_a_text_the_command_line_says_what_to_give(
    path: Path, pictures: list[str], demo: Path, capsys: Captured
):
    assert main([*pictures, "--model", str(path)]) == 1
    assert "--text" in capsys.readouterr().err
    assert main([*pictures, "--model", str(demo), "--text", "red"]) == 1
    assert "reads images alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("a.png", "--texts", "t.csv"),
        ("--texts", "t.csv", "--text", "red"),
        ("--texts", "t.csv", "--stdin-paths"),
        ("a.png", "--text-column", "question"),
        ("--describe", "--text", "red"),
        ("--selftest", "--texts", "t.csv"),
    ],
)
def test_usage_errors(arguments: tuple[str, ...]):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)


def test_description_and_doctor_know_the_text(path: Path, capsys: Captured):
    assert main(["--describe", str(path)]) == 0
    said = capsys.readouterr().out
    assert "input_ids, attention_mask" in said
    assert "behind the image's feature" in said
    assert main(["--selftest", str(path)]) == 0
    assert "tokens" in capsys.readouterr().out


def test_images_are_searched_without_a_text(fused: Classifier, pictures: list[str], tmp_path: Path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in pictures:
        Path(name).rename(folder / Path(name).name)
    with SearchIndex.open(tmp_path / "index", fused, create=True) as index:
        index.update(folder)
        (hit, *_) = index.query(tiny.png(BLUE))
    assert hit.path.name == "blue.png"


def test_without_tokenizers_the_extra_is_named(path: Path, pictures: list[str], capsys: Captured):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tokenizers", None)
        assert main([*pictures, "--model", str(path), "--text", "red"]) == 1
    assert "clip-toolkit[text]" in capsys.readouterr().err
