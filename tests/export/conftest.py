"""Fixtures shared by the tests of training and export: tiny checkpoints and exported files, each made once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry

from clip_export.encoders.image import Encoder
from clip_export.exporting import ExportOptions, export_classifier
from clip_export.heads.files import TrainedHead
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.references import EncoderReference
from tiny_models import save_checkpoint
from tiny_open_clip import save_open_clip

LABELS = ("ant", "bee", "cow")
OF_OPEN_CLIP = {"open-clip": "clip", "open-clip-siglip": "siglip", "clipa": "clipa"}
OF_TIMM = ("mobileclip", "eva02", "pe-core")


@pytest.fixture(scope="session", autouse=True)
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test leaves features in the cache of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_registry() -> Iterator[None]:
    """PyTorch's exporter collects its 400 translations for every export: two thirds of a second, a third of a trace."""
    make = functools.cache(ONNXRegistry.from_torchlib)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(make))
        yield


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a tiny checkpoint, by a name of `tiny_models`, or in OpenCLIP's format."""

    @functools.cache
    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp("checkpoints") / name
        if name in OF_OPEN_CLIP:
            return save_open_clip(OF_OPEN_CLIP[name], folder)
        if name in OF_TIMM:
            pytest.importorskip("open_clip")
            from tiny_timm import save_timm

            return save_timm(name, folder)
        return save_checkpoint(name, folder)

    return make


@pytest.fixture(scope="session")
def encoder(checkpoint: Callable[[str], Path]) -> Callable[..., Encoder]:
    """The encoder of a tiny checkpoint."""

    @functools.cache
    def load(name: str, feature: str = "pooled") -> Encoder:
        return Encoder.from_pretrained(str(checkpoint(name)), feature=feature)

    return load


@pytest.fixture(scope="session")
def head_for() -> Callable[[Encoder], TrainedHead]:
    """A head with seeded random weights that fits an encoder, and with a pooling if the encoder reads one."""

    def make(encoder: Encoder) -> TrainedHead:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            module = VLMtoMLP(encoder.dim, 16, len(LABELS)).eval()
            query = torch.randn(encoder.blocks.width) if encoder.tokens and encoder.tokens.is_learnt else None
        reference = EncoderReference(encoder.id, None, encoder.feature)
        return TrainedHead(module, reference, LABELS, {"images": 12}, pooling=query)

    return make


@pytest.fixture(scope="session")
def exported(
    encoder: Callable[..., Encoder],
    head_for: Callable[[Encoder], TrainedHead],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Path]:
    """The exported file of a tiny checkpoint with a random head."""

    @functools.cache
    def make(name: str, feature: str = "pooled", kind: str = "image", ops: str = "ort") -> Path:
        path = tmp_path_factory.mktemp("exported") / f"{name}.onnx"
        used = encoder(name, feature)
        export_classifier(head_for(used), used, path, options=ExportOptions(kind, ops))
        return path

    return make
