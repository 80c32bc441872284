"""The ``config.pbtxt`` of each model of a repository.

https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.tasks import OUTPUTS
from clip_toolkit.text.tokenization import INPUTS

LABELS = "labels.txt"
"""File of the labels' names, for Triton's classification extension."""

_MAX_DELAY_US = 2000  # as clip-serve waits

_Tensors = dict[str, tuple[str, tuple[int, ...]]]
"""Type, and sizes without that of the batch, by name."""


def network_config(name: str, spec: ModelSpec, batch: int) -> str:
    """Describe the network, which takes images of its own size: its resize is not exact on every execution provider.

    Args:
        name: of the model.
        spec: of its file.
        batch: most images in a run; requests share runs where it is above 1.
    """
    sharing = [f"dynamic_batching {{ max_queue_delay_microseconds: {_MAX_DELAY_US} }}"] if batch > 1 else []
    inputs = {_image_input(spec): _pixels(spec)} | _tokens(spec)
    tensors = [_tensors("input", inputs), _tensors("output", _outputs(spec))]
    return _config(name, 'backend: "onnxruntime"', batch, *tensors, *sharing, _instance("AUTO"))


def decode_config(name: str, spec: ModelSpec, batch: int) -> str:
    """Describe the model that decodes images and tokenizes texts; arguments as in `network_config`."""
    tensors = [_tensors("input", _encoded(spec)), _tensors("output", {"pixels": _pixels(spec)} | _tokens(spec))]
    return _config(name, 'backend: "python"', batch, *tensors, _instance("CPU"))


def ensemble_config(name: str, spec: ModelSpec, batch: int, *, decode: str, network: str) -> str:
    """Describe the two in a row, by their names; other arguments as in `network_config`."""
    tokens = {item: item for item in _tokens(spec)}
    steps = [
        _step(decode, {item: item for item in _encoded(spec)}, {"pixels": "pixels"} | tokens),
        _step(network, {_image_input(spec): "pixels"} | tokens, {item: item for item in _outputs(spec)}),
    ]
    tensors = [_tensors("input", _encoded(spec)), _tensors("output", _outputs(spec))]
    return _config(name, 'platform: "ensemble"', batch, *tensors, f"ensemble_scheduling {{\n{_list('step', steps)}\n}}")


def _image_input(spec: ModelSpec) -> str:
    return "image" if spec.input == "image" else "pixel_values"


def _pixels(spec: ModelSpec) -> tuple[str, tuple[int, ...]]:
    size = spec.preprocessing.size
    return ("UINT8", (size, size, 3)) if spec.input == "image" else ("FP32", (3, size, size))


def _tokens(spec: ModelSpec) -> _Tensors:
    return {} if spec.text is None else dict.fromkeys(INPUTS, ("INT64", (-1,)))


def _encoded(spec: ModelSpec) -> _Tensors:
    names = ("image",) if spec.text is None else ("image", "text")
    return dict.fromkeys(names, ("STRING", (1,)))


def _outputs(spec: ModelSpec) -> _Tensors:
    sizes = {"embedding": spec.encoder.dim}
    return {name: ("FP32", (sizes.get(name, len(spec.labels)),)) for name in OUTPUTS[spec.task]}


def _config(name: str, kind: str, batch: int, *blocks: str) -> str:
    return "\n".join([f'name: "{name}"', kind, f"max_batch_size: {batch}", *blocks, ""])


def _tensors(kind: str, tensors: _Tensors) -> str:
    return _list(kind, [_tensor(name, *tensor) for name, tensor in tensors.items()])


def _tensor(name: str, datatype: str, sizes: tuple[int, ...]) -> str:
    labels = f' label_filename: "{LABELS}"' if name in ("probabilities", "logits") else ""
    return f'{{ name: "{name}" data_type: TYPE_{datatype} dims: [ {", ".join(map(str, sizes))} ]{labels} }}'


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    maps = [*_maps("input_map", inputs), *_maps("output_map", outputs)]
    return f'{{ model_name: "{model}" model_version: -1 {" ".join(maps)} }}'


def _maps(kind: str, names: Mapping[str, str]) -> list[str]:
    return [f'{kind} {{ key: "{key}" value: "{value}" }}' for key, value in names.items()]


def _instance(kind: str) -> str:
    return f"instance_group [ {{ count: 1 kind: KIND_{kind} }} ]"


def _list(kind: str, items: Iterable[str]) -> str:
    return f"{kind} [\n  " + ",\n  ".join(items) + "\n]"
