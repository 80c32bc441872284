"""Several heads on one encoder in one file: each is read, proved, quantized and held to the notebook's answers."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clip_export.commands.export_quantization import flip_lines
from clip_export.encoders.image import Encoder
from clip_export.expect.proving import Expected
from clip_export.expect.reading import read_answers
from clip_export.exporting import ExportOptions, _answering, _quantized, export_classifier
from clip_export.heads.files import TrainedHead, load_head
from clip_export.heads.reading import Reading
from clip_export.heads.several import named_labels, parts_of
from clip_export.proof.reference import pixel_values
from clip_export.quantization.evidence.gate import Decisions
from clip_export.quantization.evidence.images import LabelledImage
from clip_export.quantization.quantizing import Attempt, QuantizationOptions, refusal
from clip_export.quantization.targets import TARGETS
from clip_export.samples.pictures import picture
from clip_toolkit import ModelSpec, Prediction, load, selftest
from clip_toolkit.errors import ExpectError, HeadError, ParityError
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.receipts import Flip
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL
from commands_in_process import run

LABELS = {"kind": ("ant", "bee", "cow"), "sex": ("f", "m"), "age": ("years",)}
READING = Reading(tasks=(("age", REGRESSION),))

CLASS = """
import torch
from torch import nn

class Tasks(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.kind = nn.Sequential(nn.Linear(dim, 16), nn.ReLU(), nn.Linear(16, 3))
        self.sex, self.age = nn.Linear(dim, 2), nn.Linear(dim, 1)

    def forward(self, x):
        return {"kind": self.kind(x), "sex": self.sex(x), "age": self.age(x)}
"""


class Tasks(NamedTuple):
    """A notebook with three heads on one feature."""

    encoder: Encoder
    paths: list[Path]
    features: Tensor
    heads: nn.ModuleDict

    @property
    def answers(self) -> dict[str, Tensor]:
        with torch.inference_mode():
            return {name: head(self.features) for name, head in self.heads.items()}


@pytest.fixture(scope="module")
def tasks(encoder: Callable[..., Encoder], tmp_path_factory: pytest.TempPathFactory) -> Tasks:
    used, folder = encoder("clip-crop"), tmp_path_factory.mktemp("tasks")
    paths = [folder / f"{number}.png" for number in range(18)]
    for number, path in enumerate(paths):
        picture(40 + number, 60, number).save(path)
    with torch.inference_mode():
        features = torch.cat([used.features(pixel_values(used, path.read_bytes())) for path in paths])
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        kind = nn.Sequential(nn.Linear(used.dim, 16), nn.ReLU(), nn.Linear(16, 3))
        heads = nn.ModuleDict({"kind": kind, "sex": nn.Linear(used.dim, 2), "age": nn.Linear(used.dim, 1)})
        for head in heads.values():  # of trained scale
            last = head[-1] if isinstance(head, nn.Sequential) else head
            last.weight *= 3 / head(features).std(0).clamp_min(1e-6)[:, None]
            last.bias -= head(features).mean(0)
    return Tasks(used, paths, features, heads.eval())


def saved(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "heads.pt")
    return folder / "heads.pt"


def prefixed(tasks: Tasks, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in tasks.heads.state_dict().items()}


def answers_file(tasks: Tasks, path: Path, **changed: Tensor) -> Path:
    columns: dict[str, list[object]] = {"path": [str(item) for item in tasks.paths]}
    for name, values in (tasks.answers | changed).items():
        kind = "logit" if name == "age" else "p"
        shown = values if name == "age" else values.softmax(1)
        columns |= {f"{name}.{kind}:{label}": shown[:, i].tolist() for i, label in enumerate(LABELS[name])}
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    return path


def expected(path: Path) -> Expected:
    main, *further = LABELS
    return Expected(read_answers(path, main), further={name: read_answers(path, name) for name in further})


def same_logits(head: TrainedHead, tasks: Tasks) -> None:
    heads = {item.name: item for item in (head, *head.further)}
    assert [*heads] == [*LABELS]
    for name, item in heads.items():
        assert (item.labels, item.task) == (LABELS[name], REGRESSION if name == "age" else SINGLE_LABEL)
        with torch.inference_mode():
            torch.testing.assert_close(item.module(tasks.features), tasks.answers[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "heads.", "model.heads."])
def test_state_dicts_of_several_heads(prefix: str, tasks: Tasks, tmp_path: Path):
    same_logits(load_head(saved(prefixed(tasks, prefix), tmp_path), READING, LABELS), tasks)


@pytest.mark.parametrize("form", [list, lambda names: {name: index for index, name in enumerate(names)}])
def test_labels_in_the_checkpoint(form: Callable[[Any], object], tasks: Tasks, tmp_path: Path):
    labels = {name: form(own) for name, own in LABELS.items()}
    path = saved({"state_dict": prefixed(tasks, "heads."), "classes": labels}, tmp_path)
    same_logits(load_head(path, READING), tasks)
    with pytest.raises(HeadError, match="in another order: m, f"):
        load_head(path, READING, LABELS | {"sex": ("m", "f")})


def test_a_class_that_returns_a_dict(tasks: Tasks, tmp_path: Path):
    (tmp_path / "notebook.py").write_text(CLASS)
    given = replace(READING, head_class=f"{tmp_path}/notebook.py:Tasks", head_args=(("dim", tasks.encoder.dim),))
    same_logits(load_head(saved(prefixed(tasks, ""), tmp_path), given, LABELS), tasks)
    with pytest.raises(HeadError, match="holds the heads kind, sex, age, but their labels are not known"):
        load_head(tmp_path / "heads.pt", given)


def test_what_is_said_of_other_heads_is_refused(tasks: Tasks, tmp_path: Path):
    path = saved(prefixed(tasks, "heads."), tmp_path)
    with pytest.raises(
        HeadError, match=r"on one feature \(kind, sex, age\), give the labels of each with --labels NAME"
    ):
        load_head(path)
    with pytest.raises(HeadError, match="holds the heads kind, sex, age, but --labels name kind, sex"):
        load_head(path, READING, {"kind": LABELS["kind"], "sex": LABELS["sex"]})
    with pytest.raises(HeadError, match="--task names years, but the heads are kind, sex, age"):
        load_head(path, Reading(tasks=(("years", REGRESSION),)), LABELS)
    one = saved(tasks.heads["sex"].state_dict(), tmp_path)
    with pytest.raises(HeadError, match="holds one head, and --labels or --task name several"):
        load_head(one, None, LABELS)
    with pytest.raises(HeadError, match="holds one head"):
        load_head(one, READING)


def test_names_and_labels_as_they_are_typed():
    assert named_labels(["kind=ant,bee,cow", "age=years"]) == {"kind": ("ant", "bee", "cow"), "age": ("years",)}
    assert named_labels(["ant", "bee"]) == named_labels(["a=b", "cow"]) == named_labels(None) == {}
    weights = {f"model.heads.{name}": torch.zeros(1) for name in ("a.0.weight", "a.2.weight", "b.weight")}
    assert {name: [*own] for name, own in parts_of(weights).items()} == {"a": ["0.weight", "2.weight"], "b": ["weight"]}


@pytest.fixture(scope="module")
def head(tasks: Tasks, tmp_path_factory: pytest.TempPathFactory) -> TrainedHead:
    return load_head(saved(prefixed(tasks, ""), tmp_path_factory.mktemp("head")), READING, LABELS)


class Exported(NamedTuple):
    """The file, its spec, and the notebook's answers that it was held to."""

    path: Path
    spec: ModelSpec
    expected: Expected


@pytest.fixture(scope="module")
def exported(tasks: Tasks, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """By the command."""
    folder = tmp_path_factory.mktemp("exported")
    answers = answers_file(tasks, folder / "e.csv")
    arguments = arguments_for(tasks, saved(prefixed(tasks, "heads."), folder))
    done = run("clip-export", *arguments, "--expect", answers, "-o", "m.onnx", cwd=folder)
    assert done.returncode == 0, done.stderr
    shown = done.stdout + done.stderr
    assert "sex read as: linear to 2" in shown
    assert "age notebook's answers: 18 rows" in shown
    assert "kind labels: ant, bee, cow; sex labels: f, m; age labels: years" in shown
    return Exported(folder / "m.onnx", read_spec(folder / "m.onnx"), expected(answers))


def arguments_for(tasks: Tasks, path: Path) -> list[object]:
    given = [f"{name}={','.join(labels)}" for name, labels in LABELS.items()]
    return ["--head", path, "--encoder", tasks.encoder.id, "--labels", *given, "--task", "age=regression"]


def test_one_file_gives_the_notebooks_answers_of_every_head(tasks: Tasks, exported: Exported):
    classifier = load(exported.path, device="cpu")
    for found, *rows in zip(classifier.predict_many(tasks.paths), *tasks.answers.values(), strict=True):
        assert isinstance(found, Prediction)
        for answer, row in zip((found, *found.tasks.values()), rows, strict=True):
            np.testing.assert_allclose(answer.logits, row.numpy(), atol=1e-4)
    for name, own in exported.spec.heads.items():
        assert own.parity is not None
        assert own.notebook is not None
        assert own.notebook.compared == ("logits" if name == "age" else "probabilities")
    assert all(item.passed for item in selftest(classifier))


def test_answers_that_differ_for_one_head_alone_are_refused(
    tasks: Tasks, head: TrainedHead, exported: Exported, tmp_path: Path
):
    wrong = expected(answers_file(tasks, tmp_path / "e.csv", sex=tasks.answers["sex"][:, [1, 0]]))
    classifier = load(exported.path, device="cpu")
    heads = {item.name: item for item in (head, *head.further)}
    with pytest.raises(ParityError, match=r"^sex: expect: .*--labels m f.*No file was written\. Of several heads"):
        _answering(exported.spec, wrong, classifier.heads, tasks.encoder, heads)


def test_answers_are_asked_for_of_every_head(tasks: Tasks, tmp_path: Path):
    path = answers_file(tasks, tmp_path / "e.csv")
    path.write_text(path.read_text().replace("sex.p:", "gender.p:"))
    with pytest.raises(ExpectError, match=r"answers of sex: expected columns such as sex\.logits or sex\.p:NAME"):
        read_answers(path, "sex")


def test_quantized_receipts_are_of_every_head(tasks: Tasks, head: TrainedHead, exported: Exported, tmp_path: Path):
    asked = QuantizationOptions("fp16", TARGETS["x86"], min_agreement=0.8)
    options = ExportOptions(expected=exported.expected, quantization=asked)
    done = _quantized(exported.path, exported.spec, head, tasks.encoder, options, output=tmp_path / "m.onnx")
    assert done.quantized is not None
    assert [*done.quantized.decisions] == [*LABELS]
    for own in done.spec.heads.values():
        assert own.quantization is not None
        assert own.notebook is not None
        assert own.notebook.quantized is not None
    assert load(tmp_path / "m.onnx", device="cpu").spec == done.spec
    assert all(item.passed for item in selftest(load(tmp_path / "m.onnx", device="cpu")))


def test_the_head_that_fares_worst_is_named():
    flips = (("1.png", Flip("f", 0.6, "m", 0.7)),)
    decisions = Decisions(100, 0.9, flips, 0.1, 0.5, None, None)
    attempt = Attempt("static", "sex", SINGLE_LABEL, decisions)
    error = refusal(QuantizationOptions("int8", TARGETS["x86"]), [attempt], can_refit=False)
    assert "--refit" not in str(error)  # which files of several heads refuse
    assert str(error).startswith("int8: sex decides as the float file on 90.00% of 100 images")
    assert [*flip_lines({"kind": replace(decisions, flips=()), "sex": decisions})] == [
        "flip: sex: 1.png: f 60.0% -> m 70.0%"
    ]


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--temperature", "2"], "--temperature does not say of which head"),
        (["--triton", "models"], "has several heads, and --triton writes configurations of one"),
        (["--labels", "sex=f,m", "kind=ant,bee"], "holds the heads kind, sex, age, but --labels name sex, kind"),
        (["--labels", "sex=f,m", "kind=ant,bee", "age=years"], "the head has 3 outputs, but 2 labels"),
    ],
)
def test_what_does_not_go_with_several_heads(extra: list[str], said: str, tasks: Tasks, tmp_path: Path):
    path = saved(prefixed(tasks, "heads."), tmp_path)
    done = run("clip-export", *arguments_for(tasks, path), *extra, "-o", "other.onnx", cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert not (tmp_path / "other.onnx").exists()


def test_a_refit_goes_with_one_head(tasks: Tasks, head: TrainedHead, tmp_path: Path):
    image = LabelledImage(tmp_path, "a.png", 0, np.zeros((1, 1, 3), np.uint8), "")
    asked = QuantizationOptions("int8", TARGETS["x86"], refit=(image,))
    with pytest.raises(HeadError, match="--refit goes with a file of one head"):
        export_classifier(head, tasks.encoder, tmp_path / "m.onnx", options=ExportOptions(quantization=asked))
