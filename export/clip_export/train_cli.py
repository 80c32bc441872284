"""``clip-train``: labelled images in, a trained head out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_export.command import execute
from clip_export.train_arguments import PROGRAM, data_options, parse_args, training_options

if TYPE_CHECKING:
    from clip_export.encoder import Encoder
    from clip_export.head_files import TrainedHead
    from clip_export.training.loop import Epoch, Training
    from clip_export.training.options import TrainingOptions
    from clip_export.training.preparation import Prepared

__all__ = ["PROGRAM", "main", "parse_args", "run"]

SCORES = {"single-label": "accuracy", "multi-label": "accuracy over all labels", "regression": "R squared"}


def run(args: argparse.Namespace) -> int:
    """Train and write the head; return the exit code."""
    from clip_export.encoder import Encoder
    from clip_export.head_files import save_head
    from clip_export.training.preparation import read_dataset

    if args.explain_preprocessing is not None:
        return _explain(args)
    _check_outputs(args)
    options = data_options(args, _device(args.device))
    dataset = read_dataset(args.data, options)
    encoder = Encoder.from_pretrained(args.encoder, args.revision, args.feature or "pooled")
    print(
        f"{len(dataset.files)} files, labels: {', '.join(dataset.labels)}; encoder {args.encoder}, {encoder.dim} wide"
    )
    prepared = _prepared(args, encoder, dataset, options)
    training, chosen = _train(args, prepared)
    head = _finished(args, prepared, training, chosen, encoder)
    save_head(head, args.out)
    _tell(prepared, training, head)
    print(f"wrote {args.out}")
    if args.report is not None:
        _report(args, prepared, training, head)
    return 0


def _check_outputs(args: argparse.Namespace) -> None:
    """Find out before minutes of work what would spoil them."""
    from clip_export.atomic import check_writable
    from clip_export.extra import require
    from clip_export.head_files import check_suffix
    from clip_toolkit.errors import OutputError

    check_suffix(args.out)
    check_writable(args.out)
    if args.report is not None:
        require("report", "matplotlib", "sklearn")
    if args.tensorboard is not None:
        require("tensorboard", "tensorboard")
    for folder in filter(None, (args.report, args.tensorboard)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be used as a folder ({error.strerror}). Name another.") from error


def _device(name: str) -> str:
    import torch

    from clip_toolkit.errors import DeviceError

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=name).item()
    except Exception as error:  # torch raises RuntimeError, AssertionError or others, by device
        raise DeviceError(f"device {name}: PyTorch cannot use it ({str(error).partition(chr(10))[0]})") from error
    return name


def _prepared(args: argparse.Namespace, encoder: Encoder, dataset: Any, options: Any) -> Prepared:
    from clip_export.progress import bar
    from clip_export.training.feature_cache import FeatureCache, default_folder
    from clip_export.training.preparation import prepare

    cache = None if args.no_cache else FeatureCache(args.cache or default_folder(), encoder)
    prepared = prepare(dataset, encoder, options, cache, bar)
    features = prepared.features
    _say(*(f"skipped: {error}" for error in features.errors), *prepared.notes)
    if features.errors:
        _say(f"skipped {len(features.errors)} of {len(dataset.files)} files")
    found = len(features.kept) - features.computed
    print(f"features: {features.computed} computed by {features.backend}, {found} from the cache")
    for side, counts in prepared.counts():
        print(f"{side}: {counts}")
    return prepared


def _train(args: argparse.Namespace, prepared: Prepared) -> tuple[Training, TrainingOptions]:
    from clip_export.progress import bar
    from clip_export.training.checkpoints import Checkpoints, checkpoint_path, fingerprint
    from clip_export.training.loop import train_head

    task, outputs = prepared.dataset.task, len(prepared.dataset.labels)
    options = _swept(prepared, training_options(args)) if args.sweep else training_options(args)
    checkpoints = Checkpoints(
        checkpoint_path(args.out), fingerprint(prepared.train, prepared.validation, options, task)
    )
    state = checkpoints.read() if args.resume else None
    if args.resume:
        done = len(state.history) if state else 0
        _say(f"resuming after epoch {done}" if state else "nothing to resume: starting from the first epoch")
    with bar("training", options.epochs) as advance, _scalars(args.tensorboard) as write:

        def report(epoch: Epoch) -> None:
            score = f"{epoch.val_score:.1%}" if task != "regression" else f"{epoch.val_score:.3f}"
            advance(1, f"loss {epoch.loss:.4f}, validation {epoch.val_loss:.4f}, {score}")
            write(epoch)

        try:
            training = train_head(
                prepared.train,
                prepared.validation,
                outputs,
                options,
                report,
                task=task,
                resume=state,
                keep=checkpoints.keep,
            )
        except KeyboardInterrupt:
            saved = checkpoints.write()
            where = f"the checkpoint is {checkpoints.path}; go on with --resume" if saved else "nothing was written"
            raise KeyboardInterrupt(f"interrupted; {where}") from None
    checkpoints.remove()
    return training, options


def _swept(prepared: Prepared, options: TrainingOptions) -> TrainingOptions:
    from clip_export.progress import bar
    from clip_export.training.sweep import sweep, trials_count

    with bar("sweep", trials_count()) as advance:
        trials = sweep(
            prepared.train,
            prepared.validation,
            len(prepared.dataset.labels),
            options,
            task=prepared.dataset.task,
            report=lambda trial: advance(1, f"validation loss {trial.best.val_loss:.4f}"),
        )
    print(f"sweep of {len(trials)}: {'lr':>8} {'decay':>6}  {'hidden':<8} {'epochs':>6} {'loss':>8} {'score':>7}")
    for trial in trials[:5]:
        tried, best = trial
        width = "x".join(map(str, tried.hidden_dim)) or "linear"  # type: ignore[arg-type]  # sweep gives tuples
        figures = f"{best.number:>6} {best.val_loss:>8.4f} {best.val_score:>7.3f}"
        print(f"{'':<11} {tried.learning_rate:>9g} {tried.weight_decay:>6g}  {width:<8} {figures}")
    return trials[0].options


def _scalars(folder: Path | None) -> Any:
    from contextlib import nullcontext

    if folder is None:
        return nullcontext(lambda _: None)
    from clip_export.training.tensorboard import scalars

    return scalars(folder)


def _finished(
    args: argparse.Namespace, prepared: Prepared, training: Training, options: TrainingOptions, encoder: Encoder
) -> TrainedHead:
    """The head with its temperature and thresholds, both from validation images, and what is worth knowing of it."""
    from clip_export.head_files import EncoderReference, TrainedHead
    from clip_export.training.decisions import decisions_for
    from clip_export.training.thresholds import operating_rule

    temperature, thresholds = decisions_for(
        training.head,
        prepared.validation,
        prepared.dataset.task,
        prepared.dataset.labels,
        operating_rule(args.operating_point),
        positive=args.positive,
        calibrate=not args.no_calibration,
    )
    return TrainedHead(
        training.head,
        EncoderReference(_portable_id(args.encoder), encoder.revision, encoder.feature),
        prepared.dataset.labels,
        _summary(args, prepared, training, options),
        prepared.reference(),
        prepared.dataset.task,
        temperature,
        thresholds,
    )


def _summary(
    args: argparse.Namespace, prepared: Prepared, training: Training, options: TrainingOptions
) -> dict[str, Any]:
    score = SCORES[prepared.dataset.task]
    test = {"test": len(prepared.split.test)} if prepared.split.test else {}
    return {
        "images": len(prepared.features.kept),
        "skipped": len(prepared.features.errors),
        "train": len(prepared.split.train),
        "validation": len(prepared.split.validation),
        **test,
        "views": args.augment,
        "epochs": training.best.number,
        "optimizer": options.optimizer,
        "learning rate": options.learning_rate,
        "seed": args.seed,
        f"train {score}": round(training.best.train_score, 4),
        f"validation {score}": round(training.best.val_score, 4),
        "operating point": args.operating_point,
    }


def _portable_id(encoder: str) -> str:
    """The name under which a later clip-export finds the encoder, from whatever folder it is called."""
    return str(Path(encoder).resolve()) if Path(encoder).is_dir() else encoder


def _tell(prepared: Prepared, training: Training, head: TrainedHead) -> None:
    from clip_export.training.baseline import baseline_score
    from clip_export.training.decisions import held_out_score
    from clip_toolkit.errors import MissingDependencyError

    name, indices, examples = prepared.held_out
    shown: Callable[[float], str] = "{:.3f}".format if head.task == "regression" else "{:.1%}".format
    own = held_out_score(head, examples)
    print(
        f"{name} {SCORES[head.task]} {shown(own)} on {len(indices)} images, training {shown(training.best.train_score)}"
    )
    try:
        plain = baseline_score(prepared.train, examples, head.task)
        print(f"{'ridge' if head.task == 'regression' else 'logistic'} regression on the same features: {shown(plain)}")
    except MissingDependencyError as error:
        _say(f"no baseline: {error}")
    if head.temperature != 1:
        print(f"temperature {head.temperature:.3f}")
    for label, threshold in head.thresholds.items():
        print(f"threshold {threshold:.4f} for {label}")


def _report(args: argparse.Namespace, prepared: Prepared, training: Training, head: TrainedHead) -> None:
    from clip_export.training.report import write_report

    print(f"wrote {write_report(args.report, prepared, training, head, args.positive)}")


def _explain(args: argparse.Namespace) -> int:
    from clip_export.atomic import check_writable
    from clip_export.encoder import Encoder
    from clip_export.extra import require
    from clip_export.training.preprocessing_steps import draw_steps
    from clip_toolkit.errors import OutputError

    require("report", "matplotlib")
    if args.out.suffix != ".png":
        raise OutputError(f"{args.out}: expected a file ending in .png")
    check_writable(args.out)
    encoder = Encoder.from_pretrained(args.encoder, args.revision, args.feature or "pooled")
    draw_steps(encoder, args.explain_preprocessing, args.out)
    print(f"wrote {args.out}")
    return 0


def _say(*messages: str) -> None:
    for message in messages:
        print(f"{PROGRAM}: {message}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return execute(PROGRAM, run, parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
