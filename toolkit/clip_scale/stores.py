"""Files on this machine, and those of object stores, by URLs that fsspec knows: ``s3://``, ``gs://``, ``az://``.

Only what a command line or a program names is opened, and what lies beside it: a URL in a row of a manifest is not.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from clip_scale.errors import SourceError
from clip_toolkit.errors import ImageError, MissingDependencyError, TransientImageError, first_line
from clip_toolkit.images.folder import is_hidden
from clip_toolkit.images.formats import SUFFIXES
from clip_toolkit.images.sources import NamedBytes, is_url


def import_fsspec() -> Any:
    """fsspec, imported only when it is needed.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import fsspec
    except ImportError as error:
        raise MissingDependencyError(
            "URLs need fsspec: pip install 'clip-toolkit[remote]', and the package of the store, such as s3fs"
        ) from error
    return fsspec


def listed(url: str, *, all_files: bool) -> Iterator[str]:
    """Yield the URLs of the files that one stands for, sorted: itself, what matches a pattern, or the images below it.

    Raises:
        SourceError: there are none, or the store does not answer.
    """
    try:
        store, path = import_fsspec().core.url_to_fs(url)
        if glob.has_magic(path):
            names = store.glob(path)
        elif store.isfile(path):
            names = [path]
        else:
            names = [name for name in store.find(path) if all_files or _is_image(name.removeprefix(path))]
        found = sorted(map(store.unstrip_protocol, names))
    except MissingDependencyError:
        raise
    except Exception as error:  # stores raise their own classes
        raise _unreadable(url, error) from error
    if not found:
        raise SourceError(f"{url}: there is no such file, and there are no images below it")
    yield from found


def contents(urls: Iterable[str]) -> Iterator[NamedBytes | ImageError]:
    """Read files of one store, all at once, and yield them in order.

    One that is missing or forbidden is an `ImageError` in its place.

    Raises:
        SourceError: the store does not answer: a run ends, and can go on when it does.
    """
    urls = list(urls)
    if not urls:
        return
    try:
        store, _ = import_fsspec().core.url_to_fs(urls[0])
        read = store.cat([store._strip_protocol(url) for url in urls], on_error="return")  # noqa: SLF001  # as its own docs do
    except Exception as error:
        raise _unreadable(urls[0], error) from error
    for url in urls:
        found = read.get(store._strip_protocol(url))  # noqa: SLF001
        if isinstance(found, (FileNotFoundError, PermissionError)):
            yield TransientImageError(f"{url}: cannot be read ({first_line(found)})")
        elif isinstance(found, bytes):
            yield NamedBytes(found, url)
        else:
            raise _unreadable(url, found or OSError("no answer"))


def opened(name: str) -> IO[bytes]:
    """Open a file for reading.

    Raises:
        OSError: one of this machine cannot be opened.
        SourceError: one of a store cannot.
    """
    if not is_url(name):
        return Path(name).open("rb")
    try:
        file: IO[bytes] = import_fsspec().open(name, "rb").open()
    except Exception as error:
        raise _unreadable(name, error) from error
    return file


def size_of(name: str) -> int:
    """Return the bytes of a file.

    Raises:
        OSError, SourceError: as `opened`.
    """
    if not is_url(name):
        return Path(name).stat().st_size
    with opened(name) as file:
        return file.seek(0, 2)


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix[1:].lower() in SUFFIXES and not any(map(is_hidden, path.parts))


def _unreadable(url: str, error: BaseException) -> SourceError:
    return SourceError(f"{url}: cannot be read ({first_line(error)})")
