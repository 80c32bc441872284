"""OpenCLIP's models whose image tower is one of timm's, with the calls of a transformers model around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PretrainedConfig, SiglipTextModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from clip_export.extra import require
from clip_toolkit.errors import EncoderError


class TimmTowerConfig(PretrainedConfig):
    """What decides the features of an image tower beyond its weights; the fields are OpenCLIP's."""

    model_type = "open_clip_timm_tower"

    def __init__(
        self,
        *,
        timm_model_name: str = "",
        hidden_size: int = 0,
        image_size: int = 224,
        timm_pool: str = "avg",
        timm_proj: str | None = "linear",
        timm_proj_bias: bool = False,
        **settings: Any,
    ) -> None:
        """Take them; ``hidden_size`` are the channels of the feature, ``embed_dim`` there."""
        super().__init__(**settings)
        self.timm_model_name, self.timm_pool = timm_model_name, timm_pool
        self.timm_proj, self.timm_proj_bias = timm_proj, timm_proj_bias
        self.hidden_size, self.image_size = hidden_size, image_size


class TimmClipConfig(PretrainedConfig):
    """The configurations of both towers."""

    model_type = "open_clip_timm"

    def __init__(self, vision_config: Any = None, text_config: Any = None, **settings: Any) -> None:
        """Take the towers' own; a model of images alone has no ``text_config``."""
        super().__init__(**settings)
        self.vision_config = vision_config or TimmTowerConfig()
        self.text_config = text_config


class TimmClipModel(nn.Module):
    """OpenCLIP's own module of a timm tower beside the text tower of transformers that equals OpenCLIP's."""

    config_class = TimmClipConfig
    _supports_sdpa = True

    def __init__(self, config: TimmClipConfig) -> None:
        """Build the towers.

        Raises:
            EncoderError: timm does not know the image tower, or not with these settings.
        """
        super().__init__()
        self.vision_model = TimmTower(config.vision_config)
        if config.text_config is not None:
            self.text_model = _text_model(config.text_config)
            dim = config.vision_config.hidden_size
            self.text_projection = nn.Linear(config.text_config.hidden_size, dim, bias=False)
            self.logit_scale = nn.Parameter(torch.zeros(()))

    @classmethod
    def from_pretrained(
        cls, _: None, *, config: TimmClipConfig, state_dict: Mapping[str, Tensor], **_options: Any
    ) -> tuple[TimmClipModel, dict[str, Any]]:
        """Build and fill a model, and report as transformers' method of this name does.

        That one builds without memory, and would lose the tables that timm's towers compute as they are built.
        """
        with torch.random.fork_rng(devices=[]):
            model = cls(config)
        own = model.state_dict()
        fitting = {name: item for name, item in state_dict.items() if name in own and item.shape == own[name].shape}
        model.load_state_dict(fitting, strict=False)
        return model, {
            "missing_keys": own.keys() - state_dict.keys(),
            "unexpected_keys": state_dict.keys() - own.keys(),
            "mismatched_keys": (own.keys() & state_dict.keys()) - fitting.keys(),
        }


class TimmTower(nn.Module):
    """``TimmModel`` of open_clip, called as transformers calls an image tower."""

    def __init__(self, config: TimmTowerConfig) -> None:
        """Build it with random weights.

        Raises:
            EncoderError: timm does not know it, or not with these settings.
        """
        super().__init__()
        import timm
        from open_clip.timm_model import TimmModel

        self.config, name = config, config.timm_model_name
        if not timm.is_model(name):  # which no address of a folder or a repository is
            raise EncoderError(
                f"the image tower {name!r} is not read. Read are CLIP's ViT, CLIPA, and the towers of the installed "
                f"timm {timm.__version__}: python -c 'import timm; print(*timm.list_models())'"
            )
        try:
            model = TimmModel(
                name, config.hidden_size, config.image_size, config.timm_pool, config.timm_proj, config.timm_proj_bias
            )
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise EncoderError(
                f"open_clip cannot build the image tower {name!r} with timm_pool {config.timm_pool!r} and timm_proj "
                f"{config.timm_proj!r} ({' '.join(str(error).split())[:200]})."
            ) from error
        self.trunk, self.head = model.trunk, model.head

    def forward(self, pixel_values: Tensor) -> BaseModelOutputWithPooling:
        """Encode ``[batch, 3, size, size]``: ``pooler_output`` is ``[batch, hidden_size]``."""
        return BaseModelOutputWithPooling(pooler_output=self.head(self.trunk(pixel_values)))


def reparameterised(tower: TimmTower) -> nn.Module:
    """Return a copy of a tower, from pixel values to features, with the branches of its convolutions added up."""
    from timm.utils.model import reparameterize_model

    return nn.Sequential(reparameterize_model(tower.trunk), tower.head).eval().requires_grad_(False)


def require_timm() -> None:
    """Check that what builds these towers is installed.

    Raises:
        MissingDependencyError: it is not.
    """
    require("openclip", "open_clip", "timm")


def _text_model(config: Any) -> Any:
    """Return CLIP's text tower, or where its tokens see each other SigLIP's, which then reads CLIP's end mark."""
    if isinstance(config, CLIPTextConfig):
        model: Any = CLIPTextModel(config)
        return getattr(model, "text_model", model)  # transformers 4 wraps it once more than 5 does
    model = SiglipTextModel(config)
    model = getattr(model, "text_model", model)
    model.head = nn.Identity()
    model.register_forward_hook(_read_largest, with_kwargs=True)
    return model


def _read_largest(_module: nn.Module, _inputs: Any, named: dict[str, Any], outputs: Any) -> Any:
    read = named["input_ids"].argmax(dim=1)
    outputs.pooler_output = outputs.last_hidden_state[torch.arange(len(read)), read]
    return outputs
