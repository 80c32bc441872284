"""A frozen text tower from a transformers checkpoint, unpatched, and the features that it makes of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import normalizers
from torch import Tensor, nn

from clip_export.encoders.checkpoint import Checkpoint, encoder_name
from clip_export.encoders.families import FAMILIES, Family
from clip_export.encoders.families import family as rules
from clip_export.encoders.open_clip_model import OpenClipModel
from clip_export.encoders.open_clip_tokenizer import add_cleaning
from clip_toolkit.errors import EncoderError
from clip_toolkit.spec.classifier import EncoderSpec
from clip_toolkit.spec.licenses import License
from clip_toolkit.text.growth import check_growth

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")

_OPEN_CLIP_NOTE = "assumed: texts have no HTML entities and no garbled Unicode, which open_clip would repair"

_EXAMPLE = "openai/clip-vit-base-patch32"


@dataclass(frozen=True)
class TextEncoder:
    """A text tower and everything around it.

    Attributes:
        id: hub id or path of a local folder, as it was asked for.
        revision: commit of the checkpoint on the hub; of a local folder the SHA-256 of its content.
        family: the encoder's family.
        model: the transformers text module, float32, frozen, in evaluation mode.
        projection: from its output to the space shared with images, or None where the module does so itself.
        tokenizer: the checkpoint's tokenizer, which lower-cases where the family was trained so.
        context: most tokens in a text, with the marks around it.
        logit_scale: what a cosine similarity is multiplied by.
        logit_bias: what is then added where each text is judged by itself, or None.
        base: as in `clip_toolkit.spec.classifier.EncoderSpec`.
        licenses: likewise.
        notes: what is assumed of the checkpoint, one line each.
    """

    id: str
    revision: str | None
    family: Family
    model: Any = field(repr=False)  # transformers declares no parts of its modules
    projection: nn.Linear | None = field(repr=False)
    tokenizer: Any = field(repr=False)
    context: int
    logit_scale: float
    logit_bias: float | None
    base: str | None = None
    licenses: tuple[License, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def from_pretrained(
        cls, encoder: str, revision: str | None = None, open_clip_model: OpenClipModel | None = None
    ) -> TextEncoder:
        """Load the text tower that was trained together with an image encoder.

        Args:
            encoder: as in `clip_export.encoders.image.Encoder.from_pretrained`.
            revision: branch, tag or commit on the hub.
            open_clip_model: of a bare file.

        Raises:
            EncoderError: it cannot be found or loaded, weights, the tokenizer or its padding token are missing, or it
                has no text tower.
        """
        checkpoint = Checkpoint.find(encoder, revision, open_clip_model)
        family = checkpoint.family
        _check_has_text(checkpoint)
        assert family.text is not None
        checkpoint.check_blocks("text")
        own = (f"{family.text.module}.", *filter(None, [family.text.projection]), "logit_")
        model: Any = checkpoint.model("text", lambda name: name.startswith(own))
        tower = getattr(model, family.text.module)
        tokenizer = _tokenizer(checkpoint, family.text)
        context = family.text.context(tower.config)
        is_open_clip = checkpoint.open_clip_settings is not None  # which does not ask the tokenizer
        return cls(
            id=encoder,
            revision=checkpoint.commit,
            family=family,
            model=tower,
            projection=getattr(model, family.text.projection) if family.text.projection else None,
            tokenizer=tokenizer,
            context=context if is_open_clip else min(context, tokenizer.model_max_length),
            logit_scale=family.text.logit_scale(model),
            logit_bias=None if family.text.compares_labels else model.logit_bias.item(),
            base=checkpoint.base_name,
            licenses=checkpoint.licenses,
            notes=(*checkpoint.card_problems, *((_OPEN_CLIP_NOTE,) if is_open_clip else ())),
        )

    @property
    def rules(self) -> rules.TextTower:
        """What the family says of its text towers."""
        assert self.family.text is not None
        return self.family.text

    @property
    def last_layer(self) -> nn.Linear | None:
        """What projects into the space shared with images, or None where the pooled output lies there already."""
        return getattr(self.model, "head", None) if self.projection is None else self.projection

    @property
    def dim(self) -> int:
        """Channels of the feature."""
        width: int = self.model.config.hidden_size if self.last_layer is None else self.last_layer.out_features
        return width

    def to(self, device: str) -> TextEncoder:
        """Return the same tower, moved to a PyTorch device."""
        for module in filter(None, (self.model, self.projection)):
            module.to(device)
        return self

    def spec(self) -> EncoderSpec:
        """Return what a model file says of the encoder. Of a local folder only the name is kept."""
        name, family = encoder_name(self.id), self.family.name
        return EncoderSpec(name, self.revision, family, "projected", self.dim, self.base, self.licenses)


def text_features(tower: TextEncoder, texts: Sequence[str], batch_size: int = 64) -> Tensor:
    """Compute features of texts with the unpatched transformers modules, equal to ``get_text_features``.

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
    feature = outputs.last_hidden_state[:, 0] if tower.rules.reads_first_token else outputs.pooler_output
    projected: Tensor = feature if tower.projection is None else tower.projection(feature)
    return projected.cpu()


def tokenised(tower: TextEncoder, texts: Sequence[str]) -> dict[str, Tensor]:
    """Tokens in the form that the family was trained with.

    Returns:
        ``input_ids``, int64 ``[texts, tokens]``: as long as the longest text, and at least one, with an
        ``attention_mask`` of the same shape, 1 where there is text; or padded to the context, if the family reads the
        padding, too.

    Raises:
        EncoderError: the tokenizer belongs to another checkpoint.
    """
    padded = tower.rules.pads_to_context
    options = {"max_length": tower.context, "truncation": True, "return_tensors": "pt"}
    tokens = tower.tokenizer(list(texts), padding="max_length" if padded else True, **options)
    if not tokens["input_ids"].numel():  # empty texts of a tokenizer that marks no ends
        tokens = tower.tokenizer([""] * len(texts), padding="max_length", **options | {"max_length": 1})
    largest, rows = int(tokens["input_ids"].max()), tower.model.config.vocab_size
    if largest >= rows:
        raise EncoderError(f"{tower.id}: the tokenizer gives token {largest}, but the text tower knows {rows} tokens.")
    return {name: tokens[name] for name in (["input_ids"] if padded else ["input_ids", "attention_mask"])}


def token_ids(tower: TextEncoder, text: str) -> tuple[int, ...]:
    """Return the tokens of one text, as `tokenised` gives them."""
    return tuple(tokenised(tower, [text])["input_ids"][0].tolist())


def token_counts(tower: TextEncoder, texts: Sequence[str]) -> list[int]:
    """How many tokens each text has, with the marks around it, before anything is cut off."""
    if not texts:
        return []
    return [len(ids) for ids in tower.tokenizer(list(texts), verbose=False)["input_ids"]]


def truncated(tower: TextEncoder, texts: Sequence[str]) -> list[str]:
    """Return the texts that go beyond the context, of which `text_features` sees the beginning only."""
    return [text for text, count in zip(texts, token_counts(tower, texts), strict=True) if count > tower.context]


def _check_has_text(checkpoint: Checkpoint) -> None:
    text = checkpoint.family.text
    if text is None or checkpoint.architecture != text.architecture:
        known = ", ".join(family.text.architecture for family in FAMILIES if family.text is not None)
        reason = f"{checkpoint.architecture} has no text tower that shares a space with its image tower"
        settings = (checkpoint.open_clip_settings or {}).get("model_cfg", {})
        if other := (settings.get("text_cfg") or {}).get("hf_model_name"):
            reason = f"its text tower is that of {other} (text_cfg.hf_model_name), and those are not read"
        raise EncoderError(f"{checkpoint.id}: {reason}. Use one of {known}, such as {_EXAMPLE}.")


def _tokenizer(checkpoint: Checkpoint, text: rules.TextTower) -> Any:
    folder = checkpoint.source
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):  # transformers 5 would make up an empty one
        where = "has" if Path(checkpoint.id).exists() else "the hub, if it was reached, and the cache have"
        raise EncoderError(
            f"{checkpoint.id}: {where} no tokenizer, which is one of {', '.join(_TOKENIZER_FILES)}. Put the files that "
            "its authors published beside config.json, or save them there with AutoTokenizer's save_pretrained."
        )
    try:
        for path in folder.glob("tokenizer*.json"):  # transformers takes one that is made for its version, if there is
            check_growth(path.read_text(encoding="utf-8"))
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a damaged file raises whatever the tokenizer's library does
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(f"{checkpoint.id}: its tokenizer cannot be loaded ({reason}).") from error
    if tokenizer.pad_token_id is None:
        raise EncoderError(
            f"{checkpoint.id}: its tokenizer has no padding token, so that texts of different lengths cannot be read "
            'together. Name the one that it was trained with as "pad_token" in its tokenizer_config.json.'
        )
    settings = checkpoint.open_clip_settings
    if settings is not None:
        _add_open_clip(tokenizer, settings, checkpoint)
    elif text.lower_cases and tokenizer.is_fast:  # a slow one of this family does so itself
        backend = tokenizer.backend_tokenizer
        lower = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer else [])]
        backend.normalizer = normalizers.Sequence(lower)
    return tokenizer


def _add_open_clip(tokenizer: Any, settings: dict[str, Any], checkpoint: Checkpoint) -> None:
    try:
        add_cleaning(tokenizer, settings["model_cfg"].get("text_cfg") or {})
    except EncoderError as error:
        raise EncoderError(f"{checkpoint.id}: {error}") from error
