"""What the fuzzer feeds mutants to, and the errors that each may raise."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mutants

from clip_toolkit import ImageError, ModelError, decode, load
from clip_toolkit.images import DecodeOptions
from clip_toolkit.spec.model_file import read_spec

_ROOT = Path(__file__).parents[2]
_LIMIT = 2**22  # pixels; headers that lie about the size are refused early, as --max-pixels does


def strict(data: bytes) -> None:
    """The decode rule."""
    _pixels(data, DecodeOptions(max_pixels=_LIMIT))


def lenient(data: bytes) -> None:
    """The decode rule with truncated files allowed and drafts."""
    _pixels(data, DecodeOptions(max_pixels=_LIMIT, allow_truncated=True, draft_side=4))


def _pixels(data: bytes, options: DecodeOptions) -> None:
    warnings.simplefilter("ignore")
    try:
        pixels = decode(data, options)
    except ImageError:
        return
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


def spec(data: bytes) -> None:
    """What is read of a model file before ONNX Runtime opens it."""
    _model(data, read_spec)


def session(data: bytes) -> None:
    """Opening a model file."""
    _model(data, lambda path: load(path, device="cpu", threads=1))


def _model(data: bytes, reader: Callable[[Path], object]) -> None:
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(data)
        file.flush()
        try:
            reader(Path(file.name))
        except ModelError:
            return


@dataclass(frozen=True)
class Target:
    """What is called, where its seeds come from, its share of the mutants, and which ends of a seed are changed."""

    call: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    share: float
    ends: int | None = None


# Between a model's nodes and its metadata lie megabytes of weights, of which no change matters.
_ENDS = 40_000

TARGETS = {
    "strict": Target(strict, mutants.images, 0.55),
    "lenient": Target(lenient, mutants.images, 0.25),
    "spec": Target(spec, lambda: mutants.models(_ROOT / "models"), 0.15, _ENDS),
    "session": Target(session, lambda: mutants.models(_ROOT / "models"), 0.05, _ENDS),
}
