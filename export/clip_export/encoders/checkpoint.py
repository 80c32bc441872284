"""A transformers checkpoint: found in a folder or on the hub, and loaded as the unpatched model that it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from clip_export.encoders import open_clip_processor
from clip_export.encoders.adapter import ADAPTER, adapter_base, merged
from clip_export.encoders.configuration import read_config, read_json
from clip_export.encoders.digest import content_digest
from clip_export.encoders.families import Family, family_of
from clip_export.encoders.hub import commit_of, local_folder
from clip_export.encoders.model_card import ModelCard
from clip_export.encoders.open_clip import OpenClipFiles, is_open_clip, open_clip_config, open_clip_weights
from clip_export.encoders.open_clip_model import OpenClipModel
from clip_export.encoders.processors import processor_files
from clip_export.encoders.weights import read_weights, weight_files
from clip_export.extra import check_interpreter
from clip_toolkit.errors import EncoderError
from clip_toolkit.spec.licenses import License


@dataclass(frozen=True)
class Checkpoint:
    """Where a checkpoint lies, and what its config.json says.

    Attributes:
        id: hub id or path of a local folder or bare file, as it was asked for.
        folder: the local folder, or that of the hub's cache, or that of the bare file.
        config: the transformers configuration.
        family: the family of its ``model_type``.
        base: of an adapter, the checkpoint that it adapts; None for a whole checkpoint.
        open_clip: where it lies in OpenCLIP's format; None for that of transformers.
    """

    id: str
    folder: Path
    config: Any
    family: Family
    base: Checkpoint | None = None
    open_clip: OpenClipFiles | None = None

    @classmethod
    def find(
        cls, encoder: str, revision: str | None = None, open_clip_model: OpenClipModel | None = None
    ) -> Checkpoint:
        """Locate a checkpoint and read its configuration.

        Args:
            encoder: hub id or local folder in transformers or OpenCLIP format; or of a LoRA adapter, whose base is
                found likewise; or a bare file of OpenCLIP's weights.
            revision: branch, tag or commit on the hub.
            open_clip_model: of a bare file.

        Raises:
            EncoderError: it cannot be found, or its kind is not supported.
        """
        check_interpreter()
        if Path(encoder).is_file():
            bare = OpenClipFiles.of_file(Path(encoder), open_clip_model)
            return cls._of_config(encoder, Path(encoder).parent, open_clip_config(bare), bare)
        if open_clip_model is not None:
            raise EncoderError(f"encoder {encoder!r}: is no file, and --open-clip-model says what a bare file is.")
        folder = local_folder(encoder, revision)
        if (folder / ADAPTER).is_file():
            _check_adapter_alone(folder)
            base = cls.find(*adapter_base(folder))
            return cls(encoder, folder, base.config, base.family, base, base.open_clip)
        files = OpenClipFiles.of_folder(folder) if is_open_clip(folder) else None
        return cls._of_config(encoder, folder, open_clip_config(files) if files else read_config(folder), files)

    @classmethod
    def _of_config(cls, encoder: str, folder: Path, config: Any, files: OpenClipFiles | None) -> Checkpoint:
        try:
            return cls(encoder, folder, config, family_of(config.model_type), open_clip=files)
        except EncoderError as error:
            raise EncoderError(f"{encoder}: {error}") from error

    @property
    def architecture(self) -> str:
        """The transformers class that it names, or its family's own."""
        return (self.config.architectures or self.family.architectures)[0]

    @property
    def bare_file(self) -> OpenClipFiles | None:
        """The bare file that it is or adapts, or None for a folder."""
        if self.base is not None:
            return self.base.bare_file
        return self.open_clip if Path(self.id).is_file() else None

    @property
    def open_clip_model(self) -> OpenClipModel | None:
        """What its bare file was said to be, if it was said."""
        return None if self.open_clip is None else self.open_clip.model

    @property
    def open_clip_settings(self) -> dict[str, Any] | None:
        """OpenCLIP's configuration where pixels and texts follow it: a fine-tuned copy keeps it for them alone."""
        if self.open_clip is not None:
            return self.open_clip.content
        is_copy = processor_files(self.source) == [open_clip_processor.CONFIG]
        return read_json(self.source / open_clip_processor.CONFIG) if is_copy else None

    @property
    def source(self) -> Path:
        """The folder of everything that an adapter does not change, such as the tokenizer."""
        return self.base.source if self.base is not None else self.folder

    @property
    def commit(self) -> str:
        """The commit of a checkpoint from the hub; of a local one, or an adapter on another, a hash of its content.

        Raises:
            EncoderError, OSError: the content cannot be read.
        """
        if self.base is None and self.bare_file is not None:
            return self.bare_file.digest
        commit = commit_of(self.folder) or content_digest(self.folder)
        if self.base is None:
            return commit
        return hashlib.sha256(f"{commit} {self.base.commit}".encode()).hexdigest()

    @property
    def base_name(self) -> str | None:
        """Id and revision of the checkpoint that an adapter adapts."""
        return None if self.base is None else f"{encoder_name(self.base.id)}@{self.base.commit}"

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """The model card of its folder, and that of its base; a bare file has none, whatever lies beside it."""
        own = () if Path(self.id).is_file() else (ModelCard.of_folder(self.folder),)
        return own if self.base is None else (*own, *self.base.cards)

    @property
    def licenses(self) -> tuple[License, ...]:
        """What its model card states, and that of its base."""
        own, *of_base = [card.licenses for card in self.cards] or [()]
        base = None if self.base is None else encoder_name(self.base.id)
        return (*own, *(replace(item, base=base) for found in of_base for item in found))

    @property
    def card_problems(self) -> tuple[str, ...]:
        """Why licences could not be read, one line each."""
        return tuple(card.problem for card in self.cards if card.problem is not None)

    def weights(self) -> dict[str, Tensor]:
        """All weights, by the names of transformers, in the precision that they are stored in.

        Raises:
            EncoderError: they are missing or damaged.
        """
        if self.base is not None:
            return merged(self.base.weights(), self.folder)
        return read_weights(self.folder) if self.open_clip is None else open_clip_weights(self.open_clip)

    def check_blocks(self, part: str) -> None:
        """Refuse before any weights are read a tower whose blocks could not be exported.

        Args:
            part: ``image`` or ``text``.

        Raises:
            EncoderError: its activation is not supported.
        """
        rules, name = (self.family.image, "vision_config") if part == "image" else (self.family.text, "text_config")
        assert rules is not None
        try:
            rules.settings(getattr(self.config, name, self.config))
        except EncoderError as error:
            raise EncoderError(f"{self.id}: {error}") from error

    def model(self, part: str, is_part: Callable[[str], bool]) -> nn.Module:
        """Return the whole transformers model, float32, frozen, in evaluation mode.

        Args:
            part: ``image`` or ``text``: the tower whose weights must all be there, for the message.
            is_part: whether a weight of this name belongs to that tower.

        Raises:
            EncoderError: the architecture is not supported, or weights are damaged, missing or of other shapes.
        """
        name = self.architecture
        if name not in self.family.architectures:
            supported = ", ".join(self.family.architectures)
            raise EncoderError(f"{self.id}: architecture {name!r} is not supported. Supported are: {supported}.")
        model, report = self.model_of_class(name)
        missing = sorted(filter(is_part, report["missing_keys"]))
        if missing:  # transformers would fill them with random numbers
            raise EncoderError(
                f"{self.id}: the checkpoint lacks {len(missing)} of the {part} tower's weights, such as {missing[0]}."
            )
        return model

    def model_of_class(self, name: str) -> tuple[nn.Module, dict[str, Any]]:
        """Return a transformers model with these weights, and what transformers reports of filling it.

        Raises:
            EncoderError: weights are missing, damaged or of other shapes.
        """
        kind: Any = self.family.class_of(name) if self.family.class_of else getattr(transformers, name)
        weights = self.weights()
        try:
            model, report = kind.from_pretrained(
                None,
                config=_of_class(self.config, kind),
                state_dict=weights,
                dtype=torch.float32,
                attn_implementation="sdpa" if kind._supports_sdpa else "eager",  # noqa: SLF001 (there is no public name)
                ignore_mismatched_sizes=True,  # to be told of them
                output_loading_info=True,
            )
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise EncoderError(f"{self.id}: its weights cannot be loaded ({reason}).") from error
        self._check_shapes(report["mismatched_keys"], weights, model.state_dict())
        self._check_used(report["unexpected_keys"])
        return model.eval().requires_grad_(False), report

    def _check_used(self, unexpected: Any) -> None:
        unused = sorted(name for name in unexpected if name.startswith(("visual.", "vision_model.")))
        if unused and self.open_clip is not None:  # of a switch that its configuration does not tell
            raise EncoderError(f"{self.id}: has {unused[0]}, which none of the image towers that are read here has.")

    def _check_shapes(self, mismatched: Any, weights: dict[str, Tensor], model: dict[str, Tensor]) -> None:
        source = "config.json" if self.open_clip is None else self.open_clip.where
        for item in mismatched:  # transformers 5 adds the shapes to the name
            name = item if isinstance(item, str) else item[0]
            found, expected = (
                next(list(tensor.shape) for key, tensor in tensors.items() if f".{key}".endswith(f".{name}"))
                for tensors in (weights, model)
            )
            raise EncoderError(
                f"{self.id}: {name} is {found} in the weights, but {source} makes it {expected}. They do not belong "
                "together: restore both of the same checkpoint."
            )


def encoder_name(encoder: str) -> str:
    """Name an encoder for a file to keep: its hub id, or the mere name of its local folder or file."""
    return Path(encoder).resolve().name if Path(encoder).exists() else encoder


def _of_class(config: Any, kind: Any) -> Any:
    """Return the part of a whole model's configuration that a class for one tower takes."""
    wanted = kind.config_class
    return config if isinstance(config, wanted) else getattr(config, wanted.base_config_key)


def _check_adapter_alone(folder: Path) -> None:
    try:
        weight_files(folder)
    except EncoderError:
        return
    raise EncoderError(
        f"{folder}: has whole weights and an adapter ({ADAPTER}), and nothing says whether the weights contain it. "
        "Move the adapter's files to a folder of their own and name that, or delete them."
    )
