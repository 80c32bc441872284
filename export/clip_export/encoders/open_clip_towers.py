"""What open_clip_config.json says of a tower, as arguments of the transformers configuration that it equals.

Sizes are those of the weights; the configuration has what weights do not tell. What it may say is listed here, and
anything else is refused by name: a switch that is ignored would change the features without a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clip_toolkit.errors import EncoderError

_VISION = {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "patch_dropout"}
_NEUTRAL_VISION = {
    "pool_type": "tok",
    "pos_embed_type": "learnable",
    "attn_pooler_queries": 256,
    "attn_pooler_heads": 8,
}
_CLIPA = {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}

_TIMM = {"image_size", "timm_model_name", "timm_model_pretrained", "timm_drop", "timm_drop_path"}
_TIMM_FEATURE = {"timm_pool": "avg", "timm_proj": "linear", "timm_proj_bias": False}
"""What makes the feature, as open_clip takes it where the configuration is silent."""

_SIGLIP_POOLING = {"timm_pool": "map", "timm_proj": "none"}
_SIGLIP = re.compile(r"vit_(base|large|so400m|giantopt)_patch\d+_siglip_\d+")
_SIGLIP_HEADS = {"base": 12, "large": 16, "so400m": 16, "giantopt": 16}
_SIGLIP_TANH = re.compile(r"vit_(base_patch32|so400m_patch16|giantopt_patch16)_.*|vit_large_patch16_siglip_512")
"""SigLIP towers that timm computes with the tanh form of GELU: timm/models/vision_transformer.py of timm 1.0.31."""

_TEXT = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
_TEXT |= {"hf_tokenizer_name", "tokenizer_kwargs", "norm_kwargs", "act_kwargs", "proj_bias"}
_NEUTRAL_TEXT = {"pool_type": "argmax", "proj_type": "linear", "eos_id": 2, "hf_proj_type": "mlp"}
_LAST_TOKEN = {"no_causal_mask": True, "pool_type": "last"}
"""Of text towers whose tokens see each other, padding included, and whose last one is read: SigLIP's and CLIPA's.

In each of these, values of further keys that change nothing are the neutral ones, false, null and nothing."""

_LARGEST = 2
"""The ``eos_token_id`` that makes transformers read the token with the largest number, as OpenCLIP does."""


@dataclass(frozen=True)
class Description:
    """A configuration of OpenCLIP beside the weights that it describes.

    Attributes:
        where: the configuration comes from, for messages.
        model: its ``model_cfg``.
        weights: under the names of transformers.
    """

    where: str
    model: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    @property
    def vision(self) -> dict[str, Any]:
        """What it says of the image tower."""
        found: dict[str, Any] = self.model["vision_cfg"]
        return found

    @property
    def text(self) -> dict[str, Any]:
        """What it says of the text tower."""
        return self.model.get("text_cfg") or {}

    @property
    def is_clipa(self) -> bool:
        """Whether the image tower has no normalisation in front, and the mean of its patches is read."""
        return _has(self.vision, _CLIPA)

    @property
    def has_text(self) -> bool:
        """Whether the weights have a text tower, and one of OpenCLIP's own."""
        return "text_model.embeddings.token_embedding.weight" in self.weights and not self.text.get("hf_model_name")

    def clip_image(self) -> dict[str, Any]:
        """Describe OpenCLIP's own vision transformer."""
        self._check("vision_cfg", self.vision, _VISION, _NEUTRAL_VISION | (_CLIPA if self.is_clipa else {}))
        width, _, patch, _ = self._shape("vision_model.embeddings.patch_embedding.weight", 4)
        depth, dim = self._depth("vision_model."), self._shape("visual_projection.weight", 2)[0]
        self._agree("vision_cfg", self.vision, width=width, patch_size=patch, layers=depth["num_hidden_layers"])
        self._agree("model_cfg", self.model, embed_dim=dim)
        return depth | {
            "hidden_size": width,
            "num_attention_heads": width // self.vision.get("head_width", 64),
            "image_size": self._side(),
            "patch_size": patch,
            "projection_dim": dim,
            "layer_norm_eps": 1e-5,
            "hidden_act": "quick_gelu" if self.model.get("quick_gelu") else "gelu",
        }

    def siglip_image(self) -> dict[str, Any]:
        """Describe timm's SigLIP tower."""
        name = self.vision["timm_model_name"]
        self._check("vision_cfg", self.vision, _TIMM, _SIGLIP_POOLING)
        self._require("vision_cfg", self.vision, _SIGLIP_POOLING)
        width, _, patch, _ = self._shape("vision_model.embeddings.patch_embedding.weight", 4)
        self._agree("model_cfg", self.model, embed_dim=width)
        return self._depth("vision_model.") | {
            "hidden_size": width,
            "num_attention_heads": _SIGLIP_HEADS[name.split("_")[1]],
            "image_size": self._side(),
            "patch_size": patch,
            "hidden_act": "gelu_pytorch_tanh" if _SIGLIP_TANH.fullmatch(name) else "gelu",
            "layer_norm_eps": 1e-6,
        }

    def timm_image(self) -> dict[str, Any]:
        """Describe any other tower of timm's, which its own module computes: patches dropped in training are not."""
        self._check("vision_cfg", self.vision, _TIMM | {*_TIMM_FEATURE, "patch_dropout"}, {})
        dim = self.model.get("embed_dim")
        if not isinstance(dim, int) or dim < 1:
            raise EncoderError(f"{self.where}: model_cfg.embed_dim is {dim!r}; expected the channels of the feature.")
        feature = {key: self.vision.get(key, value) for key, value in _TIMM_FEATURE.items()}
        name = str(self.vision["timm_model_name"])
        return feature | {"timm_model_name": name, "hidden_size": dim, "image_size": self._side()}

    def clip_text(self) -> dict[str, Any]:
        """Describe a text tower whose tokens see those before them, and whose end mark is read."""
        return self._end_mark_text(_NEUTRAL_TEXT)

    def timm_text(self) -> tuple[bool, dict[str, Any]]:
        """Describe one beside a tower of timm's: whether its tokens see only those before them, and the rest."""
        return not self.text.get("no_causal_mask"), self._end_mark_text(_NEUTRAL_TEXT | {"no_causal_mask": True})

    def _end_mark_text(self, neutral: Mapping[str, Any]) -> dict[str, Any]:
        self._check("text_cfg", self.text, _TEXT, neutral)
        if self.text.get("proj_bias"):
            raise EncoderError(f"{self.where}: text_cfg.proj_bias is set, and CLIP's text tower has none.")
        return self._text_sizes() | {"eos_token_id": _LARGEST}

    def last_token_text(self) -> dict[str, Any]:
        """Describe a text tower whose tokens see each other, and whose last one is read."""
        self._check("text_cfg", self.text, _TEXT, _NEUTRAL_TEXT | _LAST_TOKEN)
        self._require("text_cfg", self.text, _LAST_TOKEN)
        projection = "text_model.head.weight" if self.text.get("proj_bias") else "text_projection.weight"
        dim = self._shape(projection, 2)[0]
        self._agree("model_cfg", self.model, embed_dim=dim)
        return self._text_sizes() | {"projection_size": dim}

    def _text_sizes(self) -> dict[str, Any]:
        vocabulary, width = self._shape("text_model.embeddings.token_embedding.weight", 2)
        depth, context = (
            self._depth("text_model."),
            self._shape("text_model.embeddings.position_embedding.weight", 2)[0],
        )
        self._agree("text_cfg", self.text, width=width, vocab_size=vocabulary, layers=depth["num_hidden_layers"])
        self._agree("text_cfg", self.text, context_length=context)
        return depth | {
            "hidden_size": width,
            "num_attention_heads": self.text.get("heads", 8),
            "vocab_size": vocabulary,
            "max_position_embeddings": context,
            "layer_norm_eps": self._argument("norm_kwargs", "eps", 1e-5),
            "hidden_act": self._text_activation(),
        }

    def _text_activation(self) -> str:
        form = self._argument("act_kwargs", "approximate", "none")
        if form not in ("none", "tanh") or (form == "tanh" and self.model.get("quick_gelu")):
            raise EncoderError(f"{self.where}: text_cfg.act_kwargs {form!r} is not supported.")
        plain = "quick_gelu" if self.model.get("quick_gelu") else "gelu"
        return "gelu_pytorch_tanh" if form == "tanh" else plain

    def _argument(self, key: str, name: str, default: Any) -> Any:
        given = self.text.get(key) or {}
        if not isinstance(given, dict) or set(given) - {name}:
            raise EncoderError(f"{self.where}: text_cfg.{key} is {given!r}; only {name} is supported.")
        return given.get(name, default)

    def _depth(self, tower: str) -> dict[str, int]:
        """Depth of a tower and width of its MLPs."""
        layers = {name.split(".")[3] for name in self.weights if name.startswith(f"{tower}encoder.layers.")}
        hidden, _ = self._shape(f"{tower}encoder.layers.0.mlp.fc1.weight", 2)
        return {"num_hidden_layers": len(layers), "intermediate_size": hidden}

    def _shape(self, name: str, axes: int) -> tuple[int, ...]:
        if name not in self.weights or self.weights[name].ndim != axes:
            raise EncoderError(
                f"{self.where}: the weights do not have the tower that it describes: expected {name} of {axes} axes, "
                f"got {list(self.weights[name].shape) if name in self.weights else 'none'}. Fetch both of one "
                "checkpoint."
            )
        return tuple(self.weights[name].shape)

    def _side(self) -> int:
        size = self.vision.get("image_size", 224)
        sides = set(size) if isinstance(size, list | tuple) else {size}
        if len(sides) != 1 or not all(isinstance(side, int) for side in sides):
            raise EncoderError(f"{self.where}: image_size {size!r} is not square; only square sizes work.")
        return int(sides.pop())

    def _check(self, part: str, settings: dict[str, Any], known: set[str], neutral: Mapping[str, Any]) -> None:
        for key, value in settings.items():
            if key not in known and value and neutral.get(key) != value:
                raise EncoderError(f"{self.where}: {part}.{key} is {value!r}, which is not supported.")

    def _agree(self, part: str, settings: Mapping[str, Any], **found: int) -> None:
        for key, size in found.items():
            if settings.get(key, size) != size:
                raise EncoderError(
                    f"{self.where}: {part}.{key} is {settings[key]!r}, but the weights have {size}. They do not belong "
                    "together: fetch both of one checkpoint."
                )

    def _require(self, part: str, settings: dict[str, Any], values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            if settings.get(key) != value:
                raise EncoderError(f"{self.where}: {part}.{key} is {settings.get(key)!r}, and only {value!r} is read.")


def is_siglip(model: Mapping[str, Any]) -> bool:
    """Tell whether the image tower of a ``model_cfg`` is timm's SigLIP."""
    return _SIGLIP.fullmatch(str(_timm_name(model))) is not None


def is_timm(model: Mapping[str, Any]) -> bool:
    """Tell whether it is another one of timm's, which is not rebuilt but run."""
    return bool(_timm_name(model)) and not is_siglip(model)


def _timm_name(model: Mapping[str, Any]) -> Any:
    return model["vision_cfg"].get("timm_model_name")


def _has(settings: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    return all(settings.get(key) == value for key, value in values.items())
