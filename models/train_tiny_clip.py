"""Train tiny-clip from nothing on pictures that draw.py makes, and measure it on held-out pictures.

Usage: `python models/train_tiny_clip.py --out models/tiny-clip`, or `--evaluate models/tiny-clip`.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tiny_data import SIDE, VALUES, Batch, ShapeData, make_data
from tiny_eval import evaluate, report
from tiny_tokenizer import CONTEXT, learn_tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizerFast
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

WIDTH, PROJECTION, PATCH = 128, 64, 16
LARGEST_SCALE = 100.0  # of the logits, as in CLIP


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    seed: int = 0
    pictures: int = 40_000  # drawn once, then used many times over
    steps: int = 4_000
    batch: int = 192
    rate: float = 3e-3  # highest learning rate
    warm_up: int = 100  # steps until the highest learning rate
    help: float = 2.0  # first weight of the attribute heads' loss
    helped: float = 0.6  # part of the steps over which that weight falls to nothing
    clip: float = 5.0  # longest gradient
    threads: int = 2  # also the number of drawing processes


def build_model(tokenizer: CLIPTokenizerFast) -> CLIPModel:
    """Return an untrained CLIP whose patch positions start as waves over the grid, so that neighbours look alike."""
    common = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": 4,
        "projection_dim": PROJECTION,
        "attn_implementation": "eager",  # for so few tokens plain products train faster than fused attention
    }
    marks = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = {**common, **marks, "num_hidden_layers": 2, "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT}
    vision = {**common, "num_hidden_layers": 4, "image_size": SIDE, "patch_size": PATCH}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=PROJECTION)
    model = CLIPModel(config)
    with torch.no_grad():
        model.vision_model.embeddings.position_embedding.weight[1:] = grid_waves(SIDE // PATCH, WIDTH)
    return model


def grid_waves(n: int, width: int) -> Tensor:
    """Return float32 [n * n, width]: sines and cosines of the column and the row of each patch."""
    frequency = math.pi / 2 * 100 ** (-torch.arange(width // 4) / (width // 4))
    row, column = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    phases = [place.flatten()[:, None] * frequency for place in (column, row)]
    return 0.3 * torch.cat([wave(phase) for phase in phases for wave in (torch.sin, torch.cos)], 1)


def to_pixels(pictures: Tensor) -> Tensor:
    """Normalise uint8 [n, 3, SIDE, SIDE] to float32, as the processor does."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return (pictures / 255 - mean) / std


def contrastive_loss(logits: Tensor, matches: Tensor) -> Tensor:
    """Return the mean cross-entropy of pictures to captions and back.

    `logits` is float32 [n, n], pictures by captions; `matches` (bool [n, n]) marks the true captions. A picture
    may have several, which share its target evenly: punishing a true caption would teach a falsehood.
    """
    targets = matches.float()
    to_captions = functional.cross_entropy(logits, targets / targets.sum(1, keepdim=True))
    to_pictures = functional.cross_entropy(logits.T, (targets / targets.sum(0)).T)
    return (to_captions + to_pictures) / 2


class AttributeHeads(nn.Module):
    """Linear classifiers that name each attribute of the scene: they help the vision tower to get going."""

    def __init__(self) -> None:
        """Make one classifier for each attribute, kept as one matrix."""
        super().__init__()
        self.sizes = [len(values) for values in VALUES]
        self.linear = nn.Linear(WIDTH, sum(self.sizes))

    def forward(self, features: Tensor, codes: Tensor) -> Tensor:
        """Return the mean cross-entropy; `features` is [n, WIDTH], `codes` int64 [n, attributes]."""
        parts = self.linear(features).float().split(self.sizes, 1)
        pairs = zip(parts, codes.T, strict=True)
        return torch.stack([functional.cross_entropy(part, code) for part, code in pairs]).mean()


def losses(model: CLIPModel, heads: AttributeHeads, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the contrastive loss and that of the attribute heads; the towers compute in bfloat16."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = model.vision_model(to_pixels(batch.pictures)).pooler_output
        images = model.visual_projection(features)
        texts = model.text_projection(model.text_model(batch.tokens).pooler_output)
        attributes = heads(features, batch.codes)
    images, texts = (functional.normalize(vectors.float(), dim=1) for vectors in (images, texts))
    return contrastive_loss(model.logit_scale.exp() * images @ texts.T, batch.matches()), attributes


def make_optimizers(model: CLIPModel, heads: AttributeHeads) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices inside the blocks and AdamW for everything else."""
    inner = {name: p.ndim == 2 and ".layers." in name for name, p in model.named_parameters()}
    matrices = [p for name, p in model.named_parameters() if inner[name]]
    others = [p for name, p in model.named_parameters() if not inner[name]]
    return [
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([*others, *heads.parameters()], weight_decay=0.01, betas=(0.9, 0.98)),
    ]


def learning_rate(step: int, recipe: Recipe) -> float:
    """Rise linearly, then fall along a cosine to one hundredth of the highest rate."""
    fall = 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * step / recipe.steps))
    return recipe.rate * min(1.0, (step + 1) / recipe.warm_up) * fall


def train(model: CLIPModel, data: ShapeData, recipe: Recipe) -> None:
    """Train in place: contrastively all along, at first with the attribute heads' help, at last without."""
    heads = AttributeHeads()
    optimizers = make_optimizers(model, heads)
    parameters = [*model.parameters(), *heads.parameters()]
    for step in range(recipe.steps):
        contrast, attributes = losses(model, heads, data.sample(recipe.batch))
        helping = recipe.help * max(0.0, 1 - step / (recipe.helped * recipe.steps))
        (contrast + helping * attributes).backward()
        nn.utils.clip_grad_norm_(parameters, recipe.clip)
        update(optimizers, learning_rate(step, recipe))
        model.logit_scale.data.clamp_(max=math.log(LARGEST_SCALE))
        if step % 250 == 0:
            print(f"step {step}: contrastive loss {contrast:.3f}, attribute loss {attributes:.3f}", flush=True)


def update(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Take a step with every optimizer and forget the gradients."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()


def save(model: CLIPModel, tokenizer: CLIPTokenizerFast, folder: Path) -> None:
    """Write the model and its processor in the format of transformers."""
    images = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    model.save_pretrained(folder)
    CLIPProcessor(images, tokenizer).save_pretrained(folder)


def build(folder: Path, recipe: Recipe) -> None:
    """Draw, train and save; print the seconds of each stage."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    start = time.perf_counter()
    tokenizer = learn_tokenizer(folder, recipe.seed)
    data = make_data(recipe.pictures, recipe.seed, tokenizer, recipe.threads)
    print(f"{recipe.pictures} pictures drawn in {time.perf_counter() - start:.0f} s")
    model = build_model(tokenizer)
    start = time.perf_counter()
    train(model, data, recipe)
    print(f"{recipe.steps} steps trained in {time.perf_counter() - start:.0f} s")
    save(model, tokenizer, folder)
    for name, part in (("vision tower", model.vision_model), ("text tower", model.text_model), ("all", model)):
        print(f"{name}: {sum(p.numel() for p in part.parameters())} parameters")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train a tiny CLIP on drawn pictures, or evaluate a saved one.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--out", type=Path, help="folder to write the trained model to")
    action.add_argument("--evaluate", type=Path, metavar="DIR", help="only evaluate the model in this folder")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help=f"training steps (default: {Recipe.steps})")
    parser.add_argument("--pictures", type=int, default=Recipe.pictures, help="training pictures to draw")
    parser.add_argument("--held-out", type=int, default=4000, metavar="N", help="pictures to evaluate on")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    args = parser.parse_args(argv)
    if min(args.steps, args.pictures, args.held_out) < 1 or args.seed < 0:
        parser.error("--steps, --pictures and --held-out must be at least 1, --seed at least 0")
    return args


def run(args: argparse.Namespace) -> None:
    """Train if asked to, then evaluate."""
    start = time.perf_counter()
    if args.out:
        build(args.out, Recipe(seed=args.seed, pictures=args.pictures, steps=args.steps))
    elif not args.evaluate.is_dir():
        raise ValueError(f"no such folder: {args.evaluate}")
    print(report(evaluate(args.out or args.evaluate, args.held_out), args.held_out))
    print(f"{time.perf_counter() - start:.0f} s in all")


def main() -> int:
    """Run the program; report bad input as one line."""
    try:
        run(parse_args())
    except (OSError, ValueError) as error:
        print(f"train_tiny_clip.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
