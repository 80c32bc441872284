"""The process in which `clip_toolkit.runtime.isolation` decodes: images on standard input, pixels on standard output.

A request is a line of JSON, ``{"path": ...}`` or ``{"bytes": n}`` and then ``n`` bytes. The answer is a line of JSON,
``{"shape": [height, width, 3]}`` and then the pixels, or ``{"error": class, "message": text}``.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_toolkit.errors import ImageError
from clip_toolkit.images.preparing import Preparation
from clip_toolkit.spec.json_codec import from_json

_MOST_MESSAGE = 1000  # characters


def main() -> None:
    """Answer requests until standard input ends."""
    warnings.simplefilter("ignore")
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    preparation, limits = json.loads(sys.argv[1])
    prepare = from_json(Preparation, preparation, "preparation")
    Image.MAX_IMAGE_PIXELS = prepare.options.max_pixels  # Pillow's own limit, in the place of which ours is
    _limit_memory(limits["memory"])
    while line := requests.readline():
        request = json.loads(line)
        _limit_time(limits["seconds"])
        _answer(answers, prepare, request["path"] if "path" in request else requests.read(request["bytes"]))


def _answer(answers: IO[bytes], prepare: Preparation, image: Any) -> None:
    first: dict[str, Any]
    pixels: NDArray[np.uint8] | None = None
    try:
        pixels = np.ascontiguousarray(prepare(image))
        first = {"shape": pixels.shape}
    except ImageError as error:
        first = {"error": type(error).__name__, "message": str(error)[:_MOST_MESSAGE]}
    answers.write(json.dumps(first).encode() + b"\n")
    if pixels is not None:
        answers.write(pixels.data)
    answers.flush()


def _limit_memory(mebibytes: int) -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])  # proc(5): total program size
    _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + mebibytes * 2**20)
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")  # this process goes first, not the model's


def _limit_time(seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + seconds + 1)


def _limit(kind: int, value: int) -> None:
    hardest = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hardest == resource.RLIM_INFINITY else min(value, hardest), hardest))


if __name__ == "__main__":
    main()
