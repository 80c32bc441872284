"""What a model file says of its encoder's licence, and of what that forbids."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clip_toolkit import ModelSpec
from clip_toolkit.spec.description import describe
from clip_toolkit.spec.licenses import License, license_rows
from clip_toolkit.spec.model_file import read_spec

RESEARCH, NO_COMMERCE = "it allows research alone", "it forbids commercial use"

LICENSES = [
    (License("mit"), "mit", None),
    (License("apple-amlr"), "apple-amlr", RESEARCH),
    (License("other", "apple-amlr"), "other (apple-amlr)", RESEARCH),
    (License("apple-ascl"), "apple-ascl", None),
    (License("other", "dinov3-license", "https://x.org/l"), "other (dinov3-license), https://x.org/l", None),
    (License("cc-by-4.0"), "cc-by-4.0", None),
    (License("cc-by-nc-4.0"), "cc-by-nc-4.0", NO_COMMERCE),
    (License("CC-BY-NC-SA-4.0"), "CC-BY-NC-SA-4.0", NO_COMMERCE),
    (License("fair-noncommercial-research-license"), "fair-noncommercial-research-license", NO_COMMERCE),
    (License("other", "Acme Non-Commercial"), "other (Acme Non-Commercial)", NO_COMMERCE),
    (License("other", "acme-research-only"), "other (acme-research-only)", RESEARCH),
    (License("apple-amlr", base="a/b"), "apple-amlr of a/b", RESEARCH),
]


@pytest.mark.parametrize(("found", "text", "restriction"), LICENSES, ids=str)
def test_licence_and_what_it_forbids(found: License, text: str, restriction: str | None):
    [row, *further] = license_rows([found])
    assert row == ("licence", text)
    assert [line.startswith(str(restriction)) for _, line in further] == [True] * (restriction is not None)


def test_file_without_a_licence_says_so_and_has_no_field_for_it(demo: Path):
    assert "licenses" not in read_spec(demo).to_json()
    assert any("not stated" in line for line in describe(read_spec(demo), demo))


def test_licence_in_a_file_is_read_and_described(edited: Callable[..., Path]):
    def change(data: dict[str, Any]) -> None:
        data["encoder"]["licenses"] = [{"id": "cc-by-nc-4.0", "name": None, "link": None, "base": None}]

    path = edited(change)
    spec = read_spec(path)
    assert spec.encoder.licenses == (License("cc-by-nc-4.0"),)
    assert ModelSpec.from_json(spec.to_json()).encoder.licenses == spec.encoder.licenses
    assert any(NO_COMMERCE in line for line in describe(spec, path))


def test_encoder_is_the_same_under_another_licence(edited: Callable[..., Path], demo: Path):
    path = edited(lambda data: data["encoder"].update(licenses=[{"id": "mit"}]))
    assert read_spec(path).encoder == read_spec(demo).encoder
