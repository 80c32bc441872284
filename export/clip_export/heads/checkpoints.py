"""What lies in a notebook's file: the head's weights, and perhaps its labels and a fine-tuned encoder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from clip_toolkit.errors import HeadError

Weights = dict[str, Tensor]

# Under these keys people save the head's state_dict beside the optimizer's and an epoch number.
_WRAPPERS = ("state_dict", "model_state_dict", "mlp_head", "head", "model")
_LABELS = ("class_to_idx", "label2id", "classes", "class_names", "labels", "id2label", "idx_to_class")
_DEEPEST = 4  # wrappers around wrappers; a dict may contain itself

_PATCHES = re.compile(r"(?:^|(.*)\.)embeddings\.patch_embedding\.weight")
_PROJECTION = re.compile(r"(?:^|.*\.)(visual_projection|vision_proj)\.(?:weight|bias)")
# Beside a vision tower, what belongs to the CLIP model around it and to no head.
_AROUND_TOWER = re.compile(r"(text_model|text_projection|text_proj|logit_scale|logit_bias)\b")


@dataclass(frozen=True)
class NotebookCheckpoint:
    """A notebook's file, taken apart.

    Attributes:
        head: the head's weights by name.
        tower: those of an image tower that was saved with it, by their transformers names, the projection's among them
            if it was saved, too; empty if there is none.
        labels: class names in the file, or None.
        labels_of: class names of each of several heads, by its name.
    """

    head: Weights
    tower: Weights = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    labels_of: dict[str, tuple[str, ...]] = field(default_factory=dict)


def take_apart(content: Any, path: Path) -> NotebookCheckpoint:
    """Find the weights and labels in what a file holds: a state_dict, or a checkpoint with more around it.

    Raises:
        HeadError: there is no state_dict, it holds tensors that are no weights, two encoders, or one of a form that is
            not read.
    """
    levels = list(_levels(content))
    state = levels[-1]
    if not isinstance(state, Mapping) or not state:
        raise HeadError(
            f"{path}: expected a state_dict (names to floating-point tensors), got {type(content).__name__}. "
            "Save it with torch.save(mlp_head.state_dict(), 'head.pt')"
        )
    state = {**state, **_encoder_beside(levels, path)}
    check_weights(state, path)
    names = {str(name).removeprefix("module."): value for name, value in state.items()}
    head, tower = _split(names, path)
    notes = [level for level in levels if isinstance(level, Mapping)]
    labels = next((found for level in notes if (found := _labels(level, path))), None)
    several = next((read for level in notes if (read := _labels_of_heads(level, path))), {})
    return NotebookCheckpoint(head, tower, labels, several)


def _levels(content: Any) -> Iterator[Any]:
    """Yield the file's content and what is wrapped in it, the innermost last."""
    for _ in range(_DEEPEST):
        yield content
        inner = [
            content[key] for key in _WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)
        ]
        if not inner:
            return
        content = inner[0]
    yield None


def _encoder_beside(levels: Sequence[Any], path: Path) -> dict[str, Any]:
    """Return the weights of an encoder that was saved in a state_dict of its own beside the head's, below its key."""
    found: dict[str, Any] = {}
    for level, inner in pairwise(levels):
        for key, state in level.items():
            if state is inner or not isinstance(state, Mapping) or not _has_patches(state):
                continue
            if not any(_PATCHES.fullmatch(str(name)) for name in state):
                raise HeadError(
                    f"{path}: holds an encoder under {key!r}, by names that are not those of transformers, and may not "
                    "be paired with another. If it was frozen, save the head's state_dict alone."
                )
            found |= {f"{key}.{name}": value for name, value in state.items()}
    return found


def _has_patches(state: Mapping[Any, Any]) -> bool:
    """Whether something is a state_dict with a convolution, which heads have none of."""
    return any(isinstance(value, Tensor) and value.ndim == 4 for value in state.values())


def check_weights(state: Mapping[Any, Any], path: Path) -> None:
    """Refuse what is no plain floating-point weight, before anything is computed with it.

    Raises:
        HeadError: another dtype or layout, or a tensor that claims more values than the file holds.
    """
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise HeadError(
                f"{path}: expected a state_dict (names to floating-point tensors), found {name!r}: "
                f"{type(value).__name__}. Save it with torch.save(mlp_head.state_dict(), 'head.pt')"
            )
        if name.endswith(("num_batches_tracked", "position_ids")):  # buffers of whole numbers
            continue
        if not value.is_floating_point() or value.is_sparse or value.is_meta:
            raise HeadError(
                f"{path}: {name} is {str(value.dtype).removeprefix('torch.')}, and heads are computed in floating "
                "point. Save dense weights of float32, float16 or bfloat16."
            )
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise HeadError(f"{path}: {name} claims {value.numel()} values, more than the file holds: it is damaged.")


def _labels_of_heads(level: Mapping[Any, Any], path: Path) -> dict[str, tuple[str, ...]]:
    """Return the labels of each head where they stand by its name."""
    for key in _LABELS:
        of_heads = level.get(key)
        if isinstance(of_heads, Mapping):
            read = {str(name): _labels({key: names}, path) for name, names in of_heads.items()}
            if read and all(read.values()):
                return {name: labels for name, labels in read.items() if labels}
    return {}


def _labels(level: Mapping[Any, Any], path: Path) -> tuple[str, ...] | None:
    for key in _LABELS:
        found = level.get(key)
        if isinstance(found, Mapping):
            names = found if all(isinstance(index, int) for index in found.values()) else _inverted(found)
            if sorted(names.values()) != list(range(len(names))):
                raise HeadError(f"{path}: {key} does not number its classes from 0 on. Name them with --labels.")
            return tuple(map(str, sorted(names, key=names.__getitem__)))
        if isinstance(found, (list, tuple)) and found and all(isinstance(name, str) for name in found):
            return tuple(found)
    return None


def _inverted(names: Mapping[Any, Any]) -> dict[Any, int]:
    return {name: int(index) for index, name in names.items() if str(index).isdigit()}


def _split(state: Weights, path: Path) -> tuple[Weights, Weights]:
    """Separate the head's weights from those of the image tower beside it."""
    towers = [match[1] or "" for name in state if (match := _PATCHES.fullmatch(name))]
    if not towers:
        return state, {}
    if len(towers) > 1:
        raise HeadError(f"{path}: holds two encoders ({', '.join(towers)}). Save one, with the head that reads it.")
    (tower,) = towers
    prefix = f"{tower}." if tower else ""
    around = prefix.removesuffix("vision_model.")
    inside = {name: value for name, value in state.items() if name.startswith(prefix) and prefix} or {
        name: value
        for name, value in state.items()
        if re.match(r"(embeddings|encoder|pre_layrnorm|post_layernorm)\.", name)
    }
    projection = _projection(state, path)
    rest = {
        name: value
        for name, value in state.items()
        if name not in inside
        and name not in projection
        and not (name.startswith(around) and _AROUND_TOWER.match(name[len(around) :]))
    }
    if not rest:
        raise HeadError(f"{path}: holds an encoder and no head. Save the head's state_dict.")
    tower_weights = {name.removeprefix(prefix): value for name, value in inside.items()}
    return rest, tower_weights | {projection[name]: state[name] for name in projection}


def _projection(state: Weights, path: Path) -> dict[str, str]:
    """Names of an image projection's weights, and what transformers calls them."""
    names = {name: name[match.start(1) :] for name in state if (match := _PROJECTION.fullmatch(name))}
    if len(set(names.values())) < len(names):
        raise HeadError(f"{path}: holds two image projections ({', '.join(names)}). Save the one that the head reads.")
    return names


def agreed_labels(found: Sequence[str] | None, given: Sequence[str] | None, path: Path) -> None:
    """Refuse labels that contradict those in the file.

    Raises:
        HeadError: other names, or another order.
    """
    if found is not None and given is not None and tuple(found) != tuple(given):
        what = "in another order" if sorted(found) == sorted(given) else "with other names"
        raise HeadError(
            f"{path}: its own classes are {', '.join(found)}, and --labels gives them {what}: {', '.join(given)}. "
            "Leave out --labels, or correct it."
        )
