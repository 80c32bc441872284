"""``clip-search export`` and ``import``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clip_toolkit.terminal import say

if TYPE_CHECKING:
    from clip_search.commands.search_options import ExportOptions, ImportOptions
    from clip_toolkit.classifier import Classifier


def export_embeddings(options: ExportOptions) -> int:
    """Write the embeddings and return the exit code."""
    from clip_search.exchange.exporting import export_index

    count = export_index(options.index, options.output, timeout=options.timeout)
    say(f"wrote {options.output}, {count} embeddings")
    return 0


def import_from(options: ImportOptions, classifier: Classifier) -> int:
    """Read embeddings and return the exit code: 1 where images are missing."""
    from clip_search.exchange.importing import import_embeddings
    from clip_search.exchange.reading import Embeddings

    source = Embeddings(options.file, options.paths, options.path_column, options.embedding_column)
    report = import_embeddings(options.index, options.dir, source, classifier, timeout=options.timeout)
    if report.scaled:
        say(f"{report.scaled} embeddings were not of length 1, and are now: the index compares directions")
    if report.missing:
        say(f"{report.missing} images are not in {options.dir}, and were left out, such as {report.example}")
    say(f"the model agrees with the embeddings of the images that were tried (least cosine {report.cosine:.4f})")
    say(f"{report.images} images can be found: {options.dir}")
    return 1 if report.missing else 0
