"""Trying learning rates, weight decays and widths on features that are at hand already."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from clip_export.training.epochs import Epoch, Examples
from clip_export.training.loop import train_head
from clip_export.training.options import TrainingOptions
from clip_toolkit.spec.tasks import SINGLE_LABEL

LEARNING_RATES = (1e-4, 1e-3, 1e-2)
WEIGHT_DECAYS = (0.0, 1e-2)
WIDTHS: tuple[tuple[int, ...], ...] = ((), (256,), (512,))
"""Hidden layers: a linear head, the course's, and a wider one."""

_PATIENCE = 15


class Trial(NamedTuple):
    """Options that were tried, and the best epoch they led to."""

    options: TrainingOptions
    best: Epoch


def sweep(
    train: Examples,
    validation: Examples,
    outputs: int,
    options: TrainingOptions,
    *,
    task: str = SINGLE_LABEL,
    report: Callable[[Trial], None] = lambda _: None,
) -> list[Trial]:
    """Every combination of `LEARNING_RATES`, `WEIGHT_DECAYS` and `WIDTHS`, that of the lowest validation loss first.

    Each is trained with early stopping, so that a high learning rate is judged by its best moment, and with AdamW,
    which keeps weight decay apart from the gradients' scale, on standardised features, which bear higher rates, or on
    those of norm 1 if the options ask for them.
    """
    trials = []
    for rate, decay, width in itertools.product(LEARNING_RATES, WEIGHT_DECAYS, WIDTHS):
        tried = replace(
            options,
            optimizer="adamw",
            standardise=not options.normalises,
            learning_rate=rate,
            weight_decay=decay,
            hidden_dim=width,
            patience=options.patience or _PATIENCE,
        )
        trials.append(Trial(tried, train_head(train, validation, outputs, tried, task=task).best))
        report(trials[-1])
    return sorted(trials, key=lambda trial: trial.best.val_loss)


def trials_count() -> int:
    """How many combinations `sweep` tries."""
    return len(LEARNING_RATES) * len(WEIGHT_DECAYS) * len(WIDTHS)
