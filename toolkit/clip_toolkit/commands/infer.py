"""``clip-infer``: classify images, describe a model file, or test it or this machine."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clip_toolkit.commands.infer_arguments import parse_args
from clip_toolkit.files.locate import find_model
from clip_toolkit.terminal import exit_code, say

if TYPE_CHECKING:
    from clip_toolkit.classifier import Classifier
    from clip_toolkit.selftest import Drift
    from clip_toolkit.text_encoder import TextEncoder


def run(args: argparse.Namespace) -> int:
    """Do what was asked and return the exit code: 0, or 1 when an image, the selftest or the doctor failed."""
    located = find_model(args.model)
    if args.describe is not None:
        return _describe(located.path, args)
    if args.selftest is not None:
        return _selftest(located.path, args)
    if args.doctor is not None:
        return _doctor(located.path, args)

    from clip_toolkit.commands.classify import classify

    return classify(located, args)


def _describe(path: Path, args: argparse.Namespace) -> int:
    from clip_toolkit.spec.description import describe
    from clip_toolkit.spec.model_file import read_any_spec

    spec = read_any_spec(path)
    print(spec.to_json() if args.format == "json" else describe(spec, path))
    return 0


def _selftest(path: Path, args: argparse.Namespace) -> int:
    model, drifts = _replayed(path, args)
    say(*model.notes)
    passed = all(drift.passed for drift in drifts)
    if args.format == "json":
        rows = [{**vars(drift), "passed": drift.passed} for drift in drifts]
        print(json.dumps({"model": str(path), "provider": model.provider, "passed": passed, "drift": rows}))
        return 0 if passed else 1
    print(f"{path.name} on {model.provider}: {len(model.spec.golden)} golden vectors")
    print(f"{'resize':<8}{'output':<15}{'drift':>10}{'tolerance':>12}")
    for drift in drifts:
        verdict = "ok" if drift.passed else "FAILED"
        print(f"{drift.path:<8}{drift.output:<15}{drift.drift:>10.1e}{drift.tolerance:>12.1e}  {verdict}")
    print("selftest passed" if passed else "selftest FAILED: this machine or provider does not decide as PyTorch did")
    return 0 if passed else 1


def _replayed(path: Path, args: argparse.Namespace) -> tuple[Classifier | TextEncoder, list[Drift]]:
    """The opened file and how far it is from its golden vectors."""
    from clip_toolkit.classifier import load
    from clip_toolkit.selftest import selftest
    from clip_toolkit.spec.model_file import read_any_spec
    from clip_toolkit.spec.text_tower import TextTowerSpec
    from clip_toolkit.text_encoder import load_text
    from clip_toolkit.text_selftest import selftest_text

    if isinstance(read_any_spec(path), TextTowerSpec):
        encoder = load_text(path, args.device, args.threads)
        return encoder, selftest_text(encoder)
    classifier = load(path, args.device, args.threads, args.resize)
    return classifier, selftest(classifier)


def _doctor(path: Path, args: argparse.Namespace) -> int:
    from clip_toolkit.doctor import examine, report

    findings = examine(path, args.threads)
    print(json.dumps([vars(item) for item in findings], indent=2) if args.format == "json" else report(findings))
    return 1 if any(item.status == "wrong" for item in findings) else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; errors become one line on stderr and exit code 1."""
    args = parse_args(argv)
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an image is said in its record
    return exit_code("clip-infer", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
