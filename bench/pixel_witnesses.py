"""Compare our pixels with those of every other implementation of the same rules.

    PYTHONPATH=export:toolkit python bench/pixel_witnesses.py [--write]

needs transformers 4, torchvision, open_clip and hf-processors-rs.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hf_processors_rs
import numpy as np
import transformers
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from sections import replaced_section

from clip_export.encoders.open_clip_processor import OpenClipProcessor
from clip_export.encoders.processors import preprocessing_of
from clip_export.samples.pictures import picture
from clip_toolkit.images.preprocess import normalise, preprocess
from clip_toolkit.spec.classifier import Preprocessing

ROOT = Path(__file__).parents[1]
SHAPES = ((640, 427), (480, 640), (500, 500), (224, 224), (300, 304), (448, 462), (551, 448), (97, 131), (400, 8000))
SQUARE = {"size": {"height": 224, "width": 224}}
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "CLIP": ("CLIPImageProcessor", {}),
    "CLIP, 256 cut to 224": ("CLIPImageProcessor", {"size": {"shortest_edge": 256}}),
    "SigLIP": ("SiglipImageProcessor", SQUARE),
    "SigLIP 2": ("SiglipImageProcessor", SQUARE | {"resample": 2}),
    "BLIP": ("BlipImageProcessor", {}),
}

Witness = Callable[[Image.Image], NDArray[np.float32]]


def of_transformers(processor: Any) -> Witness:
    """Return a processor of transformers, of either backend, as a function of one image."""
    return lambda image: np.asarray(processor(images=image, return_tensors="pt")["pixel_values"])


def of_rust(folder: str, backend: str) -> Witness:
    """Return the same in Rust."""
    processor = hf_processors_rs.AutoImageProcessor.from_pretrained(folder, backend=backend)
    return lambda image: np.asarray(processor([image]))


def of_open_clip(settings: dict[str, Any]) -> Witness:
    """Return open_clip's transform, which is torchvision's."""
    transform = image_transform_v2(PreprocessCfg(size=224, **settings), is_train=False)
    return lambda image: transform(image).numpy()[None]


def witnesses() -> Iterator[tuple[str, str, Preprocessing, Witness]]:
    """Yield the name of a rule, that of a witness, the rule and the witness."""
    for name, (kind, options) in RULES.items():
        slow = getattr(transformers, kind)(**options)
        rule = preprocessing_of(slow)
        yield name, "transformers, Pillow", rule, of_transformers(slow)
        yield name, "transformers, torchvision", rule, of_transformers(getattr(transformers, f"{kind}Fast")(**options))
        with tempfile.TemporaryDirectory() as folder:
            slow.save_pretrained(folder)
            for backend, shown in (("pil", "Pillow"), ("torchvision", "torchvision")):
                yield name, f"hf-processors-rs, {shown}", rule, of_rust(folder, backend)
    for mode in ("shortest", "longest", "squash"):
        settings = {"resize_mode": mode, "fill_color": 9}
        content = {"model_cfg": {"vision_cfg": {"image_size": 224}}, "preprocess_cfg": settings}
        yield (
            f"OpenCLIP, {mode}",
            "open_clip, torchvision on Pillow",
            OpenClipProcessor.of(content).rule,
            of_open_clip(settings),
        )


def row(name: str, witness: str, rule: Preprocessing, theirs: Witness) -> tuple[str, ...]:
    """Measure in steps of 256: the largest difference over all shapes, and the share of values that differ."""
    steps = []
    for seed, shape in enumerate(SHAPES):
        image = picture(*shape, seed)
        difference = theirs(image) - normalise(preprocess(image, rule)[None], rule)
        scale = np.array(rule.std).reshape(1, 3, 1, 1) / rule.scale
        steps.append(np.rint(np.abs(difference * scale)).ravel())
    found = np.concatenate(steps)
    return name, witness, f"{found.max():.0f}", f"{100 * (found > 0).mean():.2g} %"


def main() -> None:
    """Print the table, and rewrite its section of the documentation."""
    lines = [
        f"`bench/pixel_witnesses.py`: largest difference in steps of 1/255 over {len(SHAPES)} shapes, and share of the",
        "values that differ. hf-processors-rs is an implementation in Rust that shares no code with Pillow.",
        "",
        "| rule | witness | steps | values |",
        "| --- | --- | --- | --- |",
    ]
    print(*lines, sep="\n")
    for found in witnesses():
        lines.append(f"| {' | '.join(row(*found))} |")
        print(lines[-1], flush=True)
    if "--write" in sys.argv:
        path = ROOT / "docs" / "encoders.md"
        path.write_text(replaced_section(path.read_text(), "Pixels against other implementations", lines))


if __name__ == "__main__":
    main()
