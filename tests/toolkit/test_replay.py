"""Golden vectors."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clip_toolkit import Classifier, Outputs, SpecError, load, selftest
from clip_toolkit.replay import OTHER_PROVIDER_FACTOR, TOLERANCES
from clip_toolkit.runtime.session import Session
from clip_toolkit.spec.model_file import read_spec

Edited = Callable[..., Path]


def test_the_built_in_model_passes_on_both_paths(classifier: Classifier):
    drifts = selftest(classifier)
    assert {(drift.path, drift.output) for drift in drifts} == {
        (path, output) for path in ("pillow", "graph") for output in ("probabilities", "logits", "embedding")
    }
    assert all(drift.passed for drift in drifts)
    assert max(drift.drift for drift in drifts if drift.path == "pillow") > 0  # it was really computed


@pytest.mark.parametrize("output", ["probabilities", "logits", "embedding"])
def test_tampered_numbers_fail_without_a_crash(edited: Edited, output: str):
    def change(data: dict[str, Any]) -> None:
        data["golden"][1][output][0] += 0.2

    failed = {drift.output for drift in selftest(load(edited(change), device="cpu")) if not drift.passed}
    assert failed == {output}


def test_drift_of_probabilities_is_absolute(edited: Edited):
    def halve(data: dict[str, Any]) -> None:
        for vector in data["golden"]:
            vector["probabilities"] = [value / 2 for value in vector["probabilities"]]

    highest = max(max(vector.probabilities) for vector in read_spec(edited(lambda _: None)).golden)
    drifts = selftest(load(edited(halve), device="cpu"))
    (drift,) = (d.drift for d in drifts if (d.path, d.output) == ("pillow", "probabilities"))
    assert drift == pytest.approx(highest / 2, abs=1e-3)


def test_a_tampered_picture_fails(edited: Edited):
    def change(data: dict[str, Any]) -> None:
        data["golden"][0]["png"] = data["golden"][1]["png"]

    assert not all(drift.passed for drift in selftest(load(edited(change), device="cpu")))


DAMAGED = {
    "no vectors": (lambda golden: golden.clear(), "no golden vectors"),
    "no picture": (lambda golden: golden[0].update(png="AAAA"), "golden vector 0 is damaged"),
    "short logits": (lambda golden: golden[1]["logits"].pop(), "golden logits"),
    "long embedding": (lambda golden: golden[0]["embedding"].append(0.0), "golden embedding"),
}


@pytest.mark.parametrize(("change", "said"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_vectors_are_named(edited: Edited, change: Callable[[Any], object], said: str):
    with pytest.raises(SpecError, match=said):
        selftest(load(edited(lambda data: change(data["golden"])), device="cpu"))


def test_nan_does_not_pass(demo: Path, monkeypatch: pytest.MonkeyPatch):
    classifier = load(demo, device="cpu")
    run = classifier.run
    monkeypatch.setattr(classifier, "run", lambda *batch: Outputs(*(values * np.nan for values in run(*batch))))
    assert not any(drift.passed for drift in selftest(classifier))


def test_other_providers_may_drift_further_and_do_not_resize(classifier: Classifier):
    elsewhere = Classifier(classifier.spec, Session(classifier._session._inner, "CUDAExecutionProvider"))
    drifts = selftest(elsewhere)
    assert {drift.path for drift in drifts} == {"pillow"}
    assert {drift.tolerance for drift in drifts} == {TOLERANCES["pillow"] * OTHER_PROVIDER_FACTOR}


def test_golden_pictures_may_not_be_bombs(edited: Edited):
    def change(data: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        Image.new("1", (4000, 4000)).save(buffer, "PNG")
        data["golden"][2]["png"] = base64.b64encode(buffer.getvalue()).decode()

    with pytest.raises(SpecError, match=r"golden vector 2 is damaged.*pixels"):
        selftest(load(edited(change), device="cpu"))
