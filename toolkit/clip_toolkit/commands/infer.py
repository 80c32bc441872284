"""``clip-infer``: classify images, describe a model file, prepare it, or test it or this machine.

Little is imported before `as_command` is there to say that an interrupt came.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clip_toolkit.commands import PROGRAM
from clip_toolkit.terminal import as_command, say, show, write

if TYPE_CHECKING:
    from clip_toolkit.classifier import Classifier
    from clip_toolkit.commands.infer_options import InferOptions
    from clip_toolkit.replay import Drift
    from clip_toolkit.text_encoder import TextEncoder


def run(options: InferOptions) -> int:
    """Do what was asked and return the exit code: 0, or 1 when an image, the selftest or the doctor failed."""
    from clip_toolkit.files.locate import find_model
    from clip_toolkit.runtime.plugins import FASTEST

    located = find_model(options.model)
    if options.verify is not None:
        from clip_toolkit.files.signature import verify

        verified = verify(located.path, options.verify)
        if not options.output.quiet:
            say(verified)
    if options.running.max_memory is not None:
        from clip_toolkit.runtime.memory import limit_memory

        limit_memory(options.running.max_memory)
    action, _ = options.actions.chosen or (None, None)
    if options.running.device == FASTEST and action in (None, "selftest"):  # the others open no device
        from clip_toolkit.fastest import fastest_device

        device = fastest_device(located.path, options.running.threads, say)
        options = replace(options, running=replace(options.running, device=device))
    if action is not None:
        return {"describe": _describe, "selftest": _selftest, "doctor": _doctor, "prepare": _prepare}[action](
            located.path, options
        )

    from clip_toolkit.commands.classify import classify

    return classify(located, options)


def _describe(path: Path, options: InferOptions) -> int:
    from clip_toolkit.listing import shown_json
    from clip_toolkit.spec.description import describe
    from clip_toolkit.spec.model_file import read_any_spec

    spec = read_any_spec(path)
    write(*([shown_json(spec.to_json())] if options.output.format == "json" else describe(spec, path)))
    return 0


def _selftest(path: Path, options: InferOptions, needs: str | None = None) -> int:
    """Replay the golden vectors, of a session that has to carry a note where one is named."""
    from clip_toolkit.errors import ModelError
    from clip_toolkit.listing import json_text, table

    model, drifts = _replay(path, options)
    say(*model.notes)
    if needs is not None and needs not in model.notes:
        raise ModelError(f"{path}: was tried without {needs}, which proves nothing of them. Try again.")
    passed = all(drift.passed for drift in drifts)
    if options.output.format == "json":
        rows = [{**vars(drift), "passed": drift.passed} for drift in drifts]
        write(json_text({"model": str(path), "provider": model.provider, "passed": passed, "drift": rows}))
        return 0 if passed else 1
    show(f"{path.name} on {model.provider}: {len(model.spec.golden)} golden vectors")
    figures = [
        (item.path, item.output, f"{item.drift:.1e}", f"{item.tolerance:.1e}", "ok" if item.passed else "FAILED")
        for item in drifts
    ]
    write(*table([("resize", "output", "drift", "tolerance", ""), *figures]))
    show("selftest passed" if passed else "selftest FAILED: this machine or provider does not decide as PyTorch did")
    return 0 if passed else 1


def _replay(path: Path, options: InferOptions) -> tuple[Classifier | TextEncoder, list[Drift]]:
    """Open the file and compare what it answers with its golden vectors."""
    from clip_toolkit.classifier import load
    from clip_toolkit.replay import selftest, selftest_text
    from clip_toolkit.spec.model_file import read_any_spec
    from clip_toolkit.spec.text_tower import TextTowerSpec
    from clip_toolkit.text_encoder import load_text

    running = options.running
    if isinstance(read_any_spec(path), TextTowerSpec):
        encoder = load_text(path, running.device, running.threads)
        return encoder, selftest_text(encoder)
    classifier = load(path, running.device, running.threads, running.resize)
    return classifier, selftest(classifier)


def _prepare(path: Path, options: InferOptions) -> int:
    from clip_toolkit.runtime.prepared import IN_USE, prepare, remove_prepared
    from clip_toolkit.spec.model_file import read_any_spec

    read_any_spec(path)  # which refuses what this runtime must not open
    folder, failed = prepare(path), 1
    try:
        size = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
        failed = _selftest(path, replace(options, running=replace(options.running, device="cpu")), needs=IN_USE)
    finally:
        if failed:
            remove_prepared(path)
    if not (failed or options.output.quiet):
        say(f"prepared in {folder}: {size:.0f} MiB, for this processor and build of ONNX Runtime alone")
    return failed


def _doctor(path: Path, options: InferOptions) -> int:
    from clip_toolkit.doctor import examine, report
    from clip_toolkit.listing import json_text

    findings = examine(path, options.running.threads)
    if options.output.format == "json":
        write(json_text([vars(item) for item in findings], indent=2))
    else:
        show(*report(findings))
    return 1 if any(item.status == "wrong" for item in findings) else 0


@as_command(PROGRAM)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    from clip_toolkit.commands.infer_options import parse_args

    options = parse_args(argv)
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an image is said in its record
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
