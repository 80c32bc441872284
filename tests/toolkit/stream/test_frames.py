"""``clip-infer --frames``: videos made here, with the encoders of FFmpeg that PyAV brings."""

from __future__ import annotations

import csv
import io
import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_toolkit.commands.infer import main
from clip_toolkit.errors import ImageError
from clip_toolkit.images import DecodeOptions
from clip_toolkit.stream import part_file
from clip_toolkit.stream.frames import frames
from clip_toolkit.stream.inputs import Input

av = pytest.importorskip("av")

COLOURS = ((200, 30, 40), (10, 160, 60), (20, 60, 220), (230, 220, 20))
"""One for each second of a video."""

RATE = 4


def colour(second: int) -> np.ndarray[Any, Any]:
    """A frame with its upper half in a colour and a black lower half."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24] = COLOURS[second % len(COLOURS)]
    return pixels


def write(path: Path, *, seconds: int = 4, codec: str = "mpeg4", pix_fmt: str = "yuv420p", **of_codec: object) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, pix_fmt, 10_000_000
        stream.codec_context.gop_size = 1
        for name, value in of_codec.items():
            setattr(stream.codec_context, name, value)
        for number in range(seconds * RATE):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(colour(number // RATE))))
        container.mux(stream.encode())
    return path


def taken(path: Path, rate: float = 1.0, **options: int) -> tuple[list[Input], str | None]:
    """The frames, and the error behind them."""
    found = list(frames(str(path), rate, DecodeOptions(**options)))
    if found and isinstance(found[-1].image, ImageError):
        return found[:-1], str(found[-1].image)
    return found, None


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_a_frame_a_second_in_its_colours(tmp_path: Path, suffix: str):
    found, error = taken(write(tmp_path / f"video.{suffix}"))
    assert error is None
    assert [item.time for item in found] == pytest.approx([0, 1, 2, 3], abs=0.01)
    for second, item in enumerate(found):
        assert item.image.shape == (48, 64, 3)
        assert item.image[8, 32].tolist() == pytest.approx(COLOURS[second], abs=16)
        assert item.image[40, 32].max() < 16


@pytest.mark.parametrize(("rate", "times"), [(0.5, [0, 2]), (2, [n / 2 for n in range(8)]), (99, np.arange(16) / 4)])
def test_rate(tmp_path: Path, rate: float, times: list[float]):
    found, _ = taken(write(tmp_path / "video.mp4"), rate)
    assert [item.time for item in found] == pytest.approx(times, abs=0.01)


def test_pixels_become_square(tmp_path: Path):
    found, _ = taken(write(tmp_path / "wide.mkv", seconds=1, sample_aspect_ratio=2))
    assert found[0].image.shape == (48, 128, 3)


def shown_by(path: Path, *matrix: int) -> Path:
    """Write a video that says by what matrix it is to be shown."""
    content = bytearray(write(path, seconds=1).read_bytes())
    start = content.index(b"tkhd") + 44  # ISO/IEC 14496-12, 8.3.2
    content[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(content)
    return path


def test_a_phones_video_is_turned_upright(tmp_path: Path):
    found, _ = taken(shown_by(tmp_path / "phone.mp4", 0, 65536, 0, -65536, 0, 0, 48 << 16, 0, 1 << 30))
    assert found[0].image.shape == (64, 48, 3)
    assert found[0].image[32, 40].tolist() == pytest.approx(COLOURS[0], abs=16)
    assert found[0].image[32, 8].max() < 16


@pytest.mark.parametrize(
    "matrix",
    [(-65536, 0, 0, 0, 65536, 0, 64 << 16, 0, 1 << 30), (46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)],
    ids=["mirrored", "by 45 degrees"],
)
def test_what_is_shown_mirrored_or_aslant_is_refused(tmp_path: Path, matrix: tuple[int, ...]):
    found, error = taken(shown_by(tmp_path / "front.mp4", *matrix))
    assert not found
    assert "mirrored or aslant" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"color_trc": 16}, "is HDR (PQ), whose tones are not mapped"),
        ({"codec": "ffv1", "pix_fmt": "bgra"}, "has transparent frames"),
    ],
    ids=["HDR", "alpha"],
)
def test_what_would_come_out_wrong_is_refused(tmp_path: Path, options: dict[str, Any], message: str):
    found, error = taken(write(tmp_path / "video.mkv", seconds=1, **options))
    assert not found
    assert message in error


def test_other_files_are_named_and_playlists_open_nothing(tmp_path: Path):
    target = write(tmp_path / "video.ts", seconds=1)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n"
    contents = {
        "list.m3u8": playlist,
        "concat.txt": f"ffconcat version 1.0\nfile {target}\n",
        "notes.txt": "words" * 99,
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        assert taken(tmp_path / name)[0] == []
        assert "is no video of a format that is read" in taken(tmp_path / name)[1]
    assert "No such file" in taken(tmp_path / "missing.mp4")[1]


def test_larger_frames_are_refused_before_they_are_decoded(tmp_path: Path):
    found, error = taken(write(tmp_path / "video.mp4"), max_pixels=64 * 48 * 5)
    assert not found
    assert "64x48" in error


def test_a_cut_video_ends_in_an_error_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write(tmp_path / "whole.mp4")
    with (
        av.open(str(path)) as source,
        av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    content = (tmp_path / "fast.mp4").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: len(content) * 6 // 10])
    assert main(["--frames", str(cut), "--format", "jsonl", "--quiet"]) == 1
    captured = capsys.readouterr()
    *records, last = map(json.loads, captured.out.splitlines())
    assert [record["time"] for record in records] == pytest.approx([0, 1], abs=0.01)
    assert all(record["error"] is None and record["label"] for record in records)
    assert (last["label"], last["error"].startswith(f"{cut}: ")) == (None, True)
    assert captured.err.splitlines()[1:] == [f"clip-infer: {last['error']}"]
    assert taken(cut, allow_truncated=True)[1] is not None  # what is damaged is so with any option


def test_a_video_that_ends_before_its_stated_length_is_cut_short(tmp_path: Path):
    content = write(tmp_path / "whole.mkv").read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(content[: len(content) // 2])
    found, error = taken(cut)
    assert [item.time for item in found] == pytest.approx([0, 1], abs=0.01)
    assert "is cut short: its frames end at 1." in error
    assert "of 4.00 s" in error
    assert taken(cut, allow_truncated=True)[1] is None


def test_records_of_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    videos = [str(write(tmp_path / name, seconds=2)) for name in ("a.mp4", "b.mkv")]
    assert main(["--frames", *videos, "--format", "csv", "--quiet"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["image"], float(row["time"])) for row in rows] == [(name, time) for name in videos for time in (0, 1)]
    assert main(["--frames", videos[0], "--fps", "0.5", "--quiet"]) == 0
    assert f"{videos[0]} 0.00 s" in capsys.readouterr().out
    parquet = pytest.importorskip("pyarrow.parquet")
    assert main(["--frames", *videos, "--output", str(tmp_path / "out.parquet"), "--quiet"]) == 0
    assert parquet.read_table(tmp_path / "out.parquet")["time"].to_pylist() == pytest.approx([0, 1, 0, 1])


def test_an_interrupted_run_goes_on(tmp_path: Path):
    video, output = str(write(tmp_path / "video.mp4")), tmp_path / "out.jsonl"
    command = ["--frames", video, "--output", str(output), "--batch-size", "2", "--quiet"]
    assert main(command) == 0
    whole = output.read_text()
    part = tmp_path / "out.jsonl.part"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part_file.PartFile, "remove", lambda _: None)
        assert main(command) == 0
    part.write_bytes(b"".join(part.read_bytes().splitlines(keepends=True)[:3]))
    assert main([*command, "--resume"]) == 0
    assert output.read_text() == whole
    assert not part.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "--frames", "b.mp4"], "leave out IMAGE"),
        (["--frames", "b.mp4", "--isolate"], "does not cover the decoding of videos"),
        (["--frames", "b.mp4", "--fps", "0"], "fps"),
    ],
)
def test_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["--frames", str(tmp_path / "video.mp4")]) == 1
    assert "pip install 'clip-toolkit[video]'" in capsys.readouterr().err
