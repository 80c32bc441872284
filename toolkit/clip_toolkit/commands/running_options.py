"""The options that several commands share: which model runs, where, and on which images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from clip_toolkit.files.locate import ENVIRONMENT_VARIABLE
from clip_toolkit.numbers import whole
from clip_toolkit.options import Option
from clip_toolkit.runtime.devices import RESIZES
from clip_toolkit.runtime.isolation_limits import Limits
from clip_toolkit.runtime.plugins import ALL_DEVICES

MOST = 1024
"""Threads, images a run, labels an image: beyond it lies a typing error, not a machine."""

MODEL_HELP = f"Without --model: ${ENVIRONMENT_VARIABLE}, then model.onnx in this folder, then the built-in demo."

AllFiles = Annotated[bool, Option("take the files of folders whatever their suffix, not images alone")]

QuoteFormulas = Annotated[
    bool, Option("in CSV, put ' before text that a spreadsheet would compute (=, +, -, @, tab or return)")
]

Verify = Annotated[
    Path | None,
    Option(
        "first check that the owner of this public key has signed the model file, in MODEL.sig (extra sign)",
        parse=Path,
        metavar="KEY",
    ),
]

MaxMemory = Annotated[
    int | None,
    Option(
        "memory that the network may take on the CPU, for model files from strangers (default: no limit)",
        parse=whole(16, 2**20),
        metavar="MIB",
    ),
]


@dataclass(frozen=True)
class ModelOptions:
    """Which model runs."""

    model: Annotated[str | None, Option("model file")] = None


@dataclass(frozen=True)
class DeviceOptions:
    """Where models run."""

    device: Annotated[str, Option("where to run", choices=ALL_DEVICES)] = "auto"
    threads: Annotated[
        int | None, Option("CPU threads (default: all usable cores)", parse=whole(most=MOST), metavar="N")
    ] = None


@dataclass(frozen=True)
class RunningOptions(DeviceOptions, ModelOptions):
    """Which model runs, and where."""


@dataclass(frozen=True)
class ClassifyingOptions(RunningOptions):
    """How images run through the model."""

    batch_size: Annotated[int, Option("images per run", parse=whole(most=MOST), metavar="N")] = 8
    resize: Annotated[str, Option("who resizes the images: Pillow, exactly, or the model's graph", choices=RESIZES)] = (
        "pillow"
    )
    max_memory: MaxMemory = None


@dataclass(frozen=True)
class DecodingOptions:
    """What is accepted as an image."""

    max_pixels: Annotated[
        int | None,
        Option("refuse images with more pixels (default: 134217728)", parse=whole(most=2**40), metavar="N"),
    ] = None
    allow_truncated: Annotated[bool, Option("use what there is of truncated files")] = False
    fast_decode: Annotated[
        bool | None,
        Option(
            "scale JPEGs down while decoding (default: only for files that passed clip-export --fast-decode)",
            const=True,
        ),
        Option("decode JPEGs exactly", "--no-fast-decode", const=False),
    ] = None


@dataclass(frozen=True)
class IsolationOptions:
    """How images from strangers are kept from doing harm."""

    isolate: Annotated[bool, Option("decode in worker processes, within limits; a killed one costs its image alone")]
    memory: Annotated[
        int, Option("memory that decoding may take", "--isolate-memory", parse=whole(16, 2**20), metavar="MIB")
    ] = Limits.memory
    seconds: Annotated[
        int, Option("processor time that it may take", "--isolate-seconds", parse=whole(most=2**16), metavar="N")
    ] = Limits.seconds

    @property
    def limits(self) -> Limits:
        """The limits of a worker process."""
        return Limits(self.memory, self.seconds)
