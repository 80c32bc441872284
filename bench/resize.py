"""The graph's resize against Pillow's, on one image at a time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from transformers import CLIPImageProcessor

from clip_export.encoders.processors import preprocessing_of
from clip_export.graph.preprocessing import GraphPreprocessor, preprocess_graph
from clip_toolkit.images.preprocess import preprocess

SHAPES = ((480, 640), (1080, 1920), (3000, 4000))
_ROUNDS = 25
_REST = 0.02  # seconds until idle threads of the last contender have stopped spinning


def measure_resize(threads: int) -> list[tuple[str, float, float, float]]:
    """For each shape: its name, and the seconds of Pillow, the graph with one thread and with all of them; medians."""
    rule = preprocessing_of(CLIPImageProcessor())
    one, many = (GraphPreprocessor(preprocess_graph(rule), count) for count in (1, threads))
    rows = []
    for height, width in SHAPES:
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        ways = (lambda image: preprocess(image, rule), one, many)
        times = [[_seconds(way, image) for way in ways] for _ in range(_ROUNDS)]
        pillow, single, several = (statistics.median(column) for column in zip(*times, strict=True))
        rows.append((f"{width}x{height}", pillow, single, several))
    return rows


def _seconds(way: Callable[[NDArray[np.uint8]], object], image: NDArray[np.uint8]) -> float:
    time.sleep(_REST)
    start = time.perf_counter()
    way(image)
    return time.perf_counter() - start
