"""What ``clip-eval`` chooses on labelled images, said and written into a copy of the model file."""

from __future__ import annotations

from dataclasses import replace

from clip_eval.operating import Change, choose, coverage_change, reference_change, thresholds_change, write_copy
from clip_eval.options import CopyOptions, EvalOptions
from clip_eval.running import Run
from clip_toolkit.classifier import Classifier
from clip_toolkit.judging.coverage import coverage_spread, set_figures
from clip_toolkit.judging.figures import Samples
from clip_toolkit.judging.rates import label_rates, rates_text
from clip_toolkit.judging.thresholds import OperatingRule
from clip_toolkit.spec.decisions import decide
from clip_toolkit.terminal import say


def write_copy_of(options: EvalOptions, copy: CopyOptions, classifier: Classifier, done: Run) -> None:
    """Choose what is asked for, and write the copy."""
    assert copy.output is not None
    changes = []
    if copy.threshold is not None:
        changes.append(_another_threshold(copy.threshold, options.positive, classifier, done))
    if copy.coverage is not None:
        changes.append(_coverage(copy.coverage, done))
    if copy.reference:
        changes.append(reference_change(done, classifier.spec))
    write_copy(options.model, copy.output, changes)
    if copy.threshold is not None and classifier.spec.reference is not None:
        say("left out: the reference statistics, which count labels by the threshold before. Add them with --reference")
    notes = {name: text for change in changes for name, text in change.notes.items() if text}
    changed = ", ".join(f"{name} {text.partition(',')[0]}" for name, text in notes.items())
    say(f"wrote {copy.output}: {options.model} with {changed}; selftest passed")


def _another_threshold(rule: OperatingRule, positive: str | None, classifier: Classifier, done: Run) -> Change:
    answers = done.answers[0]
    found = choose(answers, classifier.spec, rule, positive)
    decided = replace(answers, predicted=decide(answers.probabilities, answers.task, answers.labels, found))
    for label, value in found.items():
        rates = label_rates(decided, answers.labels.index(label), _samples(done))
        say(f"threshold {value:.6f} for {label}, chosen on these images: {rates_text(rates)}")
    return thresholds_change(found, rule, done.dataset)


def _coverage(share: float, done: Run) -> Change:
    change = coverage_change(done.answers[0], done.dataset, share)
    spec = change.fields["coverage"]
    figures = set_figures(done.answers[0], spec, _samples(done))
    say(
        f"calibrated on these images, which the model must not have been made with: {figures}",
        f"of further images like these: {share:.4g}, give or take {coverage_spread(spec):.3f} by the luck of these",
    )
    if any(done.dataset.groups):
        say("images of one group are not independent, and the promise takes them to be: it may be missed by more")
    return change


def _samples(done: Run) -> Samples:
    return Samples.of(len(done.dataset.files), done.dataset.groups)
