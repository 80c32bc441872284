"""A transformers checkpoint: found in a folder, the hub's cache or the hub, and loaded as it is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from huggingface_hub.errors import HfHubHTTPError
from torch import nn

from clip_export.encoders.families import Family, family_of
from clip_toolkit.errors import EncoderError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_CONFIGURATION = ("config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class Checkpoint:
    """Where a checkpoint lies, and what its config.json says.

    Attributes:
        id: hub id or path of a local folder, as it was asked for.
        source: what transformers is to load from: ``id``, or its folder in the hub's cache.
        revision: branch, tag or commit of ``source`` to load, or None.
        config: the transformers configuration.
        family: the family of its ``model_type``.
    """

    id: str
    source: str
    revision: str | None
    config: Any
    family: Family

    @classmethod
    def find(cls, encoder: str, revision: str | None, needed: str) -> Checkpoint:
        """Locate a checkpoint and read its configuration.

        Args:
            encoder: hub id or local folder in transformers format.
            revision: branch, tag or commit on the hub.
            needed: a file that a copy in the hub's cache must have beside the weights: other programs may have fetched
                a part of it.

        Raises:
            EncoderError: it cannot be found, or its kind is not supported.
        """
        cached = _cached(encoder, revision, needed)
        source, wanted = (encoder, None if Path(encoder).is_dir() else revision) if cached is None else (cached, None)
        with reading(encoder, revision):
            config = transformers.AutoConfig.from_pretrained(source, revision=wanted, trust_remote_code=False)
        try:
            family = family_of(config.model_type)
        except EncoderError as error:
            raise EncoderError(f"{encoder}: {error}") from error
        return cls(encoder, source, wanted, config, family)

    @property
    def architecture(self) -> str:
        """The transformers class that it names, or its family's own."""
        return (self.config.architectures or self.family.architectures)[0]

    @property
    def commit(self) -> str | None:
        """The commit of a checkpoint that was loaded: the name of its folder in the hub's cache.

        Of a local folder what stands for one: a hash of its content, the same for all its parts.
        """
        try:
            path = (
                self.source
                if Path(self.source).is_dir()
                else huggingface_hub.hf_hub_download(
                    self.source, "config.json", revision=self.revision, local_files_only=True
                )
            )
        except Exception:  # a cache of another layout
            return None
        commit = re.search(r"/snapshots/([0-9a-f]{40})(/|$)", Path(path).as_posix())
        if commit:
            return commit[1]
        return content_digest(Path(self.source)) if Path(self.source).is_dir() else None

    def model(self, part: str, is_part: Callable[[str], bool]) -> nn.Module:
        """The whole transformers model, float32, frozen, in evaluation mode.

        Args:
            part: ``image`` or ``text``: the tower whose weights must all be there, for the message.
            is_part: whether a weight of this name belongs to that tower.

        Raises:
            EncoderError: the architecture is not supported, or weights are damaged or missing.
        """
        name = self.architecture
        if name not in self.family.architectures:
            supported = ", ".join(self.family.architectures)
            raise EncoderError(f"{self.id}: architecture {name!r} is not supported. Supported are: {supported}.")
        try:
            model, report = getattr(transformers, name).from_pretrained(
                self.source, revision=self.revision, dtype=torch.float32, output_loading_info=True
            )
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise EncoderError(f"{self.id}: its weights cannot be loaded ({reason}).") from error
        missing = sorted(filter(is_part, report["missing_keys"]))
        if missing:  # transformers would fill them with random numbers
            raise EncoderError(
                f"{self.id}: the checkpoint lacks {len(missing)} of the {part} tower's weights, such as {missing[0]}."
            )
        return model.eval().requires_grad_(False)


def content_digest(folder: Path) -> str:
    """SHA-256 of all that decides the features of a local checkpoint: weights, configuration and preprocessing.

    Raises:
        OSError: a file cannot be read.
    """
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    configuration = [name for name in _CONFIGURATION if (folder / name).is_file()]
    return digest_of_files(folder, [*(path.name for path in weights), *configuration])


def digest_of_files(folder: Path, names: Iterable[str]) -> str:
    """SHA-256 of the names and contents of files.

    Raises:
        OSError: a file is missing.
    """
    digest = hashlib.sha256()
    for name in names:
        with (folder / name).open("rb") as file:
            digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def encoder_name(encoder: str) -> str:
    """What a file may say of where an encoder came from: its hub id, and of a local folder only the name."""
    return Path(encoder).resolve().name if Path(encoder).is_dir() else encoder


@contextmanager
def reading(encoder: str, revision: str | None) -> Iterator[None]:
    """Report whatever transformers lets through of the hub client and its HTTP library as one error of ours."""
    try:
        yield
    except Exception as error:
        place = "the local folder" if Path(encoder).is_dir() else "no local folder of this name, and the model hub"
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(
            f"encoder {encoder!r}{f' at {revision!r}' if revision else ''}: {place} has no usable checkpoint: {reason} "
            "Check the id, or give a local folder with config.json, preprocessor_config.json and model.safetensors."
        ) from error


def _cached(encoder: str, revision: str | None, needed: str) -> str | None:
    """The checkpoint's folder in the hub's cache, if it is what the hub has, or if the hub cannot be reached.

    One question to the hub at most, and none for a commit, which never changes. Left to itself, the hub client asks for
    every file, and retries each for half a minute where there is no network.
    """
    if Path(encoder).is_dir():
        return None
    wanted = revision
    try:
        if revision is None or not _COMMIT.fullmatch(revision):
            wanted = huggingface_hub.HfApi().model_info(encoder, revision=revision, timeout=10).sha
    except HfHubHTTPError:  # the hub's own answer, such as an unknown id: loading will report it
        return None
    except Exception:  # no network: the client's HTTP library differs between its versions
        wanted = revision
    try:
        folder = Path(huggingface_hub.snapshot_download(encoder, revision=wanted, local_files_only=True))
    except Exception:  # not in the cache, or not an id at all
        return None
    has_weights = any(path.suffix in (".safetensors", ".bin") for path in folder.iterdir())
    return str(folder) if has_weights and (folder / needed).is_file() else None
