"""Head files: our own (``.pt`` and ``.safetensors``) and bare state_dicts from somebody's notebook.

Nothing in a file is ever executed: ``.pt`` is read with ``weights_only=True``.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from clip_export.heads.checkpoints import Weights, check_weights, take_apart
from clip_export.heads.given_class import GivenHead, head_from_class
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.notebooks import LayeredHead, head_from_state_dict
from clip_export.heads.reading import Reading
from clip_export.heads.references import DataReference, EncoderReference
from clip_toolkit.errors import HeadError, SpecError, first_line
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.spec.classifier import HeadSpec
from clip_toolkit.spec.json_codec import from_json
from clip_toolkit.spec.tasks import SINGLE_LABEL, TASKS

_FORMAT = "clip-toolkit-head"
_FORMAT_VERSION = 2  # 1 knows no fine-tuned encoders, no text, and leaves out the feature's normalisation
_MOST_LAYERS = 64
TEMPERATURES = (1e-3, 1e3)
"""Least and largest that is believed: beyond, every image would be answered alike."""

Head: TypeAlias = VLMtoMLP | LayeredHead | GivenHead
"""From features to logits, with a ``spec``."""

_SUFFIXES = (".pt", ".pth", ".safetensors")


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
        tower: weights of a fine-tuned image tower that lay in the same file, by their transformers names, or none.
        reading: how a notebook's head was read; None for heads of clip-train.
        rebuild: reads the same weights in another way.
    """

    module: Head
    encoder: EncoderReference | None = None
    labels: tuple[str, ...] | None = None
    training: dict[str, Any] = field(default_factory=dict)
    data: DataReference | None = None
    task: str = SINGLE_LABEL
    temperature: float = 1.0
    thresholds: dict[str, float] = field(default_factory=dict)
    tower: Weights = field(default_factory=dict, repr=False, compare=False)
    reading: Reading | None = None
    rebuild: Callable[[Reading], Head] | None = field(default=None, repr=False, compare=False)


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
        _FORMAT,
        _version(head),
        head.module.spec,
        head.encoder.seen_from(path),
        head.labels,
        head.training,
        None if head.data is None else head.data.seen_from(path),
        head.task,
        head.temperature,
        head.thresholds,
    )
    text = json.dumps(asdict(description), ensure_ascii=False)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in head.module.state_dict().items()}
    content = save(weights, metadata={_FORMAT: text}) if path.suffix == ".safetensors" else _pickled(weights, text)
    with written_atomically(path) as temporary:
        temporary.write_bytes(content)


def _version(head: TrainedHead) -> int:
    """Return the oldest format that can hold the head; its readers ignore fields that they do not know."""
    assert head.encoder is not None
    news = (head.module.spec.feature_norm, head.encoder.text, head.encoder.folder)
    return _FORMAT_VERSION if any(news) else 1


def _pickled(weights: Mapping[str, Tensor], text: str) -> bytes:
    buffer = io.BytesIO()  # to a file, torch reports a full disk as an error of its own kind
    torch.save({_FORMAT: text, "state_dict": dict(weights)}, buffer)
    return buffer.getvalue()


def check_suffix(path: Path) -> None:
    """Refuse a file name whose suffix names no format of ours.

    Raises:
        HeadError: the suffix is none of ``.pt``, ``.pth``, ``.safetensors``.
    """
    if path.suffix not in _SUFFIXES:
        raise HeadError(f"{path}: expected a head file ending in {', '.join(_SUFFIXES)}")


def load_head(path: Path, reading: Reading | None = None) -> TrainedHead:
    """Read a head file.

    Args:
        path: our ``.pt`` or ``.safetensors``, or a notebook's bare state_dict in either format.
        reading: of a notebook's head, which leaves some of it open; our own files know all of theirs.

    Raises:
        HeadError: the file is missing, damaged, holds code instead of weights, or no chain of Linear layers; or a
            reading was given for a file of ours.
    """
    check_suffix(path)
    if not path.is_file():
        raise HeadError(f"{path}: there is no such head file. Make one with clip-train.")
    content, text = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    if text is None:
        return _of_notebook(content, reading or Reading(), path)
    if reading is not None:
        raise HeadError(
            f"{path}: was written by clip-train and knows its own activation, feature normalisation and task. Leave "
            "out --activation, --feature-norm, --task and the other options of a notebook's head."
        )
    return _described(content, text, path)


def _of_notebook(content: Any, reading: Reading, path: Path) -> TrainedHead:
    found = take_apart(content, path)
    build = head_from_state_dict if reading.head_class is None else head_from_class
    return TrainedHead(
        build(found.head, reading, path),
        labels=found.labels,
        task=reading.task,
        tower=found.tower,
        rebuild=lambda changed: build(found.head, changed, path),
        reading=reading,
    )


def _described(weights: Mapping[str, Any], text: str, path: Path) -> TrainedHead:
    try:
        description = from_json(_Description, json.loads(text), "head")
        if description.version > _FORMAT_VERSION:
            raise HeadError(f"{path}: head format {description.version} is newer than this clip-toolkit. Upgrade it.")
        check_weights(weights, path)
        _check_description(description)
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
    )


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


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_FORMAT)
            return {name: file.get_tensor(name) for name in file.keys()}, text  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError) as error:
        raise HeadError(f"{path}: not a readable safetensors file ({error})") from error


def _read_pickle(path: Path) -> tuple[Any, str | None]:
    _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise HeadError(
            f"{path}: holds Python objects instead of plain weights, and loading those could run any code. Save the "
            "state_dict instead: torch.save(mlp_head.state_dict(), 'head.pt')"
        ) from error
    except Exception as error:  # a truncated archive raises RuntimeError, EOFError, KeyError, ...
        raise HeadError(f"{path}: not a readable PyTorch file ({first_line(error)})") from error
    if isinstance(content, Mapping) and _FORMAT in content:
        return content.get("state_dict", {}), content[_FORMAT]
    return content, None


def _check_archive(path: Path) -> None:
    """Refuse archives that unpack to more than they are: torch.save compresses nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            items = archive.infolist()
    except (zipfile.BadZipFile, OSError):  # PyTorch's older format, or no such file at all
        return
    except Exception as error:  # damaged names, versions and sizes raise what they come upon
        raise HeadError(f"{path}: not a readable PyTorch file ({first_line(error)})") from error
    names = {item.filename.rpartition("/")[2] for item in items}
    if "constants.pkl" in names:
        raise HeadError(
            f"{path}: is a TorchScript program, and programs are not run. Save its weights, "
            "torch.save(torch.jit.load('head.pt').state_dict(), 'weights.pt'), and give its class with --head-class "
            "if it is more than layers in a row."
        )
    if any("exported_program" in item.filename or item.filename.endswith("models/model.json") for item in items):
        raise HeadError(
            f"{path}: is a torch.export program, and programs are not run. Save its weights, "
            "torch.save(torch.export.load('head.pt2').state_dict, 'weights.pt'), and give the class with --head-class."
        )
    if any(item.compress_type != zipfile.ZIP_STORED for item in items) or (
        sum(item.file_size for item in items) > path.stat().st_size
    ):
        raise HeadError(f"{path}: its archive is compressed, which torch.save never does. Save the head again.")
