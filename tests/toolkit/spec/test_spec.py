"""The metadata of a model file: reading, writing, refusing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clip_toolkit import ModelSpec, SpecError, load
from clip_toolkit.spec import metadata
from clip_toolkit.spec.model_file import read_spec

Edited = Callable[..., Path]


def test_what_is_written_is_read(demo: Path):
    spec = read_spec(demo)
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert spec.golden
    assert spec.parity is not None


def test_unknown_fields_and_newer_minor_versions_are_fine(edited: Edited, demo: Path):
    def change(data: dict[str, Any]) -> None:
        data |= {"version": "1.9", "unheard": [1, 2]}
        data["encoder"]["mood"] = "good"

    assert read_spec(edited(change)).labels == read_spec(demo).labels


@pytest.mark.parametrize("version", ["3.0", "10.1"])
def test_newer_major_versions_are_refused_with_the_remedy(edited: Edited, version: str):
    with pytest.raises(SpecError, match=rf"edited\.onnx.*{version}.*Upgrade"):
        load(edited(lambda data: data.update(version=version)))


def put(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """A change that sets the field at a dotted path."""

    def change(data: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for name in parents:
            data = data[name]
        data[last] = value

    return change


WRONG = {
    "labels": "cat",
    "encoder.dim": "128",
    "encoder.id": None,
    "encoder": [],
    "preprocessing.mode": "stretch",
    "preprocessing.resample": "lanczos",
    "preprocessing.size": True,
    "preprocessing.resize": 10**9,
    "preprocessing.mean": [0.5],
    "preprocessing.std": [0, 1, 1],
    "preprocessing.passes": "vertical_first",
    "preprocessing.crop_offset": "round",
    "head.layers": [1, 2],
    "head.dropout": "none",
    "input": "video",
    "ops": "fast",
    "temperature": 0,
    "golden": [{}],
    "preprocessing.long_edge": "round",
    "preprocessing.exif": "ignore",
    "preprocessing.scale": True,
    "head.activation": 1,
    "tools": {"onnx": 1},
    "parity": [],
    "parity.cross_check": {"other": 3},
    "encoder.family": "\ud800a",
    "training": {"loss": float("nan")},
    "training.curve": json.loads("[" * 400 + "]" * 400),
    "training.note": "\udfff",
}


@pytest.mark.parametrize(("path", "value"), WRONG.items(), ids=WRONG.keys())
def test_each_wrong_field_is_named(edited: Edited, path: str, value: object):
    with pytest.raises(SpecError, match=rf"edited\.onnx: spec\.{path}\b"):
        read_spec(edited(put(path, value)))


def test_damaged_base64_is_named(edited: Edited):
    with pytest.raises(SpecError, match=r"golden\[1\]\.png: expected base64"):
        read_spec(edited(lambda data: data["golden"][1].update(png="***")))


@pytest.mark.parametrize("path", ["labels", "encoder", "preprocessing.size", "head.activation"])
def test_each_missing_field_is_named(edited: Edited, path: str):
    def change(data: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for name in parents:
            data = data[name]
        del data[last]

    with pytest.raises(SpecError, match=f"'{path.rpartition('.')[2]}' is missing"):
        read_spec(edited(change))


@pytest.mark.parametrize("text", ["", "not json", "[]", "7", "[" * 100_000, '{"version": "1.0"'])
def test_other_texts_are_refused(edited: Edited, text: str):
    with pytest.raises(SpecError, match=r"edited\.onnx: spec"):
        read_spec(edited(text))


def test_endless_metadata_is_refused(demo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metadata, "MAX_SPEC_BYTES", 1000)
    with pytest.raises(SpecError, match="characters of metadata"):
        read_spec(demo)


def test_numbers_survive_as_they_are(demo: Path):
    spec = read_spec(demo)
    assert json.loads(spec.to_json())["golden"][0]["logits"] == list(spec.golden[0].logits)


def ascii_id(value: object) -> str:
    return ascii(value)[:12]


@pytest.mark.parametrize("version", [None, 1, "", "one", "\u00b2", "9" * 5000], ids=ascii_id)
def test_what_is_no_version_is_refused(edited: Edited, version: object):
    with pytest.raises(SpecError, match=r"spec: .*version"):
        read_spec(edited(put("version", version)))


NUMBERS = ["temperature", "head.dropout", "preprocessing.scale"]


@pytest.mark.parametrize("path", NUMBERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400], ids=["nan", "inf", "huge"])
def test_numbers_that_are_none_are_refused(edited: Edited, path: str, value: float):
    with pytest.raises(SpecError, match=path.rpartition(".")[2]):
        read_spec(edited(put(path, value)))


def test_labels_head_and_encoder_must_fit(edited: Edited):
    def no_labels(data: dict[str, Any]) -> None:
        data["labels"] = []
        data["head"]["layers"][-1] = 0

    def another_encoder(data: dict[str, Any]) -> None:
        data["encoder"]["dim"] += 1

    for change, said in [(no_labels, "labels"), (another_encoder, r"head\.layers: .* inputs")]:
        with pytest.raises(SpecError, match=rf"spec\.{said}"):
            read_spec(edited(change))


def test_base64_beyond_ascii_is_named(edited: Edited):
    with pytest.raises(SpecError, match=r"golden\[0\]\.png: expected base64"):
        read_spec(edited(lambda data: data["golden"][0].update(png="\u00e9")))
