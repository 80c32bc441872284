"""Train a head again as it was trained, on its data and corrected answers, and export it: what ``clip-app`` runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from clip_export.quantization.request import MODES
from clip_toolkit.options import Option, Parser, parse_options
from clip_toolkit.terminal import as_command, show

if TYPE_CHECKING:
    from clip_export.commands.train_options import TrainCommand
    from clip_export.heads.files import TrainedHead

PROGRAM = "retraining"


@dataclass(frozen=True)
class RetrainCommand:
    """What is trained again, and what is written.

    The manifest of the training (``training.csv``) and the new head (``head.pt``) come to lie beside the corrections.
    """

    head: Annotated[Path, Option("head file of clip-train", parse=Path)]
    corrections: Annotated[Path, Option("manifest of corrected images", parse=Path)]
    model: Annotated[Path, Option("model file to write", parse=Path)]
    data: Annotated[Path | None, Option("training data, in place of those that the head file names", parse=Path)] = None
    input: Annotated[str, Option("as in clip-export", choices=("image", "pixels"))] = "image"
    ops: Annotated[str, Option("as in clip-export", choices=("ort", "standard"))] = "ort"
    quantize: Annotated[str | None, Option("as in clip-export", choices=MODES)] = None
    explain: Annotated[bool, Option("as in clip-export")] = False


def run(command: RetrainCommand) -> int:
    """Train and export; return the exit code."""
    from clip_export.commands import export, train
    from clip_export.commands.export_options import ExportCommand
    from clip_export.quantization.request import QuantizationRequest
    from clip_export.training.checkpoints import checkpoint_path

    training = _training(command)
    checkpoint_path(training.out).unlink(missing_ok=True)  # of a retraining that was stopped
    quantization = command.quantize and QuantizationRequest(command.quantize)
    return train.run(training) or export.run(
        ExportCommand(
            training.out,
            output_file=command.model,
            input=command.input,
            ops=command.ops,
            quantization=quantization or None,
            explain=command.explain,
        )
    )


def _training(command: RetrainCommand) -> TrainCommand:
    """Write the manifest, and return the training that the head came from, on it."""
    from clip_export.commands.train_options import JudgingOptions, TrainCommand
    from clip_export.data.corrected import write_corrected
    from clip_export.heads.files import load_head
    from clip_export.heads.references import content_digest
    from clip_export.training.options import DataOptions, TrainingOptions
    from clip_export.training.preparation import read_dataset
    from clip_toolkit.errors import HeadError
    from clip_toolkit.judging.thresholds import OperatingRule

    head = load_head(command.head)
    known, spec, summary = head.encoder, head.module.spec, head.training
    if known is None or known.text or (command.data is None and head.data is None):
        raise HeadError(f"{command.head}: only heads that clip-train has trained on images alone can be retrained.")
    defaults, judging = TrainingOptions(), JudgingOptions()
    examples = DataOptions(head.task, views=summary.get("views", 0), seed=summary.get("seed", 0))
    manifest = command.corrections.with_name("training.csv")
    dataset = read_dataset(command.data or Path(head.data.folder), examples)  # type: ignore[union-attr]  # checked above
    held_out = frozenset(head.data.digests if head.data else ())
    write_corrected(dataset, command.corrections, lambda sha256: content_digest(sha256) in held_out, manifest)
    rule = summary.get("operating point")
    judging = replace(judging, novelty=summary.get("novelty"))
    layers = "-".join(map(str, spec.layers))
    show(f"training as {command.head.name} was: layers {layers}, {_how(head)}; all else by default")
    return TrainCommand(
        encoder=known.id if known.folder is None else str(command.head.parent / known.folder),
        data=manifest,
        out_file=command.corrections.with_name("head.pt"),
        examples=examples,
        learning=replace(
            defaults,
            hidden_dim=tuple(spec.layers[1:-1]),
            activation=spec.activation if len(spec.layers) > 2 else defaults.activation,
            dropout=spec.dropout,
            feature_norm="l2" if spec.feature_norm else None,
            optimizer=summary.get("optimizer", defaults.optimizer),
            seed=examples.seed,
        ),
        rate=summary.get("learning rate"),
        judging=judging if rule is None else replace(judging, operating_point=OperatingRule.parse(rule)),
        revision=None if Path(known.id).is_absolute() or known.folder else known.revision,
        feature=known.feature,
        input_size=known.input_size,
        open_clip=known.open_clip_model,
    )


def _how(head: TrainedHead) -> str:
    names = ("optimizer", "learning rate", "seed", "operating point", "novelty")
    return ", ".join(f"{name} {head.training[name]}" for name in names if name in head.training)


@as_command(PROGRAM)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    from clip_export.commands.libraries import prepare_libraries

    command = parse_options(Parser(prog=PROGRAM, description="See docs/app.md."), RetrainCommand, argv)
    prepare_libraries()
    return run(command)


if __name__ == "__main__":
    sys.exit(main())
