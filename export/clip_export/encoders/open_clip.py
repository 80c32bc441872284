"""Checkpoints in OpenCLIP's own format, read as the transformers models that they equal."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor

from clip_export.encoders import configuration
from clip_export.encoders.bare_file import configuration_of
from clip_export.encoders.configuration import read_json, refuse_code
from clip_export.encoders.open_clip_model import OpenClipModel
from clip_export.encoders.open_clip_names import transformers_weights
from clip_export.encoders.open_clip_processor import CONFIG
from clip_export.encoders.open_clip_towers import Description, is_siglip, is_timm
from clip_export.encoders.weights import read_tensors
from clip_toolkit.errors import EncoderError
from clip_toolkit.files.stamp import sha256_of

_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class OpenClipFiles:
    """A checkpoint in OpenCLIP's format.

    Attributes:
        where: its configuration comes from, for messages.
        content: of the configuration, as open_clip_config.json has it.
        file: of the weights.
        model: that a bare file was said to be.
    """

    where: str
    content: dict[str, Any]
    file: Path
    model: OpenClipModel | None = None

    @classmethod
    def of_folder(cls, folder: Path) -> OpenClipFiles:
        """Read the configuration of a folder.

        Raises:
            EncoderError: it is damaged, or there are no weights.
        """
        (name,) = open_clip_files(folder)
        return cls(str(folder / CONFIG), read_json(folder / CONFIG), folder / name)

    @classmethod
    def of_file(cls, file: Path, model: OpenClipModel | None) -> OpenClipFiles:
        """Find the configuration of a bare file of weights.

        Raises:
            EncoderError: as of `clip_export.encoders.bare_file.configuration_of`.
        """
        return cls(*configuration_of(file, model), file, model)

    @property
    def digest(self) -> str:
        """SHA-256 of the weights and the configuration: all that decides the features of a bare file.

        Raises:
            OSError: the file cannot be read.
        """
        return hashlib.sha256(f"{sha256_of(self.file)} {json.dumps(self.content, sort_keys=True)}".encode()).hexdigest()


def is_open_clip(folder: Path) -> bool:
    """Tell whether a checkpoint is in OpenCLIP's format alone: many folders hold that of transformers, too."""
    return (folder / CONFIG).is_file() and not (folder / configuration.CONFIG).is_file()


def open_clip_files(folder: Path) -> list[str]:
    """Name the file of weights of a checkpoint in OpenCLIP's format.

    Raises:
        EncoderError: there is none.
    """
    for name in _FILES:
        if (folder / name).is_file():
            return [name]
    raise EncoderError(f"{folder}: has {CONFIG}, but neither {' nor '.join(_FILES)}.")


def open_clip_config(files: OpenClipFiles) -> Any:
    """Return the configuration of the model that a checkpoint equals.

    Raises:
        EncoderError: it is damaged, or has a tower of a kind that is not read.
    """
    where, content = files.where, files.content
    refuse_code(where, content)
    model = content.get("model_cfg")
    if not isinstance(model, dict) or not isinstance(model.get("vision_cfg"), dict):
        raise EncoderError(f"{where}: expected a model_cfg with a vision_cfg.")
    found = Description(where, model, open_clip_weights(files))
    if found.is_clipa:
        return _clipa(found)
    if is_siglip(model):
        return _siglip(found)
    return _timm(found) if is_timm(model) else _clip(found)


def open_clip_weights(files: OpenClipFiles) -> dict[str, Tensor]:
    """Read the weights of a checkpoint under the names of transformers.

    Raises:
        EncoderError: they are missing or damaged.
    """
    return transformers_weights(read_tensors(files.file), is_timm(files.content["model_cfg"]))


def _clip(found: Description) -> Any:
    image = found.clip_image()
    if not found.has_text:
        return transformers.CLIPVisionConfig(**image, architectures=["CLIPVisionModelWithProjection"])
    return transformers.CLIPConfig(
        vision_config=image,
        text_config=found.clip_text(),
        projection_dim=image["projection_dim"],
        architectures=["CLIPModel"],
    )


def _siglip(found: Description) -> Any:
    image = found.siglip_image()
    if not found.has_text:
        return transformers.SiglipVisionConfig(**image, architectures=["SiglipVisionModel"])
    return transformers.SiglipConfig(
        vision_config=image, text_config=found.last_token_text(), architectures=["SiglipModel"]
    )


def _timm(found: Description) -> Any:
    from clip_export.encoders import open_clip_timm as timm  # with it come transformers' models, which take a second

    timm.require_timm()
    image = timm.TimmTowerConfig(**found.timm_image())
    if not found.has_text:
        return timm.TimmClipConfig(image, architectures=["TimmTower"])
    is_causal, sizes = found.timm_text()
    text = transformers.CLIPTextConfig if is_causal else transformers.SiglipTextConfig
    return timm.TimmClipConfig(image, text(**sizes), architectures=["TimmClipModel"])


def _clipa(found: Description) -> Any:
    from clip_export.encoders.clipa import ClipaConfig  # with it come transformers' models, which take a second

    return ClipaConfig(
        transformers.CLIPVisionConfig(**found.clip_image()),
        transformers.SiglipTextConfig(**found.last_token_text()),
        architectures=["ClipaModel"],
    )
