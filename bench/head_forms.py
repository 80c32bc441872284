"""``bench/head_forms.py``: notebooks' heads through clip-export; ``--write`` puts the table into docs/notebooks.md.

Each head is exported bare (its state_dict alone), with its class, and with the notebook's answers, each time without
options that say more of it. Every file that is written decides on drawn pictures, as does the notebook's PyTorch model.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sections import replaced_section

from clip_export.commands.export import main as export
from clip_export.encoders.image import Encoder
from clip_export.expect import save
from clip_export.proof.reference import pixel_values
from clip_export.samples.pictures import picture
from clip_toolkit import Prediction, load
from clip_toolkit.spec.evidence import notebook_rows

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests" / "export"
sys.path[:0] = [str(TESTS), str(TESTS / "heads")]

from head_forms import FORMS, Form, trained  # noqa: E402  (tests are no package)

from tiny_models import cut_tiny_clip  # noqa: E402

PICTURES = 300
CLASS = """
from torch import nn
from head_forms import FORMS

class Head(nn.Module):
    def __new__(cls, form, dim):
        return FORMS[form].make(dim)
"""
INTRODUCTION = """\
Each exported bare, with its class and with its answers, without any other option; decisions on 300 drawn pictures that
differ from the notebook's, and the largest difference of a probability (of a regression, of a value). Several sigmoids
and a regression say nothing of the task in their weights, and need `--task multi-label` and `--task regression`.
Answers of weights that were then saved in bfloat16 differ, until the notebook loads what it saved
(`bench/head_forms.py`).
"""
COLUMNS = ("bare", "`--head-class`", "`--expect`")


class Notebook(NamedTuple):
    """What every head is tried on."""

    folder: Path
    paths: list[Path]
    features: torch.Tensor


class Answers(NamedTuple):
    """A model's answers: probabilities, or the values of a regression, and what is decided for each picture."""

    numbers: NDArray[np.float64]
    decisions: list[tuple[str, ...]]


def make_notebook(folder: Path) -> Notebook:
    """Draw the pictures and compute the features that every head reads."""
    encoder = Encoder.from_pretrained(str(cut_tiny_clip(folder / "encoder")))
    paths = [folder / f"{number}.png" for number in range(PICTURES)]
    for number, path in enumerate(paths):
        picture(40 + 7 * (number % 5), 44 + 9 * (number % 7), number).save(path)
    (folder / "notebook.py").write_text(CLASS)
    with torch.inference_mode():
        features = [encoder.features(pixel_values(encoder, path.read_bytes())) for path in paths]
    return Notebook(folder, paths, torch.cat(features))


def notebook_answers(form: Form, logits: torch.Tensor) -> Answers:
    """Return what the notebook makes of its logits."""
    task = form.options.get("task", "single-label")
    if task == "regression":
        return Answers(logits.double().numpy(), [()] * len(logits))
    if task == "multi-label":
        chances = logits.double().sigmoid().numpy()
        return Answers(chances, [tuple(np.array(form.labels)[row >= 0.5]) for row in chances])
    chances = logits.double().softmax(1).numpy()
    return Answers(chances, [(form.labels[row.argmax()],) for row in chances])


def file_answers(path: Path, notebook: Notebook) -> Answers:
    """Return what a finished file says of the same pictures."""
    found = [item for item in load(path, device="cpu").predict_many(notebook.paths) if isinstance(item, Prediction)]
    regression = found[0].task == "regression"
    numbers = np.stack([item.logits if regression else item.probabilities for item in found])
    return Answers(numbers.astype(np.float64), [() if regression else item.decisions for item in found])


def exported(form: Form, arguments: Sequence[object], notebook: Notebook) -> str | None:
    """Export to ``model.onnx``; return the refusal, or None."""
    model = notebook.folder / "model.onnx"
    model.unlink(missing_ok=True)
    said = io.StringIO()
    known = ("--head", notebook.folder / "head.pt", "--encoder", notebook.folder / "encoder", "-o", model)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = export([str(item) for item in (*known, "--labels", *form.labels, *arguments)])
    return f"refused: {reason(said.getvalue())}" if code else None


def outcome(notebook: Notebook, expected: Answers, *, proved: bool) -> str:
    """Compare the file with the notebook's model: a cell of the table, with what the export says of an unproved one."""
    model = notebook.folder / "model.onnx"
    found, spec = file_answers(model, notebook), load(model, device="cpu").spec
    differing = sum(a != b for a, b in zip(found.decisions, expected.decisions, strict=True))
    largest = float(np.abs(found.numbers - expected.numbers).max())
    said = notebook_rows(spec if proved else replace(spec, notebook=None))
    assumed = "assumed; " if any(text.startswith("assumed: ") for _, text in said) else ""
    return f"{assumed}{differing} differ, by up to {largest:.1g}"


def reason(said: str) -> str:
    """Return the part of a refusal that tells this form from others."""
    explained = re.search(r"(What explains it|Closest): (the notebook )?([^.]*(?:\.\d[^.]*)*)\.", said)
    if explained:
        return explained[3].strip()
    return next(
        (
            text
            for mark, text in {
                "None of the usual reasons": "no usual reason explains it: give its class",
                "which could be many things": "holds more than known layers: give its class",
                "form no chain": "layers form no chain: give its class, or the labels of each head",
                "logits alone": "logits alone, say --task",
                "looks like": "several heads: export each by itself",
            }.items()
            if mark in said
        ),
        said.strip().splitlines()[-1][:120],
    )


def rows(notebook: Notebook) -> Iterator[tuple[str, ...]]:
    """Export every form in every way, or those named on the command line."""
    asked = [argument for argument in sys.argv[1:] if argument != "--write"]
    for name, form in FORMS.items():
        if asked and name not in asked:
            continue
        head = trained(form, notebook.features.shape[1])
        torch.save(form.wrap(head.state_dict()), notebook.folder / "head.pt")
        with torch.inference_mode():
            logits = form.logits(head(notebook.features))
        expected = notebook_answers(form, logits)
        given = {} if form.options.get("task") == "regression" else {"probabilities": expected.numbers}
        save(notebook.folder / "expect.npz", notebook.paths, logits, labels=form.labels, **given)
        sizes = (f"form={name!r}", f"dim={notebook.features.shape[1]}")
        named = ("--head-class", f"{notebook.folder / 'notebook.py'}:Head", "--head-args", *sizes)
        proved = exported(form, ("--expect", notebook.folder / "expect.npz"), notebook)
        if proved is None:  # the same file as without --expect, but for the receipt
            proved, bare = (outcome(notebook, expected, proved=each) for each in (True, False))
        else:
            bare = exported(form, (), notebook) or outcome(notebook, expected, proved=False)
        yield name, bare, exported(form, named, notebook) or outcome(notebook, expected, proved=False), proved


def check(row: tuple[str, ...]) -> None:
    """Stop at a file that decides otherwise than the notebook whose answers it was held to, or hides its reading."""
    name, *unproved, proved = row
    said = all(cell.startswith(("refused: ", "assumed; ")) for cell in unproved)
    if not said or not proved.startswith(("refused: ", "0 differ")):
        raise SystemExit(f"{name}: exported with other decisions, or without saying what was assumed: {row}")


def main() -> None:
    """Print the table, and rewrite its section of the documentation."""
    lines = [INTRODUCTION, f"| head | {' | '.join(COLUMNS)} |", "| --- " * (1 + len(COLUMNS)) + "|"]
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(make_notebook(Path(folder))):
            check(row)
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
    if "--write" in sys.argv:
        path = ROOT / "docs" / "notebooks.md"
        path.write_text(replaced_section(path.read_text(), "Heads tried", lines))


if __name__ == "__main__":
    main()
