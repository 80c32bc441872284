"""From what a command line names to parts: manifests, shards, and what is wrong with them."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_fused_model import png

from clip_scale import Columns, Source, SourceError
from clip_scale.sources.shards import ShardPart
from clip_toolkit import ImageError
from clip_toolkit.stream.inputs import Input

RED, BLUE = png((200, 30, 40)), png((10, 90, 250))


def inputs(source: Source) -> list[Input]:
    return [item for part in source.parts() for item in part.inputs()]


def names(source: Source) -> list[str]:
    return [item.name for item in inputs(source)]


def tar(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def shard(path: Path, content: bytes) -> list[Input]:
    path.write_bytes(content)
    return list(ShardPart(str(path), len(content)).inputs())


def test_folders_and_patterns_are_cut_into_parts(photos: Path):
    parts = list(Source((str(photos),), part_size=8).parts())
    assert [len(list(part.inputs())) for part in parts] == [8, 8, 5]
    assert names(Source((str(photos / "0*.png"), str(photos / "11.png"))))[-2:] == [
        str(photos / "09.png"),
        str(photos / "11.png"),
    ]


@pytest.mark.parametrize("name", ["none.jpg", "none/*.jpg", "-"])
def test_a_source_that_is_not_there(name: str):
    with pytest.raises(SourceError, match="there is no such file or folder"):
        names(Source((name,)))


def test_a_csv_manifest_names_files_beside_it(photos: Path):
    (photos / "list.csv").write_text("path,caption\n01.png,red\n/photos/x.png,\n", encoding="utf-8")
    source = Source((str(photos / "list.csv"),), Columns(text="caption"), has_texts=True)
    assert [item.identity for item in inputs(source)] == [
        (str(photos / "01.png"), "red", None),
        ("/photos/x.png", "", None),
    ]
    assert [item.text for item in inputs(Source((str(photos / "list.csv"),)))] == [None, None]
    (photos / "list.jsonl").write_text('{"path": "01.png", "caption": "red"}\n', encoding="utf-8")
    source = Source((str(photos / "list.jsonl"),), Columns(text="caption"), has_texts=True)
    assert [item.identity for item in inputs(source)] == [(str(photos / "01.png"), "red", None)]
    with pytest.raises(SourceError, match="expected a column 'text', found path, caption"):
        inputs(Source((str(photos / "list.csv"),), has_texts=True))
    with pytest.raises(SourceError, match="texts come from manifests"):
        inputs(Source((str(photos),), has_texts=True))


def test_a_parquet_manifest_of_bytes_or_paths(tmp_path: Path):
    arrow = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    from pyarrow import parquet

    file = str(tmp_path / "list.parquet")
    parquet.write_table(arrow.table({"jpg": [RED, BLUE, None], "id": [1, 2, 3]}), file, row_group_size=2)
    source = Source((file,), Columns("jpg"))
    assert [len(list(part.inputs())) for part in source.parts()] == [2, 1]
    found = inputs(source)
    assert [item.name for item in found] == [f"{file}#{number}" for number in range(3)]
    assert [item.image.read() for item in found[:2]] == [RED, BLUE]
    assert isinstance(found[2].image, ImageError)
    parquet.write_table(arrow.table({"bytes": [RED], "path": ["a.png"], "text": ["red"]}), file)
    assert [item.identity for item in inputs(Source((file,), has_texts=True))] == [("a.png", "red", None)]
    parquet.write_table(arrow.table({"path": ["a.png", "s3://b/c.png", None]}), file)
    found = inputs(Source((file,)))
    assert [item.name for item in found] == [str(tmp_path / "a.png"), "s3://b/c.png", f"{file}#2"]
    assert str(found[2].image) == "the row has no path"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"bytes": ["text"]}, "expected the bytes of image files in the column 'bytes', found the type string"),
        ({"bytes": [[1, 2]]}, "found the type list"),
        ({"path": [1]}, "expected paths in the column 'path', found the type int64"),
        ({"image": [b""]}, "expected a column 'bytes' or 'path', found image. Name yours"),
    ],
)
def test_parquet_columns_of_other_types(columns: dict[str, list[object]], message: str, tmp_path: Path):
    arrow = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    from pyarrow import parquet

    parquet.write_table(arrow.table(columns), tmp_path / "list.parquet")
    with pytest.raises(SourceError, match=message):
        inputs(Source((str(tmp_path / "list.parquet"),)))


def test_a_parquet_file_that_is_none(tmp_path: Path):
    pytest.importorskip("pyarrow", reason="needs the parquet extra")
    (tmp_path / "list.parquet").write_bytes(b"junk")
    with pytest.raises(SourceError, match=r"list.parquet: cannot be read as Parquet"):
        inputs(Source((str(tmp_path / "list.parquet"),)))


@pytest.mark.parametrize(("column", "values"), [("bytes", [RED, BLUE]), ("path", ["a.png", "b.png"])])
def test_a_parquet_file_that_is_damaged_inside(column: str, values: list[object], tmp_path: Path):
    arrow = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    from pyarrow import parquet

    file = tmp_path / "list.parquet"
    parquet.write_table(arrow.table({column: values * 50}), file, compression="snappy", use_dictionary=False)
    content = bytearray(file.read_bytes())
    content[4:24] = b"\xff" * 20  # the header of its first page
    file.write_bytes(content)
    with pytest.raises(SourceError, match=r"list.parquet: cannot be read as Parquet"):
        inputs(Source((str(file),)))


@pytest.mark.parametrize(
    ("suffix", "packed"),
    [
        ("tar", bytes),
        ("tar.gz", gzip.compress),
        ("tgz", gzip.compress),
        ("tar.bz2", bz2.compress),
        ("tar.xz", lzma.compress),
    ],
)
def test_a_shard_gives_its_images_in_order(suffix: str, packed: Callable[[bytes], bytes], tmp_path: Path):
    content = tar(b_png=RED, b_json=b"{}", a_JPG=BLUE, _hidden_png=RED)
    (tmp_path / f"shard.{suffix}").write_bytes(packed(content))
    found = inputs(Source((str(tmp_path / "*"),)))
    assert [(item.name, item.image.read()) for item in found] == [
        (f"{tmp_path}/shard.{suffix}/b.png", RED),
        (f"{tmp_path}/shard.{suffix}/a.JPG", BLUE),
    ]


def test_a_link_in_a_shard_is_heard_of(tmp_path: Path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    (found,) = shard(tmp_path / "shard.tar", buffer.getvalue())
    assert "a.png: is a link or a device" in str(found.image)


BLOCK = tarfile.BLOCKSIZE
WHOLE = tar(a_png=RED, b_png=BLUE)
ONE = BLOCK * (1 + -(-len(RED) // BLOCK))  # bytes of the first member


@pytest.mark.parametrize(
    ("content", "images", "reason"),
    [
        (WHOLE[:ONE], 1, "it ends in the middle"),
        (WHOLE[: ONE + 100], 1, "a header is not valid"),
        (WHOLE[: ONE + BLOCK + 10], 1, "unexpected end of data"),
        (WHOLE[: ONE * 2], 2, "it ends in the middle"),
        (WHOLE[:ONE] + b"\xff" * 8 + WHOLE[ONE + 8 :], 1, "a header is not valid"),
        (WHOLE + tar(c_png=RED), 2, "another archive is joined to its end"),
        (b"", 0, "empty file"),
        (b"junk" * 500, 0, "invalid header|truncated header"),
    ],
)
def test_damage_of_a_shard_comes_behind_its_images(content: bytes, images: int, reason: str, tmp_path: Path):
    *good, bad = shard(tmp_path / "shard.tar", content)
    assert len(good) == images
    assert all(not isinstance(item.image, ImageError) for item in good)
    assert isinstance(bad.image, ImageError)
    assert f"shard.tar: is damaged behind {images} images" in str(bad.image)
    with pytest.raises(ImageError, match=reason):
        raise bad.image


@pytest.mark.parametrize("suffix", ["tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("kept", [0.5, 0.97, -1])
def test_a_cut_or_altered_compressed_shard_is_heard_of(suffix: str, kept: float, tmp_path: Path):
    pack = {"tar.gz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}[suffix]
    packed = pack(tar(a_png=RED, b_png=BLUE))
    cut = packed[: int(len(packed) * kept)] if kept > 0 else packed[:-6] + bytes([packed[-6] ^ 1]) + packed[-5:]
    *_, last = shard(tmp_path / f"shard.{suffix}", cut)
    assert isinstance(last.image, ImageError)


def test_with_all_files_every_file_is_an_image(tmp_path: Path):
    (tmp_path / "odd.csv").write_bytes(RED)
    assert names(Source((str(tmp_path),), all_files=True)) == [str(tmp_path / "odd.csv")]
