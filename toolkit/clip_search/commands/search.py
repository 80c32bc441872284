"""``clip-search``: index a folder of images, search it, list its duplicates."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clip_search.commands import PROGRAM
from clip_toolkit.terminal import as_command, say, write

if TYPE_CHECKING:
    from clip_search import Duplicate, Hit, SearchIndex, UpdateReport
    from clip_search.commands.search_options import (
        DuplicatesOptions,
        ImportOptions,
        IndexOptions,
        NextOptions,
        QueryOptions,
        SearchOptions,
    )
    from clip_search.results.labelling import Unsure
    from clip_toolkit.classifier import Classifier
    from clip_toolkit.listing import Style

_REMINDERS = 5


def run(options: SearchOptions) -> int:
    """Do what was asked and return the exit code: 1 where files could not be indexed, or images are missing."""
    from clip_search.commands.exchange import export_embeddings, import_from
    from clip_search.commands.search_options import (
        ExportOptions,
        ImportOptions,
        IndexOptions,
        NextOptions,
        QueryOptions,
    )

    if isinstance(options, ExportOptions):
        return export_embeddings(options)
    if isinstance(options, ImportOptions):
        return import_from(options, _classifier(options))
    if isinstance(options, IndexOptions):
        return _index(options)
    if isinstance(options, NextOptions):
        return _next(options)
    return _query(options) if isinstance(options, QueryOptions) else _duplicates(options)


def _index(options: IndexOptions) -> int:
    from clip_search import SearchIndex
    from clip_toolkit.stream.stopping import Stop

    with (
        SearchIndex.open(options.index, _classifier(options), create=True, timeout=options.timeout) as index,
        Stop(lambda: say("finishing the images in flight; interrupt again to stop immediately")) as stop,
    ):
        report, named = _updated(index, options, stopped=lambda: stop.signum is not None)
        failures = list(index.failures())
        say(_summary(report, failed_before=len(failures) - len(named)))
        if stop.signum is not None:
            say("stopped: run the same command again to continue")
            return 128 + stop.signum
        _remind([(path, error) for path, error in failures if path not in named])
        say(f"{len(index)} images can be found, {len(failures)} files cannot: {index.root}")
    return 1 if failures else 0


def _remind(failures: Sequence[tuple[Path, str]]) -> None:
    """Of what failed in an earlier run, and was not tried again: it explains the exit code."""
    say(*(f"{path}: {error}" for path, error in failures[:_REMINDERS]))
    if len(failures) > _REMINDERS:
        say(f"and {len(failures) - _REMINDERS} more that failed before; --retry names them all")


def _updated(index: SearchIndex, options: IndexOptions, stopped: Callable[[], bool]) -> tuple[UpdateReport, set[Path]]:
    """Update, and name the files that failed; return their paths beside the report."""
    from clip_toolkit.images.folder import ImageListing
    from clip_toolkit.stream.progress import Progress

    progress, named = Progress(sys.stderr), set[Path]()

    def plan(count: int) -> None:
        nonlocal progress
        progress = Progress(sys.stderr, count)

    def looked_at(path: str, error: str | None) -> None:
        if error is not None:
            progress.clear()
            say(f"{path}: {error}")
            named.add(index.root / path)
        progress.step(error is not None)

    listing = ImageListing(all_files=options.all_files)
    report = index.update(
        options.dir, retry=options.retry, listing=listing, on_file=looked_at, on_plan=plan, stopped=stopped
    )
    progress.clear()
    say(*listing.notes())
    return report, named


def _summary(report: UpdateReport, failed_before: int) -> str:
    counts = {
        "embedded": report.embedded,
        "renamed or copied": report.recognised,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "failed": report.failed,
    }
    if failed_before:
        counts["failed before"] = failed_before
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def _query(options: QueryOptions) -> int:
    from clip_search.results.hits import PRESENT
    from clip_search.results.listing import HIT_KEYS, hit_records, lines

    hits = _hits_by_image(options, options.image) if options.image is not None else _hits_by_text(options)
    write(*lines(hit_records(hits), HIT_KEYS, _style(options)))
    if options.html is not None:
        _show_hits(options, options.html, hits)
    stale = sum(hit.state != PRESENT for hit in hits)
    if stale:
        say(f"{stale} of these images are changed or missing since they were indexed. Run: clip-search index")
    return 1 if stale else 0


def _hits_by_image(options: QueryOptions, image: str) -> list[Hit]:
    from clip_search import SearchIndex

    with SearchIndex.open(options.index, _classifier(options), timeout=options.timeout) as index:
        return index.query(image, options.top_k)


def _hits_by_text(options: QueryOptions) -> list[Hit]:
    from clip_search import SearchIndex
    from clip_search.commands.search_options import DEFAULT_TEXT_MODEL
    from clip_toolkit import load_text
    from clip_toolkit.errors import ModelNotFoundError

    if options.text_model is None and not DEFAULT_TEXT_MODEL.is_file():
        raise ModelNotFoundError(
            f"{DEFAULT_TEXT_MODEL}: there is no such file, and words need a text tower. Make one of the index's "
            f"encoder: clip-export --text-tower -o {DEFAULT_TEXT_MODEL}, or name its file with --text-model."
        )
    encoder = load_text(options.text_model or DEFAULT_TEXT_MODEL, options.device, options.threads)
    with (
        SearchIndex.open(options.index, timeout=options.timeout) as index,
        warnings.catch_warnings(record=True) as truncated,
    ):
        hits = index.query_text(encoder, options.text or "", options.top_k)
    say(*(str(warning.message) for warning in truncated))
    return hits


def _show_hits(options: QueryOptions, html: Path, hits: list[Hit]) -> None:
    from clip_search.results.contact_sheet import Picture, write_contact_sheet

    query = None if options.image is None else Path(options.image)
    title = options.text or options.image or ""
    summary = f"{len(hits)} images, most alike first, with their cosine similarity"
    notes = write_contact_sheet(html, title, summary, [[Picture(hit.path, hit.score) for hit in hits]], query)
    say(*notes, f"wrote {html}")


def _next(options: NextOptions) -> int:
    from clip_search import SearchIndex
    from clip_search.results.listing import NEXT_KEYS, lines, next_records
    from clip_toolkit.errors import DatasetError
    from clip_toolkit.files.csv_table import read_rows
    from clip_toolkit.stream.progress import Progress

    manifest = options.labelled
    rows = [] if manifest is None else read_rows(manifest, ("path",), DatasetError)
    labelled = [] if manifest is None else [manifest.parent / row.cells["path"] for row in rows]
    with SearchIndex.open(options.index, _classifier(options), timeout=options.timeout) as index:
        progress = Progress(sys.stderr, len(index))
        found = index.next_to_label(options.top_k, labelled=labelled, step=progress.step)
    progress.clear()
    write(*lines(next_records(found), NEXT_KEYS, _style(options)))
    if options.html is not None:
        _show_next(options.html, found)
    return 0


def _show_next(path: Path, found: list[Unsure]) -> None:
    from clip_search.results.contact_sheet import Picture, write_contact_sheet

    pictures = [[Picture(item.path, item.margin) for item in found]]
    summary = f"{len(found)} images, the least sure first and then the least alike, with how sure the model is"
    say(*write_contact_sheet(path, "To label next", summary, pictures), f"wrote {path}")


def _duplicates(options: DuplicatesOptions) -> int:
    from clip_search import SearchIndex
    from clip_search.results.listing import DUPLICATE_KEYS, duplicate_records, lines

    with SearchIndex.open(options.index, timeout=options.timeout) as index:
        groups = index.duplicates(options.threshold)
    records = duplicate_records(groups)
    write(*lines(records, DUPLICATE_KEYS, _style(options)))
    summary = f"{len(groups)} groups, {sum(map(len, groups))} images"
    if options.html is not None:
        explained = f"{summary}, with the cosine similarity to the member most alike"
        _show_groups(options.html, explained if groups else "No images are alike enough to be duplicates", groups)
    say(summary)
    return 0


def _show_groups(path: Path, summary: str, groups: list[list[Duplicate]]) -> None:
    from clip_search.results.contact_sheet import Picture, write_contact_sheet

    pictures = [[Picture(item.path, item.score) for item in group] for group in groups]
    say(*write_contact_sheet(path, "Duplicates", summary, pictures), f"wrote {path}")


def _classifier(options: IndexOptions | QueryOptions | NextOptions | ImportOptions) -> Classifier:
    from clip_search.commands.search_options import QueryOptions
    from clip_toolkit.classifier import load
    from clip_toolkit.files.locate import find_model

    located = find_model(options.model)
    is_one_image = isinstance(options, QueryOptions)  # for which laying out the weights anew costs more than it saves
    classifier = load(
        located.path, options.device, options.threads, prepack=not is_one_image, throughput=not is_one_image
    )
    classifier.explains = False
    if located.is_demo:
        say("no model given: using the built-in demo, whose encoder has seen nothing but drawn shapes")
    say(*classifier.notes)
    return classifier


def _style(options: QueryOptions | DuplicatesOptions | NextOptions) -> Style:
    from clip_toolkit.listing import Style

    return Style.of_output(options.format, quote_formulas=options.quote_formulas)


@as_command(PROGRAM)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    from clip_search.commands.search_options import parse_args

    options = parse_args(argv)
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an image is said in the index
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
