"""How ``clip-export`` reads a notebook's head, and compares the file with the notebook's own answers."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clip_export.commands.export_options import NotebookOptions
from clip_export.expect import SNIPPET, SNIPPET_OF_SEVERAL
from clip_export.expect.answers import Answers
from clip_export.expect.comparing import TOLERANCE
from clip_export.expect.proving import Expected
from clip_export.expect.reading import read_answers
from clip_export.heads.files import TrainedHead
from clip_export.heads.reading import Reading
from clip_toolkit.errors import ExpectError
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.evidence import notebook_rows
from clip_toolkit.spec.tasks import SINGLE_LABEL, TASKS


def reading_of(options: NotebookOptions) -> Reading | None:
    """How a notebook's head is to be read; None if nothing was said of it."""
    given: dict[str, Any] = {
        "activation": options.activation,
        "feature_norm": options.feature_norm and options.feature_norm == "l2",
        **_tasks(options.task or ()),
        "norm_position": options.norm_position,
        "head_class": options.head_class,
        "trust_program": options.trust_program or None,
        "head_args": None if options.head_args is None else tuple(map(_argument, options.head_args)),
    }
    given = {name: value for name, value in given.items() if value is not None}
    return Reading(**given) if given else None


def _tasks(given: Sequence[str]) -> dict[str, Any]:
    """Return the task of the head, or those of several by name."""
    of_heads = tuple((name, task) for name, _, task in (item.rpartition("=") for item in given) if name)
    return {"tasks": of_heads or None, "task": None if of_heads or not given else given[0]}


def _argument(text: str) -> tuple[str, object]:
    """Read ``name=value``, the value a Python literal or else text."""
    name, _, value = text.partition("=")
    with contextlib.suppress(ValueError, SyntaxError):
        return name, ast.literal_eval(value)
    return name, value


def expected_answers(options: NotebookOptions, head: TrainedHead) -> Expected | None:
    """Return the notebook's answers, read and checked; None without ``--expect``.

    Raises:
        ExpectError: the file cannot be read, holds no usable answers, or leaves open what becomes of a bare head's
            outputs.
    """
    if options.expect is None:
        return None
    heads = (head, *head.further)
    answers, *further = (_answers(options.expect, item, options.task or ()) for item in heads)
    others = {item.name: found for item, found in zip(head.further, further, strict=True)}
    return Expected(answers, options.expect_tolerance or TOLERANCE, others)


def _answers(path: Path, head: TrainedHead, tasks: Sequence[str]) -> Answers:
    answers = read_answers(path, head.name)
    says_task = any(item.rpartition("=")[0] in ("", head.name) for item in tasks)
    knows_task = head.reading is None or says_task or head.task != SINGLE_LABEL  # the default
    if not knows_task and not answers.tells_task:
        of_head = f" of {head.name}" if head.name else ""
        raise ExpectError(
            f"{path}: has logits{of_head} alone, which suit a softmax, a sigmoid of each label and plain values alike. "
            f"Save the notebook's probabilities beside them, or say which with --task {', '.join(TASKS)}."
        )
    return answers


def notebook_receipt(spec: ModelSpec) -> Iterator[str]:
    """Yield what was assumed of a notebook's heads, what its own answers proved, and how to give them."""
    for head in spec.heads.values():
        for name, text in notebook_rows(head):
            yield f"{head.name} {name}".strip() + f": {text}" if name else f"  {text}"
    if spec.head.is_assumed and spec.notebook is None:
        yield "  prove it: save the notebook's answers, and export with --expect expect.npz"
        yield from (SNIPPET_OF_SEVERAL if spec.tasks else SNIPPET).splitlines()
