"""``clip-infer IMAGE ...``: any number of images, to the screen or to a file that can be gone on with."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, tee
from pathlib import Path
from typing import Any

from clip_toolkit.classifier import Classifier, load
from clip_toolkit.errors import ImageError
from clip_toolkit.files.locate import Located
from clip_toolkit.images import MAX_PIXELS, ImageSource
from clip_toolkit.prediction import Prediction
from clip_toolkit.stream.inputs import STDIN, Input, expand
from clip_toolkit.stream.part_file import PartFile
from clip_toolkit.stream.pipeline import chunks
from clip_toolkit.stream.progress import Progress
from clip_toolkit.stream.records import COLUMNAR, Record, lines, record
from clip_toolkit.stream.stopping import Stop
from clip_toolkit.stream.text_table import TEXT_COLUMN, check_table, read_texts
from clip_toolkit.stream.writers import import_pyarrow, write
from clip_toolkit.terminal import say
from clip_toolkit.text.pairs import check_pairing
from clip_toolkit.version import __version__

_FEW = 8
"""Images up to which laying out the weights anew costs more than it saves: ViT-B/32 in int8, 50 ms; then 5 an image."""


def classify(located: Located, args: argparse.Namespace) -> int:
    """Classify what the arguments name and return the exit code.

    0: all fine; 1: some inputs failed; 128 and the signal's number: stopped by it, after the batch in flight.
    """
    if args.format == "parquet":
        import_pyarrow()  # before the work, not after it
    if args.texts is not None:
        check_table(args.texts, args.text_column or TEXT_COLUMN)
    classifier = _opened(located, args)
    with Stop(lambda: say("stopping after the images in flight; once more stops at once")) as stop:
        to_file = args.output is not None
        failed = _to_file(classifier, located.path, args, stop) if to_file else _to_screen(classifier, args, stop)
    if stop.signum is not None:
        return 128 + stop.signum
    return 1 if failed else 0


def _opened(located: Located, args: argparse.Namespace) -> Classifier:
    if args.max_pixels and args.max_pixels > MAX_PIXELS:
        from PIL import Image

        Image.MAX_IMAGE_PIXELS = args.max_pixels  # Pillow's own limit, which would refuse what was asked for
    classifier = load(
        located.path,
        args.device,
        args.threads,
        args.resize,
        max_pixels=args.max_pixels or MAX_PIXELS,
        allow_truncated=args.allow_truncated,
        fast_decode=args.fast_decode,
        prepack=not _are_few(args),
    )
    if located.is_demo:
        say(f"no model given: using the built-in demo, which recognises {', '.join(classifier.spec.labels)}")
    check_pairing(classifier.spec, _has_texts(args))
    remarks = f" ({'; '.join(classifier.notes)})" if classifier.notes else ""
    say(f"{classifier.provider}, threads: {classifier.threads}{remarks}")
    return classifier


def _are_few(args: argparse.Namespace) -> bool:
    """Whether no more than `_FEW` images are meant, as far as can be told without looking into folders."""
    single = all(name == STDIN or Path(name).is_file() for name in args.images)
    return single and not args.stdin_paths and not args.texts and len(args.images) <= _FEW


def _to_screen(classifier: Classifier, args: argparse.Namespace, stop: Stop) -> int:
    progress = Progress(sys.stderr, _total(args))
    failed = 0

    def counted() -> Iterator[Record]:
        nonlocal failed
        for item in _records(classifier, _inputs(args), args, stop, progress):
            failed += item["error"] is not None
            yield item

    for line in lines(counted(), args.format):
        progress.clear()
        print(line, flush=True)
    progress.clear()
    return failed


def _to_file(classifier: Classifier, model: Path, args: argparse.Namespace, stop: Stop) -> int:
    settings = _settings(classifier, model, args)
    with PartFile(args.output, settings, args.batch_size, args.resume) as part:
        progress = Progress(sys.stderr, _total(args), part.done)
        failed = part.failed
        for batch in chunks(_records(classifier, part.remaining(_inputs(args)), args, stop, progress), args.batch_size):
            part.append(batch)
            failed += sum(item["error"] is not None for item in batch)
        progress.clear()
        if stop.signum is not None:
            say(f"stopped: go on with --resume ({part.path} holds what is done)")
            return failed
        write(part.records(), args.format, args.output, classifier.spec)
        part.remove()
    return failed


def _records(
    classifier: Classifier, inputs: Iterable[Input], args: argparse.Namespace, stop: Stop, progress: Progress
) -> Iterator[Record]:
    asked, named = tee(stop.until(inputs, args.batch_size))
    texts: Iterator[str] | None = None
    if _has_texts(args):
        asked, read = tee(asked)
        texts = (item.text or "" for item in read)
    images = (_source(item.name) for item in asked)
    results = classifier.predict_many(images, args.batch_size, errors="return", texts=texts)
    for item, result in zip(named, results, strict=True):
        remark = _remark(item, result, classifier)
        if remark:
            progress.clear()
            say(remark)
        progress.step(isinstance(result, ImageError))
        columns = args.format in COLUMNAR
        yield record(
            item.name, result, args.top_k, classifier.provider, classifier.spec, text=item.text, columns=columns
        )


def _remark(item: Input, result: Prediction | ImageError, classifier: Classifier) -> str | None:
    """What has to be said of a result, if anything."""
    if isinstance(result, ImageError):
        return str(result)
    if result.text_truncated and classifier.tokenizer is not None:
        most = classifier.tokenizer.spec.context
        return f"{item.name}: its text has more than {most} tokens, and the end of it was not read"
    return None


def _has_texts(args: argparse.Namespace) -> bool:
    return args.text is not None or args.texts is not None


def _inputs(args: argparse.Namespace) -> Iterator[Input]:
    if args.texts is not None:
        return read_texts(args.texts, args.text_column or TEXT_COLUMN)
    return (Input(name, args.text) for name in _names(args))


def _names(args: argparse.Namespace) -> Iterator[str]:
    typed = (line.rstrip("\r\n") for line in sys.stdin) if args.stdin_paths else ()
    return expand(name for name in chain(args.images, typed) if name)


def _source(name: str) -> ImageSource:
    return sys.stdin.buffer.read() if name == STDIN else name


def _total(args: argparse.Namespace) -> int | None:
    """The number of images, where somebody watches and it can be known beforehand."""
    if args.stdin_paths or not sys.stderr.isatty():
        return None
    return sum(1 for _ in _inputs(args))


def _settings(classifier: Classifier, model: Path, args: argparse.Namespace) -> dict[str, Any]:
    """All that decides about the records of a run, apart from its inputs."""
    with model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    options = {name: getattr(args, name) for name in ("batch_size", "top_k", "max_pixels", "resize")}
    decoding = {name: getattr(args, name) for name in ("allow_truncated", "fast_decode")}
    run = {"clip_toolkit": __version__, "model": digest, "provider": classifier.provider}
    return {**run, **options, **decoding, "columns": args.format in COLUMNAR}
