"""What a model file will say of itself, before anything of it is proved."""

from __future__ import annotations

from collections.abc import Sequence

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder
from clip_export.encoders.tokenizer import tokenizer_spec
from clip_export.graph.model_file import tool_versions
from clip_export.heads.files import TrainedHead
from clip_toolkit.errors import HeadError
from clip_toolkit.spec.classifier import EncoderSpec, ModelSpec, TextSpec
from clip_toolkit.spec.tasks import SINGLE_LABEL
from clip_toolkit.text.tokenization import is_valid_unicode


def checked_labels(
    head: TrainedHead, encoder: Encoder, labels: Sequence[str] | None, tower: TextEncoder | None = None
) -> tuple[str, ...]:
    """Return the labels that an export will write: ``labels``, or else the head's own.

    Raises:
        HeadError: the head does not fit the encoder or the labels.
    """
    layers = head.module.spec.layers
    width = encoder.dim + (tower.dim if tower is not None else 0)
    if layers[0] != width:
        feature = f"{encoder.feature} feature{' with that of a text' if tower is not None else ''}"
        raise HeadError(
            f"the head takes {layers[0]} inputs, but the {feature} of {encoder.id} has {width}. "
            "Use the encoder and feature that the head was trained on."
        )
    if layers[-1] < 2 and head.task == SINGLE_LABEL:
        raise HeadError("the head has 1 output. A softmax over it would always say 100 %; train one output per class.")
    labels = tuple(labels) if labels is not None else head.labels
    if labels is None:
        raise HeadError(f"the head file names no classes. Give all {layers[-1]} in training order with --labels.")
    if len(labels) != layers[-1]:
        raise HeadError(f"the head has {layers[-1]} outputs, but {len(labels)} labels were given: {', '.join(labels)}")
    _check_names(labels)
    return labels


def _check_names(labels: tuple[str, ...]) -> None:
    unseen = [label for label in labels if not label.strip() or any(ord(letter) < 32 for letter in label)]
    if unseen:
        raise HeadError(
            f"the label {unseen[0]!r} is empty or holds control characters. Name the classes with --labels."
        )
    undecodable = [label for label in labels if not is_valid_unicode(label)]
    if undecodable:
        raise HeadError(f"the label {undecodable[0]!r} is not valid Unicode text. Name the classes with --labels.")
    if len(set(labels)) != len(labels):
        raise HeadError(f"the labels must differ from each other, got {', '.join(labels)}")


def draft_spec(
    named: Sequence[tuple[TrainedHead, tuple[str, ...]]],
    encoder: Encoder,
    tower: TextEncoder | None,
    *,
    kind: str,
    ops: str,
    temperature: float | None = None,
) -> ModelSpec:
    """Say what a file will be of: every head with its labels, the encoder, its preprocessing and the tools.

    Args:
        named: each head with its labels, the main one first.
        encoder: the encoder they were trained on.
        tower: the text tower, for heads that read texts.
        kind: `ModelSpec.input`.
        ops: `ModelSpec.ops`.
        temperature: in place of the heads' own.

    Raises:
        HeadError: a head holds what no reader of the file would take.
    """
    text = None if tower is None else TextSpec(tower.dim, tokenizer_spec(tower))
    specs = [
        ModelSpec(
            labels=labels,
            encoder=_encoder_spec(head, encoder),
            preprocessing=encoder.preprocessing,
            head=head.module.spec,
            input=kind,
            ops=ops,
            text=text,
            task=head.task,
            temperature=head.temperature if temperature is None else temperature,
            thresholds=_renamed(head, labels),
            training=head.training,
            tools=tool_versions(),
            name=head.name,
        )
        for head, labels in named
    ]
    return _readable(ModelSpec.joined(specs))


def _encoder_spec(head: TrainedHead, encoder: Encoder) -> EncoderSpec:
    spec = encoder.spec()
    return spec if head.encoder is None else head.encoder.licensed(spec, encoder.checkpoint.commit)


def _readable(spec: ModelSpec) -> ModelSpec:
    """Check that a reader of the file would take the spec, before half a minute of proof; return it."""
    try:
        return ModelSpec.from_json(spec.to_json())
    except (ValueError, RecursionError) as error:  # a number or a nesting that JSON does not have, or a SpecError
        raise HeadError(
            f"the head cannot be exported: {str(error).removesuffix(' Export the model again.')}"
        ) from error


def _renamed(head: TrainedHead, labels: tuple[str, ...]) -> dict[str, float]:
    """Return the head's thresholds under the labels that the file will have."""
    names = dict(zip(head.labels or labels, labels, strict=True))
    return {names[label]: value for label, value in head.thresholds.items()}
