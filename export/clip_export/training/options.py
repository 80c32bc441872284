"""What a head is trained on, and how. Without torch, so that ``--help`` need not wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from clip_export.heads.activations import ACTIVATIONS
from clip_export.heads.reading import FEATURE_NORM
from clip_toolkit.numbers import NOT_NEGATIVE, POSITIVE, PROPER_SHARE, number, whole
from clip_toolkit.options import Option, UsageError
from clip_toolkit.spec.tasks import SINGLE_LABEL, TASKS

OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("step", "cosine", "none")
BACKENDS = ("auto", "torch", "onnxruntime")

BatchSize = Annotated[int, Option("images or features per step", parse=whole(), metavar="N")]
Seed = Annotated[int, Option("random seed for the split, the weights and the order", parse=whole(0, 2**63 - 1))]

_PART = number("above 0 and below 1", lambda value: 0 < value < 1)


@dataclass(frozen=True)
class DataOptions:
    """Which images are used, and how.

    Attributes:
        device: a PyTorch device.

    Raises:
        UsageError: the held-out shares leave nothing to learn from.
    """

    task: Annotated[str, Option("what DATA names of each image", choices=TASKS)] = SINGLE_LABEL
    groups: Annotated[
        str | None,
        Option(
            "what must stay on one side of the split, such as a patient: a CSV file path,group, or a pattern searched "
            "in each path",
            metavar="RULE",
        ),
    ] = None
    val_fraction: Annotated[float, Option("share of images held out for model selection", parse=_PART)] = 0.2
    test_fraction: Annotated[float, Option("share of images held out for the final test", parse=PROPER_SHARE)] = 0.0
    shots: Annotated[int | None, Option("learn from K images of each label", parse=whole(), metavar="K")] = None
    views: Annotated[int, Option("augmented views per training image", "--augment", parse=whole(), metavar="N")] = 0
    seed: Seed = 0
    batch_size: BatchSize = 32
    device: str = "cpu"
    backend: Annotated[str, Option("who runs the encoder", choices=BACKENDS)] = "auto"
    text_column: Annotated[
        str | None,
        Option("CSV column with a text for each image, which the head reads together with it", metavar="NAME"),
    ] = None

    all_files: Annotated[bool, Option("of a folder, take files of any suffix")] = False

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing."""
        if self.val_fraction + self.test_fraction >= 1:
            raise UsageError("--val-fraction and --test-fraction leave nothing to learn from")


@dataclass(frozen=True)
class TrainingOptions:
    """How a head is trained. The defaults are the course's.

    Attributes:
        learning_rate: at the start.

    Raises:
        UsageError: some of them do not go together.
    """

    epochs: Annotated[int, Option("passes over the training images, at most", parse=whole(), metavar="N")] = 100
    learning_rate: float = 1e-4
    batch_size: BatchSize = 32
    optimizer: Annotated[str, Option("optimizer", choices=OPTIMIZERS)] = "adam"
    weight_decay: Annotated[
        float, Option("L2 penalty for adam, decoupled weight decay for adamw", parse=NOT_NEGATIVE)
    ] = 0.0
    schedule: Annotated[
        str,
        Option(
            "learning rate: multiplied by --gamma every --step-size epochs, to zero along a cosine, or constant",
            choices=SCHEDULES,
        ),
    ] = "step"
    step_size: Annotated[int, Option("epochs between steps", parse=whole(), metavar="N")] = 40
    gamma: Annotated[float, Option("factor of a step", parse=POSITIVE)] = 0.5
    standardise: Annotated[
        bool, Option("learn on features of mean 0 and deviation 1; the saved head takes plain ones")
    ] = False
    feature_norm: Annotated[str | None, FEATURE_NORM] = None
    hidden_dim: Annotated[
        int | tuple[int, ...],
        Option("width of each hidden layer (default: 256)", parse=whole(), nargs="+", metavar="N"),
        Option("no hidden layer", "--linear", const=()),
    ] = (256,)
    activation: Annotated[str, Option("between the layers", choices=tuple(ACTIVATIONS))] = "relu"
    dropout: Annotated[float, Option("probability after each hidden layer", parse=PROPER_SHARE)] = 0.1
    patience: Annotated[
        int | None,
        Option("stop N epochs after the lowest validation loss", parse=whole(), metavar="N"),
    ] = None
    keep_last: Annotated[bool, Option("keep the last epoch, not that of the lowest validation loss")] = False
    class_weights: Annotated[str, Option("weigh the loss of rare labels more", "--balanced", const="balanced")] = "none"
    label_smoothing: Annotated[float, Option("share of certainty taken from the right label", parse=PROPER_SHARE)] = 0.0
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Refuse options that do not go together."""
        if self.normalises and self.standardise:
            raise UsageError("--feature-norm l2 does not go with --standardise: both set the scale of the features")
        if self.keep_last and self.patience is not None:
            raise UsageError("--keep-last does not go with --patience, which returns to the lowest validation loss")

    @property
    def normalises(self) -> bool:
        """Whether the head divides features by their L2 norm."""
        return self.feature_norm == "l2"
