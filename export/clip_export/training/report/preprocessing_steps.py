"""What an encoder gets to see of an image, step by step with its numbers: the course's "investigate CLIPProcessor"."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import ExifTags, Image

from clip_export.encoders.image import Encoder
from clip_toolkit import decode, preprocess
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.images.preprocess import check_aspect, crop_offset, normalise, resized_shape

_CHANNELS = ("red", "green", "blue")


_HOW = {
    "crop": "shortest edge to {rule.resize}",
    "squash": "both sides, whatever the shape",
    "pad": "longest edge to {rule.size}",
    "naflex": "at most {rule.max_patches} patches of {rule.patch} pixels",
}


class Step(NamedTuple):
    """A step: its name, what it did in numbers, and the picture after it (uint8 RGB)."""

    name: str
    numbers: str
    pixels: NDArray[np.uint8]


def preprocessing_steps(encoder: Encoder, file: Path) -> tuple[list[Step], NDArray[np.float32]]:
    """Compute the steps up to the crop, and the normalised values float32 ``[3, size, size]``.

    Raises:
        ImageError: the file cannot be decoded, or is all length.
    """
    rule = encoder.preprocessing
    image = decode(file)
    height, width = image.shape[:2]
    check_aspect(height, width)
    with Image.open(file) as stored:
        orientation = stored.getexif().get(ExifTags.Base.Orientation, 1)
        kept = f"{stored.width}x{stored.height} {stored.format}, mode {stored.mode}"
    pixels = preprocess(image, rule)
    new_height, new_width = resized_shape(height, width, rule)
    how = _HOW[rule.mode].format(rule=rule)
    first = Step(
        "1. decode", f"{kept}; EXIF orientation {orientation}\nuint8 RGB {width}x{height}, {_range(image)}", image
    )
    resized = _resized(image, (new_width, new_height), rule.resample)
    second = Step("2. resize", f"{rule.resample}, {how}\n{new_width}x{new_height}, {_range(resized)}", resized)
    column, row = (crop_offset(side, rule.size, rule.crop_offset) for side in (new_width, new_height))
    cut = f"centre, from column {column} and row {row}" if rule.mode == "crop" else "nothing to cut"
    cut += f": borders of {rule.fill}" if rule.mode == "pad" else ""
    third = Step("3. crop", f"{cut}\n{pixels.shape[1]}x{pixels.shape[0]}, {_range(pixels)}", pixels)
    return [first, second, third], normalise(pixels[None], rule)[0]


def draw_steps(encoder: Encoder, file: Path, output: Path) -> None:
    """Write the steps as a PNG file.

    Raises:
        ImageError: as `preprocessing_steps`.
        OutputError: the file cannot be written.
    """
    steps, values = preprocessing_steps(encoder, file)
    rule = encoder.preprocessing
    figure = Figure(figsize=(15, 7.6), dpi=100, layout="constrained")
    figure.suptitle(f"What {Path(encoder.id).name} sees of {file.name}".replace("$", r"\$"))
    grid = figure.subplots(2, 3)
    for axes, step in zip(grid[0], steps, strict=True):
        axes.imshow(step.pixels)
        axes.set_title(f"{step.name}\n{step.numbers}", fontsize=9)
    if rule.mode == "crop":
        _outline(grid[0][1], steps[1].pixels, rule.size)
    limit = float(np.abs(values).max())
    _histogram(grid[1][0], steps[2].pixels.transpose(2, 0, 1) * rule.scale, f"4. rescale\ntimes {rule.scale:.6g}")
    formula = ", ".join(
        f"{name}: ({m:.3f}, {s:.3f})" for name, m, s in zip(_CHANNELS, rule.mean, rule.std, strict=True)
    )
    span = f"{values.min():.2f} to {values.max():.2f}"
    _histogram(grid[1][1], values, f"5. normalise: minus mean, over standard deviation\n{formula}")
    shown = grid[1][2].imshow(np.hstack(list(values)), cmap="coolwarm", vmin=-limit, vmax=limit)
    figure.colorbar(shown, ax=grid[1][2], fraction=0.03, shrink=0.6)
    shape = f"pixel_values float32 [1, 3, {values.shape[1]}, {values.shape[2]}]"
    grid[1][2].set_title(f"6. what goes in: {shape}\nred, green, blue; {span}", fontsize=9)
    grid[1][2].set_xticks([]), grid[1][2].set_yticks([])
    with written_atomically(output) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight")


def _outline(axes: Axes, pixels: NDArray[np.uint8], size: int) -> None:
    left, top = crop_offset(pixels.shape[1], size), crop_offset(pixels.shape[0], size)
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), size, size, fill=False, edgecolor="#d9731a", linewidth=2))


def _histogram(axes: Axes, channels: NDArray[np.floating], title: str) -> None:
    for name, values in zip(_CHANNELS, channels, strict=True):
        axes.hist(values.ravel(), bins=64, histtype="step", color=name, label=f"{name}: mean {values.mean():.2f}")
    axes.set_title(title, fontsize=9)
    axes.set_yticks([])
    axes.legend(fontsize=8)


def _resized(image: NDArray[np.uint8], size: tuple[int, int], resample: str) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling[resample.upper()]))


def _range(pixels: NDArray[np.uint8]) -> str:
    return f"{pixels.min()} to {pixels.max()}, mean {pixels.mean():.1f}"
