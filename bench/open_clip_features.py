"""Compare pixels, features of images and features of texts with open_clip itself, for configurations of each kind.

    PYTHONPATH=export:toolkit python bench/open_clip_features.py [NAME ...] [--write]

needs the extra ``openclip``. The configurations are open_clip's own, of random weights whose norms and biases a wrong
mapping would not survive. The largest are cut to two blocks, and vocabularies to a tiny tokenizer's (but CLIP's).
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, default_bpe
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from sections import replaced_section

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder, text_features
from clip_export.samples.pictures import picture
from clip_toolkit.images.preprocess import normalise, preprocess
from clip_toolkit.spec.classifier import Preprocessing
from encoders import show_every_part

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "export"))
import tiny_tokenizers  # noqa: E402

CONFIGURATIONS = (
    "ViT-B-32-quickgelu",
    "ViT-B-32",
    "ViT-B-16",
    "ViT-L-14-336",
    "ViT-H-14",
    "ViT-g-14",
    "ViT-L-14-CLIPA",
    "ViT-H-14-CLIPA-336",
    "ViT-B-16-SigLIP",
    "ViT-B-32-SigLIP2-256",
    "MobileCLIP2-S0",
    "EVA02-B-16",
    "PE-Core-B-16",
)
"""Both activations, heads of 64, 80 and 88 channels, wide and narrow MLPs, three rules of pixels, four tokenizers."""

PACKAGES = ("open_clip_torch", "timm", "torch", "transformers")

CUT = ("ViT-H-14", "ViT-g-14", "ViT-H-14-CLIPA-336")
"""Of about a billion weights."""

TEXTS = ("a photo of a Red circle", "blue_square,  of the photo!", "", "the " * 200)
BOUND = 1e-4

INTRODUCTION = """`bench/open_clip_features.py` compares with open_clip itself, from image files and texts on: its own
configurations with random weights whose norms and biases show a wrong mapping; the vocabularies are cut to a tiny
tokenizer's (but CLIP's), and towers of about a billion weights to two blocks: whole, open_clip's model and ours side by
side take more than 8 GB. Largest difference of normalised pixel values, and of features as a share of the largest one;
the script stops at 1e-4."""


def settings_of(name: str) -> dict[str, Any]:
    """Return a configuration with a vocabulary that the tiny tokenizers have; of the largest, two blocks."""
    settings = open_clip.get_model_config(name)
    if name in CUT:
        settings["vision_cfg"]["layers"] = settings["text_cfg"]["layers"] = 2
    tokens = {"SigLIP2": tiny_tokenizers.SIGLIP2_TOKENS, "SigLIP": tiny_tokenizers.SIGLIP_TOKENS}
    tokens["CLIPA"] = tiny_tokenizers.BLIP_TOKENS
    found = next((sizes for part, sizes in tokens.items() if part in name), None)
    if found is not None:
        settings["text_cfg"]["vocab_size"] = found["vocab_size"]
    return settings


def model_of(settings: dict[str, Any]) -> torch.nn.Module:
    """Build open_clip's model, with weights that show every part of it."""
    torch.manual_seed(0)
    given = {name: value for name, value in settings.items() if name != "custom_text"}
    model = (CustomTextCLIP if settings.get("custom_text") else CLIP)(**given)
    show_every_part(model)
    return model.eval().requires_grad_(False)


def rule_of(name: str) -> dict[str, Any]:
    """Return what a configuration's newest weights say of pixels."""
    known = open_clip.get_pretrained_cfg(name, open_clip.list_pretrained_tags_by_model(name)[-1])
    return {key: known[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in known}


def save_model(name: str, model: torch.nn.Module, folder: Path) -> None:
    """Write a configuration's model as it is published."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_cfg": settings_of(name), "preprocess_cfg": rule_of(name)}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")


def save_tokenizer(name: str, settings: dict[str, Any], folder: Path) -> Any:
    """Write the tokenizer's files, and return open_clip's own around them."""
    text = settings["text_cfg"]
    if "hf_tokenizer_name" not in text:
        save_clip_tokenizer(folder)
        return SimpleTokenizer(context_length=text["context_length"])
    save = tiny_tokenizers.save_siglip2 if "SigLIP2" in name else tiny_tokenizers.save_blip
    if "SigLIP" in name and "SigLIP2" not in name:
        save_t5(folder)
    else:
        save(folder)
    return HFTokenizer(str(folder), context_length=text["context_length"], **text.get("tokenizer_kwargs", {}))


def save_clip_tokenizer(folder: Path) -> None:
    """Write CLIP's whole vocabulary, which open_clip brings along, in the files of transformers."""
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n", encoding="utf-8")
    renamed = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {renamed.get(token, token): index for token, index in SimpleTokenizer().encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    marks = {"bos_token": "<|startoftext|>", **dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")}
    content = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **marks}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))


def save_t5(folder: Path) -> None:
    """Write the tiny SigLIP vocabulary as timm publishes it: a fast tokenizer of T5's kind."""
    from transformers import T5TokenizerFast

    tiny_tokenizers.save_siglip(folder)
    vocabulary = str((folder / "spiece.model").rename(folder / "vocabulary.model"))
    fast = T5TokenizerFast(vocabulary, extra_ids=0, pad_token="</s>", eos_token="</s>", model_max_length=64)  # noqa: S106
    fast.save_pretrained(folder)


def differences(name: str, folder: Path) -> tuple[float, float, float]:
    """Return the largest differences of pixels, and of both features as shares of their scale."""
    settings, rule = settings_of(name), rule_of(name)
    model = model_of(settings)
    save_model(name, model, folder)
    tokenizer = save_tokenizer(name, settings, folder)
    transform = image_transform_v2(PreprocessCfg(size=settings["vision_cfg"]["image_size"], **rule), is_train=False)
    images = [picture(*shape, seed) for seed, shape in enumerate(((335, 501), (640, 427), (224, 225)))]
    feature = "pooled" if "timm_model_name" in settings["vision_cfg"] else "projected"
    encoder, text = Encoder.from_pretrained(str(folder), feature=feature), TextEncoder.from_pretrained(str(folder))
    theirs = torch.stack([transform(narrowed(image, encoder.preprocessing)) for image in images])
    ours = normalise(np.stack([preprocess(image, encoder.preprocessing) for image in images]), encoder.preprocessing)
    with torch.inference_mode():
        return (
            float(np.abs(ours - theirs.numpy()).max()),
            relative(encoder.features(torch.from_numpy(ours)), model.encode_image(theirs)),
            relative(text_features(text, TEXTS), model.encode_text(tokenizer(list(TEXTS)))),
        )


def narrowed(image: Image.Image, rule: Preprocessing) -> Image.Image:
    """Take the horizontal pass of a squash first, as Pillow did before 13 and `clip_toolkit.images.preprocess` does."""
    if rule.mode != "squash":
        return image
    return image.resize((rule.size, image.height), Image.Resampling[rule.resample.upper()])


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the largest difference as a share of the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def rows() -> Iterator[tuple[str, ...]]:
    """Yield a row of the table for each configuration; stop at one beyond the bound."""
    for name in [name for name in sys.argv[1:] if name != "--write"] or CONFIGURATIONS:
        with tempfile.TemporaryDirectory() as folder:
            found = differences(name, Path(folder))
        yield name, "2 each" if name in CUT else "all", *(f"{value:.1e}" for value in found)
        if max(found) > BOUND:
            raise SystemExit(f"{name}: differs by {max(found):.1e}, more than {BOUND:g}")


def main() -> None:
    """Print the table, and rewrite its section of the documentation."""
    lines = [
        INTRODUCTION,
        "",
        "| configuration | blocks | pixel values | image feature | text feature |",
        "| --- | --- | --- | --- | --- |",
    ]
    print(*lines, sep="\n")
    for row in rows():
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
    lines += ["", ", ".join(f"{name} {version(name)}" for name in PACKAGES) + "."]
    if "--write" in sys.argv:
        path = ROOT / "docs" / "encoders.md"
        path.write_text(replaced_section(path.read_text(), "Measured against open_clip", lines))


if __name__ == "__main__":
    main()
