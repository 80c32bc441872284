"""The course's training loop, word for word: the frozen encoder runs inside the epoch loop, on every image, every time.

It gives the head that ``clip-train --keep-last`` gives with the same options, but for rounding, only later: the
encoder's answers never change. Read it to understand what training a head is; use ``clip-train`` to do it.

    python examples/course_loop.py photos --encoder openai/clip-vit-base-patch32 --epochs 20
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from clip_export import (
    Encoder,
    EncoderReference,
    TrainedHead,
    VLMtoMLP,
    read_image_folder,
    save_head,
    split_dataset,
)
from clip_toolkit import decode


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train a head with the frozen encoder inside the epoch loop.")
    parser.add_argument("data", type=Path, help="folder with one subfolder of images per class")
    parser.add_argument("--encoder", required=True, help="hub id or local folder in transformers format")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("course.pt"))
    return parser.parse_args()


def main() -> None:
    """Train, tell the validation accuracy, and write the head."""
    args = parse_args()
    encoder = Encoder.from_pretrained(args.encoder)
    processor, vision_encoder = encoder.processor, encoder.tower  # frozen, in evaluation mode
    dataset = read_image_folder(args.data)
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in dataset.files]
    split = split_dataset(dataset, contents, seed=args.seed)
    labels = torch.from_numpy(dataset.targets)

    def pooled_output(indices: list[int]) -> torch.Tensor:
        images = [Image.fromarray(decode(dataset.files[index])) for index in indices]
        inputs = processor(images=images, return_tensors="pt")
        with torch.no_grad():
            return vision_encoder(**inputs).pooler_output

    torch.manual_seed(args.seed)
    mlp_head = VLMtoMLP(encoder.dim, 256, len(dataset.labels))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(mlp_head.parameters(), lr=args.lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=40, gamma=0.5)
    train = torch.tensor(split.train)
    for epoch in range(1, args.epochs + 1):
        mlp_head.train()
        for batch in torch.randperm(len(train)).split(args.batch_size):
            chosen = train[batch]
            logits = mlp_head(pooled_output(chosen.tolist()))
            loss = criterion(logits, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()
        print(f"epoch {epoch}: loss of the last batch {loss.item():.4f}", flush=True)

    mlp_head.eval()
    with torch.no_grad():
        batches = torch.tensor(split.validation).split(args.batch_size)
        right = sum(int((mlp_head(pooled_output(b.tolist())).argmax(1) == labels[b]).sum()) for b in batches)
    accuracy = right / len(split.validation)
    print(f"validation accuracy {accuracy:.1%}")
    reference = EncoderReference(args.encoder, encoder.revision)
    save_head(TrainedHead(mlp_head, reference, dataset.labels, {"validation accuracy": round(accuracy, 4)}), args.out)


if __name__ == "__main__":
    main()
