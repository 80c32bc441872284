"""``clip-scale``: classify a source into a folder of part files by an engine, or write its features."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from clip_scale.commands import PROGRAM
from clip_toolkit.terminal import as_command, say

if TYPE_CHECKING:
    from clip_scale.batch_classifier import BatchClassifier
    from clip_scale.commands.scale_options import ScaleOptions
    from clip_scale.running import Engine
    from clip_scale.sources.source import Source
    from clip_scale.summary import Summary

_REMARKS = 10
_LABELS = 5


def run(options: ScaleOptions) -> int:
    """Do what the options name and return the exit code: 1 where images failed."""
    from clip_scale import running
    from clip_scale.commands.scale_options import RunOptions
    from clip_toolkit.images.folder import ImageListing
    from clip_toolkit.stream.stopping import Stop

    listing = ImageListing(all_files=options.all_files)
    classifier = _classifier(options)
    engine = _engine(options)  # before signals are taken over: Ray sets handlers of its own
    report = _Report(quiet=options.output.quiet)
    with Stop(lambda: say("ending with the parts in flight; interrupt again to stop immediately")) as stop:
        summary = running.run(
            _source(options),
            options.sink,
            classifier,
            engine,
            form=options.output.format if isinstance(options, RunOptions) else "parquet",
            resume=options.output.resume,
            max_errors=options.output.max_errors,
            listing=listing,
            on_part=report.step,
            stopped=lambda: stop.signum is not None,
        )
    report.end(summary)
    say(*listing.notes())
    if stop.signum is not None:
        say(f"stopped: resume with --resume ({options.sink} holds what is done)")
        return 128 + stop.signum
    return 1 if summary.errors else 0


class _Report:
    """What is said while a run goes on, and at its end."""

    def __init__(self, *, quiet: bool) -> None:
        from clip_toolkit.stream.progress import Progress

        self._progress, self._quiet = Progress(sys.stderr, quiet=quiet), quiet
        self._began, self._images, self._remarks = monotonic(), 0, 0

    def step(self, counts: Summary) -> None:
        """Count a part, and tell of the first errors."""
        self._images += counts.images
        for remark in counts.remarks:
            self._remarks += 1
            if self._remarks <= _REMARKS:
                self._progress.clear()
                say(remark)
        for number in range(counts.images):
            self._progress.step(number < counts.errors)

    def end(self, summary: Summary) -> None:
        """Tell the counts of the whole run, and the rate of this process."""
        self._progress.clear()
        if summary.errors > _REMARKS:
            say(f"{summary.errors} images failed; the column error of the part files names them all")
        if summary.truncated:
            say(f"{summary.truncated} texts have more tokens than the model reads, and their ends were not read")
        if not self._quiet:
            seconds = monotonic() - self._began
            say(
                f"{summary.images} images, {summary.errors} errors; {self._images} now, in {seconds:.1f} s: "
                f"{self._images / max(seconds, 1e-9):.1f} images/s",
                *(f"{label}: {count}" for label, count in summary.labels.most_common(_LABELS)),
            )


def _classifier(options: ScaleOptions) -> BatchClassifier:
    from clip_scale.batch_classifier import BatchClassifier
    from clip_scale.commands.scale_options import RunOptions
    from clip_toolkit.files.locate import find_model
    from clip_toolkit.images import MAX_PIXELS
    from clip_toolkit.images.sources import is_url

    running, decoding, columns = options.running, options.decoding, options.manifest
    model: str | None = running.model
    if model is None or not is_url(model):
        located = find_model(model)
        model = str(located.path)
        if located.is_demo:
            say("no model given: using the built-in demo, which recognises drawn shapes")
    sha256 = ""
    if options.verify is not None:
        from clip_scale.model_copy import digest_of
        from clip_toolkit.files.signature import verify

        sha256 = digest_of(Path(model))  # before: what is put there while it is verified is refused below
        verified = verify(Path(model), options.verify)
        if not options.output.quiet:
            say(verified)
    classifier = BatchClassifier(  # whose workers take no other file, by its SHA-256
        model,
        sha256=sha256,
        threads=running.threads,
        device=running.device,
        batch_size=running.batch_size,
        resize=running.resize,
        max_pixels=decoding.max_pixels or MAX_PIXELS,
        allow_truncated=decoding.allow_truncated,
        fast_decode=decoding.fast_decode,
        max_memory=running.max_memory,
        bytes_column=columns.bytes_column,
        path_column=columns.path_column,
    )
    if not isinstance(options, RunOptions):
        return classifier
    return replace(
        classifier,
        top_k=options.output.top_k,
        embedding=options.output.embedding or False,
        text_column=options.manifest.text_column or classifier.text_column,
    )


def _source(options: ScaleOptions) -> Source:
    from clip_scale.columns import Columns
    from clip_scale.commands.scale_options import RunOptions
    from clip_scale.sources.labelled import LabelledSource
    from clip_scale.sources.source import Source

    named, size = options.manifest, options.output.part_size
    columns = Columns(named.bytes_column, named.path_column)
    if not isinstance(options, RunOptions):
        return LabelledSource(
            options.source,
            columns,
            part_size=size,
            all_files=options.all_files,
            label_column=options.manifest.label_column,
        )
    text = options.manifest.text_column
    columns = replace(columns, text=text or columns.text)
    return Source(options.source, columns, text is not None, size, options.all_files)


def _engine(options: ScaleOptions) -> Engine:
    from clip_scale.engines.local import LocalEngine
    from clip_scale.engines.ray_data import RayEngine

    given = options.engine
    if given.engine == "local":
        return LocalEngine(given.workers)
    engine = RayEngine(given.workers, given.address, given.num_gpus)
    engine.connect()
    return engine


@as_command(PROGRAM)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    from clip_scale.commands.scale_options import parse_args

    options = parse_args(argv)
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an image is said in its record
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
