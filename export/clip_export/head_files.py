"""Head files: our own (``.pt`` and ``.safetensors``) and bare state_dicts from somebody's notebook.

Nothing in a file is ever executed: ``.pt`` is read with ``weights_only=True``.
"""

from __future__ import annotations

import io
import itertools
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from clip_export.heads import VLMtoMLP
from clip_toolkit.atomic import written_atomically
from clip_toolkit.errors import HeadError, SpecError
from clip_toolkit.json_codec import from_json
from clip_toolkit.spec import HeadSpec
from clip_toolkit.tasks import SINGLE_LABEL

_FORMAT = "clip-toolkit-head"
_FORMAT_VERSION = 2  # 1 knows no fine-tuned encoders, no text, and leaves out the feature's normalisation
_SUFFIXES = (".pt", ".pth", ".safetensors")

# Under these keys people save the head's state_dict beside the optimizer's and an epoch number.
_WRAPPERS = ("state_dict", "model_state_dict", "mlp_head", "head", "model")

# More layers than this and trying every order of unordered layers would take too long; nobody has such heads.
_MOST_LAYERS = 7


@dataclass(frozen=True)
class EncoderReference:
    """Which encoder a head was trained on.

    Attributes:
        id: hub id or path of a local folder.
        revision: commit on the hub; of a local folder the SHA-256 of its content.
        feature: what the head reads, of `clip_export.encoder.FEATURES`.
        text: whether the head reads the feature of a text, too, behind that of the image: by the text tower of the same
            checkpoint.
        folder: of the encoder that was fine-tuned with the head from the one that ``id`` names, relative to the head
            file; None if the encoder was frozen.
        sha256: of that folder, as in `clip_export.encoder_files.digest_of`.
    """

    id: str
    revision: str | None = None
    feature: str = "pooled"
    folder: str | None = None
    sha256: str | None = None
    text: bool = False


@dataclass(frozen=True)
class DataReference:
    """Where the images are that a head was trained and judged on.

    Attributes:
        folder: absolute path of the data folder or manifest.
        held_out: paths of the validation and test files, relative to the folder (of a manifest: to the one it lies in),
            with forward slashes.
        text_column: heading of the manifest's column of texts, for heads that read text.
    """

    folder: str
    held_out: tuple[str, ...]
    text_column: str | None = None


@dataclass(frozen=True)
class TrainedHead:
    """A head and what is known of it. A notebook's state_dict knows neither encoder nor labels.

    Attributes:
        module: the head, in evaluation mode.
        encoder: the encoder it was trained on, or None.
        labels: class names in the order of its outputs, or None.
        training: summary of the training, for people.
        data: where its images are, or None.
        task: one of `clip_toolkit.tasks.TASKS`.
        temperature: as in `clip_toolkit.spec.ModelSpec`.
        thresholds: likewise.
    """

    module: VLMtoMLP
    encoder: EncoderReference | None = None
    labels: tuple[str, ...] | None = None
    training: dict[str, Any] = field(default_factory=dict)
    data: DataReference | None = None
    task: str = SINGLE_LABEL
    temperature: float = 1.0
    thresholds: dict[str, float] = field(default_factory=dict)


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
        head.encoder,
        head.labels,
        head.training,
        head.data,
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
    """The oldest format that says all there is to say of a head: its readers ignore fields that they do not know."""
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


def load_head(path: Path, activation: str = "relu") -> TrainedHead:
    """Read a head file.

    Args:
        path: our ``.pt`` or ``.safetensors``, or a notebook's bare state_dict in either format.
        activation: of a bare state_dict, which does not tell; our own files know theirs.

    Raises:
        HeadError: the file is missing, damaged, holds code instead of weights, or no chain of Linear layers.
    """
    check_suffix(path)
    if not path.is_file():
        raise HeadError(f"{path}: there is no such head file. Make one with clip-train.")
    content, text = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    if text is None:
        return TrainedHead(_from_state_dict(_unwrapped(content, path), activation, path))
    return _described(content, text, path)


def _described(weights: Mapping[str, Any], text: str, path: Path) -> TrainedHead:
    try:
        description = from_json(_Description, json.loads(text), "head")
        if description.version > _FORMAT_VERSION:
            raise HeadError(f"{path}: head format {description.version} is newer than this clip-toolkit. Upgrade it.")
        module = VLMtoMLP.from_spec(description.head)
        module.load_state_dict(weights)
    except (ValueError, SpecError, RuntimeError, TypeError, AttributeError, IndexError, OverflowError) as error:
        if isinstance(error, HeadError):
            raise
        raise HeadError(f"{path}: the head file is damaged ({error}). Train it again.") from error
    return TrainedHead(
        module.eval(),
        description.encoder,
        description.labels,
        description.training,
        description.data,
        description.task,
        description.temperature,
        description.thresholds,
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_FORMAT)
            return {name: file.get_tensor(name) for name in file.keys()}, text  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError) as error:
        raise HeadError(f"{path}: not a readable safetensors file ({error})") from error


def _read_pickle(path: Path) -> tuple[Any, str | None]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise HeadError(
            f"{path}: holds Python objects instead of plain weights, and loading those could run any code. Save the "
            "state_dict instead: torch.save(mlp_head.state_dict(), 'head.pt')"
        ) from error
    except Exception as error:  # a truncated archive raises RuntimeError, EOFError, KeyError, ...
        raise HeadError(f"{path}: not a readable PyTorch file ({str(error).partition(chr(10))[0]})") from error
    if isinstance(content, Mapping) and _FORMAT in content:
        return content.get("state_dict", {}), content[_FORMAT]
    return content, None


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """The state_dict in a notebook's file, which may be a checkpoint with more around it."""
    if isinstance(content, Mapping):
        for key in _WRAPPERS:
            if isinstance(content.get(key), Mapping) and content[key] is not content:
                return _unwrapped(content[key], path)
    if not isinstance(content, Mapping) or not all(_is_weight(name, value) for name, value in content.items()):
        raise HeadError(
            f"{path}: expected a state_dict (names to floating-point tensors), got {type(content).__name__}. "
            "Save it with torch.save(mlp_head.state_dict(), 'head.pt')"
        )
    return dict(content)


def _is_weight(name: object, value: object) -> bool:
    if not (isinstance(name, str) and isinstance(value, Tensor)):
        return False
    return value.is_floating_point() and not value.is_sparse and not value.is_meta


def _from_state_dict(state: dict[str, Tensor], activation: str, path: Path) -> VLMtoMLP:
    weights = {name.removesuffix("weight"): tensor for name, tensor in state.items() if name.endswith("weight")}
    odd = [name for name, tensor in state.items() if tensor.ndim > 2 or not name.endswith(("weight", "bias"))]
    odd += [f"{name}weight" for name, tensor in weights.items() if tensor.ndim != 2]
    odd += [name for name, tensor in state.items() if name.endswith("bias") and not _fits_bias(name, tensor, weights)]
    if odd or not weights:
        raise HeadError(
            f"{path}: expected the weights and biases of Linear layers, found {odd[0] if odd else 'none'}. "
            "Only Linear layers, activations and dropout can be read; save the head alone, without its encoder."
        )
    names = _chain({name: (tensor.shape[1], tensor.shape[0]) for name, tensor in weights.items()}, path)
    sizes = [weights[names[0]].shape[1], *(weights[name].shape[0] for name in names)]
    head = VLMtoMLP(sizes[0], sizes[1:-1], sizes[-1], activation, dropout=0.0)
    linears = [layer for layer in head.layers if isinstance(layer, torch.nn.Linear)]
    for name, linear in zip(names, linears, strict=True):
        linear.weight.data = weights[name].float()
        linear.bias.data = state.get(f"{name}bias", torch.zeros(linear.out_features)).float()
    return head.eval()


def _fits_bias(name: str, bias: Tensor, weights: Mapping[str, Tensor]) -> bool:
    weight = weights.get(name.removesuffix("bias"))
    return weight is not None and bias.shape == weight.shape[:1]


def _chain(shapes: Mapping[str, tuple[int, int]], path: Path) -> Sequence[str]:
    """Names of the layers in the order in which outputs fit inputs: as saved, else the only order that fits."""
    by_number = sorted(shapes, key=lambda name: [int(part) if part.isdigit() else -1 for part in name.split(".")])
    for names in (list(shapes), by_number):
        if _fits(names, shapes):
            return names
    names = list(shapes)
    orders = (
        [order for order in itertools.permutations(names) if _fits(order, shapes)] if len(names) <= _MOST_LAYERS else []
    )
    if len(orders) != 1:
        listed = ", ".join(f"{name.rstrip('.')} {inputs}->{outputs}" for name, (inputs, outputs) in shapes.items())
        how = "fit together in several orders; save the head as .pt, which keeps theirs" if orders else "form no chain"
        raise HeadError(f"{path}: the Linear layers {how}: {listed}")
    return orders[0]


def _fits(order: Sequence[str], shapes: Mapping[str, tuple[int, int]]) -> bool:
    return all(shapes[first][1] == shapes[second][0] for first, second in itertools.pairwise(order))
