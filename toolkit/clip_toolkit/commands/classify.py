"""``clip-infer IMAGE ...``: any number of images, to the screen, or to a file that an interrupted run can resume."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import chain, tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_toolkit.classifier import Classifier, load
from clip_toolkit.commands.infer_options import ExplainOptions, InferOptions
from clip_toolkit.errors import ImageError, ModelError
from clip_toolkit.files.locate import Located
from clip_toolkit.files.stamp import sha256_of
from clip_toolkit.images import MAX_PIXELS, DecodeOptions, ImageSource
from clip_toolkit.images.folder import ImageListing
from clip_toolkit.images.limits import raise_pillows_limit
from clip_toolkit.listing import Style
from clip_toolkit.network import NO_NOVELTY
from clip_toolkit.prediction import Prediction
from clip_toolkit.spec.tasks import FILE
from clip_toolkit.stream.frames import frames, import_av
from clip_toolkit.stream.inputs import STDIN, Input, expand
from clip_toolkit.stream.part_file import PartFile
from clip_toolkit.stream.pipeline import chunks
from clip_toolkit.stream.progress import Progress
from clip_toolkit.stream.records import COLUMNAR, Record, lines, record
from clip_toolkit.stream.stopping import Stop
from clip_toolkit.stream.text_table import TEXT_COLUMN, check_table, read_texts
from clip_toolkit.stream.writers import import_pyarrow, write
from clip_toolkit.terminal import say, standard_input
from clip_toolkit.terminal import write as write_lines
from clip_toolkit.text.pairs import check_pairing
from clip_toolkit.version import __version__

if TYPE_CHECKING:
    from clip_toolkit.explaining.explainer import OverlayFolder

_FEW = 8
"""Images up to which laying out the weights anew costs more than it saves: ViT-B/32 in int8, 50 ms; then 5 an image."""


def classify(located: Located, options: InferOptions) -> int:
    """Classify what the options name and return the exit code.

    0: all fine; 1: some inputs failed; 128 and the signal's number: stopped by it, after the batch in flight.
    """
    if options.output.format == "parquet":
        import_pyarrow()  # before the work, not after it
    if options.video.frames:
        import_av()
    if options.text.texts is not None:
        check_table(options.text.texts, options.text.column or TEXT_COLUMN)
    if options.stdin_paths or STDIN in options.images:
        standard_input()
    classifier = _open(located, options)
    overlays = _overlays(classifier, options.explaining)
    listing = ImageListing(all_files=options.all_files)
    with Stop(lambda: say("finishing the images in flight; interrupt again to stop immediately")) as stop:
        if options.output.output is None:
            failed = _to_screen(classifier, options, listing, stop, overlays)
        else:
            output = options.output.output
            failed = _to_file(classifier, located.path, output, options, listing=listing, stop=stop, overlays=overlays)
    say(*listing.notes())
    if stop.signum is not None:
        return 128 + stop.signum
    return 1 if failed else 0


def _open(located: Located, options: InferOptions) -> Classifier:
    running, decoding = options.running, options.decoding
    raise_pillows_limit(decoding.max_pixels or MAX_PIXELS)
    are_few = _are_few(options)
    classifier = load(
        located.path,
        running.device,
        running.threads,
        running.resize,
        max_pixels=decoding.max_pixels or MAX_PIXELS,
        allow_truncated=decoding.allow_truncated,
        fast_decode=decoding.fast_decode,
        prepack=not are_few,
        throughput=not are_few and options.explaining.explain is None,  # which may run the network by itself
        isolate=options.limits,
    )
    classifier.explains = options.explaining.explain is not None
    if located.is_demo:
        say(f"no model given: using the built-in demo, which recognises {', '.join(classifier.spec.labels)}")
    check_pairing(classifier.spec, _has_texts(options))
    if options.output.reject_novel and classifier.spec.novelty is None:
        raise ModelError(f"--reject-novel: {NO_NOVELTY}")
    if not options.output.quiet:
        remarks = f" ({'; '.join(classifier.notes)})" if classifier.notes else ""
        say(f"{classifier.provider}, threads: {classifier.threads}{remarks}")
    return classifier


def _overlays(classifier: Classifier, options: ExplainOptions) -> OverlayFolder | None:
    if options.explain is None:
        return None
    from clip_toolkit.explaining.explainer import Explainer, OverlayFolder

    return OverlayFolder(options.explain, Explainer(classifier, options.explain_by or FILE))


def _are_few(options: InferOptions) -> bool:
    """Whether no more than `_FEW` images are meant, as far as can be told without looking into folders."""
    single = not options.video.frames and all(name == STDIN or Path(name).is_file() for name in options.images)
    return single and not options.stdin_paths and not options.text.texts and len(options.images) <= _FEW


def _to_screen(
    classifier: Classifier, options: InferOptions, listing: ImageListing, stop: Stop, overlays: OverlayFolder | None
) -> int:
    progress = Progress(sys.stderr, _total(options), quiet=options.output.quiet)
    failed = 0

    def counted() -> Iterator[Record]:
        nonlocal failed
        for item in _records(classifier, _inputs(options, listing), options, stop, progress, overlays=overlays):
            failed += item["error"] is not None
            yield item

    style = Style.of_output(options.output.format, quote_formulas=options.output.quote_formulas)
    for line in lines(counted(), style):
        progress.clear()
        write_lines(line)
    progress.clear()
    return failed


def _to_file(
    classifier: Classifier,
    model: Path,
    output: Path,
    options: InferOptions,
    *,
    listing: ImageListing,
    stop: Stop,
    overlays: OverlayFolder | None,
) -> int:
    size = options.running.batch_size
    settings = _settings(classifier, model, options)
    with PartFile(output, settings, size, options.output.resume) as part:
        progress = Progress(sys.stderr, _total(options), part.done, quiet=options.output.quiet)
        failed = part.failed
        remaining = part.remaining(_inputs(options, listing))
        for batch in chunks(_records(classifier, remaining, options, stop, progress, overlays=overlays), size):
            part.append(batch)
            failed += sum(item["error"] is not None for item in batch)
        progress.clear()
        if stop.signum is not None:
            say(f"stopped: resume with --resume ({part.path} holds what is done)")
            return failed
        style = Style(options.output.format, quote_formulas=options.output.quote_formulas)
        write(part.records(), style, output, classifier.spec, timed=bool(options.video.frames))
        part.remove()
    return failed


def _records(
    classifier: Classifier,
    inputs: Iterable[Input],
    options: InferOptions,
    stop: Stop,
    progress: Progress,
    *,
    overlays: OverlayFolder | None,
) -> Iterator[Record]:
    size = options.running.batch_size
    asked, named = tee(stop.until(inputs, size))
    texts: Iterator[str] | None = None
    if _has_texts(options):
        asked, read = tee(asked)
        texts = (item.text or "" for item in read)
    images = (_source(item) for item in asked)
    results = classifier.predict_many(images, size, errors="return", texts=texts)
    for number, (item, result) in enumerate(zip(named, results, strict=True), 1):
        remark = _remark(item, result, classifier)
        if remark:
            progress.clear()
            say(remark)
        progress.step(isinstance(result, ImageError))
        if overlays is not None and isinstance(result, Prediction):
            overlays.add(number, item.name, result)
        yield record(
            item.name,
            result,
            options.output.top_k,
            classifier.provider,
            classifier.spec,
            text=item.text,
            time=item.time,
            columns=options.output.format in COLUMNAR,
            reject_novel=options.output.reject_novel,
        )


def _remark(item: Input, result: Prediction | ImageError, classifier: Classifier) -> str | None:
    """Return what has to be said of a result, if anything."""
    if isinstance(result, ImageError):
        return str(result)
    if result.text_truncated and classifier.tokenizer is not None:
        most = classifier.tokenizer.spec.context
        return f"{item.name}: its text has more than {most} tokens, and the end of it was not read"
    return None


def _has_texts(options: InferOptions) -> bool:
    return options.text.text is not None or options.text.texts is not None


def _inputs(options: InferOptions, listing: ImageListing) -> Iterator[Input]:
    if options.text.texts is not None:
        return read_texts(options.text.texts, options.text.column or TEXT_COLUMN)
    found = _frames(options) if options.video.frames else map(Input, _names(options, listing))
    return (item._replace(text=options.text.text) for item in found)


def _frames(options: InferOptions) -> Iterator[Input]:
    decoding = DecodeOptions(options.decoding.max_pixels or MAX_PIXELS, options.decoding.allow_truncated)
    return chain.from_iterable(frames(name, options.video.fps, decoding) for name in options.video.frames)


def _names(options: InferOptions, listing: ImageListing) -> Iterator[str]:
    typed = (line.rstrip("\r\n") for line in standard_input()) if options.stdin_paths else ()
    return expand((name for name in chain(options.images, typed) if name), listing)


def _source(item: Input) -> ImageSource | ImageError:
    if item.image is not None:
        return item.image
    return standard_input().buffer.read() if item.name == STDIN else item.name


def _total(options: InferOptions) -> int | None:
    """Count the images, where somebody watches and it can be known beforehand."""
    if options.stdin_paths or options.video.frames or not sys.stderr.isatty():
        return None
    return sum(1 for _ in _inputs(options, ImageListing(all_files=options.all_files)))


def _settings(classifier: Classifier, model: Path, options: InferOptions) -> dict[str, Any]:
    """All that decides about the records of a run, apart from its inputs."""
    return {
        "clip_toolkit": __version__,
        "model": sha256_of(model),
        "provider": classifier.provider,
        "batch_size": options.running.batch_size,
        "top_k": options.output.top_k,
        "reject_novel": options.output.reject_novel,
        "resize": options.running.resize,
        "fps": options.video.fps,
        **vars(options.decoding),
        "isolation": None if options.limits is None else vars(options.limits),
        "columns": options.output.format in COLUMNAR,
    }
