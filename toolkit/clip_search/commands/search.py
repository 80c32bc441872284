"""``clip-search``: index a folder of images, search it, list its duplicates."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from clip_search.commands.search_arguments import DEFAULT_TEXT_MODEL, parse_args
from clip_toolkit import terminal

if TYPE_CHECKING:
    from clip_search import Duplicate, Hit, SearchIndex, UpdateReport
    from clip_toolkit.classifier import Classifier

_PROGRAM = "clip-search"
_REMINDERS = 5
say = partial(terminal.say, program=_PROGRAM)


def run(args: argparse.Namespace) -> int:
    """Do what was asked and return the exit code: 1 where files could not be indexed, or images are missing."""
    return {"index": _index, "query": _query, "duplicates": _duplicates}[args.command](args)


def _index(args: argparse.Namespace) -> int:
    from clip_search import SearchIndex
    from clip_toolkit.stream.stopping import Stop

    with (
        SearchIndex.open(args.index, _classifier(args), create=True, timeout=args.timeout) as index,
        Stop(lambda: say("stopping after the images in flight; once more stops at once")) as stop,
    ):
        named: set[Path] = set()
        report = _updated(index, args, named, stopped=lambda: stop.signum is not None)
        say(_summary(report))
        if stop.signum is not None:
            say("stopped: the same command goes on from here")
            return 128 + stop.signum
        failures = list(index.failures())
        _remind([(path, error) for path, error in failures if path not in named])
        say(f"{len(index)} images can be found, {len(failures)} files cannot: {index.root}")
        if args.approximate:
            index.build_approximate()
    return 1 if failures else 0


def _remind(failures: Sequence[tuple[Path, str]]) -> None:
    """Of what failed in an earlier run, and was not tried again: it explains the exit code."""
    say(*(f"{path}: {error}" for path, error in failures[:_REMINDERS]))
    if len(failures) > _REMINDERS:
        say(f"and {len(failures) - _REMINDERS} more that failed before; --retry names them all")


def _updated(
    index: SearchIndex, args: argparse.Namespace, named: set[Path], stopped: Callable[[], bool]
) -> UpdateReport:
    """Update, say which files failed, and add their paths to ``named``."""
    from clip_toolkit.stream.progress import Progress

    progress = Progress(sys.stderr)

    def plan(count: int) -> None:
        nonlocal progress
        progress = Progress(sys.stderr, count)

    def looked_at(path: str, error: str | None) -> None:
        if error is not None:
            progress.clear()
            say(f"{path}: {error}")
            named.add(index.root / path)
        progress.step(error is not None)

    report = index.update(args.dir, retry=args.retry, on_file=looked_at, on_plan=plan, stopped=stopped)
    progress.clear()
    return report


def _summary(report: UpdateReport) -> str:
    counts = {
        "embedded": report.embedded,
        "renamed or copied": report.recognised,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "failed": report.failed,
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def _query(args: argparse.Namespace) -> int:
    from clip_search.results.hits import PRESENT
    from clip_search.results.listing import HIT_KEYS, hit_records, listing

    hits = _hits_by_text(args) if args.text is not None else _hits_by_image(args)
    for line in listing(hit_records(hits), HIT_KEYS, args.format, ascii_only=not terminal.takes_any_text()):
        print(line)
    if args.html is not None:
        _show_hits(args, hits)
    stale = sum(hit.state != PRESENT for hit in hits)
    if stale:
        say(f"{stale} of these images are changed or missing since they were indexed. Run: clip-search index")
    return 1 if stale else 0


def _hits_by_image(args: argparse.Namespace) -> list[Hit]:
    from clip_search import SearchIndex

    with SearchIndex.open(args.index, _classifier(args), timeout=args.timeout) as index:
        return index.query(args.image, args.top_k, approximate=args.approximate)


def _hits_by_text(args: argparse.Namespace) -> list[Hit]:
    from clip_search import SearchIndex
    from clip_toolkit import load_text

    encoder = load_text(args.text_model or DEFAULT_TEXT_MODEL, args.device, args.threads)
    with SearchIndex.open(args.index, timeout=args.timeout) as index, warnings.catch_warnings(record=True) as truncated:
        hits = index.query_text(encoder, args.text, args.top_k, approximate=args.approximate)
    say(*(str(warning.message) for warning in truncated))
    return hits


def _show_hits(args: argparse.Namespace, hits: list[Hit]) -> None:
    from clip_search.results.contact_sheet import Picture, write_contact_sheet

    title, query = (args.image, Path(args.image)) if args.text is None else (args.text, None)
    summary = f"{len(hits)} images, most alike first, with their cosine similarity"
    notes = write_contact_sheet(args.html, title, summary, [[Picture(hit.path, hit.score) for hit in hits]], query)
    say(*notes, f"wrote {args.html}")


def _duplicates(args: argparse.Namespace) -> int:
    from clip_search import SearchIndex
    from clip_search.results.listing import DUPLICATE_KEYS, duplicate_records, listing

    with SearchIndex.open(args.index, timeout=args.timeout) as index:
        groups = index.duplicates(args.threshold)
    records = duplicate_records(groups)
    for line in listing(records, DUPLICATE_KEYS, args.format, ascii_only=not terminal.takes_any_text()):
        print(line)
    summary = f"{len(groups)} groups, {sum(map(len, groups))} images"
    if args.html is not None:
        _show_groups(args.html, f"{summary}, with the cosine similarity to the member most alike", groups)
    say(summary)
    return 0


def _show_groups(path: Path, summary: str, groups: list[list[Duplicate]]) -> None:
    from clip_search.results.contact_sheet import Picture, write_contact_sheet

    pictures = [[Picture(item.path, item.score) for item in group] for group in groups]
    say(*write_contact_sheet(path, "Duplicates", summary, pictures), f"wrote {path}")


def _classifier(args: argparse.Namespace) -> Classifier:
    from clip_toolkit.classifier import load
    from clip_toolkit.files.locate import find_model

    located = find_model(args.model)
    is_one_image = args.command == "query"  # for which laying out the weights anew costs more than it saves
    classifier = load(located.path, args.device, args.threads, prepack=not is_one_image)
    if located.is_demo:
        say("no model given: using the built-in demo, whose encoder has seen nothing but drawn shapes")
    say(*classifier.notes)
    return classifier


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; errors become one line on stderr and exit code 1."""
    args = parse_args(argv)
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an image is said in the index
    return terminal.exit_code(_PROGRAM, lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
