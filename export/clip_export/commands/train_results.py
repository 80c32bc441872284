"""The last stage of ``clip-train``: how good the head is, beside simpler models, and what might make it better."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from clip_export.commands.train_options import TrainCommand
from clip_export.heads.files import TrainedHead
from clip_export.heads.zero_shot import ZeroShot, words_head
from clip_export.training.fusion import Parts
from clip_export.training.judging.baseline import baseline_name, fit_baseline
from clip_export.training.judging.decisions import Judge
from clip_export.training.judging.outcome import Judgement, brief_text, judge_head
from clip_export.training.loop import Training
from clip_export.training.options import TrainingOptions
from clip_export.training.preparation import Prepared
from clip_toolkit.judging.figures import figure_text
from clip_toolkit.judging.rates import rates_text
from clip_toolkit.judging.scores import SCORES, share_text
from clip_toolkit.terminal import say, show

WORDS = "zero-shot from the words alone"

_MANY_EPOCHS = 10  # with fewer, where the lowest loss lies says little


def show_kept_epoch(training: Training, options: TrainingOptions) -> None:
    """Say which epoch the head is of, and whether many after it were in vain."""
    kept, count = training.best.number, len(training.history)
    lowest = min(training.history, key=lambda epoch: epoch.val_loss).number
    why = "the last, as --keep-last asks for" if options.keep_last else "that of the lowest validation loss"
    show(f"kept epoch {kept} of {count}, {why}")
    if options.patience is None and count >= _MANY_EPOCHS and lowest <= count / 2:
        remedy = "leave out --keep-last, or add images" if options.keep_last else "add images"
        brake = "--dropout or --weight-decay" if options.hidden_dim else "--weight-decay"
        say(
            f"hint: validation loss was lowest at epoch {lowest} of {count}, and never as low again: {remedy}, "
            f"or try more {brake}"
        )


def compare(judge: Judge, prepared: Prepared, training: Training, words: ZeroShot | None) -> Judgement:
    """Judge a head beside a linear model on the same features, and the words that it may have begun with."""
    head = training.head
    others: dict[str, nn.Module] = {}
    baseline = fit_baseline(prepared.train, judge.task, feature_norm=head.spec.feature_norm)
    if baseline is None:
        say("no baseline: a label is on every training image, or on none")
    else:
        others[baseline_name(judge.task)] = baseline
    if words is not None:
        others[WORDS] = words_head(words)
    return judge_head(judge, prepared, head, others)


def show_results(command: TrainCommand, head: TrainedHead, judgement: Judgement, alone: Parts | None) -> None:
    """Show the figures of a head and of what it is compared with."""
    task, own = head.task, judgement.held_out
    learnt = share_text(judgement.train_score, task)
    show(f"{own.side} {SCORES[task]} {figure_text(own.score, task)} on {own.images} images, training {learnt}")
    if head.temperature != 1:
        show(f"temperature {head.temperature:.3f}")
    elif "temperature" in head.training:
        show(f"temperature {head.training['temperature']}")
    for rates in own.rates if head.thresholds else ():
        show(f"threshold {head.thresholds[rates.label]:.4f} for {rates.label}: {rates_text(rates)}")
    if head.novelty is not None:
        share = f"{head.novelty.share:.1%} of {head.novelty.images} validation images"
        show(f"novelty: {share} are beyond the threshold {head.novelty.threshold:.4g}")
    for name, other in judgement.others.items():
        show(f"{name} on the same features: {brief_text(other, task)}")
    if alone is not None:
        image, text, both = (share_text(value, task) for value in alone)
        show(f"image alone {image}, text alone {text}, both {both}")
    say(*(f"hint: {hint}" for hint in _hints(command, task, judgement)))


def _hints(command: TrainCommand, task: str, judgement: Judgement) -> Iterator[str]:
    own = judgement.held_out.score.value
    for name, other in judgement.others.items():
        if other.score.value > own:
            figures = f"{share_text(other.score.value, task)} against {share_text(own, task)}"
            yield f"{name} is right more often than the head, {figures}: {_remedy(command, name)}"


def _remedy(command: TrainCommand, better: str) -> str:
    if better == WORDS:
        return "add images, or export the words with clip-export --zero-shot"
    if command.start is not None:
        return "try more images, or a head without --init"
    if command.training.normalises or command.training.standardise:
        return "try --sweep, or take the simpler model with --linear"
    return "try --standardise with --lr 1e-3, or --sweep; if it still wins, take the simpler model with --linear"
