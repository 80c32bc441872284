"""How the last blocks of an encoder are fine-tuned. Without torch, so that ``--help`` need not wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from clip_toolkit.errors import DeviceError
from clip_toolkit.numbers import NOT_NEGATIVE, POSITIVE, whole
from clip_toolkit.options import Option, UsageError

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class FinetuningOptions:
    """How the last blocks of an encoder learn. What concerns the head is in `TrainingOptions`.

    The learning rate falls to zero along a cosine; weight decay (decoupled, AdamW) leaves biases and norms alone.

    Attributes:
        device: a PyTorch device.

    Raises:
        UsageError: some of them do not go together.
    """

    blocks: Annotated[
        int,
        Option(
            "once the head is trained, train the last N encoder blocks with it; the encoder is saved beside the head",
            "--unfreeze",
            parse=whole(),
            metavar="N",
        ),
    ]
    epochs: Annotated[
        int, Option("passes over the training images, at most", "--encoder-epochs", parse=whole(), metavar="N")
    ] = 10
    learning_rate: Annotated[float, Option("learning rate of the encoder", "--encoder-lr", parse=POSITIVE)] = 3e-5
    weight_decay: Annotated[
        float, Option("weight decay of the encoder", "--encoder-weight-decay", parse=NOT_NEGATIVE)
    ] = 0.01
    clip_norm: Annotated[float, Option("largest norm of the gradients", parse=POSITIVE)] = 1.0
    accumulate: Annotated[
        int,
        Option("batches per update: the memory of one, the effect of all", parse=whole(), metavar="N"),
    ] = 1
    precision: Annotated[str, Option("of the encoder; others than float32 need a GPU", choices=PRECISIONS)] = "float32"
    distil: Annotated[
        float,
        Option(
            "with a --feature of a depth, also learn to reproduce the whole encoder's feature; WEIGHT scales that "
            "loss, the labels' counts 1 (default: 1)",
            parse=POSITIVE,
            nargs="?",
            const=1.0,
            metavar="WEIGHT",
        ),
    ] = 0.0
    unlabelled: Annotated[
        Path | None,
        Option("folder of further images for --distil, which need no label", parse=Path, metavar="DIR"),
    ] = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse options that do not go together."""
        if self.unlabelled is not None and not self.distil:
            raise UsageError("--unlabelled needs --distil: images without labels are used for distilling alone")

    def check_device(self) -> None:
        """Refuse a precision that the device is not good for.

        Raises:
            DeviceError: mixed precision without a GPU.
        """
        if self.precision != "float32" and self.device.partition(":")[0] != "cuda":
            raise DeviceError(
                f"precision {self.precision}: expected a CUDA device, got {self.device}. Leave --precision out."
            )
