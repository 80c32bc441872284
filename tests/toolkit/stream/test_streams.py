"""Runs over many images: inputs, output files, interruption and resumption."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clip_toolkit.commands.infer import main
from clip_toolkit.images.folder import ImageListing
from clip_toolkit.stream.inputs import expand
from clip_toolkit.stream.progress import Progress
from clip_toolkit.stream.stopping import Stop

Captured = pytest.CaptureFixture[str]
COUNT = 60


@pytest.fixture
def folder(tmp_path: Path, pixels: NDArray[np.uint8]) -> Path:
    """Sixty pictures in two folders, three files that are none, a hidden file, a pipe."""
    for number in range(COUNT):
        path = tmp_path / "photos" / f"{number % 2}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(pixels, number, axis=1)).save(path)
    for name in ("0/003.txt", "1/junk.jpg", "zero.png"):
        (tmp_path / "photos" / name).write_bytes(b"junk" if "zero" not in name else b"")
    (tmp_path / "photos" / ".DS_Store").write_bytes(b"junk")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "photos" / "pipe")
    return tmp_path / "photos"


def names(folder: Path) -> list[str]:
    return [record["image"] for record in map(json.loads, folder.read_text(encoding="utf-8").splitlines())]


def command(*arguments: object) -> list[str]:
    return [
        sys.executable,
        "-m",
        "clip_toolkit.commands.infer",
        *map(str, arguments),
        "--device",
        "cpu",
        "--format",
        "jsonl",
    ]


def listed(names: list[str]) -> Iterator[str]:
    return expand(names, ImageListing())


def test_folders_patterns_and_names(folder: Path):
    everything = list(listed([str(folder)]))
    assert len(everything) == COUNT + 2
    assert everything[0].endswith("zero.png")
    assert everything[1:] == sorted(everything[1:])
    assert not any("pipe" in name or "DS_Store" in name or name.endswith(".txt") for name in everything)
    pngs = list(listed([str(folder / "**" / "*.png")]))
    assert pngs == sorted(name for name in everything if name.endswith(".png"))
    assert list(listed(["-", "none.jpg", "none*.jpg"])) == ["-", "none.jpg", "none*.jpg"]


def test_a_file_with_a_star_in_its_name_is_that_file(tmp_path: Path):
    (tmp_path / "a[1].png").touch()
    assert list(listed([str(tmp_path / "a[1].png")])) == [str(tmp_path / "a[1].png")]


def test_a_folder_that_cannot_be_read_is_not_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch):
    scandir = os.scandir

    def refused(path: str) -> object:
        if Path(path).name == "0":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    found = list(listed([str(folder)]))
    assert found[:2] == [str(folder / "zero.png"), str(folder / "0")]
    assert len(found) == 2 + COUNT // 2 + 1


def test_links_that_lead_round_in_circles(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").touch()
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert list(listed([str(tmp_path)])) == [str(tmp_path / "a" / "x.png")]


def test_standard_input_as_an_image_and_as_names(folder: Path):
    image = folder / "0" / "000.png"
    done = subprocess.run(command("-"), input=image.read_bytes(), capture_output=True, check=False, timeout=120)
    by_bytes = json.loads(done.stdout)
    listed = subprocess.run(
        command("--stdin-paths"), input=f"{image}\n\n{folder / '1'}\n".encode(), capture_output=True, check=False
    )
    records = [json.loads(line) for line in listed.stdout.splitlines()]
    assert (done.returncode, listed.returncode) == (0, 1)
    assert len(records) == 1 + COUNT // 2 + 1
    assert (by_bytes["image"], by_bytes["label"]) == ("-", records[0]["label"])
    scores = [[score["probability"] for score in item["top"]] for item in (by_bytes, records[0])]
    assert np.allclose(*scores, atol=1e-6)  # weights laid out otherwise, for one image and for many, add up otherwise


@pytest.mark.parametrize(
    "arguments", [["--resume", "a"], ["--format", "parquet", "a"], ["-", "--stdin-paths"], ["-", "-"]]
)
def test_options_that_do_not_go_together(arguments: list[str]):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "table"])
def test_a_file_holds_what_the_screen_shows(folder: Path, form: str, capsys: Captured):
    arguments = [str(folder), "--format", form, "--device", "cpu"]
    assert main(arguments) == 1
    shown = capsys.readouterr().out
    assert main([*arguments, "--output", "out"]) == 1
    assert capsys.readouterr().out == ""
    assert Path("out").read_bytes().decode() == shown
    assert sorted(path.name for path in Path().iterdir()) == ["out", "photos"]


def test_parquet_holds_the_same_records(folder: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert main([str(folder), "--format", "parquet", "--output", "out.parquet"]) == 1
    assert main([str(folder), "--format", "jsonl", "--output", "out.jsonl"]) == 1
    expected = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    found = parquet.read_table("out.parquet").to_pylist()
    assert [{name: row[name] for name in expected[0]} for row in found] == expected
    for row in found:
        columns = {name.removeprefix("p:"): value for name, value in row.items() if name.startswith("p:")}
        assert len(columns) == 10
        assert all(columns[score["label"]] == score["probability"] for score in row["top"])
        assert row["error"] is None or set(columns.values()) == {None}


def test_parquet_without_pyarrow_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main([str(folder), "--format", "parquet", "--output", "out.parquet"]) == 1
    assert "clip-toolkit[parquet]" in capsys.readouterr().err


def test_kill_9_after_every_few_batches_and_resume_gives_the_same_file(folder: Path):
    options = ["--batch-size", "2", "--threads", "1"]
    assert main([str(folder), "--device", "cpu", "--format", "jsonl", "--output", "whole", *options]) == 1
    kills = 0
    while not Path("out").exists() and kills < 6:
        running = subprocess.Popen(
            command(folder, "--output", "out", "--resume", *options),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        before = _size("out.part")
        while running.poll() is None and _size("out.part") <= before:
            time.sleep(0.001)  # the moment it has written something, it dies
        running.kill()
        running.wait()
        kills += 1
    assert kills > 2
    assert main([str(folder), "--device", "cpu", "--format", "jsonl", "--output", "out", "--resume", *options]) == 1
    assert Path("out").read_bytes() == Path("whole").read_bytes()
    assert not Path("out.part").exists()


def _size(name: str) -> int:
    try:
        return Path(name).stat().st_size
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("end", [0, 1, 5, 700, 1500, 3000])
def test_a_part_file_cut_anywhere_is_continued(folder: Path, end: int):
    arguments = [str(folder), "--device", "cpu", "--format", "csv", "--output", "out"]
    whole = _interrupted(arguments)
    assert main([*arguments, "--resume"]) == 1
    expected = Path("out").read_bytes()
    Path("out.part").write_bytes(whole[: max(0, len(whole) - end)])
    assert main([*arguments, "--resume"]) == 1
    assert Path("out").read_bytes() == expected


@pytest.mark.parametrize("place", [0.35, 0.6, 0.99])
def test_what_was_altered_in_a_part_file_is_done_again(folder: Path, place: float):
    arguments = [str(folder), "--device", "cpu", "--format", "csv", "--output", "out"]
    part = bytearray(_interrupted(arguments))
    digit = next(at for at in range(int(place * len(part)), 0, -1) if chr(part[at]).isdigit())
    part[digit] = ord("9") - part[digit] + ord("0")  # another digit: still JSON, with another number in it
    assert main([*arguments, "--resume"]) == 1
    expected = Path("out").read_bytes()
    Path("out.part").write_bytes(part)
    assert main([*arguments, "--resume"]) == 1
    assert Path("out").read_bytes() == expected


def _interrupted(arguments: list[str]) -> bytes:
    """The part file of a run that a signal ends at its 21st image, in the middle of the third batch."""
    step = Progress.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "step", lambda self, failed: (step(self, failed), _signal_at(self, 21)))
        assert main(arguments) == 128 + signal.SIGTERM
    return Path("out.part").read_bytes()


def _signal_at(progress: Progress, count: int) -> None:
    if progress._done == count:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_ends_the_run_after_whole_batches(folder: Path, capsys: Captured):
    part = _interrupted([str(folder), "--device", "cpu", "--output", "out"])
    records = part.splitlines()[1:]
    assert 21 <= len(records) < COUNT
    assert len(records) % 8 == 0
    assert not Path("out").exists()
    assert "--resume" in capsys.readouterr().err


def test_a_second_signal_ends_the_process():
    code = (
        "import os, signal\nfrom clip_toolkit.stream.stopping import Stop\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests were started with\n"
        "with Stop(lambda: print('asked', flush=True)):\n"
        "    os.kill(os.getpid(), signal.SIGINT); print('still here', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT); print('never', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "asked\nstill here\n"
    assert done.returncode == -signal.SIGINT


def test_an_ignored_signal_stays_ignored():
    code = (
        "import os, signal\nfrom clip_toolkit.stream.stopping import Stop\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "with Stop(lambda: print('asked', flush=True)) as stop:\n"
        "    os.kill(os.getpid(), signal.SIGINT); print(stop.signum, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "print(stop.signum == signal.SIGTERM, signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "None\nasked\nTrue True\n"


def test_handlers_are_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with Stop(lambda: None):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--top-k", "1"], "another top_k"),
        (["--batch-size", "4"], "another batch_size"),
        (["--format", "jsonl"], "another columns"),
        (["extra"], "inputs have changed"),
    ],
)
def test_what_does_not_continue_the_same_run_is_refused(
    folder: Path, change: list[str], message: str, capsys: Captured
):
    arguments = [str(folder), "--device", "cpu", "--output", "out"]
    part = _interrupted(arguments)
    inputs = [*change, *arguments] if change == ["extra"] else [*arguments, *change]
    assert main([*inputs, "--resume"]) == 1
    assert message in capsys.readouterr().err
    assert main(arguments) == 1
    assert "--resume" in capsys.readouterr().err
    assert Path("out.part").read_bytes() == part


@pytest.mark.parametrize("text", [b"my notes", b"{", b"[]", b"[" * 100_000, b"\xff"])
@pytest.mark.parametrize("has_checksum", [False, True])
def test_a_foreign_part_file_is_left_alone(folder: Path, capsys: Captured, text: bytes, has_checksum: bool):
    content = (b"%08x %s\n" % (zlib.crc32(text), text)) if has_checksum else text + b"\n"
    Path("out.part").write_bytes(content)
    assert main([str(folder), "--output", "out", "--resume"]) == 1
    assert "not written by this version" in capsys.readouterr().err
    assert Path("out.part").read_bytes() == content


def test_progress_tells_rate_time_left_and_errors():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    now = iter([0.0, 1.0, 2.0])
    terminal = Terminal()
    progress = Progress(terminal, total=122, done=100, clock=lambda: next(now))
    progress.step(failed=False)
    progress.step(failed=True)
    assert terminal.getvalue().endswith("102/122, 1.0 images/s, 0:20 left, 1 errors")
    quiet = io.StringIO()
    Progress(quiet, total=1).step(failed=True)
    assert quiet.getvalue() == ""
