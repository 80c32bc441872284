"""``clip-eval --drift``: whether new images are still like the reference images of a model."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from clip_eval.drifting import LEVEL, Finding, Seen, drifted, find_drift, see_folder, see_results
from clip_eval.options import EvalOptions
from clip_toolkit.classifier import load
from clip_toolkit.errors import SpecError
from clip_toolkit.files.atomic import check_writable
from clip_toolkit.judging.page import Section, html_table, render, write_page
from clip_toolkit.listing import json_text, table
from clip_toolkit.spec.classifier import ModelSpec, check_one_head
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.trust import ReferenceSpec
from clip_toolkit.stream.progress import Progress
from clip_toolkit.terminal import say, show, write


def run(options: EvalOptions) -> int:
    """Tell drift and return the exit code: 1 where images could not be read; drift itself is no failure."""
    spec = read_spec(options.model)
    check_one_head(spec, "clip-eval", "a file of each head")
    if spec.reference is None:
        raise SpecError(
            f"{options.model}: has no reference statistics. Add them to a copy by images like those it is meant for: "
            "clip-eval MODEL DATA --reference --output COPY"
        )
    if options.report is not None:
        check_writable(options.report)
    seen = _see(options, spec)
    findings = find_drift(spec, spec.reference, seen)
    if options.json:
        write(json_text(_record(options, spec.reference, seen, findings), indent=2))
    else:
        show(_facts(spec.reference, seen), *table(_rows(findings)), _verdict(findings))
    if options.report is not None:
        write_page(options.report, _page(options, spec, seen, findings))
        say(f"wrote {options.report}")
    return 1 if seen.failed else 0


def _see(options: EvalOptions, spec: ModelSpec) -> Seen:
    if not options.data.is_dir():
        say(f"{options.data}: taken to be what {options.model} said")
        return see_results(options.data, spec)
    running, progress = options.running, Progress(sys.stderr, None)
    classifier = load(options.model, running.device, running.threads, throughput=True)
    classifier.explains = False
    found = see_folder(classifier, options.data, running.batch_size, progress.step, all_files=options.all_files)
    progress.clear()
    return found


def _facts(reference: ReferenceSpec, seen: Seen) -> str:
    failed = f", {seen.failed} others could not be read" if seen.failed else ""
    return f"{seen.images} images against {reference.images} reference images{failed}"


def _verdict(findings: Sequence[Finding]) -> str:
    if all(math.isnan(finding.p) for finding in findings):
        return "nothing could be tested"
    found = ", ".join(finding.about for finding in drifted(findings))
    return f"drift: {found} (at {LEVEL:.0%})" if found else f"no drift shown (at {LEVEL:.0%})"


def _rows(findings: Sequence[Finding]) -> list[list[str]]:
    rows = [[about, "-" if math.isnan(p) else f"{p:.4g}", text] for about, p, text in findings]
    return [["", "p", ""], *rows]


def _record(
    options: EvalOptions, reference: ReferenceSpec, seen: Seen, findings: Sequence[Finding]
) -> dict[str, object]:
    tests = [each._asdict() | {"p": None if math.isnan(each.p) else each.p} for each in findings]
    counts = {"images": seen.images, "failed": seen.failed, "answered": seen.answered, "novel": seen.novel}
    return {
        "model": str(options.model),
        "data": str(options.data),
        "reference": {"images": reference.images, "labels": reference.labels, "novel": reference.novel},
        "found": counts | {"labels": dict(seen.labels)},
        "tests": tests,
        "level": LEVEL,
        "drift": [each.about for each in drifted(findings)],
    }


def _page(options: EvalOptions, spec: ModelSpec, seen: Seen, findings: Sequence[Finding]) -> str:
    reference = spec.reference
    assert reference is not None
    head, *rows = _rows(findings)
    note = "p: how often chance alone would give such a difference. With many images small differences have one, too."
    sections = [Section("Tests", note, html=html_table(head, rows))]
    if reference.labels and seen.answered:
        shares = [
            [label, f"{count / reference.images:.2%}", f"{seen.labels.get(label, 0) / seen.answered:.2%}"]
            for label, count in reference.labels.items()
        ]
        sections.append(Section("Predicted labels", "", html=html_table(["", "before", "now"], shares)))
    title = f"{options.data.name}: drift of {options.model.name}"
    return render(title, _verdict(findings), [_facts(reference, seen)], [], sections)
