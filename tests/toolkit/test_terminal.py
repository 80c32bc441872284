"""Commands end well however the standard streams are set up, and foreign text stays in its place."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from clip_toolkit import terminal
from clip_toolkit.errors import ImageError
from clip_toolkit.listing import Style, json_text, table

INFER = [sys.executable, "-m", "clip_toolkit.commands.infer"]
SEARCH = [sys.executable, "-m", "clip_search.commands.search"]
HOSTILE = "cat\r\x1b[31m\x9b2J\u202egpj\nforged  99.99%"
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "photos" / "red.png"
    path.parent.mkdir()
    Image.new("RGB", (40, 30), "red").save(path)
    return path


def shell(line: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell, which can close and redirect what it likes; ``"$@"`` are the arguments."""
    command = ["sh", "-c", line, "sh", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("stderr", ["2>&-", pytest.param("2>/dev/full", marks=FULL)])
def test_lost_remarks_cost_no_results(stderr: str, image: Path, tmp_path: Path):
    done = shell(f'"$@" {stderr}', *INFER, image, "--format", "jsonl", cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["image"] == str(image)  # and no remark beside it
    indexed = shell(f'"$@" {stderr}', *SEARCH, "index", "photos", cwd=tmp_path)
    assert (indexed.returncode, indexed.stdout) == (0, "")
    found = shell(f'"$@" {stderr}', *SEARCH, "query", image, "--format", "jsonl", cwd=tmp_path)
    assert json.loads(found.stdout)["state"] == "present"


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ('"$@" >&-', 1, "the output cannot be written: standard output is closed"),
        pytest.param('"$@" >/dev/full', 1, "the output cannot be written (No space left on device)", marks=FULL),
        ('{ "$@"; echo $? >code; } | true; exit $(cat code)', 141, ""),
    ],
)
def test_lost_results_are_no_success(line: str, code: int, said: str, image: Path, tmp_path: Path):
    for arguments in ([image], ["--describe"], ["--help"]):
        done = shell(line, *INFER, *arguments, cwd=tmp_path)
        assert done.returncode == code, (arguments, done.stderr)
        remarks = done.stderr.splitlines()
        assert not any("Traceback" in line or "Exception" in line for line in remarks)
        assert not said or remarks[-1] == f"clip-infer: {said}"


@pytest.mark.parametrize("arguments", [["-"], ["--stdin-paths"]])
def test_closed_standard_input_is_one_line(arguments: list[str], tmp_path: Path):
    done = shell('"$@" <&-', *INFER, *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "clip-infer: standard input is closed: name files instead"


def test_a_file_is_not_opened_in_the_place_of_stderr(image: Path, tmp_path: Path):
    done = shell('"$@" 2>&- >&- <&-', *INFER, image, "--output", "out.jsonl", "--format", "jsonl", cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["error"] is None


def test_errors_are_one_line_without_escapes(capsys: pytest.CaptureFixture[str]):
    def fail() -> int:
        raise ImageError(f"{HOSTILE}: is not an image")

    assert terminal.run_command("clip-some", fail) == 1
    line = capsys.readouterr().err
    assert line == "clip-some: cat\\r\\x1b[31m\\x9b2J\\u202egpj\\nforged  99.99%: is not an image\n"


def test_tables_and_json_keep_foreign_text_in_its_cell():
    shown = list(table([["image", "label"], [HOSTILE, "cat"]]))
    assert len(shown) == 2
    assert all(letter.isprintable() for letter in "".join(shown))
    text = json_text({"label": HOSTILE, "smile": "\U0001f600"})
    assert json.loads(text) == {"label": HOSTILE, "smile": "\U0001f600"}
    assert text.isprintable()


def csv_of(cell: object, style: Style) -> str:
    return "\n".join(style.lines([{"label": cell}], lambda records: ([*item.values()] for item in records), iter))


def test_csv_is_exact_in_a_file_and_harmless_on_a_terminal():
    assert csv_of(HOSTILE, Style("csv")) == f'"{HOSTILE}"'
    assert csv_of(HOSTILE, Style("csv", for_terminal=True)).isprintable()


@pytest.mark.parametrize("cell", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_formulas_are_quoted_on_request(cell: str):
    assert csv_of(cell, Style("csv", quote_formulas=True)).strip('"') == f"'{cell}"
    assert csv_of(cell, Style("csv")).strip('"') == cell
    assert csv_of(-1.5, Style("csv", quote_formulas=True)) == "-1.5"
