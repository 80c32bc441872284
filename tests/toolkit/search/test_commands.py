"""``clip-search`` as its users run it, and searching by words."""

import base64
import csv
import io
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import clip_toolkit
from clip_search import SearchIndex
from clip_search.commands.search import main
from clip_search.commands.search_options import DEFAULT_INDEX
from clip_toolkit.errors import SearchIndexError
from clip_toolkit.spec.classifier import EncoderSpec
from clip_toolkit.spec.model_file import read_spec

Captured = pytest.CaptureFixture[str]
COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (30, 60, 220), "a <b> & ü": (240, 200, 40)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures in the working folder's ``photos``."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in COLOURS.items():
        picture = np.full((80, 100, 3), 245, np.uint8)
        picture[20:60, 30:70] = colour
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clip_search.commands.search", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


class Encoder:
    """Texts whose embeddings are those of images of the same name."""

    def __init__(self, embeddings: dict[str, NDArray[np.float32]], spec: EncoderSpec) -> None:
        self.embeddings, self.spec = embeddings, SimpleNamespace(encoder=spec)

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        return np.stack([self.embeddings[text] for text in texts])


@pytest.mark.usefixtures("photos")
def test_index_and_query_in_all_formats(capsys: Captured):
    assert main(["index", "photos"]) == 0
    err = capsys.readouterr().err
    assert "4 embedded" in err
    assert "4 images can be found, 0 files cannot" in err
    image = str(Path("photos") / "blue.png")
    assert main(["query", image, "--format", "json", "--top-k", "3"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [list(record) for record in records] == [["rank", "image", "score", "state"]] * 3
    assert [record["rank"] for record in records] == [1, 2, 3]
    assert (records[0]["image"], records[0]["state"]) == (image, "present")
    assert main(["query", image, "--format", "jsonl", "--top-k", "3"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == records
    assert main(["query", image, "--format", "csv", "--top-k", "3"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["image"], float(row["score"])) for row in rows] == [(r["image"], r["score"]) for r in records]
    assert main(["query", image, "--top-k", "3"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["rank", "1", "2", "3"]


@pytest.mark.usefixtures("photos")
def test_a_second_run_needs_no_folder_and_embeds_nothing(capsys: Captured):
    assert main(["index", "photos"]) == 0
    assert main(["index"]) == 0
    assert "0 embedded, 0 renamed or copied, 4 unchanged" in capsys.readouterr().err


def test_bad_files_are_named_and_do_not_stop_the_others(photos: Path, capsys: Captured):
    (photos / "bad.png").write_bytes(b"junk")
    assert main(["index", "photos"]) == 1
    err = capsys.readouterr().err
    assert "bad.png: is not an image" in err
    assert "4 images can be found, 1 files cannot" in err
    for command in (["index"], ["index", "--retry"]):
        assert main(command) == 1
        assert capsys.readouterr().err.count("bad.png: is not an image") == 1
    for number in range(7):
        (photos / f"bad{number}.png").write_bytes(b"junk")
    assert main(["index"]) == 1
    capsys.readouterr()
    assert main(["index"]) == 1
    err = capsys.readouterr().err
    assert err.count("is not an image") == 5
    assert "and 3 more" in err


def test_missing_images_are_said_to_be_missing(photos: Path, capsys: Captured):
    assert main(["index", "photos"]) == 0
    (photos / "red.png").unlink()
    assert main(["query", "photos/blue.png", "--format", "json", "--html", "sheet.html"]) == 1
    captured = capsys.readouterr()
    assert {record["image"]: record["state"] for record in json.loads(captured.out)}["photos/red.png"] == "missing"
    assert "clip-search index" in captured.err
    assert re.search(r"not shown: .*red\.png", captured.err)
    page = Path("sheet.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 3
    assert "not shown: " in page


@pytest.mark.usefixtures("photos")
def test_the_contact_sheet_needs_no_other_file(capsys: Captured):
    assert main(["index", "photos"]) == 0
    assert main(["query", "photos/a <b> & ü.png", "--html", "sheet.html"]) == 0
    assert "wrote sheet.html" in capsys.readouterr().err
    page = Path("sheet.html").read_text(encoding="utf-8")
    assert "a &lt;b&gt; &amp; ü.png" in page
    assert "<b> &" not in page
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 5  # the query and four images
    assert "http" not in page
    for source in sources:
        picture = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))))
        assert picture.size == (100, 80)


@pytest.mark.usefixtures("photos")
def test_paths_on_the_sheet_break_between_words_only(tmp_path: Path, capsys: Captured):
    assert main(["index", "photos"]) == 0
    folder = tmp_path / "far_away-from-here"
    folder.mkdir()
    assert main(["query", "photos/blue.png", "--html", str(folder / "sheet.html")]) == 0
    capsys.readouterr()
    assert "photos/<wbr>blue.png" in (folder / "sheet.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("photos")
def test_a_sheet_of_no_duplicates_says_so(capsys: Captured):
    assert main(["index", "photos"]) == 0
    assert main(["duplicates", "--threshold", "1", "--html", "sheet.html"]) == 0
    assert "0 groups" in capsys.readouterr().err
    page = Path("sheet.html").read_text(encoding="utf-8")
    assert "No images are alike enough" in page
    assert "No images to show." in page


@pytest.mark.usefixtures("photos")
def test_words_without_a_text_tower_say_how_to_get_one(capsys: Captured):
    assert main(["index", "photos"]) == 0
    capsys.readouterr()
    assert main(["query", "--text", "a red circle"]) == 1
    err = capsys.readouterr().err
    assert "clip-export --text-tower" in err
    assert "--text-model" in err


def test_a_second_run_names_what_failed_before(photos: Path, capsys: Captured):
    (photos / "bad.png").write_bytes(b"junk")
    assert main(["index", "photos"]) == 1
    assert "1 failed\n" in capsys.readouterr().err
    assert main(["index", "photos"]) == 1
    assert "0 failed, 1 failed before" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are text there")
def test_file_names_do_not_move_the_cursor(photos: Path, capsys: Captured):
    (photos / "red.png").rename(photos / "\x1b[2J\n\u202egnp.png")
    (photos / "\x1b]0;bad\x07.png").write_bytes(b"junk")
    assert main(["index", "photos"]) == 1
    assert main(["query", "photos/blue.png"]) == 0
    captured = capsys.readouterr()
    assert r"\x1b[2J\n\u202egnp.png" in captured.out
    assert r"\x1b]0;bad\x07.png: is not an image" in captured.err
    assert len(captured.out.splitlines()) == 5
    assert not set("\x1b\x07\u202e") & set(captured.out + captured.err)
    assert main(["query", "photos/blue.png", "--format", "json"]) == 0
    assert any("\x1b" in record["image"] for record in json.loads(capsys.readouterr().out))


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_json_is_json_in_any_encoding(encoding: str, form: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch):
    assert main(["index", "photos"]) == 0
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding))
    assert main(["query", "photos/blue.png", "--format", form]) == 0
    sys.stdout.flush()
    capsys.readouterr()
    text = out.getvalue().decode("utf-8")
    records = json.loads(text) if form == "json" else [json.loads(line) for line in text.splitlines()]
    assert {record["image"] for record in records} == {f"photos/{name}.png" for name in COLOURS}


@pytest.mark.usefixtures("photos")
def test_how_long_to_wait_for_another_process(capsys: Captured):
    assert main(["index", "photos"]) == 0
    writer = sqlite3.connect(DEFAULT_INDEX / "index.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    assert main(["index", "--timeout", "0.05"]) == 1
    assert re.search("another process.*within 0.05 seconds", capsys.readouterr().err)
    writer.execute("ROLLBACK")
    writer.close()


def test_duplicates(photos: Path, capsys: Captured):
    (photos / "copy.png").write_bytes((photos / "red.png").read_bytes())
    assert main(["index", "photos"]) == 0
    assert main(["duplicates", "--threshold", "1", "--format", "json", "--html", "sheet.html"]) == 0
    page = Path("sheet.html").read_text(encoding="utf-8")
    assert (page.count("<section>"), page.count("<figure>"), page.count("<img")) == (1, 2, 2)
    assert json.loads(capsys.readouterr().out) == [
        {"group": 1, "image": f"photos/{name}.png", "score": 1.0, "kind": "exact"} for name in ("copy", "red")
    ]
    (photos / "copy.png").unlink()
    assert main(["index"]) == 0
    assert main(["duplicates", "--threshold", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "0 groups" in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["query"],
        ["query", "a.png", "--text", "a cat"],
        ["query", "a.png", "--text-model", "text.onnx"],
        ["query", "a.png", "--top-k", "0"],
        ["query", "a.png", "--format", "xml"],
        ["duplicates", "--threshold", "1.5"],
        ["duplicates", "--threshold", "much"],
        ["duplicates", "--timeout", "-1"],
        ["index", "--timeout", "nan"],
    ],
    ids=" ".join,
)
def test_usage_errors_exit_with_2(arguments: list[str]):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


def test_errors_are_one_line_and_exit_code_1(tmp_path: Path, capsys: Captured):
    (tmp_path / "no_folder").write_text("x")
    for arguments in (
        ["index"],
        ["index", "nowhere"],
        ["index", "no_folder"],
        ["index", ".", "--index", "a/b/c"],
        ["query", "x.png", "--index", "none"],
        ["query", "--text", "a cat", "--text-model", "none.onnx"],
        ["duplicates", "--index", "none"],
    ):
        assert main(arguments) == 1  # and raises nothing
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.splitlines()[-1].startswith("clip-search: ")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["query", "--help"]], ids=" ".join)
def test_help_and_version_need_no_heavy_import(arguments: list[str]):
    command = [sys.executable, "-X", "importtime", "-m", "clip_search.commands.search", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for name in ("torch", "onnxruntime", "numkong", "tokenizers"):
        assert f" {name}\n" not in done.stderr


def test_words_find_images_of_the_same_space(photos: Path, edited: Callable[..., Path], tmp_path: Path):
    classifier = clip_toolkit.load(edited(lambda data: data["encoder"].update(feature="projected")), device="cpu")
    embeddings = {name: classifier.predict(photos / f"{name}.png").embedding for name in COLOURS}
    encoder = Encoder(embeddings, classifier.spec.encoder)
    with SearchIndex.open(tmp_path / "index", classifier, create=True) as index:
        index.update(photos)
    with SearchIndex.open(tmp_path / "index") as index:  # which takes no image model
        for name in COLOURS:
            assert index.query_text(encoder, name, 1)[0].path == photos / f"{name}.png"
        other = EncoderSpec("somebody/else", None, "clip", "projected", classifier.spec.encoder.dim)
        with pytest.raises(SearchIndexError, match=r"somebody/else.*--text-tower --encoder"):
            index.query_text(Encoder(embeddings, other), "red")


def test_a_text_tower_of_another_revision_is_refused_with_the_way_to_the_right_one(
    photos: Path, edited: Callable[..., Path], tmp_path: Path
):
    hub = {"id": "someone/clip", "revision": "a" * 40, "feature": "projected"}
    classifier = clip_toolkit.load(edited(lambda data: data["encoder"].update(hub)), device="cpu")
    with SearchIndex.open(tmp_path / "index", classifier, create=True) as index:
        index.update(photos)
        other = replace(classifier.spec.encoder, revision="b" * 40)
        with pytest.raises(SearchIndexError, match=f"--encoder someone/clip --revision {'a' * 40}"):
            index.query_text(Encoder({}, other), "red")


@pytest.mark.usefixtures("photos")
def test_pooled_features_share_no_space_with_words(demo: Path):
    assert main(["index", "photos"]) == 0
    encoder = Encoder({}, read_spec(demo).encoder)
    with (
        SearchIndex.open(DEFAULT_INDEX) as index,
        pytest.raises(SearchIndexError, match="--feature projected"),
    ):
        index.query_text(encoder, "red")
