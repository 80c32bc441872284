"""``clip-eval``: how good a model file is on labelled images, or which of two is better."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clip_eval.commands import PROGRAM
from clip_toolkit.terminal import as_command, say, show, write

if TYPE_CHECKING:
    from clip_eval.comparing import Comparison
    from clip_eval.listing import Judged
    from clip_eval.options import EvalOptions
    from clip_eval.running import Run
    from clip_toolkit.classifier import Classifier


def run(options: EvalOptions) -> int:
    """Evaluate and return the exit code: 1 where images could not be read."""
    from clip_eval.commands.copying import write_copy_of
    from clip_eval.comparing import compare
    from clip_eval.report import write_report

    _check_outputs(options)
    classifiers = _open(options)
    done, remark = _run(options, classifiers)
    judged = [_judged(options, classifier, done, number) for number, classifier in enumerate(classifiers)]
    comparison = None
    if len(judged) == 2:
        first, second = done.answers
        comparison = compare(first, second, judged[0].evaluation.samples)
    _show(options, judged, done, remark, comparison)
    if options.report is not None:
        write_report(options.report, judged, done, remark=remark, most=options.mistakes, comparison=comparison)
        say(f"wrote {options.report}")
    if options.copy is not None:
        write_copy_of(options, options.copy, classifiers[0], done)
    return 1 if done.errors else 0


def _check_outputs(options: EvalOptions) -> None:
    from clip_toolkit.files.atomic import check_writable

    for path in (options.report, options.copy.output if options.copy else None):
        if path is not None:
            check_writable(path)


def _run(options: EvalOptions, classifiers: Sequence[Classifier]) -> tuple[Run, str]:
    """Run the models over the images that are meant; return the answers, and which images they are."""
    from clip_eval.labelled import read_labelled, take_side
    from clip_eval.operating import check_coverage, check_new
    from clip_eval.running import run_models
    from clip_toolkit.stream.progress import Progress

    dataset = read_labelled(
        options.data,
        classifiers[0].spec,
        slices=options.slices,
        text_column=options.text_column,
        all_files=options.all_files,
    )
    chosen, remark = take_side(dataset, options.side)
    if options.copy and options.copy.coverage:
        check_coverage(classifiers[0].spec, chosen, options.copy.coverage)
    if options.copy and options.copy.reference:
        check_new(chosen, "--reference")
    progress = Progress(sys.stderr, len(chosen.files))
    done = run_models(classifiers, chosen, options.running.batch_size, progress.step)
    progress.clear()
    say(*dataset.left_out, *(f"left out: {error}" for error in done.errors))
    if done.cut:
        say(f"{done.cut} texts are longer than the model reads: their ends were not read")
    return done, remark


def _show(
    options: EvalOptions, judged: Sequence[Judged], done: Run, remark: str, comparison: Comparison | None
) -> None:
    from clip_eval.listing import comparison_lines, comparison_record, evaluation_lines, evaluation_record
    from clip_toolkit.listing import json_text

    most = options.mistakes
    if options.json:
        alone = evaluation_record(judged[0], done, most)
        record = alone if comparison is None else comparison_record(judged, comparison, done, most)
        write(json_text({"data": str(options.data), "of": remark} | record, indent=2))
        return
    show(f"{len(done.dataset.files)} images, {remark}")
    alone_lines = evaluation_lines(judged[0], done, most)
    show(*(alone_lines if comparison is None else comparison_lines(judged, comparison, done, most)))


def _open(options: EvalOptions) -> list[Classifier]:
    from clip_eval.comparing import check_comparable
    from clip_toolkit.classifier import load
    from clip_toolkit.spec.classifier import check_one_head

    classifiers = [load(path, options.running.device, options.running.threads) for path in options.models]
    for each in classifiers:
        check_one_head(each.spec, "clip-eval", "a file of each head")
        each.explains = options.report is not None
    first, *others = classifiers
    for other in others:
        check_comparable(first.spec, other.spec)
    _check_rule(options, first)
    say(f"{first.provider}, threads: {first.threads}" + (f" ({'; '.join(first.notes)})" if first.notes else ""))
    return classifiers


def _check_rule(options: EvalOptions, classifier: Classifier) -> None:
    """Refuse before the work what cannot be done after it."""
    from clip_toolkit.errors import DatasetError
    from clip_toolkit.judging.thresholds import OperatingRule, check_rule
    from clip_toolkit.spec.tasks import SINGLE_LABEL

    spec = classifier.spec
    if options.positive is not None and (spec.task != SINGLE_LABEL or len(spec.labels) != 2):
        raise DatasetError("--positive: only a model of two labels that exclude each other has one to detect.")
    rule = (options.copy.threshold if options.copy else None) or OperatingRule()
    check_rule(rule, spec.task, spec.labels, options.positive)


def _judged(options: EvalOptions, classifier: Classifier, done: Run, number: int) -> Judged:
    from clip_eval.evaluation import evaluate
    from clip_eval.listing import Judged

    path = options.models[number]
    found = evaluate(
        done.answers[number],
        done.dataset,
        classifier.spec,
        sensitivities=options.sensitivity,
        positive=options.positive,
        novelty=done.novelty[number],
    )
    return Judged(path, path.stat().st_size, done.milliseconds[number], found)


@as_command(PROGRAM)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    from clip_eval.options import EvalOptions
    from clip_toolkit.options import Parser, parse_options

    parser = Parser(
        prog=PROGRAM,
        description="Evaluate a model file of clip-export on labelled images, or compare two on the same images.",
        epilog="Exit code: 0 all fine, 1 some images could not be read or nothing could run, 2 usage error.",
    )
    options = parse_options(parser, EvalOptions, argv)
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an image is said
    if options.verify is not None:
        from clip_toolkit.files.signature import verify

        say(*(verify(path, options.verify) for path in options.models))
    if options.drift:
        from clip_eval.commands import drift

        return drift.run(options)
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
