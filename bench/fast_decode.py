"""JPEGs scaled down while they are decoded, against exact ones: `bench/fast_decode.py MODEL --images FOLDER ...`.

Prints images a second from 12-megapixel files on, both ways in turns; where the time of one image goes; and what
changes on the images of each folder, of which those of other formats are made JPEGs.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from throughput import BATCH, pictures, rate

from clip_toolkit import Classifier, load, open_image
from clip_toolkit.images.folder import ImageListing

ROUNDS = 5
WAYS = {"exact": False, "fast": True}


def rates(model: Path, files: Sequence[Path]) -> Iterator[str]:
    """Yield images a second of both ways, which take turns."""
    ways = {name: load(model, device="cpu", fast_decode=fast) for name, fast in WAYS.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, classifier in ways.items():
            taken[name].append(rate(lambda paths, it=classifier: list(it.predict_many(paths, BATCH)), list(files)))
    for name, values in taken.items():
        yield f"{name}: {statistics.median(values):.1f} images/s, {_parts(ways[name], files[0])}"
    ratio = statistics.median(b / a for a, b in zip(*taken.values(), strict=True))
    yield f"fast / exact: {ratio:.2f} (median of {ROUNDS} rounds)"


def _parts(classifier: Classifier, file: Path) -> str:
    decoded = open_image(file, classifier.options)
    pixels = classifier.pixels(file)
    times = {
        "decode": _seconds(lambda: open_image(file, classifier.options)),
        "resize": _seconds(lambda: classifier.pixels(decoded)),
        "network": _seconds(lambda: classifier.run(pixels[None])),
    }
    return ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in times.items())


def _seconds(run: Callable[[], object]) -> float:
    times = []
    for _ in range(9):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def changes(model: Path, folder: Path) -> str:
    """Tell what fast decoding changes on a folder's images, of those that it scales down."""
    exact, fast = (load(model, device="cpu", fast_decode=is_fast) for is_fast in WAYS.values())
    before, after, steps = [], [], []
    for path in map(Path, ImageListing().images(folder)):
        data = _jpeg(path)
        first, second = exact.pixels(data), fast.pixels(data)
        if np.array_equal(first, second):
            continue
        steps.append(np.abs(first.astype(int) - second))
        before += exact.predict_pixels([first], [None])
        after += exact.predict_pixels([second], [None])
    if not steps:
        return f"{folder.name}: none is scaled down"
    same = sum(a.decisions == b.decisions for a, b in zip(before, after, strict=True))
    shift = max(float(np.abs(a.probabilities - b.probabilities).max()) for a, b in zip(before, after, strict=True))
    cosine = min(float(a.embedding @ b.embedding) for a, b in zip(before, after, strict=True))
    return (
        f"{folder.name}: {same} of {len(steps)} decisions equal, probabilities moved by {shift:.4f} at most, cosine of "
        f"the embeddings at least {cosine:.5f}; pixels {np.mean([s.mean() for s in steps]):.2f} steps on average, "
        f"{max(s.max() for s in steps)} at most"
    )


def _jpeg(path: Path) -> bytes:
    with Image.open(path) as picture:
        if picture.format == "JPEG":
            return path.read_bytes()
        file = io.BytesIO()
        picture.convert("RGB").save(file, "JPEG", quality=95)
    return file.getvalue()


def main() -> None:
    """Run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL")
    parser.add_argument("--images", type=Path, nargs="*", default=[], metavar="FOLDER")
    parser.add_argument("--count", type=int, default=32, help="12-megapixel images a round (default: 32)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = pictures(Path(folder), 4000, 3000, args.count)
        for model in args.models:
            print(model.name, *rates(model, files), *(changes(model, each) for each in args.images), sep="\n  ")


if __name__ == "__main__":
    main()
