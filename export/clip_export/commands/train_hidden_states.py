"""What ``clip-train`` computes once before it fine-tunes: hidden states, and the features that are to be imitated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor

from clip_export.commands.train_options import TrainCommand
from clip_export.commands.train_stages import cache_folder
from clip_export.encoders.image import Encoder
from clip_export.features.cache import FeatureCache
from clip_export.features.images import Features, image_features, row_key
from clip_export.progress import bar
from clip_export.training.epochs import Examples
from clip_export.training.finetuning.distillation import Unlabelled, read_unlabelled, whole_encoder
from clip_export.training.finetuning.halves import depth_read
from clip_export.training.finetuning.hidden_states import HiddenCache, HiddenStates, Lower, check_room, hidden_cache
from clip_export.training.finetuning.hidden_states import hidden_states as compute_hidden_states
from clip_export.training.finetuning.options import FinetuningOptions
from clip_export.training.preparation import Prepared
from clip_toolkit.files.atomic import temporary_beside
from clip_toolkit.terminal import say, show


class Hidden(NamedTuple):
    """Hidden states below the blocks that learn.

    Attributes:
        sides: of the training images with their views, the validation images, and the test images if any.
        imitated: of all images that are imitated, with the whole encoder's features; None without ``--distil``.
        unlabelled: SHA-256 of those among them that have no label, in hexadecimal.
    """

    sides: list[HiddenStates]
    imitated: Examples | None
    unlabelled: Sequence[str]


@contextmanager
def hidden_states(
    command: TrainCommand, encoder: Encoder, prepared: Prepared, options: FinetuningOptions, lower: Lower
) -> Iterator[Hidden]:
    """Compute them by a lower half; with ``--no-cache`` they are kept as long as the block lasts."""
    with _cache_folder(command) as folder:
        try:
            hidden = _compute(command, encoder, prepared, options, lower, folder=folder)
        except KeyboardInterrupt:
            kept = (
                "with --no-cache no hidden states are kept"
                if command.features.cache is False
                else "computed hidden states are kept"
            )
            say(f"{kept}: continue with --resume")
            raise
        yield hidden


@contextmanager
def _cache_folder(command: TrainCommand) -> Iterator[Path]:
    """Where hidden states are kept: with ``--no-cache`` only as long as they are needed."""
    kept = cache_folder(command.features)
    if kept is not None:
        yield kept
        return
    with temporary_beside(command.out, is_folder=True) as folder:
        yield folder


def _compute(
    command: TrainCommand,
    encoder: Encoder,
    prepared: Prepared,
    options: FinetuningOptions,
    lower: Lower,
    *,
    folder: Path,
) -> Hidden:
    taught, unlabelled = None, None
    if options.distil:
        taught, unlabelled = _whole_features(command, encoder, prepared, options, folder)
    cache = hidden_cache(folder, lower)
    split = prepared.split
    check_room(cache, _row_keys(prepared, command.examples.views, unlabelled.contents if unlabelled else ()))

    def states(files: Sequence[Path], view: int = 0) -> HiddenStates:
        with bar(f"hidden states, view {view}" if view else "hidden states", len(files)) as advance:
            return compute_hidden_states(
                lower,
                files,
                cache,
                batch_size=command.examples.batch_size,
                device=options.device,
                progress=advance,
                view=view,
            )

    def files(indices: Sequence[int]) -> list[Path]:
        return [prepared.dataset.files[index] for index in indices]

    train = states(files(split.train))
    for view in range(1, command.examples.views + 1):
        train += states(files(split.train), view)
    sides = [train, *(states(files(indices)) for indices in (split.validation, split.test) if indices)]
    imitated = train + states(unlabelled.files) if unlabelled else train
    say(*cache.notes)
    where = f"below the last {options.blocks} of {depth_read(encoder)} blocks"
    _tell([*sides[1:], imitated], where if options.blocks else f"after block {lower.depth}", cache)
    examples = None if taught is None else Examples(cast("Tensor", imitated), taught)
    return Hidden(sides, examples, unlabelled.contents if unlabelled else ())


def _whole_features(
    command: TrainCommand, encoder: Encoder, prepared: Prepared, options: FinetuningOptions, folder: Path
) -> tuple[Tensor, Unlabelled | None]:
    """Return the whole encoder's features of the training images, their views, and the unlabelled images."""
    whole = whole_encoder(encoder)
    cache = FeatureCache(folder, whole)

    def encode(files: Sequence[Path], view: int) -> Features:
        with bar("features to imitate", len(files)) as advance:
            return image_features(
                whole,
                files,
                command.examples.batch_size,
                options.device,
                advance,
                backend=command.examples.backend,
                cache=cache,
                view=view,
            )

    learnt = [prepared.dataset.files[index] for index in prepared.split.train]
    features = [encode(learnt, view).values for view in range(command.examples.views + 1)]
    if options.unlabelled is None:
        return torch.cat(features), None
    unlabelled = read_unlabelled(
        options.unlabelled, encode, prepared.reading.contents, all_files=command.examples.all_files
    )
    say(*unlabelled.notes)
    show(f"unlabelled: {len(unlabelled.files)} images")
    return torch.cat([*features, unlabelled.features]), unlabelled


def _row_keys(prepared: Prepared, views: int, unlabelled: Sequence[str]) -> Iterator[bytes]:
    """Of all images and views that hidden states are needed of."""
    contents = [bytes.fromhex(content) for content in prepared.reading.contents]
    train, validation, test = prepared.split
    for index in (*train, *validation, *test):
        yield row_key(contents[index])
    for view in range(1, views + 1):
        yield from (row_key(contents[index], view) for index in train)
    yield from (row_key(bytes.fromhex(content)) for content in unlabelled)


def _tell(states: list[HiddenStates], where: str, cache: HiddenCache) -> None:
    images, computed = sum(map(len, states)), sum(part.computed for part in states)
    show(
        f"hidden states {where}: {computed} computed, {images - computed} from the cache; "
        f"{images * cache.row_bytes / 2**20:.0f} MiB"
    )
