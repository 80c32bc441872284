"""Files that appear whole or not at all, whatever ends the process that writes them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clip_toolkit.errors import OutputError
from clip_toolkit.files.atomic import check_writable, remove_leftovers, temporary_beside, written_atomically

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs locks that end with their process")


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path):
    (tmp_path / "out").write_text("old")
    with pytest.raises(TypeError), written_atomically(tmp_path / "out") as temporary:
        temporary.write_text(None)
    assert _names(tmp_path) == ["out"]
    assert (tmp_path / "out").read_text() == "old"


def _kill_a_writer(path: Path, is_folder: bool) -> None:
    code = (
        "import os, pathlib, signal, sys\nfrom clip_toolkit.files.atomic import temporary_beside\n"
        "with temporary_beside(pathlib.Path(sys.argv[1]), is_folder=bool(int(sys.argv[2]))):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, path, str(int(is_folder))], check=False)
    assert done.returncode == -signal.SIGKILL


@posix
@pytest.mark.parametrize("is_folder", [False, True])
def test_what_a_killed_process_left_is_gone_after_the_next_run(tmp_path: Path, is_folder: bool):
    _kill_a_writer(tmp_path / "out", is_folder)
    _kill_a_writer(tmp_path / "out.other", is_folder)
    left = _names(tmp_path)
    assert len(left) == 2
    check_writable(tmp_path / "out")
    assert _names(tmp_path) == [name for name in left if name.startswith(".out.other.")]
    remove_leftovers(tmp_path)
    assert _names(tmp_path) == []


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_is_being_written_stays(tmp_path: Path, is_folder: bool):
    with temporary_beside(tmp_path / "out", is_folder=is_folder) as temporary:
        check_writable(tmp_path / "out")
        with written_atomically(tmp_path / "out") as other:
            other.write_text("whole")
        assert temporary.exists()
    assert _names(tmp_path) == ["out"]


def test_files_of_the_user_are_no_leftovers(tmp_path: Path):
    (tmp_path / ".out.notes.tmp").touch()
    (tmp_path / ".out.0123abcd.tmp.txt").touch()
    check_writable(tmp_path / "out")
    assert len(_names(tmp_path)) == 2


@posix
def test_the_name_reaches_the_disk_before_the_block_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flushed = []

    def fsync(descriptor: int) -> None:
        is_folder = os.path.samestat(os.fstat(descriptor), tmp_path.stat())
        flushed.append((is_folder, (tmp_path / "out").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with written_atomically(tmp_path / "out") as temporary:
        temporary.write_text("whole")
    assert flushed == [(False, False), (True, True)]


def test_a_missing_folder_is_named_with_its_remedy(tmp_path: Path):
    with pytest.raises(OutputError, match="mkdir -p"), written_atomically(tmp_path / "none" / "out"):
        pass
