"""The stage of ``clip-train`` that learns a pooling with the head, and tells the user what came of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from clip_export.commands.train_finetuning import PART, FineTuned, scores, train_upper, with_features
from clip_export.commands.train_hidden_states import hidden_states
from clip_export.commands.train_options import TrainCommand
from clip_export.encoders.image import Encoder
from clip_export.heads.pooling import learnt_pooling
from clip_export.training.checkpoints import Checkpoints, checkpoint_path, fingerprint
from clip_export.training.finetuning.finetune import finetune
from clip_export.training.finetuning.hidden_states import features_of
from clip_export.training.finetuning.pooling import LearntPooling, TokenReader, TokensBeside, query_options
from clip_export.training.judging.decisions import Judge
from clip_export.training.loop import Training
from clip_export.training.options import TrainingOptions
from clip_export.training.preparation import Prepared
from clip_toolkit.terminal import say, show


def learn_pooling(
    command: TrainCommand,
    encoder: Encoder,
    prepared: Prepared,
    *,
    frozen: Training,
    head_options: TrainingOptions,
    judge: Judge,
) -> tuple[Encoder, FineTuned | None]:
    """Train a query over the patches with the head that was trained on their mean.

    Returns:
        The encoder with the query, and what came of it; the encoder that reads the mean, and None, if that does not
        help.
    """
    assert encoder.tokens is not None
    mean = str(encoder.tokens.unlearnt)
    options = query_options(head_options, command.examples.device)
    reader = TokenReader(encoder)
    pooling = LearntPooling(encoder, reader.shape)
    with hidden_states(command, encoder, prepared, options, reader) as hidden:
        beside = [
            side.features[:, encoder.dim :]
            for side in (prepared.train, prepared.validation, prepared.test)
            if side is not None
        ]
        sides = [TokensBeside(*both) for both in zip(hidden.sides, beside, strict=True)]
        learn = partial(finetune, pooling, frozen.head, options=options, head_options=head_options)
        owner = fingerprint(prepared.train, prepared.validation, (head_options, options), prepared.dataset.task)
        checkpoints = Checkpoints(checkpoint_path(command.out, PART), owner)
        training = train_upper(command, prepared, sides, learn, checkpoints, epochs=options.epochs, title="pooling")
        if not training.best.number:
            say(f"learnt pooling made nothing better on the validation images: {mean} and its head are kept")
            return replace(encoder, feature=mean), None
        features = [features_of(pooling, side, command.examples.batch_size, options.device) for side in sides]
    learnt = with_features(prepared, features)
    name, before, after = scores(judge, prepared, frozen, learnt, training)
    show(
        f"learnt pooling, epoch {training.best.number} of {training.history[-1].number}: {name} {after}, with {mean} "
        f"{before}"
    )
    query = pooling.query.detach().cpu()
    summary = {"encoder revision": encoder.revision, f"{name} with {mean}": before}
    return learnt_pooling(encoder, query), FineTuned(learnt, training, summary, query)
