"""CLIPA as a transformers model, which transformers itself does not have: made of the parts of others' towers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    PretrainedConfig,
    PreTrainedModel,
    SiglipTextConfig,
    SiglipTextModel,
)


class ClipaConfig(PretrainedConfig):
    """The configurations of both towers."""

    model_type = "clipa"
    sub_configs = {"vision_config": CLIPVisionConfig, "text_config": SiglipTextConfig}  # noqa: RUF012 (as transformers)

    def __init__(self, vision_config: Any = None, text_config: Any = None, **settings: Any) -> None:
        """Take the towers' own."""
        super().__init__(**settings)
        self.vision_config = vision_config or CLIPVisionConfig()
        self.text_config = text_config or SiglipTextConfig()


class ClipaModel(PreTrainedModel):
    """CLIP's image tower without its first normalisation; SigLIP's text tower, whose last token is projected."""

    config_class = ClipaConfig
    base_model_prefix = "clipa"
    _supports_sdpa = True

    def __init__(self, config: ClipaConfig) -> None:
        """Build the towers; transformers 4 wraps each of them once more than 5 does."""
        super().__init__(config)
        image: Any = CLIPVisionModel(config.vision_config)
        text: Any = SiglipTextModel(config.text_config)
        self.vision_model = getattr(image, "vision_model", image)
        self.vision_model.pre_layrnorm = nn.Identity()
        self.text_model = getattr(text, "text_model", text)
        self.text_model.head = nn.Identity()
        dim = config.vision_config.projection_dim
        self.visual_projection = nn.Linear(config.vision_config.hidden_size, dim, bias=False)
        self.text_projection = nn.Linear(config.text_config.hidden_size, dim, bias=False)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.post_init()  # type: ignore[no-untyped-call]
