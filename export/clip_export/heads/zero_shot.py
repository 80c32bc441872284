"""Zero-shot: a linear head whose weights are what the text tower makes of the labels. No image is needed.

Radford et al. 2021, https://arxiv.org/abs/2103.00020, section 3.1.2: the label is put into prompts, and the normalised
mean of their normalised features stands for it (the prompt ensemble of section 3.1.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from clip_export.encoders.families import Family
from clip_export.encoders.text import TextEncoder, text_features, token_counts, tokenised
from clip_export.heads.files import TrainedHead
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.references import EncoderReference
from clip_toolkit.errors import HeadError
from clip_toolkit.spec.tasks import MULTI_LABEL, SINGLE_LABEL
from clip_toolkit.text.tokenization import is_valid_unicode

TEMPLATES = ("a photo of a {}",)
"""The paper's own prompt; the one that does without knowing what the pictures are of."""

_SLOT = "{}"


class ZeroShot(NamedTuple):
    """What a text tower says of labels.

    Attributes:
        directions: float32 ``[labels, dim]``, each of L2 norm 1.
        scale: factor of the cosine similarity of an image's feature and a direction.
        bias: what is then added.
        task: what the family's training makes of the result: ``single-label``, a softmax over the labels (CLIP, BLIP),
            or ``multi-label``, a sigmoid of each by itself (SigLIP), as transformers' zero-shot pipeline has it.
    """

    directions: Tensor
    scale: float
    bias: float
    task: str


def zero_shot(tower: TextEncoder, labels: Sequence[str], templates: Sequence[str] = TEMPLATES) -> ZeroShot:
    """Ask a text tower for the directions of labels.

    Args:
        tower: the text tower.
        labels: class names, all different.
        templates: prompts with ``{}`` where the label goes; several are averaged.

    Raises:
        HeadError: no or empty labels, labels that are the same to the tokenizer or nothing to it, a template without
            ``{}``, or a prompt of more tokens than the tower reads.
    """
    check_words(labels, templates)
    prompts = [[template.replace(_SLOT, label) for label in labels] for template in templates]
    for filled in prompts:
        _check_length(tower, filled)
    _check_read(tower, templates[0], labels)
    features = torch.stack([functional.normalize(text_features(tower, filled), dim=-1) for filled in prompts])
    return ZeroShot(
        directions=functional.normalize(features.mean(0), dim=-1),
        scale=tower.logit_scale,
        bias=tower.logit_bias or 0.0,
        task=SINGLE_LABEL if tower.logit_bias is None else MULTI_LABEL,
    )


def zero_shot_head(tower: TextEncoder, labels: Sequence[str], templates: Sequence[str] = TEMPLATES) -> TrainedHead:
    """Build a classifier of ``labels`` that has seen no image; it reads the normalised projected feature.

    Raises:
        HeadError: as `zero_shot`.
    """
    check_words(labels, templates, tower.family)
    found = zero_shot(tower, labels, templates)
    return TrainedHead(
        module=words_head(found),
        encoder=EncoderReference(tower.id, tower.revision, "projected"),
        labels=tuple(labels),
        training={"method": "zero-shot, no images", "templates": list(templates)},
        task=found.task,
    )


def linear_head(weight: Tensor, bias: Tensor) -> VLMtoMLP:
    """Build a linear head on normalised features from weights ``[labels, dim]`` and ``[labels]``."""
    head = VLMtoMLP(weight.shape[1], (), weight.shape[0], dropout=0.0, feature_norm=True)
    head.load_state_dict({"layers.0.weight": weight, "layers.0.bias": bias})
    return head.eval()


def words_head(words: ZeroShot) -> VLMtoMLP:
    """Build the linear head that the words alone make."""
    return linear_head(words.directions * words.scale, torch.full((len(words.directions),), words.bias))


def check_words(labels: Sequence[str], templates: Sequence[str], family: Family | None = None) -> None:
    """Refuse labels and templates that make no prompts, before a checkpoint is loaded for them.

    Args:
        labels: class names.
        templates: prompts with ``{}`` where the label goes.
        family: of the text tower, where the words alone are to make a classifier: most families compare labels with
            each other, and need at least two.

    Raises:
        HeadError: as `zero_shot`, but for what only the tokenizer can tell.
    """
    for text in (*labels, *templates):
        if not is_valid_unicode(text):
            raise HeadError(f"zero-shot: {text!r} is not valid Unicode text.")
    if not labels or not all(label.strip() for label in labels):
        raise HeadError("zero-shot: a label is empty. Each must be a word or words that describe its class.")
    doubles = [label for label in dict.fromkeys(labels) if list(labels).count(label) > 1]
    if doubles:
        raise HeadError(f"zero-shot: the labels must differ from each other, got {doubles[0]!r} more than once.")
    if len(labels) == 1 and family is not None and family.text is not None and family.text.compares_labels:
        raise HeadError(
            f"zero-shot: {labels[0]!r} is the only label, and {family.name} says which of several is the likeliest: "
            f"it would always be this one. Add another, such as 'no {labels[0]}', or use a SigLIP encoder."
        )
    if not templates:
        raise HeadError(f"zero-shot: there is no template. Give at least one, such as {TEMPLATES[0]!r}.")
    for template in templates:
        if _SLOT not in template:
            raise HeadError(
                f"zero-shot: the template {template!r} has no {_SLOT}, so that all labels would be the same. Put it "
                f"where the label goes, as in {TEMPLATES[0]!r}."
            )


def _check_length(tower: TextEncoder, prompts: Sequence[str]) -> None:
    """Refuse prompts that would be cut off: they may lose the very word that tells two labels apart."""
    for prompt, count in zip(prompts, token_counts(tower, prompts), strict=True):
        if count > tower.context:
            raise HeadError(
                f"zero-shot: {prompt!r} has {count} tokens, but the text tower of {tower.id} reads at most "
                f"{tower.context}. Shorten the label or the template."
            )


def _check_read(tower: TextEncoder, template: str, labels: Sequence[str]) -> None:
    """Tokenizers lower-case, leave out punctuation (SigLIP), and have one token for whatever they do not know."""
    seen: dict[tuple[int, ...], str] = {}
    prompts = [template.replace(_SLOT, label) for label in ("", *labels)]
    nothing, *rows = tokenised(tower, prompts)["input_ids"].tolist()
    for row, label in zip(rows, labels, strict=True):
        if row == nothing:
            raise HeadError(
                f"zero-shot: nothing is left of the label {label!r} in the tokenizer of {tower.id}. Use a word for it."
            )
        other = seen.setdefault(tuple(row), label)
        if other is not label:
            raise HeadError(
                f"zero-shot: {other!r} and {label!r} are the same to the tokenizer of {tower.id}, so that neither "
                "could be told from the other. Rename one of them."
            )
