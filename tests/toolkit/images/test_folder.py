"""What a folder of images contains."""

import os
from pathlib import Path

import pytest

from clip_toolkit.images.folder import ImageListing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images in plain sight, and one of everything that is none."""
    root = tmp_path / "photos"
    for name in ("b.JPG", "a/c.png", "README.md", "notes", ".hidden.png", ".git/x.png", "a/.thumbnails/c.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.png").touch()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "lost").symlink_to(tmp_path / "nowhere")
    (root / "lost.png").symlink_to(tmp_path / "nowhere.png")
    (root / "kept.png").symlink_to(tmp_path / "elsewhere" / "d.png")
    os.mkfifo(root / "pipe.png")
    return root


def names(listing: ImageListing, folder: Path) -> list[str]:
    return [Path(path).relative_to(folder).as_posix() for path in listing.images(folder)]


def test_images_are_told_by_their_suffix_and_a_lost_link_by_its_own(folder: Path):
    assert names(ImageListing(), folder) == ["b.JPG", "kept.png", "lost.png", "a/c.png"]


def test_all_files_are_those_of_any_suffix_but_hidden_ones(folder: Path):
    found = names(ImageListing(all_files=True), folder)
    assert found == ["README.md", "b.JPG", "kept.png", "lost", "lost.png", "notes", "a/c.png"]


def test_what_is_left_out_is_named_and_counted(folder: Path):
    listing = ImageListing()
    list(listing.images(folder))
    notes = "\n".join(sorted(listing.notes()))
    assert notes == "\n".join(
        [
            f"left out: 1 links that lead nowhere ({folder / 'lost'})",
            f"left out: 1 links to folders, not followed ({folder / 'linked'})",
            f"left out: 1 pipes or devices ({folder / 'pipe.png'})",
            f"left out: 2 without an image's suffix; --all-files takes them ({folder / 'README.md'}, {folder}/notes)",
            f"left out: 3 hidden ({folder / '.git'}, {folder / '.hidden.png'}, {folder / 'a' / '.thumbnails'})",
        ]
    )


def test_a_linked_folder_that_is_named_is_followed(folder: Path):
    assert names(ImageListing(), folder / "linked") == ["d.png"]


def test_many_are_counted_and_three_are_named(tmp_path: Path):
    for number in range(5):
        (tmp_path / f"{number}.txt").touch()
    listing = ImageListing()
    assert list(listing.images(tmp_path)) == []
    [note] = listing.notes()
    assert note.startswith("left out: 5 without")
    assert note.endswith(f"{tmp_path / '2.txt'}, ...)")
