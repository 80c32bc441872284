"""Networks of more than 2 GiB, where protobuf messages end, and with them ONNX files.

They exist on the way to a quantized file alone. Whoever opens one here has written it, graph and weights apart; the
runtime refuses weights in other files.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnx import TensorProto, helper
from torch import nn

from clip_export.graph.model_file import describe, save_model
from clip_toolkit import Classifier, load
from clip_toolkit.errors import EncoderError, QuantizationError
from clip_toolkit.runtime.session import Session, open_graph
from clip_toolkit.spec.classifier import ModelSpec

FLOAT32 = "float32"

SMALLER = ("fp16", "int8", "int4")
"""Precisions that take less."""

_LARGEST = 2**31 - 2**24  # bytes of weights: the limit of a protobuf message, less room for everything else
_BYTES = {FLOAT32: 4.0, "fp16": 2.0, "int8": 1.0, "int4": 0.6}  # of a weight
_SMALL = 1024  # bytes of a constant that stays in the graph, such as a shape


def check_size(encoder: str, network: nn.Module, precision: str = FLOAT32, others: Sequence[str] = SMALLER) -> None:
    """Refuse weights that one file does not hold.

    Args:
        encoder: of which they are.
        network: that holds them in float32.
        precision: of the file.
        others: precisions to advise where they fit.

    Raises:
        EncoderError: there are more than 2 GiB of them.
    """
    weights = sum(tensor.numel() for tensor in network.state_dict().values())
    if weights * _BYTES[precision] <= _LARGEST:
        return
    smaller = [name for name in others if weights * _BYTES[name] <= _LARGEST]
    remedy = f"Use clip-export --quantize {' or '.join(smaller)}" if smaller else "Use a smaller encoder"
    raise EncoderError(
        f"{encoder}: {weights * _BYTES[precision] / 2**30:.1f} GiB of weights in {precision}, and one ONNX file "
        f"holds 2 GiB. {remedy}."
    )


def size_of(model: onnx.ModelProto) -> int:
    """Return the bytes of a network's weights."""
    return sum(map(_size, model.graph.initializer))


def is_large(model: onnx.ModelProto) -> bool:
    """Tell whether one file does not hold a network as it is."""
    return size_of(model) > _LARGEST


def fits(size: int, precision: str) -> bool:
    """Tell whether one file holds weights in a precision, of which there are ``size`` bytes in float32."""
    return size * _BYTES[precision] / _BYTES[FLOAT32] <= _LARGEST


def without_integers(size: int) -> str:
    """Advise what to do with a network that stays in float, of ``size`` bytes in float32."""
    if fits(size, FLOAT32):
        return "Leave out --quantize"
    return "Use --quantize fp16" if fits(size, "fp16") else "Use a smaller encoder"


def check_quantized(model: onnx.ModelProto, mode: str, float_size: int) -> None:
    """Refuse a quantized network that one file does not hold: of some, much stays in float.

    Args:
        model: the network.
        mode: its precision.
        float_size: bytes of the float32 network that it was made of.

    Raises:
        QuantizationError: there are more than 2 GiB of weights.
    """
    if not is_large(model):
        return
    remedy = "Use a smaller encoder" if mode == "fp16" else without_integers(float_size)
    raise QuantizationError(
        f"{mode}: {size_of(model) / 2**30:.1f} GiB of weights remain, as not all layers take fewer bits, and one ONNX "
        f"file holds 2 GiB. {remedy}."
    )


def save_own(model: onnx.ModelProto, spec: ModelSpec, path: Path) -> None:
    """Write a model for `load_own`, in place."""
    if is_large(model):
        describe(model, spec)
        _write_apart(model, path)
    else:
        save_model(model, spec, path)


def load_own(path: Path) -> Classifier:
    """Open a model of `save_own` on the CPU."""
    if not _weights_of(path).exists():
        return load(path, device="cpu")
    (metadata,) = onnx.load(path, load_external_data=False).metadata_props
    return Classifier(ModelSpec.from_json(metadata.value), open_graph(path, prepack=False))  # once is large enough


def load_alike(path: Path, other: Path) -> tuple[Classifier, Classifier]:
    """Open a model of `save_own` and another file so that their speeds compare: both laid out anew, or neither."""
    return load_own(path), load(other, device="cpu", prepack=not _weights_of(path).exists())


def own_size(path: Path) -> int:
    """Return the bytes that a model of `save_own` takes."""
    return sum(file.stat().st_size for file in (path, _weights_of(path)) if file.exists())


@contextmanager
def opened(model: onnx.ModelProto) -> Iterator[Session]:
    """Open a network of any size on the CPU."""
    if not is_large(model):
        yield open_graph(model.SerializeToString())
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder, "network.onnx")
        _write_apart(model, path)
        yield open_graph(path, prepack=False)


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network with larger constants by name, type and shape alone."""
    graph = helper.make_graph(
        model.graph.node,
        model.graph.name,
        model.graph.input,
        model.graph.output,
        [_stub(item) for item in model.graph.initializer],
        value_info=model.graph.value_info,
    )
    bare = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    bare.metadata_props.extend(model.metadata_props)
    return bare


def _stub(item: TensorProto) -> TensorProto:
    if _size(item) <= _SMALL:
        return item
    return TensorProto(name=item.name, data_type=item.data_type, dims=item.dims, data_location=TensorProto.EXTERNAL)


def _write_apart(model: onnx.ModelProto, path: Path) -> None:
    bare = without_weights(model)
    with _weights_of(path).open("wb") as file:
        for item, stub in zip(model.graph.initializer, bare.graph.initializer, strict=True):
            if stub.data_location == TensorProto.EXTERNAL:
                place = {"location": _weights_of(path).name, "offset": file.tell(), "length": _size(item)}
                for key, value in place.items():
                    stub.external_data.add(key=key, value=str(value))
                file.write(item.raw_data)
    path.write_bytes(bare.SerializeToString())


def _weights_of(path: Path) -> Path:
    return path.with_suffix(".weights")


def _size(item: TensorProto) -> int:
    return int(math.prod(item.dims) * helper.tensor_dtype_to_np_dtype(item.data_type).itemsize)
