"""Outputs beside the answer, added to a file that is finished, quantized or not, and replayed from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from clip_export.encoders.image import Encoder
from clip_export.graph.model_file import save_model
from clip_export.graph.novelty import add_novelty
from clip_export.graph.relevance import add_relevance, cells_a_side
from clip_export.graph.vit_weights import canonical_vit
from clip_export.heads.files import TrainedHead
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.novelty import Novelty
from clip_export.proof.parity import check_replay
from clip_export.proof.relevance import own_maps, reference_maps
from clip_export.quantization.layers.linears import with_plain_linears
from clip_export.quantization.quantizing import Quantized
from clip_toolkit import load, selftest
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.decisions import are_novel
from clip_toolkit.spec.trust import NoveltySpec, RelevanceSpec


def with_further_outputs(
    model: onnx.ModelProto,
    spec: ModelSpec,
    head: TrainedHead,
    encoder: Encoder,
    explain: bool,
    *,
    path: Path,
    quantized: Quantized | None = None,
) -> ModelSpec:
    """Add what is told beside the answer to a finished file, and replay it.

    Args:
        model: the network in the file, which is changed.
        spec: what the file says by now.
        head: the one in the file; its novelty is told if it knows the training images.
        encoder: the one in the file.
        explain: tell what speaks for the label.
        path: the file, which is written anew.
        quantized: how the network was quantized, if it was.

    Returns:
        What the file says then.

    Raises:
        ParityError: the outputs are not those of PyTorch.
    """
    spec = _with_novelty(model, spec, head.novelty, path, quantized)
    return _with_relevance(model, spec, head, encoder, path) if explain else spec


def _with_relevance(
    model: onnx.ModelProto, spec: ModelSpec, head: TrainedHead, encoder: Encoder, path: Path
) -> ModelSpec:
    """Add the output ``relevance`` to a finished file; replay PyTorch's maps, or of a quantized file its own."""
    assert isinstance(head.module, VLMtoMLP)  # others have been refused
    vit, files = canonical_vit(encoder), [vector.png for vector in spec.golden]
    golden = reference_maps(vit, head.module, spec.preprocessing, files)
    side = cells_a_side(vit)
    model = with_plain_linears(model)
    read = vit if spec.input == "image" else canonical_vit(encoder, takes_pixel_values=True)
    add_relevance(model, read, head.module)
    spec = replace(spec, relevance=RelevanceSpec(side, side, golden))
    save_model(model, spec, path)
    if spec.quantization is not None:
        spec = replace(spec, relevance=RelevanceSpec(side, side, own_maps(load(path, device="cpu"), files)))
        save_model(model, spec, path)
    check_replay(selftest(load(path, device="cpu")))
    return spec


def _with_novelty(
    model: onnx.ModelProto, spec: ModelSpec, novelty: Novelty | None, path: Path, quantized: Quantized | None = None
) -> ModelSpec:
    """Add the output ``novelty`` to a finished file, if its head knows the training images, and replay it."""
    if novelty is None:
        return spec
    embeddings = quantized.embeddings if quantized else ()
    beyond = tuple(float(are_novel(novelty.distances(each), novelty.threshold).mean()) for each in embeddings)
    golden = novelty.distances(np.array([vector.embedding for vector in spec.golden]))
    told = NoveltySpec(novelty.threshold, novelty.share, novelty.images, tuple(golden.tolist()), beyond)
    spec = replace(spec, novelty=told)
    add_novelty(model, novelty)
    save_model(model, spec, path)
    check_replay(selftest(load(path, device="cpu")))
    return spec
