"""Images with what is to be learnt of them: a folder of classes, or manifests with a column of labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from clip_scale.errors import SourceError
from clip_scale.sources.manifests import SUFFIXES, check_columns, manifest_parts
from clip_scale.sources.parts import Part, PathPart, RowGroupPart, open_parquet, parquet_rows, path_parts
from clip_scale.sources.source import Source
from clip_toolkit.data.image_folder import read_image_folder
from clip_toolkit.files.csv_table import read_rows
from clip_toolkit.images.folder import ImageListing
from clip_toolkit.stream.inputs import Input

LABEL = "label"
_OTHERS = ("split", "group")


class Labelled(NamedTuple):
    """What a source says of an image, as the columns of a manifest of ``clip-train``; empty where it says nothing."""

    label: str
    split: str = ""
    group: str = ""


@dataclass(frozen=True)
class LabelledPart:
    """A part, and what there is to learn of each of its images."""

    part: PathPart | RowGroupPart
    rows: tuple[Labelled, ...]

    def inputs(self) -> Iterator[Input]:
        """Read the images."""
        return self.part.inputs()

    def identity(self) -> Any:
        """Images and labels."""
        return [self.part.identity(), self.rows]

    def check_reach(self) -> None:
        """Look for the images."""
        self.part.check_reach()


@dataclass(frozen=True)
class LabelledSource(Source):
    """Images with labels: one folder as ``clip-train`` takes it, or manifests.

    Attributes:
        label_column: of the manifests; their columns ``split`` and ``group`` are kept if there are any.
    """

    label_column: str = LABEL

    def parts(self, listing: ImageListing | None = None) -> Iterator[Part]:
        """Yield the parts, lazily and in order.

        Raises:
            DatasetError: as `read_image_folder`.
            SourceError: there are no labels, or as in `Source`.
        """
        if len(self.names) == 1 and Path(self.names[0]).is_dir():
            yield from self._of_folder(Path(self.names[0]), listing)
            return
        for name in self.names:
            if not name.lower().endswith(SUFFIXES):
                raise SourceError(
                    f"{name}: has no labels. Give one folder with a subfolder for each label, or manifests (CSV, JSON "
                    f"lines, Parquet) with a column '{self.label_column}'."
                )
            yield from self._of_manifest(name)

    def _of_folder(self, folder: Path, listing: ImageListing | None) -> Iterator[Part]:
        dataset = read_image_folder(folder, all_files=self.all_files, listing=listing)
        rows = (
            Labelled(dataset.labels[target], side) for target, side in zip(dataset.targets, dataset.sides, strict=True)
        )
        for part in path_parts((Input(str(file)) for file in dataset.files), self.part_size):
            yield LabelledPart(part, tuple(islice(rows, part.count)))

    def _of_manifest(self, name: str) -> Iterator[Part]:
        rows = self._parquet_rows(name) if name.lower().endswith(".parquet") else self._text_rows(Path(name))
        for part in manifest_parts(name, self.columns, self.part_size, has_texts=False):
            labelled = LabelledPart(part, tuple(islice(rows, part.count)))
            if len(labelled.rows) != part.count:
                raise SourceError(f"{name}: has changed while it was read")
            yield labelled

    def _text_rows(self, path: Path) -> Iterator[Labelled]:
        for row in read_rows(path, ("path", self.label_column), SourceError):
            yield Labelled(row.cells[self.label_column], *(row.cells.get(name) or "" for name in _OTHERS))

    def _parquet_rows(self, name: str) -> Iterator[Labelled]:
        with open_parquet(name) as file:
            schema = file.schema_arrow
            check_columns(name, schema, replace(self.columns, text=self.label_column), has_texts=True)
            columns = [column for column in (self.label_column, *_OTHERS) if column in schema.names]
            for row in parquet_rows(name, file, columns):
                yield Labelled(*(_text(row.get(column)) for column in (self.label_column, *_OTHERS)))


def _text(value: Any) -> str:
    return "" if value is None else str(value)
