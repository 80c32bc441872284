"""A frozen image encoder from a transformers checkpoint, unpatched: training uses it, parity is measured against it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from huggingface_hub.errors import HfHubHTTPError
from torch import Tensor, nn

from clip_export.families import Family, family_of
from clip_export.processors import load_processor, preprocessing_of
from clip_toolkit.errors import EncoderError
from clip_toolkit.spec import EncoderSpec, Preprocessing

_COMMIT = re.compile(r"[0-9a-f]{40}")

FEATURES = ("pooled", "projected")
"""What the head may read: the tower's pooled output, or its projection into the space shared with text."""


@dataclass(frozen=True)
class Encoder:
    """An image tower and everything around it.

    Attributes:
        id: hub id or path of a local folder, as it was asked for.
        revision: commit of the checkpoint, if it came from a hub.
        family: the encoder's family.
        feature: one of `FEATURES`.
        tower: the transformers vision module, float32, frozen, in evaluation mode.
        projection: the checkpoint's image projection, if the feature is ``projected`` and the family has one.
        projects_first_token: the projection reads the first token of the last hidden state (BLIP retrieval) instead of
            the pooled output.
        processor: the checkpoint's image processor (Pillow backend).
        preprocessing: the processor's rule.
    """

    id: str
    revision: str | None
    family: Family
    feature: str
    tower: nn.Module = field(repr=False)
    projection: nn.Linear | None = field(repr=False)
    projects_first_token: bool
    processor: Any = field(repr=False)
    preprocessing: Preprocessing

    @classmethod
    def from_pretrained(cls, encoder: str, revision: str | None = None, feature: str = "pooled") -> Encoder:
        """Load an encoder.

        Args:
            encoder: hub id, such as ``openai/clip-vit-base-patch32``, or a local folder in transformers format.
            revision: branch, tag or commit on the hub.
            feature: one of `FEATURES`.

        Raises:
            EncoderError: it cannot be found or loaded, weights are missing, or its kind or options are not supported.
        """
        if feature not in FEATURES:
            raise EncoderError(f"feature: expected one of {', '.join(FEATURES)}, got {feature!r}")
        cached = _cached(encoder, revision)
        source, wanted = (encoder, revision) if cached is None else (cached, None)
        config, processor = _downloaded(source, wanted)
        try:
            family = family_of(config.model_type)
            model = _model(source, wanted, config, family)
            preprocessing = preprocessing_of(processor)
        except EncoderError as error:
            raise EncoderError(f"{encoder}: {error}") from error
        tower = getattr(model, "vision_model", model)
        projection = _projection(model, encoder) if feature == "projected" and family.has_projection else None
        _check_tower(tower, preprocessing, encoder)
        return cls(
            id=encoder,
            revision=_commit(source, wanted),
            family=family,
            feature=feature,
            tower=tower,
            projection=projection,
            projects_first_token=projection is not None and hasattr(model, "vision_proj"),
            processor=processor,
            preprocessing=preprocessing,
        )

    @property
    def dim(self) -> int:
        """Channels of the feature."""
        return self.projection.out_features if self.projection is not None else self.tower.config.hidden_size

    def features(self, pixel_values: Tensor) -> Tensor:
        """The feature of a batch, by the unpatched transformers modules.

        Args:
            pixel_values: float32 ``[batch, 3, size, size]``, normalised by `processor`.

        Returns:
            float32 ``[batch, dim]``.
        """
        outputs = self.tower(pixel_values=pixel_values)
        if self.projection is None:
            return outputs.pooler_output
        return self.projection(outputs.last_hidden_state[:, 0] if self.projects_first_token else outputs.pooler_output)

    def spec(self) -> EncoderSpec:
        """What the model file says of the encoder. Of a local folder only the name is kept."""
        name = Path(self.id).resolve().name if Path(self.id).is_dir() else self.id
        return EncoderSpec(name, self.revision, self.family.name, self.feature, self.dim)


def _cached(encoder: str, revision: str | None) -> str | None:
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
    return str(folder) if _is_whole(folder) else None


def _is_whole(folder: Path) -> bool:
    """Other programs may have fetched a part of the checkpoint."""
    has_weights = any(path.suffix in (".safetensors", ".bin") for path in folder.iterdir())
    return has_weights and (folder / "preprocessor_config.json").is_file()


def _commit(source: str, revision: str | None) -> str | None:
    """The commit of a checkpoint that was just loaded: the name of its folder in the hub's cache."""
    try:
        path = (
            source
            if Path(source).is_dir()
            else huggingface_hub.hf_hub_download(source, "config.json", revision=revision, local_files_only=True)
        )
    except Exception:  # a cache of another layout
        return None
    commit = re.search(r"/snapshots/([0-9a-f]{40})(/|$)", Path(path).as_posix())
    return commit[1] if commit else None


def _downloaded(encoder: str, revision: str | None) -> tuple[Any, Any]:
    try:
        config = transformers.AutoConfig.from_pretrained(encoder, revision=revision, trust_remote_code=False)
        return config, load_processor(encoder, revision)
    except Exception as error:  # transformers lets through whatever the hub client and its HTTP library raise
        place = "the local folder" if Path(encoder).is_dir() else "no local folder of this name, and the model hub"
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(
            f"encoder {encoder!r}{f' at {revision!r}' if revision else ''}: {place} has no usable checkpoint: {reason} "
            "Check the id, or give a local folder with config.json, preprocessor_config.json and model.safetensors."
        ) from error


def _model(encoder: str, revision: str | None, config: Any, family: Family) -> nn.Module:
    name = (config.architectures or family.architectures)[0]
    if name not in family.architectures:
        raise EncoderError(f"architecture {name!r} is not supported. Supported are: {', '.join(family.architectures)}.")
    try:
        model, report = getattr(transformers, name).from_pretrained(
            encoder, revision=revision, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:
        raise EncoderError(f"its weights cannot be loaded ({' '.join(str(error).split())[:300]}).") from error
    missing = sorted(key for key in report["missing_keys"] if "vis" in key or name.endswith("VisionModel"))
    if missing:  # transformers would fill them with random numbers
        raise EncoderError(f"the checkpoint lacks {len(missing)} of the image tower's weights, such as {missing[0]}.")
    return model.eval().requires_grad_(False)


def _projection(model: nn.Module, encoder: str) -> nn.Linear:
    for name in ("visual_projection", "vision_proj"):
        if hasattr(model, name):
            return getattr(model, name)
    raise EncoderError(f"{encoder}: {type(model).__name__} has no image projection. Use --feature pooled.")


def _check_tower(tower: nn.Module, preprocessing: Preprocessing, encoder: str) -> None:
    if getattr(tower, "use_head", True) is False:
        raise EncoderError(f"{encoder}: the image tower has no pooling head (vision_use_head is false).")
    if tower.config.image_size != preprocessing.size:
        raise EncoderError(
            f"{encoder}: the image tower takes {tower.config.image_size} pixels a side, but its image processor makes "
            f"{preprocessing.size}. Check preprocessor_config.json."
        )
