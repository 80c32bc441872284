"""What the fuzzer feeds mutants to, and the errors that each may raise."""

from __future__ import annotations

import json
import tempfile
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mutants
import numpy as np
from documents import database_mutant, json_bytes, json_mutant

from clip_search import SearchIndex
from clip_toolkit import ClipToolkitError, ImageError, ModelError, SpecError, decode, load
from clip_toolkit.errors import OutputError
from clip_toolkit.images import DecodeOptions
from clip_toolkit.spec.description import describe
from clip_toolkit.spec.model_file import parse_any_spec, read_spec
from clip_toolkit.stream.inputs import Input
from clip_toolkit.stream.journal import line
from clip_toolkit.stream.part_file import PartFile

_ROOT = Path(__file__).parents[2]
_LIMIT = 2**22  # pixels; headers that lie about the size are refused early, as --max-pixels does


def strict(data: bytes) -> None:
    """The decode rule."""
    _pixels(data, DecodeOptions(max_pixels=_LIMIT))


def lenient(data: bytes) -> None:
    """The decode rule with truncated files allowed and drafts."""
    _pixels(data, DecodeOptions(max_pixels=_LIMIT, allow_truncated=True, draft_side=8))


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


def document(data: bytes) -> None:
    """The JSON of a spec: what is read can be described and written again."""
    try:
        found = parse_any_spec(data.decode())
    except SpecError:
        return
    describe(found, Path(__file__))
    assert type(found).from_json(found.to_json()) == found


_INPUTS = [Input(f"{number}.png") for number in range(6)]
_SETTINGS = {"batch_size": 2, "model": "digest"}


def part(data: bytes) -> None:
    """The part file of an interrupted run."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        output.with_name("out.part").write_bytes(data)
        try:
            with PartFile(output, _SETTINGS, 2, resume=True) as found:
                left = list(found.remaining(_INPUTS))
                assert len(left) + found.done == len(_INPUTS)
        except OutputError:
            return


def _part_seeds() -> list[bytes]:
    records = [{"image": item.name, "label": "cat", "probability": 0.25, "error": None} for item in _INPUTS]
    return [b"".join(map(line, [_SETTINGS, *records[:count]])) for count in (0, 2, 4, 6)]


def _part_mutant(seeds: list[bytes], number: int) -> bytes:
    """Half of them with lines whose checksum is right again."""
    if number % 2:
        return mutants.mutant(seeds, number)
    lines = seeds[number // 2 % len(seeds)].splitlines(keepends=True)
    place = number // 8 % len(lines)
    text = json_bytes(json_mutant(json.loads(lines[place].partition(b" ")[2]), number))
    lines[place] = b"%08x %s\n" % (zlib.crc32(text), text)
    return b"".join(lines)


def index(data: bytes) -> None:
    """The database of a search index."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "index.sqlite").write_bytes(data)
        try:
            with SearchIndex.open(folder, timeout=0.1) as found:
                found.query_vector(np.ones(found.identity.dim, np.float32))
                list(found.failures())
                found.duplicates()
        except ClipToolkitError:
            return


def _index_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        photos, place = Path(folder, "photos"), Path(folder, "index")
        photos.mkdir()
        for number, data in enumerate(mutants.images()[:6]):
            (photos / f"{number}.img.png").write_bytes(data)
        (photos / "none.png").write_bytes(b"no image")
        with SearchIndex.open(place, load(device="cpu", threads=1), create=True) as found:
            found.update(photos)
        return [(place / "index.sqlite").read_bytes()]


def _spec_seeds() -> list[bytes]:
    return [read_spec(path).to_json().encode() for path in sorted((_ROOT / "models").glob("*.onnx"))]


def _document_mutant(seeds: list[bytes], number: int) -> bytes:
    return json_bytes(json_mutant(json.loads(seeds[number % len(seeds)]), number))


@dataclass(frozen=True)
class Target:
    """What is called, where its seeds come from, its share of the mutants, and how a mutant is made of the seeds."""

    call: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    share: float
    mutate: Callable[[list[bytes], int], bytes] = mutants.mutant


def _ends(seeds: list[bytes], number: int) -> bytes:
    """Between a model's nodes and its metadata lie megabytes of weights, of which no change matters."""
    return mutants.mutant(seeds, number, ends=40_000)


def _models() -> list[bytes]:
    return mutants.models(_ROOT / "models")


TARGETS = {
    "strict": Target(strict, mutants.images, 0.35),
    "lenient": Target(lenient, mutants.images, 0.15),
    "spec": Target(spec, _models, 0.1, _ends),
    "session": Target(session, _models, 0.04, _ends),
    "document": Target(document, _spec_seeds, 0.12, _document_mutant),
    "part": Target(part, _part_seeds, 0.1, _part_mutant),
    "index": Target(index, _index_seeds, 0.04, lambda seeds, number: database_mutant(seeds[0], number)),
}

EXPORT_SHARES = {"head": 0.06, "processor": 0.04}
"""Shares of the mutants of the targets in export_targets.py, which needs PyTorch."""
