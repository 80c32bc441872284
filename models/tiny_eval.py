"""Zero-shot accuracy of a saved CLIP folder on freshly drawn, held-out pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from scenes import CANONICAL, COLOURS, SHAPES, Scene
from tiny_data import ATTRIBUTES, encode_scenes, picture, random_scenes
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel, CLIPProcessor

HELD_OUT_SEED = 1_000_003  # never used for training


@torch.inference_mode()
def evaluate(folder: Path, n: int, seed: int = HELD_OUT_SEED) -> dict[str, float]:
    """Return top-1 accuracies (0..1) of the model in `folder` over `n` pictures with all their variation.

    "pair" is right when, of all captions "a {colour} {shape}", the picture is nearest to its own; "pair, shape"
    and "pair, colour" judge one half of the same answer. "shape" and "colour" are questions of their own.
    """
    model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    scenes = random_scenes(n, seed)
    images = embed_pictures(model, processor, scenes, seed)
    codes = encode_scenes(scenes)
    shape, colour = codes[:, ATTRIBUTES.index("shape")], codes[:, ATTRIBUTES.index("colour")]
    pairs = [CANONICAL.format(shape=shape, colour=colour) for shape in SHAPES for colour in COLOURS]
    pair = (images @ embed_texts(model, processor, pairs).T).argmax(1)
    shape_texts = embed_texts(model, processor, [f"a photo of a {shape}" for shape in SHAPES])
    colour_texts = embed_texts(model, processor, [f"a photo of a {colour} shape" for colour in COLOURS])
    right = {
        "pair": pair == shape * len(COLOURS) + colour,
        "pair, shape": pair // len(COLOURS) == shape,
        "pair, colour": pair % len(COLOURS) == colour,
        "shape": (images @ shape_texts.T).argmax(1) == shape,
        "colour": (images @ colour_texts.T).argmax(1) == colour,
    }
    return {question: hits.float().mean().item() for question, hits in right.items()}


def embed_texts(model: CLIPModel, processor: CLIPProcessor, texts: Sequence[str]) -> Tensor:
    """Return unit vectors, float32 [texts, projection]."""
    inputs = processor(text=list(texts), padding=True, return_tensors="pt")
    pooled = model.text_model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).pooler_output
    return functional.normalize(model.text_projection(pooled), dim=1)


def embed_pictures(
    model: CLIPModel, processor: CLIPProcessor, scenes: Sequence[Scene], seed: int, batch: int = 250
) -> Tensor:
    """Draw the scenes and return unit vectors, float32 [scenes, projection]."""
    jobs, vectors = list(enumerate(scenes)), []
    for start in range(0, len(jobs), batch):
        pictures = [picture(job, seed) for job in jobs[start : start + batch]]
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
        vectors.append(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output))
    return functional.normalize(torch.cat(vectors), dim=1)


def report(scores: dict[str, float], pictures: int) -> str:
    """Return the accuracies as a few lines of text."""
    title = f"zero-shot top-1 on {pictures} held-out pictures, {len(SHAPES)} shapes x {len(COLOURS)} colours:"
    return "\n".join([title, *(f"  {question:13} {100 * share:5.1f} %" for question, share in scores.items())])
