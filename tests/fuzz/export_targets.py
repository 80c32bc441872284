"""Targets of the export side: heads, and what a checkpoint says of its preprocessing."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import mutants
import torch
from documents import json_bytes, json_mutant
from safetensors.torch import save
from targets import EXPORT_SHARES, Target

from clip_export.encoders.processors import load_processor, preprocessing_of
from clip_export.heads.files import TrainedHead, load_head, save_head
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.references import EncoderReference
from clip_toolkit.errors import ClipToolkitError

_PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "crop_size": {"height": 64, "width": 64},
    "size": {"shortest_edge": 64},
    "resample": 3,
    "image_mean": [0.48, 0.45, 0.4],
    "image_std": [0.26, 0.26, 0.27],
    "rescale_factor": 1 / 255,
    **dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"), True),
}


def head(data: bytes) -> None:
    """A head file, in the form that its first bytes tell."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "head.pt" if data[:2] == b"PK" else "head.safetensors")
        path.write_bytes(data)
        try:
            load_head(path)
        except ClipToolkitError:
            return


def processor(data: bytes) -> None:
    """The file that describes a checkpoint's image processor."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "preprocessor_config.json").write_bytes(data)
        try:
            preprocessing_of(load_processor(Path(folder), "CLIPImageProcessor"))
        except ClipToolkitError:
            return


def _heads() -> list[bytes]:
    encoder = EncoderReference("somebody/clip", None, "pooled")
    made = TrainedHead(VLMtoMLP(16, 4, 2), labels=("a", "b"), encoder=encoder, training={"epochs": 3})
    seeds = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("head.safetensors", "head.pt"):
            save_head(made, Path(folder, name))
            seeds.append(Path(folder, name).read_bytes())
    return [*seeds, save(made.module.state_dict())]


def _head_mutant(seeds: list[bytes], number: int) -> bytes:
    """Other bytes, another safetensors header, another description in it, or another dictionary in a pickle."""
    kind = number % 4
    if kind == 0:
        return mutants.mutant(seeds, number)
    size = int.from_bytes(seeds[0][:8], "little")
    header, rest = json.loads(seeds[0][8 : 8 + size]), seeds[0][8 + size :]
    told = header["__metadata__"]
    [(name, text)] = told.items()
    if kind == 1:
        header = json_mutant(header, number)
    else:
        told[name] = json.dumps(json_mutant(json.loads(text), number))
    if kind == 3:
        return _pickled(name, told[name], number)
    written = json_bytes(header)
    return len(written).to_bytes(8, "little") + written + rest


_ODD = (
    None,
    torch.zeros(0),
    torch.ones(()),
    torch.zeros(4, 16, dtype=torch.int8),
    torch.zeros(1).expand(2**20, 2**20),  # terabytes in four bytes
)


def _pickled(name: str, text: str, number: int) -> bytes:
    weights: dict[str, Any] = dict(VLMtoMLP(16, 4, 2).state_dict())
    if number % 8 == 3:
        weights[next(iter(weights))] = _ODD[number // 8 % len(_ODD)]
    content = {name: text, "state_dict": weights}
    buffer = io.BytesIO()
    torch.save(json_mutant(content, number) if number % 16 == 7 else content, buffer)
    return buffer.getvalue()


EXPORT_TARGETS = {
    "head": Target(head, _heads, EXPORT_SHARES["head"], _head_mutant),
    "processor": Target(
        processor,
        lambda: [json_bytes(_PROCESSOR)],
        EXPORT_SHARES["processor"],
        lambda seeds, number: json_bytes(json_mutant(json.loads(seeds[0]), number)),
    ),
}
