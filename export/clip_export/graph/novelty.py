"""The output ``novelty``, behind a finished graph's embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from clip_export.heads.novelty import Novelty
from clip_toolkit.spec.tasks import NOVELTY

_PREFIX = f"{NOVELTY}/"


def add_novelty(model: onnx.ModelProto, novelty: Novelty) -> None:
    """Append the distance from the training images, in float32 whatever the network before it computes in.

    Args:
        model: with an output ``embedding`` ``[batch, dim]``; it is changed, and has ``novelty`` ``[batch]`` as well.
        novelty: what the training images look like.
    """
    constants = {**novelty.arrays(), "classes": np.array([1]), "channels": np.array([2])}
    dropped = {"keepdims": 0}
    _append(model, "Sub", ["embedding", f"{_PREFIX}centre"], "moved")
    _append(model, "MatMul", [f"{_PREFIX}moved", f"{_PREFIX}whitening"], "placed")
    _append(model, "Unsqueeze", [f"{_PREFIX}placed", f"{_PREFIX}classes"], "beside")
    _append(model, "Sub", [f"{_PREFIX}beside", f"{_PREFIX}means"], "apart")
    _append(model, "ReduceSumSquare", [f"{_PREFIX}apart", f"{_PREFIX}channels"], "squares", dropped)
    _append(model, "ReduceMin", [f"{_PREFIX}squares", f"{_PREFIX}classes"], "nearest", dropped)
    model.graph.node.append(helper.make_node("Sqrt", [f"{_PREFIX}nearest"], [NOVELTY], NOVELTY))
    tensors = (numpy_helper.from_array(array, f"{_PREFIX}{name}") for name, array in constants.items())
    model.graph.initializer.extend(tensors)
    model.graph.output.append(helper.make_tensor_value_info(NOVELTY, TensorProto.FLOAT, ["batch"]))


def _append(
    model: onnx.ModelProto, operator: str, inputs: list[str], name: str, attributes: dict[str, Any] | None = None
) -> None:
    node = helper.make_node(operator, inputs, [f"{_PREFIX}{name}"], f"{_PREFIX}{name}", **(attributes or {}))
    model.graph.node.append(node)
