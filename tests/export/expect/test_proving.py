"""The notebook's answers through the finished file, and by the command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from notebooks import LABELS, Notebook, make_notebook
from torch.nn import functional

from clip_export.commands.export_options import parse_args
from clip_export.encoders.image import Encoder
from clip_export.expect import save
from clip_export.expect.proving import Expected, prove_answers
from clip_export.expect.reading import read_answers
from clip_export.heads.alternatives import alternatives
from clip_export.heads.files import load_head
from clip_toolkit import load
from clip_toolkit.errors import ExpectError, ParityError
from clip_toolkit.spec.evidence import notebook_text
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.receipts import NotebookReceipt
from commands_in_process import Done, run

EncoderOf = Callable[..., Encoder]


class Exported(NamedTuple):
    """A notebook's head as a file, exported without its answers."""

    notebook: Notebook
    model: Path
    done: Done

    def prove(self, answers: Path) -> NotebookReceipt:
        """Hold the file against answers."""
        heads = alternatives(load_head(self.notebook.file))
        return prove_answers(
            load(self.model, device="cpu"), Expected(read_answers(answers)), self.notebook.encoder, heads
        )


@pytest.fixture(scope="module")
def exported(encoder: EncoderOf, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("notebook")
    notebook = make_notebook(encoder("clip"), folder)
    return Exported(notebook, folder / "model.onnx", export(notebook, folder, "--labels", *LABELS))


def export(notebook: Notebook, folder: Path, *arguments: object) -> Done:
    known = ("--head", notebook.file, "--encoder", notebook.encoder.id, "-o", folder / "model.onnx")
    return run("clip-export", *known, *arguments, cwd=folder)


def write_csv(path: Path, header: str, notebook: Notebook, cells: Sequence[str]) -> Path:
    rows = [f"{image},{cell}" for image, cell in zip(notebook.paths, cells, strict=False)]
    path.write_text("\n".join([header, *rows]))
    return path


def test_without_answers_the_export_says_what_it_assumed_and_how_to_prove_it(exported: Exported):
    assert exported.done.returncode == 0, exported.done.stderr
    assert "assumed: parity is of this reading" in exported.done.stdout
    assert "np.savez(" in exported.done.stdout
    described = run("clip-infer", "--describe", exported.model, cwd=exported.model.parent).stdout
    assert "24 -> relu -> 3 on the pooled, un-normalised feature" in described
    assert "assumed: parity is of this reading" in described


def test_the_notebooks_answers_are_proved_recorded_and_described(exported: Exported, tmp_path: Path):
    """Without --labels: the answers name them."""
    notebook = exported.notebook
    save(tmp_path / "e.npz", notebook.paths, notebook.answers, labels=LABELS)
    undecided = export(notebook, tmp_path, "--expect", tmp_path / "e.npz")
    assert undecided.returncode == 1
    assert "logits alone" in undecided.stderr
    assert "--task single-label, multi-label, regression" in undecided.stderr
    done = export(notebook, tmp_path, "--expect", tmp_path / "e.npz", "--task", "single-label")
    assert done.returncode == 0, done.stderr
    assert "read as: 24 -> relu -> 3 on the pooled, un-normalised feature, from a notebook's state_dict" in done.stdout
    assert "notebook's answers: all 24 decisions equal, logits within" in done.stdout
    assert "assumed: a softmax, not a sigmoid of each or raw values (--task)" in done.stdout
    assert "assumed: parity" not in done.stdout
    spec = read_spec(tmp_path / "model.onnx")
    assert (spec.labels, spec.notebook.rows, spec.notebook.through) == (LABELS, 24, "images")
    assert spec.notebook.difference < 1e-4 * spec.notebook.scale
    assert "all 24 decisions equal" in run("clip-infer", "--describe", "model.onnx", cwd=tmp_path).stdout
    assert str(tmp_path) not in spec.to_json()


def test_coefficients_tell_no_more_of_the_task_than_weights(exported: Exported, tmp_path: Path):
    notebook = exported.notebook
    coefficients = {"coef_": np.ones((3, notebook.features.shape[1])), "intercept_": np.zeros(3)}
    np.savez(tmp_path / "head.npz", **coefficients)
    save(tmp_path / "e.npz", notebook.paths, notebook.answers, labels=LABELS)
    known = ("--head", "head.npz", "--encoder", notebook.encoder.id, "--expect", "e.npz", "-o", "model.onnx")
    done = run("clip-export", *known, cwd=tmp_path)
    assert done.returncode == 1
    assert "logits alone" in done.stderr


def test_other_answers_leave_no_file(exported: Exported, tmp_path: Path):
    notebook = exported.notebook
    (tmp_path / "model.onnx").write_bytes(b"an earlier one")
    logits = notebook.logits(notebook.features, functional.gelu)
    save(tmp_path / "e.npz", notebook.paths, logits, probabilities=logits.softmax(1), labels=LABELS)
    done = export(notebook, tmp_path, "--expect", "e.npz")
    assert done.returncode == 1
    assert "What explains it: the notebook had gelu between the head's layers" in done.stderr
    assert "No file was written" in done.stderr
    assert (tmp_path / "model.onnx").read_bytes() == b"an earlier one"


def test_rounded_probabilities_and_few_rows_are_said_to_prove_little(exported: Exported, tmp_path: Path):
    rows = [",".join(f"{value:.3f}" for value in row) for row in exported.notebook.answers.softmax(1).tolist()]
    path = write_csv(tmp_path / "e.csv", "path,p:ant,p:bee,p:cow", exported.notebook, rows[:6])
    found = exported.prove(path)
    assert found.tells_task
    text = notebook_text(found, "single-label")
    assert "all 6 decisions equal, probabilities within" in text
    assert "only 6 answers, which prove little" in text


def test_labels_alone_are_a_weaker_proof(exported: Exported, tmp_path: Path):
    said = [LABELS[i] for i in exported.notebook.answers.argmax(1)]
    path = write_csv(tmp_path / "e.csv", "path,label", exported.notebook, said)
    assert "which say nothing of the probabilities" in notebook_text(exported.prove(path), "single-label")
    wrong = write_csv(
        tmp_path / "e.csv", "path,label", exported.notebook, ["cow" if said[0] == "ant" else "ant", *said[1:]]
    )
    with pytest.raises(ParityError, match=r"decides otherwise than the notebook on 1 of 24 rows \(0.png\)"):
        exported.prove(wrong)


def test_features_prove_the_head_alone(exported: Exported, tmp_path: Path):
    notebook = exported.notebook
    save(tmp_path / "e.npz", features=notebook.features, logits=notebook.answers, labels=LABELS)
    text = notebook_text(exported.prove(tmp_path / "e.npz"), "single-label")
    assert "encoder and preprocessing are not part of it" in text
    save(tmp_path / "e.npz", features=notebook.features[:, :5], logits=notebook.answers)
    with pytest.raises(ExpectError, match="features: expected 48 columns, got 5"):
        exported.prove(tmp_path / "e.npz")


def test_probabilities_that_do_not_sum_to_one_are_said_to_be(exported: Exported, tmp_path: Path):
    save(tmp_path / "e.npz", exported.notebook.paths, probabilities=exported.notebook.answers.sigmoid(), labels=LABELS)
    with pytest.raises(ParityError, match=r"do not sum to 1 \(row .* with a sigmoid.*--task multi-label"):
        exported.prove(tmp_path / "e.npz")


def test_an_undecodable_image_is_named(exported: Exported, tmp_path: Path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG")
    np.savez(tmp_path / "e.npz", image=["bad.png"], logits=np.zeros((1, 3)), labels=LABELS)
    with pytest.raises(ExpectError, match=r"bad\.png"):
        exported.prove(tmp_path / "e.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--expect-tolerance", 0.1), "--expect-tolerance needs --expect"),
        (("--temperature", 2, "--task", "regression"), "--temperature does not apply to a regression"),
    ],
)
def test_options_that_do_not_go_together(
    capsys: pytest.CaptureFixture[str], arguments: tuple[object, ...], message: str
):
    with pytest.raises(SystemExit):
        parse_args(["--head", "head.pt", *map(str, arguments)])
    assert message in capsys.readouterr().err
