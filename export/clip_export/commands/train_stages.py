"""The stages of ``clip-train``, each of which tells the user what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clip_export.commands.train_options import FeatureOptions, TrainCommand
from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder
from clip_export.features.cache import FeatureCache, default_folder
from clip_export.features.texts import TextCache, TextSide
from clip_export.progress import bar
from clip_export.training.checkpoints import Checkpoints, checkpoint_path, fingerprint
from clip_export.training.epochs import Epoch
from clip_export.training.fusion import Parts, parts
from clip_export.training.judging.decisions import Judge
from clip_export.training.loop import Training, train_head
from clip_export.training.options import DataOptions, TrainingOptions
from clip_export.training.preparation import Prepared, prepare
from clip_export.training.report.tensorboard import scalars
from clip_export.training.state import TrainingState
from clip_export.training.sweep import sweep, trials_count
from clip_toolkit.data.dataset import Dataset
from clip_toolkit.judging.scores import share_text
from clip_toolkit.terminal import say, show

Report = Callable[[Epoch], None]


def cache_folder(options: FeatureOptions) -> Path | None:
    """Name the folder where computed features are kept; None keeps none."""
    if isinstance(options.cache, bool):
        return default_folder() if options.cache else None
    return options.cache


def prepare_data(
    command: TrainCommand,
    encoder: Encoder,
    dataset: Dataset,
    options: DataOptions,
    tower: TextEncoder | None = None,
) -> Prepared:
    """Encode and split the data, and tell what is left."""
    folder = cache_folder(command.features)
    cache = FeatureCache(folder, encoder) if folder else None
    text = TextSide(tower, TextCache(folder, tower) if folder else None) if tower else None
    prepared = prepare(dataset, encoder, options, cache, bar, text=text)
    show_prepared(prepared, len(dataset.files))
    return prepared


def show_prepared(prepared: Prepared, files: int) -> None:
    """Name what was skipped of so many files, and count what is left."""
    reading = prepared.reading
    say(*(f"skipped: {error}" for error in reading.errors), *prepared.notes)
    if reading.errors:
        say(f"skipped {len(reading.errors)} of {files} files")
    found = len(reading.kept) - reading.computed
    by = f" by {reading.backend}" if reading.computed else ""
    show(f"features: {reading.computed} computed{by}, {found} from {'the cache' if prepared.has_images else 'files'}")
    if prepared.texts is not None:
        computed, different = prepared.texts.computed, prepared.texts.different
        show(f"texts: {different} different ones, {computed} computed, {different - computed} from the cache")
    for side, counts in prepared.counts():
        show(f"{side}: {counts}")


def train(command: TrainCommand, prepared: Prepared) -> tuple[Training, TrainingOptions]:
    """Train, from a checkpoint if asked to; an interrupt leaves one."""
    task, outputs = prepared.dataset.task, len(prepared.dataset.labels)
    options = _swept(prepared, command.training) if command.sweep else command.training
    checkpoints = Checkpoints(
        checkpoint_path(command.out), fingerprint(prepared.train, prepared.validation, options, task)
    )

    def learn(report: Report, state: TrainingState | None) -> Training:
        return train_head(
            prepared.train,
            prepared.validation,
            outputs,
            options,
            report,
            task=task,
            resume=state,
            keep=checkpoints.keep,
        )

    training = watch(command, learn, checkpoints, title="training", epochs=options.epochs, task=task)
    if command.tuning is not None or command.learns_pooling or prepared.texts is not None:
        checkpoints.write()  # so that what follows can be interrupted, and resumed with this head at once
    return training, options


def score_alone(
    command: TrainCommand, prepared: Prepared, training: Training, options: TrainingOptions, judge: Judge
) -> Parts | None:
    """Score image and text without each other; an interrupt leaves the checkpoint of the head."""
    try:
        return parts(prepared, training.head, options, judge, bar)
    except KeyboardInterrupt:
        say(f"the checkpoint is {checkpoint_path(command.out)}: continue with --resume")
        raise


def watch(
    command: TrainCommand,
    learn: Callable[[Report, TrainingState | None], Training],
    checkpoints: Checkpoints,
    *,
    title: str,
    epochs: int,
    task: str,
) -> Training:
    """Train with a bar and curves, from a checkpoint if asked to; an interrupt leaves one."""
    state = checkpoints.read() if command.resume else None
    if command.resume:
        done = state.history[-1][0] if state else 0
        say(
            f"{title}: resuming after epoch {done}"
            if state
            else f"{title}: nothing to resume, starting from the first epoch"
        )
    with bar(title, epochs) as advance, _scalars(command.judging.tensorboard, title) as write:

        def report(epoch: Epoch) -> None:
            score = share_text(epoch.val_score, task)
            advance(min(epoch.number, 1), f"loss {epoch.loss:#.3g}, validation {epoch.val_loss:#.3g}, {score}")
            write(epoch)

        try:
            return learn(report, state)
        except KeyboardInterrupt:
            saved = checkpoints.write()
            say(f"the checkpoint is {checkpoints.path}: continue with --resume" if saved else "nothing was written")
            raise


def _swept(prepared: Prepared, options: TrainingOptions) -> TrainingOptions:
    with bar("sweep", trials_count()) as advance:
        trials = sweep(
            prepared.train,
            prepared.validation,
            len(prepared.dataset.labels),
            options,
            task=prepared.dataset.task,
            report=lambda trial: advance(1, f"validation loss {trial.best.val_loss:#.3g}"),
        )
    show(f"sweep of {len(trials)}: {'lr':>8} {'decay':>6}  {'hidden':<8} {'epochs':>6} {'loss':>8} {'score':>7}")
    for trial in trials[:5]:
        tried, best = trial
        width = "x".join(map(str, tried.hidden_dim)) or "linear"  # type: ignore[arg-type]  # sweep gives tuples
        figures = f"{best.number:>6} {best.val_loss:>#8.3g} {best.val_score:>7.3f}"
        show(f"{'':<11} {tried.learning_rate:>9g} {tried.weight_decay:>6g}  {width:<8} {figures}")
    return trials[0].options


@contextmanager
def _scalars(folder: Path | None, title: str) -> Iterator[Report]:
    """Yield what writes the curves, as long as the disk takes them: the training does not depend on them."""
    if folder is None:
        yield lambda _: None
        return
    reasons: list[str | None] = []
    with scalars(folder / title) as write:

        def report(epoch: Epoch) -> None:
            try:
                if not reasons:
                    write(epoch)
            except OSError as error:
                reasons.append(error.strerror)

        yield report
    if reasons:
        say(f"{folder}: curves of {title} are incomplete ({reasons[0]})")
