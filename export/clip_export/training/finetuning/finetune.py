"""Fine-tuning of the last blocks of an encoder, from the best head on the frozen one.

A random head would first tear at the features that make the encoder worth having; a head that is trained already
leaves them where they are good (Kumar et al. 2022, https://arxiv.org/abs/2202.10054).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clip_export.features.memory import memory_named
from clip_export.heads.mlp import VLMtoMLP
from clip_export.training.epochs import Epoch, Examples, improvement
from clip_export.training.finetuning.options import FinetuningOptions
from clip_export.training.loop import Training
from clip_export.training.objective import Objective
from clip_export.training.options import TrainingOptions
from clip_export.training.run import Pace, Run
from clip_export.training.state import TrainingState, gpus
from clip_export.training.updates import Updates
from clip_toolkit.spec.tasks import SINGLE_LABEL


def finetune(
    upper: nn.Module,
    head: VLMtoMLP,
    train: Examples,
    validation: Examples,
    options: FinetuningOptions,
    *,
    head_options: TrainingOptions | None = None,
    report: Callable[[Epoch], None] = lambda _: None,
    task: str = SINGLE_LABEL,
    resume: TrainingState | None = None,
    keep: Callable[[TrainingState], None] = lambda _: None,
    imitated: Examples | None = None,
) -> Training:
    """Train the last blocks of an encoder, or its learnt pooling, in place, together with a head.

    The epoch of the lowest validation loss counts whose validation score is not below the one before; where there is
    none, ``upper`` and head are what they were, and the best epoch is number 0. On the CPU the same arguments give the
    same weights, bit for bit.

    Args:
        upper: what learns, from `HiddenStates` to what the head reads: an `UpperHalf` with all its parameters, its
            encoder's own, or a `LearntPooling`. Afterwards it is frozen again, and on the CPU.
        head: trained on the frozen encoder; it is left alone.
        train: examples to learn from; their features are `HiddenStates`.
        validation: examples to choose the epoch by.
        options: how ``upper`` learns.
        head_options: how the head learns: its rate and weight decay; and batch size, patience, class weights,
            smoothing and seed of all.
        report: called after every epoch.
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        resume: where an earlier call with the same arguments had got to.
        keep: called with the state after every epoch, for a later ``resume``.
        imitated: images, labelled or not, with the features that the encoder is to come near to, as its targets.

    Raises:
        DatasetError: the loss is not a number; the message names the batch.
        DeviceError: the device is too small for a batch, or cannot run the precision. After this and the other errors
            the encoder is as far as it got: load it again.
    """
    options.check_device()
    used = head_options or TrainingOptions()
    objective = Objective.fitted(task, train.targets, head.spec.layers[-1], used)
    learner = copy.deepcopy(head)
    objective.rescale(learner)
    model = nn.Sequential(upper, learner).requires_grad_(True)
    scaled = [item._replace(targets=objective.scaled(item.targets)) for item in (train, validation)]
    try:
        remedy = _smaller_portions(options, used.batch_size)
        with _seeded(used.seed, options.device), memory_named(options.device, used.batch_size, remedy=remedy):
            model.to(options.device)
            updates = make_updates(upper, learner, options, used)
            pace = Pace(options.epochs, used.batch_size, used.batch_size, used.patience, improvement)
            penalty = None if imitated is None else _imitation(upper, imitated, updates, options, used.batch_size)
            run = Run(model, objective, updates, pace, device=options.device, penalty=penalty)
            if resume is not None:
                run.restore(resume)
            else:
                report(run.judge_start(*scaled))
                keep(run.state())
            while not run.finished():
                report(run.epoch(*scaled))
                keep(run.state())
            best = run.finish()
    finally:
        model.requires_grad_(False).cpu()
    objective.unscale(learner)
    return Training(learner if best.number else head, tuple(run.history), best)


def _imitation(
    upper: nn.Module, imitated: Examples, updates: Updates, options: FinetuningOptions, batch_size: int
) -> Callable[[], Tensor]:
    """Make the cost of other features than those to come near to, on images that are drawn for every batch."""
    images, features = imitated

    def penalty() -> Tensor:
        drawn = torch.randint(len(images), (batch_size,))
        with updates.autocast():
            made = upper(images[drawn].to(options.device))
        return options.distil * functional.mse_loss(made.float(), features[drawn].to(options.device))

    return penalty


def make_updates(
    encoder: nn.Module, head: nn.Module, options: FinetuningOptions, head_options: TrainingOptions
) -> Updates:
    """Make the updates of the encoder's parameters that learn, and of the head's, each with its own rate and decay."""
    optimizer = torch.optim.AdamW([*_encoder_groups(encoder, options), _head_group(head, head_options)])
    return Updates(
        optimizer,
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs),
        batches=options.accumulate,
        clip_norm=options.clip_norm,
        precision=options.precision,
        device=options.device,
    )


def _encoder_groups(encoder: nn.Module, options: FinetuningOptions) -> Iterator[dict[str, Any]]:
    parameters = list(encoder.parameters())
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    others = [parameter for parameter in parameters if parameter.ndim < 2]
    yield {"params": matrices, "lr": options.learning_rate, "weight_decay": options.weight_decay}
    yield {"params": others, "lr": options.learning_rate, "weight_decay": 0.0}


def _head_group(head: nn.Module, options: TrainingOptions) -> dict[str, Any]:
    return {"params": list(head.parameters()), "lr": options.learning_rate, "weight_decay": options.weight_decay}


@contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """Order and dropout by a seed, and the caller's generators as they were afterwards."""
    with torch.random.fork_rng(devices=gpus(device)):
        torch.manual_seed(seed)
        yield


def _smaller_portions(options: FinetuningOptions, batch_size: int) -> str:
    if batch_size == 1:
        return "fewer blocks with --unfreeze"
    return f"--batch-size {batch_size // 2} --accumulate {2 * options.accumulate}: the same updates in smaller portions"
