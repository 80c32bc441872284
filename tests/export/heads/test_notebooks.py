"""State_dicts of the heads people save: read as the notebook computed them, or refused by saying what is missing."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from head_forms import FORMS, LABELS, Form, trained
from safetensors.torch import save_file
from torch import nn

from clip_export.expect.answers import Answers
from clip_export.expect.comparing import compare
from clip_export.heads.checkpoints import agreed_labels
from clip_export.heads.files import TrainedHead, load_head
from clip_export.heads.given_head import GivenHead
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.reading import Reading
from clip_toolkit.errors import HeadError
from clip_toolkit.spec.tasks import SINGLE_LABEL

DIM = 20
FEATURES = torch.randn(300, DIM, generator=torch.Generator().manual_seed(3)) * 2 + 0.5


def saved(form: Form, folder: Path) -> Path:
    torch.save(form.wrap(trained(form, DIM).state_dict()), folder / "head.pt")
    return folder / "head.pt"


def reading(form: Form, **changes: object) -> Reading:
    options = dict(form.options) | changes
    if "feature_norm" in options:
        options["feature_norm"] = options["feature_norm"] == "l2"
    return Reading(**options)  # type: ignore[arg-type]


def differences(form: Form, head: TrainedHead) -> float:
    with torch.inference_mode():
        return float((head.module(FEATURES) - form_outputs(form)).abs().max())


def form_outputs(form: Form) -> torch.Tensor:
    with torch.inference_mode():
        return form.logits(trained(form, DIM)(FEATURES))


ROUNDED = {"float16", "bfloat16", "ends in a softmax"}
"""Forms whose weights or answers were rounded when they were saved, so that they may miss the tolerance."""
READABLE = [name for name, form in FORMS.items() if form.readable and name not in {"residual", "ends in a softmax"}]


@pytest.mark.parametrize("name", READABLE)
def test_state_dicts_are_read_as_the_notebook_computed_them(name: str, tmp_path: Path):
    form = FORMS[name]
    tolerance = {"float16": 0.02, "bfloat16": 0.1}.get(name, 2e-5)
    head = load_head(saved(form, tmp_path), reading(form))
    assert differences(form, head) < tolerance
    assert head.module.spec.source == "state_dict"
    assert "on the pooled" in head.module.spec.reading("pooled")


@pytest.mark.parametrize(
    "name", [name for name, form in FORMS.items() if form.readable and not name.startswith("multi-label")]
)
def test_no_form_passes_with_other_decisions_than_the_notebooks(name: str, tmp_path: Path):
    """Read without any option: the answers of 300 features pass only if every decision is the notebook's."""
    form, wanted = FORMS[name], form_outputs(FORMS[name])
    head = load_head(saved(form, tmp_path))
    with torch.inference_mode():
        logits = head.module(FEATURES)
    answers = Answers(features=FEATURES.numpy(), logits=wanted.double().numpy())
    found = compare(answers, logits.double().numpy(), SINGLE_LABEL, form.labels)
    equal = bool((logits.argmax(1) == wanted.argmax(1)).all())
    assert equal or not found.passed
    exact = name not in ROUNDED and (form.told or name == "regression")
    assert found.passed == exact or name in ROUNDED


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if not form.readable])
def test_what_cannot_be_read_is_refused_with_a_way_out(name: str, tmp_path: Path):
    with pytest.raises(HeadError, match="--head-class"):
        load_head(saved(FORMS[name], tmp_path), reading(FORMS[name]))


CLASSES = {
    "course": "Course",
    "residual": "Residual",
    "gated": "Gated",
    "ends in a softmax": "WithSoftmax",
    "prelu": "Slow",
    "normalised feature": "Normalising",
    "cosine and logit scale": "Cosine",
    "temperature": "Tempered",
    "batch norm by attributes": "Named",
    "two heads": "TwoTasks",
}


@pytest.mark.parametrize("name", CLASSES)
def test_any_head_by_its_class(name: str, tmp_path: Path):
    form = FORMS[name]
    source = Path(__file__).with_name("head_forms.py")
    argument = ("input_dim", DIM) if name == "course" else ("dim", DIM)
    given = Reading(head_class=f"{source}:{CLASSES[name]}", head_args=(argument,), task="single-label")
    head = load_head(saved(form, tmp_path), given)
    assert isinstance(head.module, GivenHead)
    assert differences(form, head) < 2e-5


def test_batch_norm_is_folded_away(tmp_path: Path):
    head = load_head(saved(FORMS["batch norm before relu"], tmp_path))
    assert isinstance(head.module, VLMtoMLP)
    assert head.module.spec.reading("pooled").startswith("16 -> batch norm -> relu -> 3")


def test_norm_position_is_an_option(tmp_path: Path):
    form = FORMS["batch norm by attributes"]
    assert differences(form, load_head(saved(form, tmp_path), Reading(norm_position="after"))) > 0.1
    assert differences(form, load_head(saved(form, tmp_path), Reading(norm_position="before"))) < 2e-5
    with pytest.raises(HeadError, match="has neither"):
        load_head(saved(FORMS["linear"], tmp_path), Reading(norm_position="after"))


def test_labels_in_a_checkpoint_are_read_and_cross_checked(tmp_path: Path):
    path = saved(FORMS["with its classes"], tmp_path)
    assert load_head(path).labels == LABELS
    agreed_labels(LABELS, LABELS, path)
    for given, message in ((LABELS[::-1], "in another order"), (("a", "b", "c"), "with other names")):
        with pytest.raises(HeadError, match=message):
            agreed_labels(LABELS, given, path)


@pytest.mark.parametrize(
    "labels",
    [
        {"classes": list(LABELS)},
        {"id2label": dict(enumerate(LABELS))},
        {"label2id": {n: i for i, n in enumerate(LABELS)}},
    ],
)
def test_other_names_for_labels(labels: dict[str, object], tmp_path: Path):
    torch.save({"state_dict": trained(FORMS["linear"], DIM).state_dict()} | labels, tmp_path / "head.pt")
    assert load_head(tmp_path / "head.pt").labels == LABELS


def test_encoder_and_head_in_one_checkpoint(tmp_path: Path):
    head = {f"mlp_head.{name}": value for name, value in trained(FORMS["course"], DIM).state_dict().items()}
    patches = {"embeddings.patch_embedding.weight": torch.ones(4, 3, 2, 2), "post_layernorm.bias": torch.ones(4)}
    tower = {f"clip.vision_model.{name}": value for name, value in patches.items()}
    rest = {"clip.logit_scale": torch.tensor(4.6), "clip.text_model.a.weight": torch.ones(2, 2)}
    torch.save(tower | rest | head, tmp_path / "all.pt")
    loaded = load_head(tmp_path / "all.pt")
    assert set(loaded.tower) == set(patches)
    assert differences(FORMS["course"], loaded) < 2e-5
    torch.save(tower | {f"second.{name}": value for name, value in tower.items()} | head, tmp_path / "two.pt")
    with pytest.raises(HeadError, match="holds two encoders"):
        load_head(tmp_path / "two.pt")


def hostile(folder: Path, weights: object) -> str:
    torch.save(weights, folder / "head.pt")
    with pytest.raises(HeadError) as caught:
        load_head(folder / "head.pt")
    return str(caught.value)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int8, torch.bool])
def test_weights_that_are_no_floating_point_numbers(dtype: torch.dtype, tmp_path: Path):
    assert str(dtype).removeprefix("torch.") in hostile(tmp_path, {"fc.weight": torch.ones(3, DIM).to(dtype)})


def test_claims_beyond_what_is_stored(tmp_path: Path):
    assert "claims" in hostile(tmp_path, {"fc.weight": torch.zeros(1).expand(100_000, 20_000)})


def test_a_dictionary_that_holds_itself(tmp_path: Path):
    loop: dict[str, object] = {}
    loop["model"] = {"state_dict": loop}
    assert "expected a state_dict" in hostile(tmp_path, loop)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80", b"no weights"])
def test_what_is_no_pytorch_file_is_refused_with_a_reason(content: bytes, tmp_path: Path):
    (tmp_path / "head.pt").write_bytes(content)
    with pytest.raises(HeadError, match=r"not a readable PyTorch file \(\w|Python objects instead") as caught:
        load_head(tmp_path / "head.pt")
    assert "file ()" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "said"),
    [(("proj", "dense", "zout"), "several orders; save the head as .pt"), (("fc1", "fc2", "out"), None)],
)
def test_the_alphabet_is_no_order_of_layers(names: tuple[str, ...], said: str | None, tmp_path: Path):
    head = nn.Sequential(OrderedDict(zip(names, (nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)), strict=True)))
    save_file(head.state_dict(), tmp_path / "head.safetensors")  # which sorts the tensors by name
    if said is not None:
        with pytest.raises(HeadError, match=said):
            load_head(tmp_path / "head.safetensors")
        return
    features = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    first, second, last = head
    expected = last(torch.relu(second(torch.relu(first(features)))))
    torch.testing.assert_close(load_head(tmp_path / "head.safetensors").module(features), expected)
