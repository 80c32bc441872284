"""The model file as a process can open it: from a path, or from a URL into a cache, and the very file that is meant."""

from __future__ import annotations

import os
from pathlib import Path

from clip_scale.stores import import_fsspec
from clip_toolkit.errors import MissingDependencyError, ModelError, ModelNotFoundError, first_line
from clip_toolkit.files.atomic import temporary_beside
from clip_toolkit.files.stamp import sha256_of
from clip_toolkit.images.sources import is_url


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a model file, in hexadecimal digits.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: it cannot be read.
    """
    try:
        return sha256_of(path)
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"{path}: there is no such model file on this machine") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error


def locate(model: str, sha256: str = "") -> tuple[Path, str]:
    """Return a local file with the model, and its SHA-256.

    Args:
        model: a path, or a URL of a file system that fsspec knows; what it names is copied into the user's cache
            folder, once for each content.
        sha256: of the file that is meant; empty for whatever is there.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: it cannot be read, or is another one.
        MissingDependencyError: a URL without fsspec.
    """
    if is_url(model):
        cache = _cache_folder()
        kept = cache / f"{sha256}.onnx"
        path, found = (kept, sha256) if sha256 and _holds(kept, sha256) else _downloaded(model, cache)
    else:
        path = Path(model)
        found = digest_of(path)
    if sha256 and found != sha256:
        raise ModelError(
            f"{model}: is another file here (SHA-256 {found}) than where the run began ({sha256}). "
            "Put the same file on every machine."
        )
    return path, found


def _holds(path: Path, sha256: str) -> bool:
    return path.is_file() and digest_of(path) == sha256


def _downloaded(url: str, cache: Path) -> tuple[Path, str]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with temporary_beside(cache / "model.onnx") as temporary:
            import_fsspec().core.get_fs_token_paths(url)[0].get_file(url, os.fspath(temporary))
            found = digest_of(temporary)
            path = temporary.replace(cache / f"{found}.onnx")
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"{url}: there is no such model file") from error
    except MissingDependencyError:
        raise
    except Exception as error:  # file systems raise their own classes
        raise ModelError(f"{url}: cannot be read ({first_line(error)})") from error
    return path, found


def _cache_folder() -> Path:
    import_fsspec()  # whose extra brings platformdirs, too
    from platformdirs import user_cache_path

    return user_cache_path("clip-toolkit") / "models"
