"""CLIP ViT-B/32 in its true shapes, from its configuration with random weights."""

import json
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from clip_export.heads.files import TrainedHead, save_head
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.references import EncoderReference
from clip_export.samples.pictures import proof_files
from clip_toolkit.spec.model_file import read_spec

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head on a full-size encoder, exported by the command line."""
    folder = tmp_path_factory.mktemp("full")
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, patch_size=32
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder / "vit-b-32")
    CLIPImageProcessor().save_pretrained(folder / "vit-b-32")
    reference = EncoderReference(str(folder / "vit-b-32"))
    save_head(TrainedHead(VLMtoMLP(768, 256, 2), reference, ("cat", "dog")), folder / "head.pt")
    command = [sys.executable, "-m", "clip_export.commands.export", "--head", "head.pt"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    print(f"\n{done.stdout}peak memory of the export: {peak:.0f} MiB")
    return folder


def test_parity_of_the_full_size_model(folder: Path):
    parity = read_spec(folder / "model.onnx").parity
    assert parity.pillow.pixels == 0
    assert parity.pillow.logits <= 1e-4 * parity.logit_scale
    assert parity.graph.pixels_share <= 0.001
    assert parity.graph.logits <= 1e-4 * parity.logit_scale


def test_operators_of_the_full_size_model(folder: Path):
    nodes = Counter(node.op_type for node in onnx.load(folder / "model.onnx").graph.node)
    assert (nodes["MultiHeadAttention"], nodes["QuickGelu"]) == (12, 12)
    assert (nodes["Softmax"], nodes["Transpose"], nodes["LayerNormalization"]) == (1, 2, 26)


def test_the_text_tower_and_the_unused_projection_are_gone(folder: Path):
    weights = sum(item.stat().st_size for item in (folder / "vit-b-32").glob("*.safetensors"))
    assert (folder / "model.onnx").stat().st_size < weights + 2**20


def test_inference_of_the_full_size_model(folder: Path):
    for number, file in enumerate(proof_files(224)):
        (folder / f"{number}.png").write_bytes(file)
    command = [
        sys.executable,
        "-m",
        "clip_toolkit.commands.infer",
        *(f"{i}.png" for i in range(6)),
        "--format",
        "jsonl",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["error"] for record in records] == [None] * 6
    assert all(sum(score["probability"] for score in record["top"]) == pytest.approx(1) for record in records)
