"""``bench/zero_shot.py``: exported words against transformers, picture by picture; rewrites its part of the benchmarks.

Labels are the hundred pairs of colour and shape that models/tiny_eval.py asks for, pictures those it draws.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import transformers
from sections import replaced_section

from clip_export.commands.export import main as export
from clip_toolkit import load

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "models"))

from scenes import COLOURS, SHAPES, Scene  # noqa: E402  (models is no package)
from tiny_data import picture, random_scenes  # noqa: E402
from tiny_eval import HELD_OUT_SEED, embed_pictures, embed_texts  # noqa: E402

ENCODER = ROOT / "models" / "tiny-clip"
PICTURES = 2000
TEMPLATE = "a {}"
LABELS = [f"{colour} {shape}" for shape, colour in itertools.product(SHAPES, COLOURS)]
MODES = {"float32": [], "int8": ["--quantize", "int8"], "fp16": ["--quantize", "fp16"]}


@torch.inference_mode()
def by_transformers(scenes: Sequence[Scene]) -> list[str]:
    """Return the nearest prompt to each picture, in PyTorch, with the Pillow image processor."""
    model = transformers.CLIPModel.from_pretrained(ENCODER).eval()
    processor = transformers.CLIPProcessor.from_pretrained(ENCODER, use_fast=False)
    texts = embed_texts(model, processor, [TEMPLATE.replace("{}", label) for label in LABELS])
    return [LABELS[index] for index in (embed_pictures(model, processor, scenes, HELD_OUT_SEED) @ texts.T).argmax(1)]


def rows(folder: Path) -> Iterator[str]:
    """Yield a row for each kind of file."""
    scenes = random_scenes(PICTURES, HELD_OUT_SEED)
    pictures = [picture(job, HELD_OUT_SEED) for job in enumerate(scenes)]
    truth, theirs = [f"{scene.colour} {scene.shape}" for scene in scenes], by_transformers(scenes)
    for mode, options in MODES.items():
        path = folder / f"{mode}.onnx"
        words = ["--zero-shot", "--labels", *LABELS, "--templates", TEMPLATE, "--encoder", str(ENCODER)]
        if export([*words, "-o", str(path), *options]):
            sys.exit(1)
        ours = [each.label for each in load(path, device="cpu").predict_many(pictures, batch_size=50)]
        right, same = (sum(map(str.__eq__, ours, others)) for others in (truth, theirs))
        yield f"| {mode} | {right:,} | {same:,} | {path.stat().st_size / 2**20:.1f} MiB |"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="bench/zero_shot.py", description="Compare zero-shot files with PyTorch.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md", help="page to change")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = list(rows(Path(folder)))
    lines = [
        f"`clip-export --zero-shot` with {len(LABELS)} labels on {PICTURES:,} drawn pictures, new to tiny-clip.",
        "",
        "| file | right | decided as transformers in PyTorch | size |",
        "| --- | --- | --- | --- |",
        *measured,
    ]
    print("\n".join(lines))
    args.out.write_text(replaced_section(args.out.read_text(encoding="utf-8"), "Zero-shot", lines), encoding="utf-8")


if __name__ == "__main__":
    main()
