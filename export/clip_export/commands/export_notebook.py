"""The part of ``clip-export`` that speaks of a notebook's head: how it is read, and the notebook's own answers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clip_export.commands.argument_types import number

if TYPE_CHECKING:
    from clip_export.expect.proving import Expected
    from clip_export.heads.reading import Reading
    from clip_toolkit.spec.classifier import ModelSpec


# Names in clip_export.heads.mlp.ACTIVATIONS, repeated so that --help needs no torch; a test holds them together.
ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "leaky_relu", "elu", "sigmoid")

_READING = ("activation", "feature_norm", "task")


def add_notebook_arguments(parser: argparse.ArgumentParser) -> None:
    """``--expect`` and what a bare state_dict leaves open."""
    group = parser.add_argument_group(
        "a notebook's head", "what its file leaves open, and the proof of how it was read"
    )
    group.add_argument(
        "--expect",
        type=Path,
        metavar="FILE",
        help="the notebook's own answers (.npz, .csv, .jsonl, .safetensors), which the file must give too",
    )
    group.add_argument(
        "--expect-tolerance",
        type=number(0, 1),
        metavar="SHARE",
        help="largest difference from the notebook's answers, relative to the largest logit (default: 0.001)",
    )

    group.add_argument(
        "--activation", choices=ACTIVATIONS, help="between the layers of a bare state_dict (default: relu)"
    )
    group.add_argument(
        "--feature-norm", choices=("none", "l2"), help="divide the feature by its L2 norm first (default: none)"
    )
    group.add_argument(
        "--task",
        choices=("single-label", "multi-label", "regression"),
        help="what becomes of the outputs: a softmax, a sigmoid each, or nothing (default: single-label)",
    )
    group.add_argument(
        "--temperature", type=number(1e-3, 1e3), metavar="T", help="divide the logits by it (default: the head's own)"
    )


def check_notebook_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error where arguments do not go together."""
    if args.expect_tolerance is not None and args.expect is None:
        parser.error("--expect-tolerance needs --expect")
    for name in ("expect", *_READING, "temperature"):
        for other in ("text_tower", "zero_shot"):
            if getattr(args, name) is not None and getattr(args, other):
                parser.error(f"{_option(name)} does not apply to {_option(other)}")
    if args.temperature is not None and args.task == "regression":
        parser.error("--temperature does not apply to a regression")


def reading_of(args: argparse.Namespace) -> Reading | None:
    """How a notebook's head is to be read; None if nothing was said of it."""
    from clip_export.heads.reading import Reading

    given = {name: getattr(args, name) for name in _READING if getattr(args, name) is not None}
    if "feature_norm" in given:
        given["feature_norm"] = given["feature_norm"] == "l2"
    return Reading(**given) if given else None


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def expected_answers(args: argparse.Namespace) -> Expected | None:
    """Return the notebook's answers, read and checked; None without ``--expect``.

    Raises:
        ExpectError: the file cannot be read, or holds no usable answers.
    """
    if args.expect is None:
        return None
    from clip_export.expect.comparing import TOLERANCE
    from clip_export.expect.proving import Expected
    from clip_export.expect.reading import read_answers

    return Expected(read_answers(args.expect), args.expect_tolerance or TOLERANCE)


def notebook_receipt(spec: ModelSpec) -> Iterator[str]:
    """Yield what was assumed of a notebook's head, what its own answers proved, and how to give them."""
    from clip_toolkit.spec.description import notebook_rows

    for name, text in notebook_rows(spec):
        yield f"{name}: {text}" if name else f"  {text}"
    if spec.head.source != "clip-train" and spec.notebook is None:
        from clip_export.expect import SNIPPET

        yield "  prove it: save the notebook's answers, and export with --expect expect.npz"
        yield from SNIPPET.splitlines()
