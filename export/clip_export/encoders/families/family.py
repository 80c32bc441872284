"""What has to be known of an encoder family, as values that the rest of the package reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from clip_toolkit.errors import EncoderError

ACTIVATIONS = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_pytorch_tanh",
    "gelu_new": "gelu_pytorch_tanh",
    "gelu_fast": "gelu_pytorch_tanh",
    "silu": "silu",
    "relu": "relu",
}
"""Activations by the names of transformers' configurations, and which of five functions each of them is."""


@dataclass(frozen=True, kw_only=True)
class BlockSettings:
    """Sizes of a tower's transformer blocks.

    Attributes:
        width: channels of a token.
        heads: attention heads.
        hidden: channels inside the MLP of a block.
        depth: number of blocks.
        activation: a value of `ACTIVATIONS`.
        eps: of every layer normalisation.
        gated: as in `clip_export.graph.blocks.BlockConfig`.
    """

    width: int
    heads: int
    hidden: int
    depth: int
    activation: str
    eps: float
    gated: bool = False


def block_settings(config: Any) -> BlockSettings:
    """Read the sizes of blocks from a transformers configuration with the names of CLIP's.

    Raises:
        EncoderError: the activation is not supported.
    """
    return BlockSettings(
        width=config.hidden_size,
        heads=config.num_attention_heads,
        hidden=config.intermediate_size,
        depth=config.num_hidden_layers,
        activation=activation(config.hidden_act),
        eps=config.layer_norm_eps,
    )


def activation(name: Any) -> str:
    """Return the function that a configuration means by the name of an activation.

    Raises:
        EncoderError: it is not supported.
    """
    if name not in ACTIVATIONS:
        raise EncoderError(f"activation {name!r} is not supported. Supported are: {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


@dataclass(frozen=True, kw_only=True)
class ImageTower:
    """What has to be known of a family's image towers.

    Attributes:
        processor: transformers image processor of checkpoints that do not name theirs.
        in_pillow: where that one needs torchvision: a Pillow one that takes the same steps, by the names of a
            preprocessor_config.json, with the defaults that differ.
        pooling: ``class``, ``mean`` or ``attention``, as in `clip_export.graph.vit.ViTConfig`; ``own`` where the tower
            is traced.
        module: attribute of the whole model that holds the image tower. A model without it is the tower itself.
        projection: attribute of the whole model that projects the feature into the space shared with text, or None
            where the pooled feature lies in that space already.
        projects_first_token: the projection reads the first token of the last hidden state, not the pooled output.
        pre_norm: a layer normalisation precedes the first block.
        post_norms: how often the final normalisation is applied to the pooled feature.
        packed_attention: query, key and value are one linear layer, ``qkv``, and the output is ``projection``.
        names: names of modules where they differ from CLIP's, by regular expression, in the order of replacement.
        settings: from the tower's configuration to the sizes of its blocks.
        positions: resamples the tower's table of positions for a side of so many pixels; None where the table fits one
            side alone or there is none.
        naflex: images keep their shape, in as many patches as the processor allows. The tower takes patches, their mask
            and the shape of their grid, and resamples its table of positions to each.
        rotation: makes, for a side of so many pixels, the cosines and sines that turn queries and keys (RoPE): float32
            ``[2, tokens, width / heads]``, both halves of the last axis alike; None where positions are only added.
        traced: from the tower to the equal module, pixel values to feature, whose trace becomes the graph; None where
            the canonical vision transformer takes its weights.
        can_finetune: the tower's modules have the structure that `clip_export.training.finetuning` cuts in two.
        optimum: the transformers class of the tower that Optimum exports, or None.
    """

    processor: str
    in_pillow: Mapping[str, Any] = field(default_factory=dict)
    pooling: str
    module: str = "vision_model"
    projection: str | None = None
    projects_first_token: bool = False
    pre_norm: bool = False
    post_norms: int = 1
    packed_attention: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    settings: Callable[[Any], BlockSettings] = block_settings
    positions: Callable[[nn.Module, int], Tensor] | None = None
    naflex: bool = False
    rotation: Callable[[Any, int], Tensor] | None = None
    traced: Callable[[nn.Module], nn.Module] | None = None
    can_finetune: bool = True
    optimum: str | None = None

    @property
    def takes_any_size(self) -> bool:
        """Whether the tower reads images of any multiple of its patches, whatever size its configuration names."""
        return self.positions is not None or self.rotation is not None


@dataclass(frozen=True, kw_only=True)
class TextTower:
    """What has to be known of the text tower that shares a space with a family's image tower.

    Attributes:
        architecture: the transformers class that has both towers.
        switches: from the tower's configuration to those fields of `clip_export.graph.text_transformer.TextConfig` that
            distinguish the family.
        module: attribute of the whole model that holds the text tower.
        projection: attribute of the whole model that projects into the shared space, or None where the tower's own
            ``head`` does, or the pooled output lies in that space already.
        transformation: linear layer of the tower in front of that projection, or None.
        reads_first_token: the feature is that of the first token of the last hidden state, not the pooled output.
        pads_to_context: texts are padded to the context, and the padding is read.
        lower_cases: texts were lower-cased before the tokenizer during training.
        compares_labels: training compared captions with each other (a softmax); otherwise each was judged by itself.
        logit_scale: from the whole model to the factor of the cosine similarity.
        embeddings: from the tower to its tables of tokens and of positions, by CLIP's names, where they are no weights
            of it as they stand.
        names: as in `ImageTower`.
        settings: as in `ImageTower`.
        context: from the tower's configuration to the most tokens in a text, with the marks around it.
    """

    architecture: str
    switches: Callable[[Any], dict[str, Any]]
    module: str = "text_model"
    projection: str | None = None
    transformation: str | None = None
    reads_first_token: bool = False
    pads_to_context: bool = False
    lower_cases: bool = False
    compares_labels: bool = True
    logit_scale: Callable[[Any], float] = lambda model: float(model.logit_scale.exp())
    embeddings: Callable[[Any], Mapping[str, Tensor]] = lambda _: {}
    names: Mapping[str, str] = field(default_factory=dict)
    settings: Callable[[Any], BlockSettings] = block_settings
    context: Callable[[Any], int] = lambda config: config.max_position_embeddings


@dataclass(frozen=True, kw_only=True)
class Family:
    """An encoder family.

    Attributes:
        name: as in `clip_toolkit.spec.classifier.EncoderSpec.family`.
        model_types: values of ``model_type`` in config.json that belong to it.
        architectures: transformers classes that a checkpoint may name; the first stands for those that name none.
        class_of: from the name of an architecture to its class; None where transformers has it.
        image: its image tower.
        text: its text tower, or None.
    """

    name: str
    model_types: tuple[str, ...]
    architectures: tuple[str, ...]
    class_of: Callable[[str], Any] | None = None
    image: ImageTower
    text: TextTower | None = None
