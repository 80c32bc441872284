"""The options of ``clip-search``'s commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias

from clip_search.commands import PROGRAM
from clip_search.results.duplicates import THRESHOLD
from clip_search.store.database import TIMEOUT
from clip_toolkit import listing
from clip_toolkit.commands.running_options import MODEL_HELP, MOST, AllFiles, QuoteFormulas, RunningOptions
from clip_toolkit.numbers import number, whole
from clip_toolkit.options import Option, Parser, UsageError, parse_command

DEFAULT_INDEX = Path(".clip-search")
DEFAULT_TEXT_MODEL = Path("text.onnx")
_LONGEST = 86_400  # a day; SQLite counts milliseconds in 32 bits

_EPILOG = (
    f"{MODEL_HELP} Exit code: 0 all fine, 1 something failed, 2 usage error, 130 and 143 interrupted, 141 the reader "
    "of the output has gone."
)

_seconds = number(f"of seconds from 0 to {_LONGEST:,}", lambda value: 0 <= value <= _LONGEST)
_cosine = number("above 0 and up to 1", lambda value: 0 < value <= 1)


@dataclass(frozen=True)
class PlaceOptions:
    """Which index."""

    index: Annotated[Path, Option("folder of the index", parse=Path, metavar="PATH")] = DEFAULT_INDEX
    timeout: Annotated[
        float, Option("how long to wait while another process writes the index", parse=_seconds, metavar="SECONDS")
    ] = TIMEOUT


@dataclass(frozen=True)
class ListingOptions:
    """How what was found is shown."""

    format: Annotated[str, Option("output format", choices=listing.FORMATS)] = "table"
    html: Annotated[Path | None, Option("also write a page with the images found", parse=Path, metavar="FILE")] = None
    quote_formulas: QuoteFormulas = False


@dataclass(frozen=True)
class IndexOptions(RunningOptions, PlaceOptions):
    """Options of ``clip-search index``."""

    dir: Annotated[Path | None, Option("folder of images (default: the last one)", "DIR", parse=Path, nargs="?")] = None
    retry: Annotated[bool, Option("try again the files that could not be decoded")] = False
    all_files: AllFiles = False


@dataclass(frozen=True)
class QueryOptions(ListingOptions, RunningOptions, PlaceOptions):
    """Options of ``clip-search query``.

    Raises:
        UsageError: some of them do not go together.
    """

    image: Annotated[str | None, Option("image file to compare with", "IMAGE", nargs="?")] = None
    text: Annotated[str | None, Option("description to compare with", metavar="WORDS")] = None
    text_model: Annotated[
        Path | None,
        Option(f"file made by clip-export --text-tower (default: {DEFAULT_TEXT_MODEL})", parse=Path, metavar="FILE"),
    ] = None
    top_k: Annotated[int, Option("images to find", parse=whole(most=MOST), metavar="N")] = 10

    def __post_init__(self) -> None:
        """Refuse options that do not go together."""
        if (self.image is None) == (self.text is None):
            raise UsageError("name one IMAGE, or describe it with --text")
        if self.text_model and self.text is None:
            raise UsageError("--text-model reads the words of --text: use both")


@dataclass(frozen=True)
class DuplicatesOptions(ListingOptions, PlaceOptions):
    """Options of ``clip-search duplicates``."""

    threshold: Annotated[
        float,
        Option(
            "similarity from which two images are nearly the same; 1 for equal files only",
            parse=_cosine,
            metavar="COSINE",
        ),
    ] = THRESHOLD


@dataclass(frozen=True)
class NextOptions(ListingOptions, RunningOptions, PlaceOptions):
    """Options of ``clip-search next``."""

    labelled: Annotated[
        Path | None,
        Option("manifest (CSV or JSON lines with a column path) of images to leave out", parse=Path, metavar="FILE"),
    ] = None
    top_k: Annotated[int, Option("images to choose", parse=whole(most=MOST), metavar="N")] = 10


@dataclass(frozen=True)
class ExportOptions(PlaceOptions):
    """Options of ``clip-search export``."""

    output: Annotated[Path, Option("NAME.parquet, or NAME.lance for a table of LanceDB", "OUT", parse=Path)] = field(
        kw_only=True
    )


@dataclass(frozen=True)
class ImportOptions(RunningOptions, PlaceOptions):
    """Options of ``clip-search import``."""

    file: Annotated[
        Path, Option("embeddings: .parquet, a folder of such files, or .npy with --paths", "FILE", parse=Path)
    ] = field(kw_only=True)
    dir: Annotated[Path, Option("folder of the images", "DIR", parse=Path)] = field(kw_only=True)
    paths: Annotated[Path | None, Option("of .npy: text file with a path a line", parse=Path, metavar="FILE")] = None
    path_column: Annotated[str | None, Option("of Parquet (default: path, or else image)", metavar="NAME")] = None
    embedding_column: Annotated[str, Option("of Parquet", metavar="NAME")] = "embedding"


SearchOptions: TypeAlias = IndexOptions | QueryOptions | DuplicatesOptions | NextOptions | ExportOptions | ImportOptions

_COMMANDS: dict[str, tuple[type[SearchOptions], str]] = {
    "index": (IndexOptions, "bring the index of a folder up to date"),
    "query": (QueryOptions, "find the images most like a picture or a description"),
    "next": (NextOptions, "choose images to label: the model is unsure of them, and no two are alike"),
    "duplicates": (DuplicatesOptions, "list images that are the same, or nearly"),
    "export": (ExportOptions, "write the embeddings for other programs"),
    "import": (ImportOptions, "index embeddings that were computed elsewhere"),
}


def parse_args(argv: Sequence[str] | None = None) -> SearchOptions:
    """Parse the command line; usage errors exit with code 2."""
    parser = Parser(
        prog=PROGRAM,
        description="Search a folder of images by picture or by words, with the embeddings of a model file.",
        epilog=_EPILOG,
    )
    return parse_command(parser, _COMMANDS, argv)
