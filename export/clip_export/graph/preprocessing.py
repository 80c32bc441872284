"""Preprocessing as ONNX operators: uint8 RGB of any size in, uint8 RGB of the model's size out.

The same steps as `clip_toolkit.images.preprocess`, written in onnxscript. An image that already has the model's size
passes through unchanged, so that hosts with a resize of their own use the very same file.
"""

# No `from __future__ import annotations` here: onnxscript reads the annotations of its functions, which are shapes.

from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.inliner import inline_local_functions
from onnxscript import BOOL, DOUBLE, INT64, UINT8, OnnxFunction, script
from onnxscript import opset20 as op
from onnxscript.values import Opset

from clip_export.graph.model_file import IR_VERSION
from clip_toolkit.images.preprocess import LEAST_SCALE, MOST_SCALE
from clip_toolkit.runtime.session import open_graph
from clip_toolkit.spec.classifier import Preprocessing

KEYS_A = -0.5
"""Parameter of Pillow's bicubic filter; ONNX's own default is -0.75."""

Graph: TypeAlias = "OnnxFunction[..., UINT8]"

_LOCAL = Opset("clip_toolkit", 1)

_MODES = {"bicubic": "cubic", "bilinear": "linear"}


def preprocess_graph(rule: Preprocessing) -> onnx.ModelProto:
    """Build a model from ``image`` uint8 ``[batch, height, width, 3]`` to ``pixels`` uint8 ``[batch, size, size, 3]``.

    ``antialias`` makes Resize average when it shrinks, and ``exclude_outside`` renormalises the filter at the border:
    both as Pillow does, and on uint8 with the same fixed-point arithmetic.
    """
    resize = _resize(_MODES[rule.resample])
    if rule.mode == "squash":
        function = _squash(rule.size, resize)
    elif rule.mode == "naflex":
        function = _naflex(rule.patch, rule.max_patches, resize)
    elif rule.mode == "pad":
        function = _pad(rule.size, rule.fill, resize)
    else:
        function = _crop(_edge(rule.resize, rule.size), rule.size, resize, _HALVES[rule.crop_offset])
    model: onnx.ModelProto = inline_local_functions(function.to_model_proto())
    model.ir_version = IR_VERSION
    return model


class GraphPreprocessor:
    """The preprocessing part of the graph, run by itself on ONNX Runtime's CPU provider."""

    def __init__(self, model: onnx.ModelProto, threads: int = 1) -> None:
        """Open the model that `preprocess_graph` makes."""
        self._session = open_graph(model.SerializeToString(), threads)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize and crop uint8 RGB ``[height, width, 3]`` to ``[size, size, 3]``."""
        (pixels,) = self._session.run(["pixels"], {"image": image[None]})
        resized: NDArray[np.uint8] = pixels[0]
        return resized


def _resize(mode: str) -> Graph:
    @script(_LOCAL, default_opset=op)
    def resize(image, target):  # noqa: ANN001, ANN202 (annotations would fix the types of a function that is inlined)
        return op.Resize(
            image,
            None,
            None,
            target,
            axes=[1, 2],
            mode=mode,
            antialias=1,
            cubic_coeff_a=KEYS_A,
            exclude_outside=1,
            coordinate_transformation_mode="half_pixel",
        )

    return resize


def _squash(size: int, resize: Graph) -> Graph:
    @script(default_opset=op)
    def preprocess(image: UINT8["batch", "height", "width", 3]) -> UINT8["batch", size, size, 3]:  # noqa: F821
        pixels = resize(image, op.Constant(value_ints=[size, size]))
        return pixels  # noqa: RET504 (the name becomes the output's)

    return preprocess


def _naflex(patch: int, most: int, resize: Graph) -> Graph:
    """Do the search of `clip_toolkit.images.preprocess.resized_shape` in the same float64 arithmetic."""
    sides, half, least, largest = (_doubles(value) for value in (patch, 0.5, LEAST_SCALE, MOST_SCALE))

    @script(_LOCAL, default_opset=op)
    def grid(shape, scale):  # noqa: ANN001, ANN202 (annotations would fix the types of a function that is inlined)
        return op.Cast(op.Ceil(op.Div(op.Mul(shape, scale), op.Constant(value=sides))), to=INT64.dtype)

    @script(_LOCAL, default_opset=op)
    def halve(shape, low, high):  # noqa: ANN001, ANN202
        scale = op.Mul(op.Add(low, high), op.Constant(value=half))
        patches = op.ReduceProd(grid(shape, scale), keepdims=1)
        fits = op.LessOrEqual(patches, op.Constant(value_ints=[most]))
        return op.Where(fits, scale, low), op.Where(fits, high, scale)

    # The runtime refuses graphs with loops in them: 24 calls, written out by factors.
    @script(_LOCAL, default_opset=op)
    def halve_thrice(shape, low, high):  # noqa: ANN001, ANN202
        low1, high1 = halve(shape, low, high)
        low2, high2 = halve(shape, low1, high1)
        low3, high3 = halve(shape, low2, high2)
        return low3, high3

    @script(_LOCAL, default_opset=op)
    def search_half(shape, low, high):  # noqa: ANN001, ANN202
        low1, high1 = halve_thrice(shape, low, high)
        low2, high2 = halve_thrice(shape, low1, high1)
        low3, high3 = halve_thrice(shape, low2, high2)
        low4, high4 = halve_thrice(shape, low3, high3)
        return low4, high4

    @script(default_opset=op)
    def preprocess(image: UINT8["batch", "height", "width", 3]) -> UINT8["batch", "rows", "columns", 3]:  # noqa: F821
        shape = op.Cast(op.Shape(image, start=1, end=3), to=DOUBLE.dtype)
        low, high = search_half(shape, op.Constant(value=least), op.Constant(value=largest))
        scale, _ = search_half(shape, low, high)
        target = op.Mul(grid(shape, scale), op.Constant(value_ints=[patch]))
        # A Reshape that changes nothing: ONNX's inference of shapes takes the product for an empty one.
        pixels = resize(image, op.Reshape(target, op.Constant(value_ints=[2])))
        return pixels  # noqa: RET504

    return preprocess


def _pad(size: int, fill: int, resize: Graph) -> Graph:
    @script(default_opset=op)
    def preprocess(image: UINT8["batch", "height", "width", 3]) -> UINT8["batch", size, size, 3]:  # noqa: F821
        shape = op.Cast(op.Shape(image, start=1, end=3), to=DOUBLE.dtype)  # as Python's own division
        side = op.Cast(op.Constant(value_ints=[size]), to=DOUBLE.dtype)
        rounded = op.Round(op.Div(shape, op.Div(op.ReduceMax(shape, keepdims=1), side)))
        target = op.Max(op.Cast(rounded, to=INT64.dtype), op.Constant(value_ints=[1]))
        spare = op.Sub(op.Constant(value_ints=[size, size]), target)
        before = op.Div(spare, op.Constant(value_ints=[2]))
        borders = op.Concat(before, op.Sub(spare, before), axis=0)
        colour = op.Cast(op.Constant(value_int=fill), to=UINT8.dtype)
        pixels = op.Pad(resize(image, target), borders, colour, op.Constant(value_ints=[1, 2]))
        return pixels  # type: ignore[return-value]  # noqa: RET504

    return preprocess


def _doubles(value: float) -> onnx.TensorProto:
    return onnx.helper.make_tensor("value", onnx.TensorProto.DOUBLE, [1], [value])


def _edge(edge: int, size: int) -> Graph:
    """Compute the resized image's shorter side, ``[1]``, from its height and width, ``[2]``."""

    @script(_LOCAL, default_opset=op)
    def always(shape):  # noqa: ANN001, ANN202, ARG001 (likewise)
        return op.Constant(value_ints=[edge])

    @script(_LOCAL, default_opset=op)
    def unless_prepared(shape):  # noqa: ANN001, ANN202
        crop = op.Constant(value_ints=[size, size])
        is_prepared = op.ReduceMin(op.Cast(op.Equal(shape, crop), to=INT64.dtype), keepdims=1)
        return op.Where(
            op.Cast(is_prepared, to=BOOL.dtype), op.Constant(value_ints=[size]), op.Constant(value_ints=[edge])
        )

    return always if edge == size else unless_prepared  # with the same length, a prepared image has it already


@script(_LOCAL, default_opset=op)
def _floor(difference):  # noqa: ANN001, ANN202 (likewise)
    return op.Div(difference, op.Constant(value_ints=[2]))


@script(_LOCAL, default_opset=op)
def _half_even(difference):  # noqa: ANN001, ANN202
    two = op.Constant(value_ints=[2])
    half = op.Div(difference, two)
    return op.Add(half, op.Mul(op.Mod(difference, two), op.Mod(half, two)))


_HALVES = {"floor": _floor, "half_even": _half_even}
"""Half of a difference that is not negative, by the name of its rounding."""


def _crop(shortest: Graph, size: int, resize: Graph, half: Graph) -> Graph:
    @script(default_opset=op)
    def preprocess(image: UINT8["batch", "height", "width", 3]) -> UINT8["batch", size, size, 3]:  # noqa: F821
        shape = op.Shape(image, start=1, end=3)
        crop = op.Constant(value_ints=[size, size])
        target = op.Div(op.Mul(shape, shortest(shape)), op.ReduceMin(shape, keepdims=1))
        start = half(op.Sub(target, crop))
        pixels = op.Slice(resize(image, target), start, op.Add(start, crop), op.Constant(value_ints=[1, 2]))
        return pixels  # noqa: RET504

    return preprocess
