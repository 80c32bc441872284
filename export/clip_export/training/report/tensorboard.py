"""Curves for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clip_export.extra import require
from clip_export.training.epochs import Epoch


@contextmanager
def scalars(folder: Path) -> Iterator[Callable[[Epoch], None]]:
    """Yield a function that writes the figures of an epoch below ``folder``.

    Raises:
        MissingDependencyError: the extra ``tensorboard`` is not installed.
    """
    require("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:

        def write(epoch: Epoch) -> None:
            for name in ("loss", "train_score", "val_loss", "val_score"):
                writer.add_scalar(name, getattr(epoch, name), epoch.number)

        yield write
