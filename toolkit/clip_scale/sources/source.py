"""What is classified, as a command line or a program names it, and the parts that it is cut into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from clip_scale.columns import Columns
from clip_scale.errors import SourceError
from clip_scale.sources.manifests import SUFFIXES, manifest_parts
from clip_scale.sources.parts import Part, PathPart, RemotePart, path_parts
from clip_scale.sources.shards import SHARDS, ShardPart
from clip_scale.stores import listed, size_of
from clip_toolkit.images.folder import ImageListing
from clip_toolkit.images.sources import is_url
from clip_toolkit.stream.inputs import Input, expand

PART_SIZE = 512
"""Images of a part."""

_KINDS = {"image": PathPart, "URL": RemotePart}


@dataclass(frozen=True)
class Source:
    """Images, in a fixed order.

    Attributes:
        names: files, folders and glob patterns, as those of ``clip-infer``, or their URLs in an object store. A file
            of CSV, JSON lines or Parquet is a manifest: of paths relative to its folder, or, Parquet alone, of the
            bytes of images. A tar file is a shard of images.
        columns: of Parquet manifests; the path column of the others is ``path``.
        has_texts: a text from the text column of the manifests goes with each image.
        part_size: images of a part. Those of a tar file stay together, and so do those of a row group with bytes.
        all_files: take all files for images, whatever their suffix.
    """

    names: tuple[str, ...]
    columns: Columns = Columns()
    has_texts: bool = False
    part_size: int = PART_SIZE
    all_files: bool = False

    def parts(self, listing: ImageListing | None = None) -> Iterator[Part]:
        """Yield the parts, lazily and in order.

        Args:
            listing: remembers what folders hold that is left out.

        Raises:
            SourceError: a name leads nowhere, or a manifest cannot be read or lacks a column.
            MissingDependencyError: a Parquet manifest without pyarrow.
        """
        kind_of = _image_kind if self.all_files else _kind
        for kind, names in groupby(self._names(listing or ImageListing(all_files=self.all_files)), kind_of):
            if self.has_texts and kind != "manifest":
                raise SourceError(
                    f"{' '.join(self.names)}: texts come from manifests (CSV, JSON lines, Parquet). Name those alone."
                )
            yield from self._parts_of(kind, names)

    def _parts_of(self, kind: str, names: Iterator[str]) -> Iterator[Part]:
        if kind in _KINDS:
            yield from path_parts(map(Input, names), self.part_size, _KINDS[kind])
            return
        for name in names:
            if kind == "shard":
                yield ShardPart(name, size_of(name))
            else:
                yield from manifest_parts(name, self.columns, self.part_size, has_texts=self.has_texts)

    def _names(self, listing: ImageListing) -> Iterator[str]:
        for argument in self.names:
            if is_url(argument):
                yield from listed(argument, all_files=self.all_files)
                continue
            for name in expand([argument], listing):
                if name == argument and not os.path.lexists(name):
                    raise SourceError(f"{name}: there is no such file or folder, and nothing that it matches")
                yield name


def _kind(name: str) -> str:
    lower = name.lower()
    if lower.endswith(SHARDS):
        return "shard"
    return "manifest" if lower.endswith(SUFFIXES) else _image_kind(name)


def _image_kind(name: str) -> str:
    return "URL" if is_url(name) else "image"
