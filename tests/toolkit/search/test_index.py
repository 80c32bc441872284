"""An index equals a fresh one, whatever happened to its folder and to itself."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import clip_toolkit
from clip_search import SearchIndex, indexing
from clip_search import index as module
from clip_search.scan import matrix
from clip_search.scan.checksum import digest_of
from clip_search.scan.matrix import FILES
from clip_toolkit import Classifier
from clip_toolkit.errors import ModelError, SearchIndexError
from clip_toolkit.files.stamp import Stamp
from clip_toolkit.images import decoding


def picture(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((72, 64), Image.Resampling.NEAREST)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number in range(40):
        path = folder / ("a" if number % 2 else "b") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    return folder


@pytest.fixture
def index(tmp_path: Path, photos: Path, classifier: Classifier) -> Iterator[SearchIndex]:
    with SearchIndex.open(tmp_path / "index", classifier, create=True) as opened:
        opened.update(photos)
        yield opened


def contents(folder: Path) -> dict[str, object]:
    """All that an index holds, apart from where its images are."""
    with sqlite3.connect(folder / "index.sqlite") as database:
        rows = database.execute("SELECT * FROM images ORDER BY path").fetchall()
        meta = dict(database.execute("SELECT * FROM meta WHERE key != 'root'").fetchall())
    database.close()
    return {"rows": rows, "meta": meta} | {name: (folder / name).read_bytes() for name in FILES}


def fresh(photos: Path, folder: Path, classifier: Classifier) -> dict[str, object]:
    shutil.rmtree(folder, ignore_errors=True)
    with SearchIndex.open(folder, classifier, create=True) as other:
        other.update(photos)
    return contents(folder)


def test_the_embeddings_are_the_classifiers(index: SearchIndex, photos: Path, classifier: Classifier):
    names = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))
    matrix = np.load(index.folder / "embeddings.npy")
    expected = [classifier.predict(photos / name).embedding for name in names]
    np.testing.assert_array_equal(matrix, np.stack(expected).astype(np.float16))
    assert (index.folder / "paths.bin").read_bytes().decode().split("\0")[:-1] == names


def test_only_what_changed_is_embedded(index: SearchIndex, photos: Path, tmp_path: Path, classifier: Classifier):
    before = index.update()
    assert (before.embedded, before.unchanged) == (0, 40)
    picture(100).save(photos / "new.png")
    picture(101).save(photos / "a" / "01.png")
    (photos / "b" / "00.png").rename(photos / "renamed.png")
    shutil.copy(photos / "b" / "02.png", photos / "copied.png")
    (photos / "b" / "04.png").unlink()
    (photos / "b" / "06.png").write_bytes(b"junk")
    (photos / "b" / "08.png").rename(photos / "b" / "x")
    (photos / "b" / "10.png").rename(photos / "b" / "08.png")
    (photos / "b" / "x").rename(photos / "b" / "10.png")
    seen: dict[str, str | None] = {}
    report = index.update(on_file=seen.__setitem__)
    assert (report.embedded, report.recognised, report.removed, report.failed) == (2, 4, 2, 1)
    assert [path for path, error in seen.items() if error] == ["b/06.png"]
    assert [path for path, _ in index.failures()] == [photos / "b" / "06.png"]
    assert contents(index.folder) == fresh(photos, tmp_path / "fresh", classifier)


def test_an_image_that_was_deleted_is_not_found(
    index: SearchIndex, photos: Path, tmp_path: Path, classifier: Classifier
):
    (photos / "b" / "04.png").unlink()
    assert index.update().removed == 1
    assert len(index.query(photos / "b" / "06.png", 100)) == len(index) == 39
    assert contents(index.folder) == fresh(photos, tmp_path / "fresh", classifier)


def test_many_random_changes_later_it_equals_a_fresh_index(
    index: SearchIndex, photos: Path, tmp_path: Path, classifier: Classifier
):
    rng = np.random.default_rng(3)
    for step in range(6):
        for path in rng.permutation(sorted(photos.rglob("*.png")))[:9]:
            match rng.integers(4):
                case 0:
                    path.unlink()
                case 1:
                    path.rename(path.with_name(f"{step}{path.name}"))
                case 2:
                    path.write_bytes(b"no image" * int(rng.integers(1, 4)))
                case _:
                    picture(int(rng.integers(1000))).save(path)
        index.update()
        assert contents(index.folder) == fresh(photos, tmp_path / "fresh", classifier)


KILLED = """
import os, signal, sys
from clip_toolkit import load
from clip_search import SearchIndex
left = int(sys.argv[3])
def die(path, error):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
with SearchIndex.open(sys.argv[1], load(device="cpu"), create=True) as index:
    index.update(sys.argv[2], on_file=die)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_update_goes_on_where_it_was(photos: Path, tmp_path: Path, classifier: Classifier):
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "index"), str(photos), "34"]
    assert subprocess.run(arguments, check=False).returncode == -9
    with SearchIndex.open(tmp_path / "index", classifier, create=True) as index:
        report = index.update(photos)
    assert (report.embedded, report.unchanged) == (8, 32)
    assert contents(tmp_path / "index") == fresh(photos, tmp_path / "fresh", classifier)


def test_an_update_that_is_stopped_keeps_what_it_did(photos: Path, tmp_path: Path, classifier: Classifier):
    with SearchIndex.open(tmp_path / "index", classifier, create=True) as index:
        seen: list[str] = []
        report = index.update(photos, on_file=lambda path, _: seen.append(path), stopped=lambda: len(seen) >= 5)
        assert report.stopped
        assert 5 <= report.embedded < 40
        assert len(index) == report.embedded
        assert index.update().embedded == 40 - report.embedded
    assert contents(tmp_path / "index") == fresh(photos, tmp_path / "fresh", classifier)


def test_query_finds_the_image_itself_and_orders_by_cosine(index: SearchIndex, photos: Path, classifier: Classifier):
    hits = index.query(photos / "a" / "07.png", 40)
    assert (hits[0].path, hits[0].state) == (photos / "a" / "07.png", "present")
    assert hits[0].score == pytest.approx(1, abs=1e-3)
    query = classifier.predict(photos / "a" / "07.png").embedding
    cosines = [float(query @ classifier.predict(hit.path).embedding) for hit in hits]
    np.testing.assert_allclose([hit.score for hit in hits], cosines, atol=1e-3)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_vectors_that_are_not_finite_in_float32_are_refused(value: float, index: SearchIndex):
    with pytest.raises(ValueError, match="128 finite numbers"):
        index.query_vector(np.full(128, value))


def test_an_embedding_of_the_network_that_is_not_finite_is_the_models_fault(
    index: SearchIndex, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    broken = SimpleNamespace(embedding=np.full(128, np.nan, np.float32))
    monkeypatch.setattr(module, "embedded", lambda *_: broken)
    with pytest.raises(ModelError, match=r"not finite.*--selftest"):
        index.query(photos / "a" / "01.png")


def test_equal_images_are_ordered_by_path(index: SearchIndex, photos: Path):
    for name in ("z", "m", "a/0"):
        shutil.copy(photos / "b" / "20.png", photos / f"{name}.png")
    index.update()
    expected = [photos / name for name in ("a/0.png", "b/20.png", "m.png", "z.png")]
    assert [hit.path for hit in index.query(photos / "m.png", 4)] == expected


def test_images_that_changed_or_went_are_said_to_have(index: SearchIndex, photos: Path):
    picture(500).save(photos / "a" / "01.png")
    (photos / "a" / "03.png").unlink()
    hits = {hit.path.name: hit.state for hit in index.query(photos / "b" / "00.png", 40)}
    assert (hits["01.png"], hits["03.png"], hits["05.png"]) == ("changed", "missing", "present")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["removed", "cut short", "one bit", "another file"])
def test_damaged_derived_files_are_rebuilt(name: str, damage: str, index: SearchIndex):
    before, path = contents(index.folder), index.folder / name
    if damage == "removed":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(path.read_bytes()[:-5])
    elif damage == "one bit":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(b"\x93NUMPY\x01\x00")
    with SearchIndex.open(index.folder) as other:
        other.duplicates(1)
    assert contents(index.folder) == before


def test_a_reader_notices_that_another_process_updated(index: SearchIndex, photos: Path, classifier: Classifier):
    with SearchIndex.open(index.folder, classifier) as reader:
        assert len(reader.query(photos / "a" / "01.png", 100)) == 40
        picture(900).save(photos / "new.png")
        index.update()
        assert reader.query(photos / "new.png", 1)[0].path == photos / "new.png"


def test_derived_files_that_are_replaced_while_they_are_read(
    index: SearchIndex, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As another process does after an update: what is opened is of one state, or nothing is."""
    before = tmp_path / "before"
    shutil.copytree(index.folder, before)
    for name in ("new", "other"):
        picture(900).save(photos / "a" / f"{name}.png")
    index.update()
    vector = np.load(index.folder / "embeddings.npy")[20]  # of a/new.png
    replaced = []

    def checked(paths: Iterable[Path]) -> str:
        digest = digest_of(paths)
        if not replaced:
            for name in FILES:
                shutil.move(shutil.copy(index.folder / name, tmp_path / name), before / name)
                replaced.append(name)
        return digest

    monkeypatch.setattr(matrix, "digest_of", checked)
    with SearchIndex.open(before) as reader:
        found = reader.query_vector(vector, 40)
        assert (len(found), {hit.state for hit in found}) == (40, {"present"})
        assert reader.query_vector(vector, 40) == found
    assert replaced


def test_damaged_foreign_and_newer_databases_are_refused(index: SearchIndex):
    index.close()
    path = index.folder / "index.sqlite"
    good = path.read_bytes()
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(SearchIndexError, match=r"damaged.*index again"):
        SearchIndex.open(index.folder)
    path.write_bytes(good[:4096] + bytes(len(good) - 4096))
    with pytest.raises(SearchIndexError, match=r"damaged.*index again"), SearchIndex.open(index.folder) as other:
        other.duplicates(1)
    path.write_bytes(good)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SearchIndexError, match="format 99"):
        SearchIndex.open(index.folder)
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(SearchIndexError, match="another program"):
        SearchIndex.open(index.folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("probe", b"\0"),
        ("probe", b"\0\0\0"),
        ("probe", "text"),
        ("encoder", "[]"),
        ("encoder", '{"id": "x", "revision": null, "feature": "pooled", "dim": "128"}'),
    ],
)
def test_a_damaged_encoder_is_damage(key: str, value: bytes | str, index: SearchIndex, classifier: Classifier):
    connection = sqlite3.connect(index.folder / "index.sqlite")
    connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
    connection.commit()
    connection.close()
    for model in (classifier, None):
        with pytest.raises(SearchIndexError, match=r"damaged.*index again"):
            SearchIndex.open(index.folder, model)


def test_an_embedding_of_the_wrong_length_is_damage(index: SearchIndex):
    connection = sqlite3.connect(index.folder / "index.sqlite")
    connection.execute("UPDATE images SET embedding = x'0000' WHERE path = ?", (b"a/01.png",))
    connection.execute("DELETE FROM meta WHERE key = 'matrix'")
    connection.commit()
    connection.close()
    with pytest.raises(SearchIndexError, match="wrong length"):
        index.duplicates(1)


CELLS = [
    "UPDATE images SET path = 'text' WHERE path = (SELECT min(path) FROM images)",
    "UPDATE images SET path = x'6100' WHERE path = (SELECT min(path) FROM images)",
    "UPDATE images SET size = 'large'",
    "UPDATE images SET mtime_ns = x'00'",
    "UPDATE images SET digest = 7",
    "UPDATE images SET embedding = 'text'",
    "UPDATE images SET error = x'07'",
    "UPDATE meta SET value = 7 WHERE key = 'root'",
    "UPDATE meta SET value = x'006100' WHERE key = 'root'",
    "UPDATE meta SET value = 7 WHERE key = 'encoder'",
    "UPDATE meta SET value = 7 WHERE key = 'matrix'",
    "UPDATE images SET digest = NULL, embedding = NULL; ALTER TABLE images DROP COLUMN error",
]


@pytest.mark.parametrize("statement", CELLS)
def test_cells_of_other_types_are_damage(statement: str, index: SearchIndex, classifier: Classifier):
    connection = sqlite3.connect(index.folder / "index.sqlite")
    connection.executescript(statement)
    connection.execute("DELETE FROM meta WHERE key = 'matrix' AND typeof(value) = 'text'")
    connection.commit()
    connection.close()
    with pytest.raises(SearchIndexError), SearchIndex.open(index.folder, classifier) as opened:  # noqa: PT012
        opened.update()
        opened.query_vector(np.ones(opened.identity.dim, np.float32))
        list(opened.failures())


def test_an_error_of_the_machine_is_no_verdict_on_the_image(
    photos: Path, tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
):
    decoded = decoding._decoded

    def out_of_memory(source: object, *rest: object) -> np.ndarray:
        if isinstance(source, np.ndarray):  # the picture by which an index knows its model again
            return decoded(source, *rest)
        raise MemoryError

    with SearchIndex.open(tmp_path / "index", classifier, create=True) as index:
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "_decoded", out_of_memory)
            assert index.update(photos).embedded == 0
        assert index.update().embedded > 0
        assert not any("memory" in error for _, error in index.failures())


def test_who_may_not_write_can_search(
    index: SearchIndex, photos: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
):
    found = index.query(photos / "a" / "01.png", 5)
    index.close()
    files = sorted(index.folder.iterdir())
    monkeypatch.setattr(os, "access", lambda *_: False)  # whatever the user running the tests may do
    with SearchIndex.open(index.folder, classifier) as reader:
        assert reader.query(photos / "a" / "01.png", 5) == found
        assert reader.duplicates(1) == []
        assert sorted(index.folder.iterdir()) == files
        with pytest.raises(SearchIndexError, match=r"you may not write.*owner"):
            reader.update()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_disk_without_room_can_be_searched(index: SearchIndex, photos: Path, classifier: Classifier):
    import resource

    found = index.query(photos / "a" / "01.png", 5)
    index.close()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # as on a full disk, no byte can be added to a file
    try:
        with SearchIndex.open(index.folder, classifier) as reader:
            answers = reader.query(photos / "a" / "01.png", 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert answers == found


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs permissions that hold")
def test_a_folder_without_permission_to_write(index: SearchIndex, photos: Path, classifier: Classifier):
    index.close()
    index.folder.chmod(0o555)
    (index.folder / "index.sqlite").chmod(0o444)
    with SearchIndex.open(index.folder, classifier) as reader:
        assert len(reader.query(photos / "a" / "01.png", 5)) == 5


def test_a_locked_database_is_said_to_be_locked(index: SearchIndex, photos: Path, classifier: Classifier):
    writer = sqlite3.connect(index.folder / "index.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    picture(600).save(photos / "new.png")
    with SearchIndex.open(index.folder, classifier, timeout=0.05) as other:
        assert len(other.query(photos / "new.png", 3)) == 3  # reading goes on
        with pytest.raises(SearchIndexError, match=r"another process.*try again"):
            other.update()
    writer.execute("ROLLBACK")
    writer.close()
    assert index.update().embedded == 1


def test_other_encoders_are_refused_by_name(index: SearchIndex, edited: Callable[..., Path], classifier: Classifier):
    other = clip_toolkit.load(edited(lambda data: data["encoder"].update(id="somebody/else")), device="cpu")
    with pytest.raises(SearchIndexError, match=r"tiny-clip.*somebody/else.*--model"):
        SearchIndex.open(index.folder, other)
    connection = sqlite3.connect(index.folder / "index.sqlite")
    connection.execute("UPDATE meta SET value = ? WHERE key = 'probe'", (np.ones(128, np.float16).tobytes(),))
    connection.commit()
    connection.close()
    with pytest.raises(SearchIndexError, match="other weights"):
        SearchIndex.open(index.folder, classifier)


def test_another_head_on_the_same_encoder_is_welcome(index: SearchIndex, edited: Callable[..., Path]):
    other = clip_toolkit.load(edited(lambda data: data.update(temperature=2.0)), device="cpu")
    with SearchIndex.open(index.folder, other) as again:
        assert again.update().unchanged == 40


def test_an_index_moves_with_its_folder(index: SearchIndex, photos: Path, tmp_path: Path):
    index.close()
    (tmp_path / "elsewhere").mkdir()
    for folder in (photos, index.folder):
        folder.rename(tmp_path / "elsewhere" / folder.name)
    with SearchIndex.open(tmp_path / "elsewhere" / "index") as moved:
        hit = moved.query_vector(np.load(moved.folder / "embeddings.npy")[0], 1)[0]
    assert (hit.path, hit.state) == (tmp_path / "elsewhere" / "photos" / "a" / "01.png", "present")


def test_one_index_holds_one_folder(index: SearchIndex, photos: Path, tmp_path: Path):
    (tmp_path / "others").mkdir()
    with pytest.raises(SearchIndexError, match=r"is the index of .*photos.*--index"):
        index.update(tmp_path / "others")
    shutil.rmtree(photos)
    with pytest.raises(SearchIndexError, match="no such folder"):
        index.update()
    photos.mkdir()
    with pytest.raises(SearchIndexError, match=r"is empty.*mounted"):
        index.update()


def test_an_index_inside_its_folder_does_not_index_itself(photos: Path, classifier: Classifier):
    with SearchIndex.open(photos / "index", classifier, create=True) as index:
        assert index.update(photos).embedded == 40
        assert index.update().unchanged == 40


@pytest.mark.parametrize("place", ["photos", "."])
def test_an_index_around_its_folder_finds_the_images(place: str, photos: Path, tmp_path: Path, classifier: Classifier):
    with SearchIndex.open(tmp_path / place, classifier, create=True) as index:
        assert index.update(photos).embedded == 40
        again = index.update()
    assert (again.unchanged, again.failed, again.removed) == (40, 0, 0)


def test_files_of_equal_size_and_time_that_change_places(index: SearchIndex, photos: Path, tmp_path: Path):
    one, other = photos / "a" / "01.bmp", photos / "a" / "03.bmp"
    for number, path in enumerate((one, other)):
        picture(700 + number).save(path)
        os.utime(path, ns=(0, 10**18))
    index.update()
    one.rename(tmp_path / "aside")
    other.rename(one)
    (tmp_path / "aside").rename(other)
    assert {hit.state for hit in index.query(one, 50) if hit.path in (one, other)} == {"changed"}
    index.update()
    assert [hit.path for hit in index.query(one, 1)] == [one]


def test_new_permissions_are_no_change(index: SearchIndex, photos: Path):
    (photos / "a" / "01.png").chmod(0o600)
    assert index.query(photos / "a" / "01.png", 1)[0].state == "present"
    report = index.update()
    assert (report.embedded, report.recognised) == (0, 1)


def test_a_file_that_is_changed_between_its_two_readings(
    index: SearchIndex, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    """The embedding must not be noted under the hash of another content."""
    path = photos / "new.png"
    picture(800).save(path)
    hashed = indexing.read_digest

    def hashed_and_changed(place: Path) -> tuple[Stamp, bytes]:
        found = hashed(place)
        picture(801).resize((20, 20)).save(path)
        return found

    monkeypatch.setattr(indexing, "read_digest", hashed_and_changed)
    assert index.update().failed == 1
    assert [text for _, text in index.failures()] == ["was changed while it was read"]
    monkeypatch.undo()
    assert index.update().embedded == 1
    picture(800).save(photos / "again.png")
    assert index.update().embedded == 1


def test_a_folder_that_cannot_be_read_keeps_its_images(
    index: SearchIndex, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    (photos / "b" / "00.png").unlink()
    scandir = os.scandir

    def refused(path: str) -> Iterator[os.DirEntry[str]]:
        if Path(path).name == "a":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    report = index.update()
    assert (report.removed, report.failed, report.unchanged) == (1, 1, 19)
    assert [path for path, _ in index.failures()] == [photos / "a"]
    assert len(index) == 39
    monkeypatch.undo()
    assert index.update().unchanged == 39
    assert list(index.failures()) == []


def test_a_folder_on_another_drive(
    photos: Path, tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
):
    def refused(_path: Path, _start: Path) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    with SearchIndex.open(tmp_path / "index", classifier, create=True) as index:
        monkeypatch.setattr(os.path, "relpath", refused)
        index.update(photos)
        monkeypatch.undo()
        assert index.root == photos
        assert index.update().unchanged == 40


def test_a_first_run_that_failed_claims_nothing(photos: Path, tmp_path: Path, edited: Callable[..., Path]):
    other = clip_toolkit.load(edited(lambda data: data["encoder"].update(id="somebody/else")), device="cpu")
    with (
        SearchIndex.open(tmp_path / "index", other, create=True) as index,
        pytest.raises(SearchIndexError, match="no such folder"),
    ):
        index.update(tmp_path / "nosuch")
    with SearchIndex.open(tmp_path / "index", clip_toolkit.load(device="cpu"), create=True) as index:
        assert index.update(photos).embedded == 40
        assert index.identity.id != "somebody/else"


def test_of_two_first_runs_with_different_encoders_one_is_refused(
    photos: Path, tmp_path: Path, classifier: Classifier, edited: Callable[..., Path]
):
    other = clip_toolkit.load(edited(lambda data: data["encoder"].update(id="somebody/else")), device="cpu")
    with (
        SearchIndex.open(tmp_path / "index", classifier, create=True) as faster,
        SearchIndex.open(tmp_path / "index", other, create=True) as slower,
    ):
        assert faster.update(photos).embedded == 40
        with pytest.raises(SearchIndexError, match=r"tiny-clip.*somebody/else"):
            slower.update(photos)
        assert faster.update().unchanged == 40


def test_there_must_be_an_index_and_something_in_it(tmp_path: Path, classifier: Classifier):
    with pytest.raises(SearchIndexError, match=r"no index.*clip-search index"):
        SearchIndex.open(tmp_path / "none", classifier)
    assert not (tmp_path / "none").exists()
    with (
        SearchIndex.open(tmp_path / "some", classifier, create=True) as index,
        pytest.raises(SearchIndexError, match="nothing is indexed"),
    ):
        index.query_vector(np.zeros(128, np.float32))


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are text there")
def test_names_of_any_bytes(photos: Path, tmp_path: Path, classifier: Classifier):
    awkward = os.fsencode(photos) + b"/\xff<b>\n.png"
    picture(1).save(os.fsdecode(awkward), "PNG")
    with SearchIndex.open(tmp_path / "index", classifier, create=True) as index:
        index.update(photos)
        hits = index.query(os.fsdecode(awkward), 2)
    assert os.fsencode(hits[1].path) == awkward


def test_unreadable_files_are_tried_again(index: SearchIndex, photos: Path, tmp_path: Path):
    (photos / "link.png").symlink_to(tmp_path / "later.png")
    assert index.update().failed == 1
    picture(77).save(tmp_path / "later.png")
    assert index.update().embedded == 1
    (photos / "bad.png").write_bytes(b"junk")
    assert index.update().failed == 1
    assert index.update().failed == 0
    assert index.update(retry=True).failed == 1


def test_the_graph_of_an_older_version_is_ignored_and_removed(index: SearchIndex, photos: Path):
    before = index.query(photos / "a" / "01.png", 3)
    graph = index.folder / "approximate.usearch"
    graph.write_bytes(b"a graph")
    with sqlite3.connect(index.folder / "index.sqlite") as database:
        database.execute("INSERT INTO meta VALUES ('graph', 'its digest')")
    database.close()
    with SearchIndex.open(index.folder) as other:
        assert other.query_vector(np.load(index.folder / "embeddings.npy")[3], 3)
    assert index.query(photos / "a" / "01.png", 3) == before
    picture(900).save(photos / "new.png")
    index.update()
    assert index.query(photos / "new.png", 1)[0].path == photos / "new.png"
    assert not graph.exists()
