"""A frozen text tower from a transformers checkpoint, unpatched, and the features that it makes of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from tokenizers import normalizers
from torch import Tensor, nn

from clip_export.encoders.checkpoint import Checkpoint, encoder_name, reading
from clip_export.encoders.families import BLIP, FAMILIES, SIGLIP, Family
from clip_toolkit.errors import EncoderError
from clip_toolkit.spec.classifier import EncoderSpec

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")

_EXAMPLE = "openai/clip-vit-base-patch32"

# transformers' BLIP checkpoints leave out the learnt temperature. This is where its training starts from: the authors'
# own models/blip_retrieval.py, temp = 0.07.
_BLIP_LOGIT_SCALE = 1 / 0.07


@dataclass(frozen=True)
class TextEncoder:
    """A text tower and everything around it.

    Attributes:
        id: hub id or path of a local folder, as it was asked for.
        revision: commit of the checkpoint on the hub; of a local folder the SHA-256 of its content.
        family: the encoder's family.
        model: the transformers text module, float32, frozen, in evaluation mode.
        projection: from its output to the space shared with images, or None where the module does so itself (SigLIP).
        reads_first_token: the feature is that of the first token of the last hidden state (BLIP) instead of the pooled
            output.
        tokenizer: the checkpoint's tokenizer; SigLIP's lower-cases, as both of its generations were trained.
        context: most tokens in a text, with the marks around it.
        logit_scale: what a cosine similarity is multiplied by.
        logit_bias: what is then added (SigLIP), or None.
    """

    id: str
    revision: str | None
    family: Family
    model: nn.Module = field(repr=False)
    projection: nn.Linear | None = field(repr=False)
    reads_first_token: bool
    tokenizer: Any = field(repr=False)
    context: int
    logit_scale: float
    logit_bias: float | None

    @classmethod
    def from_pretrained(cls, encoder: str, revision: str | None = None) -> TextEncoder:
        """Load the text tower that was trained together with an image encoder.

        Args:
            encoder: hub id, such as ``openai/clip-vit-base-patch32``, or a local folder in transformers format.
            revision: branch, tag or commit on the hub.

        Raises:
            EncoderError: it cannot be found or loaded, weights, the tokenizer or its padding token are missing, or it
                has no text tower.
        """
        checkpoint = Checkpoint.find(encoder, revision, "tokenizer_config.json")
        _check_has_text(checkpoint)
        model = checkpoint.model("text", lambda name: name.startswith(("text_", "logit_")))
        tower = model.text_encoder if checkpoint.family == BLIP else model.text_model
        projection = {"clip": "text_projection", "blip": "text_proj"}.get(checkpoint.family.name)
        tokenizer = _tokenizer(checkpoint)
        return cls(
            id=encoder,
            revision=checkpoint.commit,
            family=checkpoint.family,
            model=tower,
            projection=getattr(model, projection) if projection else None,
            reads_first_token=checkpoint.family == BLIP,
            tokenizer=tokenizer,
            context=min(tower.config.max_position_embeddings, tokenizer.model_max_length),
            logit_scale=_BLIP_LOGIT_SCALE if checkpoint.family == BLIP else model.logit_scale.exp().item(),
            logit_bias=model.logit_bias.item() if checkpoint.family == SIGLIP else None,
        )

    @property
    def dim(self) -> int:
        """Channels of the feature."""
        return self.projection.out_features if self.projection is not None else self.model.head.out_features

    def to(self, device: str) -> TextEncoder:
        """The same tower, moved to a PyTorch device."""
        for module in filter(None, (self.model, self.projection)):
            module.to(device)
        return self

    def spec(self) -> EncoderSpec:
        """What a model file says of the encoder. Of a local folder only the name is kept."""
        return EncoderSpec(encoder_name(self.id), self.revision, self.family.name, "projected", self.dim)


def text_features(tower: TextEncoder, texts: Sequence[str], batch_size: int = 64) -> Tensor:
    """The features of texts, by the unpatched transformers modules: equal to its ``get_text_features``.

    What goes beyond the context is left out; `truncated` tells of which texts.

    Args:
        tower: the text tower.
        texts: any text, the empty one included.
        batch_size: texts at a time.

    Returns:
        float32 ``[texts, dim]``, on the CPU, not normalised.

    Raises:
        EncoderError: the tokenizer belongs to another checkpoint.
    """
    with torch.inference_mode():
        batches = [_features(tower, texts[start : start + batch_size]) for start in range(0, len(texts), batch_size)]
        return torch.cat(batches) if batches else torch.empty(0, tower.dim)


def _features(tower: TextEncoder, texts: Sequence[str]) -> Tensor:
    device = next(tower.model.parameters()).device
    outputs = tower.model(**{name: tensor.to(device) for name, tensor in tokenised(tower, texts).items()})
    feature = outputs.last_hidden_state[:, 0] if tower.reads_first_token else outputs.pooler_output
    return (feature if tower.projection is None else tower.projection(feature)).cpu()


def tokenised(tower: TextEncoder, texts: Sequence[str]) -> dict[str, Tensor]:
    """Tokens in the form that the family was trained with.

    Returns:
        ``input_ids``, int64 ``[texts, tokens]``. CLIP and BLIP: as long as the longest text, with an ``attention_mask``
        of the same shape, 1 where there is text. SigLIP: padded to the context, and the padding is read, too.

    Raises:
        EncoderError: the tokenizer belongs to another checkpoint.
    """
    is_siglip = tower.family == SIGLIP
    tokens = tower.tokenizer(
        list(texts),
        padding="max_length" if is_siglip else True,
        max_length=tower.context,
        truncation=True,
        return_tensors="pt",
    )
    largest, rows = int(tokens["input_ids"].max()), tower.model.config.vocab_size
    if largest >= rows:
        raise EncoderError(f"{tower.id}: the tokenizer gives token {largest}, but the text tower knows {rows} tokens.")
    return {name: tokens[name] for name in (["input_ids"] if is_siglip else ["input_ids", "attention_mask"])}


def token_ids(tower: TextEncoder, text: str) -> tuple[int, ...]:
    """The tokens of one text, as `tokenised` gives them."""
    return tuple(tokenised(tower, [text])["input_ids"][0].tolist())


def token_counts(tower: TextEncoder, texts: Sequence[str]) -> list[int]:
    """How many tokens each text has, with the marks around it, before anything is cut off."""
    if not texts:
        return []
    return [len(ids) for ids in tower.tokenizer(list(texts), verbose=False)["input_ids"]]


def truncated(tower: TextEncoder, texts: Sequence[str]) -> list[str]:
    """The texts that go beyond the context, of which `text_features` sees the beginning only."""
    return [text for text, count in zip(texts, token_counts(tower, texts), strict=True) if count > tower.context]


def _check_has_text(checkpoint: Checkpoint) -> None:
    if checkpoint.architecture != checkpoint.family.text_architecture:
        raise EncoderError(
            f"{checkpoint.id}: {checkpoint.architecture} has no text tower that shares a space with its image tower. "
            f"Use one of {', '.join(family.text_architecture for family in FAMILIES)}, such as {_EXAMPLE}."
        )


def _tokenizer(checkpoint: Checkpoint) -> Any:
    folder = _tokenizer_folder(checkpoint)
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):  # transformers 5 would make up an empty one
        where = "has" if Path(checkpoint.id).is_dir() else "the hub, if it was reached, and the cache have"
        raise EncoderError(
            f"{checkpoint.id}: {where} no tokenizer, which is one of {', '.join(_TOKENIZER_FILES)}. Put the files that "
            "its authors published beside config.json, or save them there with AutoTokenizer's save_pretrained."
        )
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a damaged file raises whatever the tokenizer's library does
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(f"{checkpoint.id}: its tokenizer cannot be loaded ({reason}).") from error
    if tokenizer.pad_token_id is None:
        raise EncoderError(
            f"{checkpoint.id}: its tokenizer has no padding token, so that texts of different lengths cannot be read "
            'together. Name the one that it was trained with as "pad_token" in its tokenizer_config.json.'
        )
    if checkpoint.family == SIGLIP and tokenizer.is_fast:  # SigLIP's own lower-cases, but SigLIP 2's is Gemma's
        backend = tokenizer.backend_tokenizer
        lower = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer else [])]
        backend.normalizer = normalizers.Sequence(lower)
    return tokenizer


def _tokenizer_folder(checkpoint: Checkpoint) -> Path:
    """Where the tokenizer's files lie; of a checkpoint on the hub they are fetched, and no others."""
    if Path(checkpoint.source).is_dir():
        return Path(checkpoint.source)
    patterns = [*_TOKENIZER_FILES, "config.json", "merges.txt", "*token*.json"]
    with reading(checkpoint.id, checkpoint.revision):
        return Path(
            huggingface_hub.snapshot_download(checkpoint.source, revision=checkpoint.commit, allow_patterns=patterns)
        )
