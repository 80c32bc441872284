"""``clip-infer``: classify images, describe a model file, or test it on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from clip_toolkit.devices import DEVICES, RESIZES
from clip_toolkit.errors import ClipToolkitError
from clip_toolkit.locate import ENVIRONMENT_VARIABLE, Located, find_model
from clip_toolkit.records import FORMATS, Record, lines, record
from clip_toolkit.terminal import print_any_text
from clip_toolkit.version import __version__

_MOST = 1024  # threads, images a run, labels an image: beyond it lies a typing error, not a machine


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; usage errors exit with code 2."""
    parser = argparse.ArgumentParser(
        prog="clip-infer",
        description="Classify images with a model file of clip-export.",
        epilog=f"Without --model: ${ENVIRONMENT_VARIABLE}, then model.onnx in this folder, then the built-in demo.",
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files")
    parser.add_argument("--model", help="model file")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="where to run (default: %(default)s)")
    parser.add_argument("--top-k", type=_positive, default=3, metavar="N", help="labels per image (default: 3)")
    parser.add_argument("--format", choices=FORMATS, default="table", help="form of the output (default: table)")
    parser.add_argument("--batch-size", type=_positive, default=8, metavar="N", help="images per run (default: 8)")
    parser.add_argument("--threads", type=_positive, metavar="N", help="CPU threads (default: all usable cores)")
    parser.add_argument(
        "--resize",
        choices=RESIZES,
        default="pillow",
        help="who resizes the image: Pillow, exactly, or the model's graph",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--describe", nargs="?", const="", metavar="MODEL", help="print what the model file says")
    action.add_argument("--selftest", nargs="?", const="", metavar="MODEL", help="replay the model's golden vectors")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    args = parser.parse_args(argv)
    _check_combination(parser, args)
    return args


def _check_combination(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    action = args.describe if args.describe is not None else args.selftest
    if action is None and not args.images:
        parser.error("name at least one IMAGE, or use --describe or --selftest")
    if action is not None and args.images:
        parser.error("--describe and --selftest take a model file and no images")
    if action is not None and args.format not in ("table", "json"):
        parser.error("--describe and --selftest have the formats table and json")
    if action:
        args.model = action


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0
    if not 1 <= number <= _MOST:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {_MOST}, got {text!r}")
    return number


def run(args: argparse.Namespace) -> int:
    """Do what was asked and return the exit code: 0, or 1 when an image or the selftest failed."""
    located = find_model(args.model)
    if args.describe is not None:
        return _describe(located.path, args)
    if args.selftest is not None:
        return _selftest(located.path, args)
    return _classify(located, args)


def _describe(path: Path, args: argparse.Namespace) -> int:
    from clip_toolkit.description import describe
    from clip_toolkit.model_file import read_spec

    spec = read_spec(path)
    print(spec.to_json() if args.format == "json" else describe(spec, path))
    return 0


def _selftest(path: Path, args: argparse.Namespace) -> int:
    from clip_toolkit.classifier import load
    from clip_toolkit.selftest import selftest

    classifier = load(path, args.device, args.threads, args.resize)
    _say(*classifier.notes)
    drifts = selftest(classifier)
    passed = all(drift.passed for drift in drifts)
    if args.format == "json":
        rows = [{**vars(drift), "passed": drift.passed} for drift in drifts]
        print(json.dumps({"model": str(path), "provider": classifier.provider, "passed": passed, "drift": rows}))
        return 0 if passed else 1
    print(f"{path.name} on {classifier.provider}: {len(classifier.spec.golden)} golden vectors")
    print(f"{'resize':<8}{'output':<15}{'drift':>10}{'tolerance':>12}")
    for drift in drifts:
        verdict = "ok" if drift.passed else "FAILED"
        print(f"{drift.path:<8}{drift.output:<15}{drift.drift:>10.1e}{drift.tolerance:>12.1e}  {verdict}")
    print("selftest passed" if passed else "selftest FAILED: this machine or provider does not decide as PyTorch did")
    return 0 if passed else 1


def _classify(located: Located, args: argparse.Namespace) -> int:
    from clip_toolkit.classifier import load

    classifier = load(located.path, args.device, args.threads, args.resize)
    if located.is_demo:
        _say(f"no model given: using the built-in demo, which recognises {', '.join(classifier.spec.labels)}")
    _say(*classifier.notes)
    failed = 0

    def records() -> Iterator[Record]:
        nonlocal failed
        results = classifier.predict_many(args.images, args.batch_size, errors="return")
        for image, result in zip(args.images, results, strict=True):
            if isinstance(result, ClipToolkitError):
                failed += 1
                _say(str(result))
            yield record(image, result, args.top_k, classifier.provider, classifier.spec)

    for line in lines(records(), args.format):
        print(line, flush=True)
    return 1 if failed else 0


def _say(*messages: str) -> None:
    for message in messages:
        print(f"clip-infer: {message}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; errors become one line on stderr and exit code 1."""
    args = parse_args(argv)
    print_any_text()
    try:
        return run(args)
    except ClipToolkitError as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output has left: nothing more to say
        sys.stdout = None
        return 1
    except OSError as error:
        sys.stdout = None
        _say(f"the output cannot be written ({error.strerror})")
        return 1


if __name__ == "__main__":
    sys.exit(main())
