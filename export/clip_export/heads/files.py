"""Head files: our own (``.pt`` and ``.safetensors``), and what somebody's notebook has saved."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import save
from torch import Tensor

from clip_export.heads.checkpoints import Weights, check_weights, take_apart
from clip_export.heads.coefficients import coefficients_of_npz
from clip_export.heads.estimators import coefficients_of_skops
from clip_export.heads.given_class import heads_from_class
from clip_export.heads.given_head import GivenHead
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.notebooks import LayeredHead, head_from_state_dict
from clip_export.heads.novelty import Novelty, NoveltyReference
from clip_export.heads.programs import PROGRAM, head_from_program, program_kind
from clip_export.heads.reading import Reading
from clip_export.heads.references import DataReference, EncoderReference
from clip_export.heads.several import agreed_names, check_names, check_one, parts_of
from clip_export.heads.weight_files import FORMAT, read_pickle, read_safetensors
from clip_toolkit.errors import HeadError, SpecError
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.spec.classifier import HeadSpec
from clip_toolkit.spec.json_codec import from_json, to_json
from clip_toolkit.spec.tasks import SINGLE_LABEL, TASKS

_FORMAT_VERSION = 4
"""1 knows no tuned encoders, no text, and leaves out the normalisation of features; 2 no novelty and no input size; 3
no learnt pooling."""
_MOST_LAYERS = 64
TEMPERATURES = (1e-3, 1e3)
"""Least and largest that is believed: beyond, every image would be answered alike."""

Head: TypeAlias = VLMtoMLP | LayeredHead | GivenHead
"""From features to logits, with a ``spec``."""

_NOVELTY = "novelty."
"""What the names of its arrays begin with, among the weights."""
_POOLING = "pooling.query"

_SUFFIXES = (".pt", ".pth", ".safetensors")
_COEFFICIENTS = {".npz": coefficients_of_npz, ".skops": coefficients_of_skops}


@dataclass(frozen=True)
class TrainedHead:
    """A head and what is known of it. A notebook's state_dict knows neither encoder nor labels.

    Attributes:
        module: the head, in evaluation mode.
        encoder: the encoder it was trained on, or None.
        labels: class names in the order of its outputs, or None.
        training: summary of the training, for people.
        data: where its images are, or None.
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        temperature: as in `clip_toolkit.spec.classifier.ModelSpec`.
        thresholds: likewise.
        novelty: what its training images look like, or None where that was not learnt.
        pooling: the query of a feature with learnt pooling, as in `clip_export.encoders.image.Encoder`, else None.
        tower: weights of a fine-tuned image tower that lay in the same file, by their transformers names, or none.
        reading: how a notebook's head was read; None for heads of clip-train.
        rebuild: reads the same weights in another way.
        name: of the head, where it is one of several.
        further: heads on the same feature that lay in the same file.
    """

    module: Head
    encoder: EncoderReference | None = None
    labels: tuple[str, ...] | None = None
    training: dict[str, Any] = field(default_factory=dict)
    data: DataReference | None = None
    task: str = SINGLE_LABEL
    temperature: float = 1.0
    thresholds: dict[str, float] = field(default_factory=dict)
    novelty: Novelty | None = None
    pooling: Tensor | None = field(default=None, repr=False, compare=False)
    tower: Weights = field(default_factory=dict, repr=False, compare=False)
    reading: Reading | None = None
    rebuild: Callable[[Reading], Head] | None = field(default=None, repr=False, compare=False)
    name: str = ""
    further: tuple[TrainedHead, ...] = ()


@dataclass(frozen=True)
class _Description:
    """What is stored beside the weights, as JSON."""

    format: str
    version: int
    head: HeadSpec
    encoder: EncoderReference
    labels: tuple[str, ...]
    training: dict[str, Any]
    data: DataReference | None = None
    task: str = SINGLE_LABEL
    temperature: float = 1.0
    thresholds: dict[str, float] = field(default_factory=dict)
    novelty: NoveltyReference | None = None


def save_head(head: TrainedHead, path: Path) -> None:
    """Write a head that knows its encoder and labels; the suffix decides the format.

    Raises:
        HeadError: an unknown suffix, or a head without encoder or labels.
        OutputError: the file cannot be written; whatever was there before is untouched.
    """
    check_suffix(path)
    if head.encoder is None or head.labels is None:
        raise HeadError("head: cannot be saved without its encoder and labels")
    description = _Description(
        FORMAT,
        _version(head),
        head.module.spec,
        head.encoder.seen_from(path),
        head.labels,
        head.training,
        None if head.data is None else head.data.seen_from(path),
        head.task,
        head.temperature,
        head.thresholds,
        None if head.novelty is None else NoveltyReference.of(head.novelty),
    )
    text = json.dumps(to_json(description), ensure_ascii=False)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in head.module.state_dict().items()}
    if head.novelty is not None:
        weights |= {f"{_NOVELTY}{name}": torch.from_numpy(array) for name, array in head.novelty.arrays().items()}
    if head.pooling is not None:
        weights[_POOLING] = head.pooling
    content = save(weights, metadata={FORMAT: text}) if path.suffix == ".safetensors" else _pickled(weights, text)
    with written_atomically(path) as temporary:
        temporary.write_bytes(content)


def _version(head: TrainedHead) -> int:
    """Return the oldest format that can hold the head; its readers ignore fields that they do not know."""
    assert head.encoder is not None
    if head.pooling is not None:
        return _FORMAT_VERSION
    if head.novelty is not None or head.encoder.input_size is not None:
        return 3
    news = (head.module.spec.feature_norm, head.encoder.text, head.encoder.folder)
    return 2 if any(news) else 1


def _pickled(weights: Mapping[str, Tensor], text: str) -> bytes:
    buffer = io.BytesIO()  # to a file, torch reports a full disk as an error of its own kind
    torch.save({FORMAT: text, "state_dict": dict(weights)}, buffer)
    return buffer.getvalue()


def check_suffix(path: Path, suffixes: Sequence[str] = _SUFFIXES) -> None:
    """Refuse a file name whose suffix names no format of heads.

    Raises:
        HeadError: the suffix is none of ``suffixes``, by default of those of files that `save_head` writes.
    """
    if path.suffix not in suffixes:
        raise HeadError(f"{path}: expected a head file ending in {', '.join(suffixes)}")


def load_head(
    path: Path, reading: Reading | None = None, labels: Mapping[str, tuple[str, ...]] | None = None
) -> TrainedHead:
    """Read a head file.

    Args:
        path: our ``.pt`` or ``.safetensors``; a notebook's bare state_dict in either format; a program, ``.pt`` or
            ``.pt2``; or coefficients of scikit-learn, ``.npz`` or ``.skops``.
        reading: of a notebook's head, which leaves some of it open; our own files know all of theirs.
        labels: of each of several heads by name, the main one first; nothing for a file of one head.

    Raises:
        HeadError: the file is missing, damaged, holds code instead of weights, or no chain of Linear layers; or a
            reading was given for a file of ours.
        MissingDependencyError: skops is not installed, for a ``.skops`` file.
    """
    check_suffix(path, (*_SUFFIXES, PROGRAM, *_COEFFICIENTS))
    if not path.is_file():
        raise HeadError(f"{path}: there is no such head file. Make one with clip-train.")
    if path.suffix in _COEFFICIENTS:
        return _of_coefficients(path, reading or Reading())
    if path.suffix != ".safetensors" and (kind := program_kind(path)) is not None:
        return _of_notebook(lambda reading: head_from_program(path, kind, reading), reading or Reading())
    content, text = read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    if text is None:
        return _of_weights(content, reading or Reading(), path, labels or {})
    if reading is not None:
        raise HeadError(
            f"{path}: was written by clip-train and knows its own activation, feature normalisation and task. Leave "
            "out --activation, --feature-norm, --task and the other options of a notebook's head."
        )
    return _described(content, text, path)


def _of_notebook(
    build: Callable[[Reading], Head], reading: Reading, labels: tuple[str, ...] | None = None
) -> TrainedHead:
    return TrainedHead(build(reading), labels=labels, task=reading.task, rebuild=build, reading=reading)


def _of_weights(content: Any, reading: Reading, path: Path, labels: Mapping[str, tuple[str, ...]]) -> TrainedHead:
    found = take_apart(content, path)
    named = agreed_names(found.labels_of, labels, path)
    if reading.head_class is not None:
        modules = heads_from_class(found.head, reading, path)
        builds = {name: partial(_as_it_is, module) for name, module in modules.items()}
    else:
        parts = parts_of(found.head)
        parts = parts if parts.keys() & named.keys() else {"": found.head}
        builds = {name: partial(_read, part, path) for name, part in parts.items()}
    if "" in builds:
        head = _of_notebook(builds[""], reading, found.labels)
        check_one(labels, reading.tasks, path)
        return replace(head, tower=found.tower)
    check_names(builds, named, reading.tasks, path)
    head, *further = (
        replace(_of_notebook(builds[name], reading.of(name), own), name=name) for name, own in named.items()
    )
    return replace(head, tower=found.tower, further=tuple(further))


def _read(weights: Weights, path: Path, reading: Reading) -> Head:
    return head_from_state_dict(weights, reading, path)


def _as_it_is(head: Head, _: Reading) -> Head:
    """Return a class's head, whose code is run once."""
    return head


def _of_coefficients(path: Path, reading: Reading) -> TrainedHead:
    found = _COEFFICIENTS[path.suffix](path)
    return _of_notebook(lambda changed: found.head(changed, path), found.reading(reading, path), found.classes)


def _described(weights: Mapping[str, Any], text: str, path: Path) -> TrainedHead:
    try:
        description = from_json(_Description, json.loads(text), "head")
        if description.version > _FORMAT_VERSION:
            raise HeadError(f"{path}: head format {description.version} is newer than this clip-toolkit. Upgrade it.")
        check_weights(weights, path)
        _check_description(description)
        weights, novelty, pooling = _split(weights, description)
        with torch.device("meta"):  # of what the description claims nothing is built before the weights are seen
            module = VLMtoMLP.from_spec(description.head)
        module.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    except (ValueError, SpecError, RuntimeError, TypeError, AttributeError, IndexError, OverflowError) as error:
        if isinstance(error, HeadError):
            raise
        raise HeadError(f"{path}: the head file is damaged ({error}). Train it again.") from error
    return TrainedHead(
        module.eval(),
        description.encoder.found_from(path),
        description.labels,
        description.training,
        None if description.data is None else description.data.found_from(path),
        description.task,
        description.temperature,
        description.thresholds,
        novelty,
        pooling,
    )


def _split(
    weights: Mapping[str, Tensor], description: _Description
) -> tuple[dict[str, Tensor], Novelty | None, Tensor | None]:
    """Take what is known of the training images, and the query of a learnt pooling, out of the weights."""
    own = {name: value for name, value in weights.items() if not name.startswith((_NOVELTY, _POOLING))}
    found = {name.removeprefix(_NOVELTY): value.numpy() for name, value in weights.items() if name.startswith(_NOVELTY)}
    pooling = weights.get(_POOLING)
    if pooling is not None:
        pooling = pooling.float()
    return own, None if description.novelty is None else description.novelty.novelty(found), pooling


def _check_description(description: _Description) -> None:
    labels, task = description.labels, description.task
    if not 2 <= len(description.head.layers) <= _MOST_LAYERS:
        raise SpecError(f"head.layers: expected 2 to {_MOST_LAYERS} sizes, got {len(description.head.layers)}")
    if task not in TASKS:
        raise SpecError(f"task: expected {', '.join(TASKS)}, got {task!r}")
    if not TEMPERATURES[0] <= description.temperature <= TEMPERATURES[1]:
        raise SpecError(
            f"temperature: expected {TEMPERATURES[0]:g} to {TEMPERATURES[1]:g}, got {description.temperature:g}"
        )
    unknown = [label for label in description.thresholds if label not in labels]
    if unknown or not all(0 <= value <= 1 for value in description.thresholds.values()):
        raise SpecError(f"thresholds: expected probabilities of {', '.join(labels)}, got {description.thresholds}")
