"""What quantization is tuned on and what it is judged by: never the same picture, whatever its name or text."""

import csv
import hashlib
import itertools
import shutil
from pathlib import Path

import pytest

from clip_export.heads.references import DataReference
from clip_export.quantization.evidence.files import Wanted
from clip_export.quantization.evidence.images import Evidence, gather, refit_images
from clip_export.samples.pictures import picture
from clip_toolkit.errors import QuantizationError
from clip_toolkit.spec.classifier import Preprocessing

TEXTS = [f"question {number}?" for number in range(6)]
WANTED = Wanted(("no", "yes"), Preprocessing("squash", 8, 8, "bicubic", (0.0,) * 3, (1.0,) * 3), text_column="text")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty pictures, and a copy of each under another name."""
    for number in range(30):
        picture(12, 12, number).save(tmp_path / f"{number}.png")
        shutil.copy(tmp_path / f"{number}.png", tmp_path / f"copy{number}.png")
    return tmp_path


def manifest(folder: Path, name: str, pictures: list[str]) -> Path:
    """Every picture with each of the texts, copies with others, and the last row twice."""
    rows = [(path, f"{text} ({path})", "yes") for path, text in itertools.product(pictures, TEXTS)]
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "text", "label"), ("0.png", f"{TEXTS[0]} (0.png)", "no"), *rows, rows[-1]])
    return folder / name


def contents(images: tuple) -> set[bytes]:
    return {image.path.read_bytes() for image in images}


def apart(evidence: Evidence | None) -> Evidence:
    assert evidence is not None
    assert not contents(evidence.calibration) & contents(evidence.evaluation)
    return evidence


def test_every_third_picture_judges_with_all_its_texts(folder: Path):
    data = manifest(folder, "data.csv", [f"{number}.png" for number in range(30)])
    evidence = apart(gather(WANTED, calibration=data))
    assert len(contents(evidence.evaluation)) == 10
    assert len(evidence.evaluation) == len({(image.name, image.text) for image in evidence.evaluation}) == 60
    assert len(evidence.calibration) == 120
    assert not contents(refit_images(data, evidence, WANTED)) & contents(evidence.evaluation)


def test_copies_of_what_judges_do_not_tune(folder: Path):
    names = [f"{copy}{number}.png" for copy in ("", "copy") for number in range(30)]
    apart(gather(WANTED, calibration=manifest(folder, "data.csv", names)))


@pytest.mark.parametrize("known", ["names", "digests"])
def test_copies_of_held_out_pictures_do_not_tune(folder: Path, known: str):
    names = [f"{copy}{number}.png" for copy in ("", "copy") for number in range(30)]
    data = manifest(folder, "data.csv", names)
    held_out = tuple(f"{number}.png" for number in range(1, 9))
    digests = tuple(hashlib.sha256((folder / name).read_bytes()).hexdigest()[:32] for name in held_out)
    old = DataReference(str(data), held_out, text_column="text")
    remembered = old if known == "names" else DataReference(str(data), text_column="text", digests=digests)
    evidence = apart(gather(WANTED, remembered=remembered))
    copies = set() if known == "names" else {f"copy{name}" for name in held_out}
    assert {image.name for image in evidence.evaluation} == set(held_out) | copies


def test_two_manifests_with_the_same_picture_under_another_text_are_refused(folder: Path):
    calibration = manifest(folder, "one.csv", [f"{number}.png" for number in range(10)])
    evaluation = folder / "two.csv"
    rows = "".join(f"copy{number}.png,new?,no\ncopy{number}.png,other?,yes\n" for number in range(9, 20))
    evaluation.write_text(f"path,text,label\n{rows}", encoding="utf-8")
    with pytest.raises(QuantizationError, match=r"1 of its images are calibration images, too, such as copy9\.png"):
        gather(WANTED, calibration, evaluation)
