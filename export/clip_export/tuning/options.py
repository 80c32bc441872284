"""What a search is asked for. Without torch, so that ``--help`` need not wait for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from clip_export.training.options import BatchSize, Seed
from clip_toolkit.numbers import NOT_NEGATIVE, POSITIVE, number, whole
from clip_toolkit.options import Option
from clip_toolkit.spec.tasks import MULTI_LABEL, SINGLE_LABEL

_PART = number("above 0 and below 0.8", lambda value: 0 < value < 0.8)


def with_unit(units: Mapping[str, float]) -> Callable[[str], float]:
    """Return a parser of a number above 0 with one of the units, whose factors ``units`` gives."""

    def parse(text: str) -> float:
        unit = next((name for name in sorted(units, key=len, reverse=True) if text.endswith(name)), None)
        if unit is None:
            raise ValueError(f"expected a number with its unit ({', '.join(units)}), got {text!r}")
        return POSITIVE(text.removesuffix(unit).strip()) * units[unit]

    return parse


@dataclass(frozen=True)
class Limits:
    """What the chosen file has to keep to. Without any, the knee of accuracy against time is chosen."""

    max_latency: Annotated[
        float | None,
        Option(
            "the most accurate of the files that take no longer for one image, such as 5ms",
            parse=with_unit({"ms": 1e-3, "s": 1.0}),
            metavar="TIME",
        ),
    ] = None
    max_size: Annotated[
        float | None,
        Option(
            "the most accurate of the files that are no larger, such as 20MB",
            parse=with_unit({"KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}),
            metavar="SIZE",
        ),
    ] = None
    max_drop: Annotated[
        float | None,
        Option("the fastest of the files that are at most so many points below the best", parse=NOT_NEGATIVE),
    ] = None
    no_worse: Annotated[
        bool, Option("the fastest of the files that are as accurate as the whole first encoder in float32, or more")
    ] = False


@dataclass(frozen=True)
class TuningData:
    """Which images are learnt from, which are held out, and at which sizes encoders see them."""

    task: Annotated[str, Option("what DATA names of each image", choices=(SINGLE_LABEL, MULTI_LABEL))] = SINGLE_LABEL
    groups: Annotated[
        str | None,
        Option("what must stay together in every split, as in clip-train", metavar="RULE"),
    ] = None
    test_fraction: Annotated[float, Option("share of images held out for the final confirmation", parse=_PART)] = 0.2
    seed: Seed = 0
    batch_size: BatchSize = 32
    input_sizes: Annotated[
        tuple[int, ...],
        Option(
            "also try every encoder at these input sizes, pixels of a side, such as 160 and 192 of 224",
            "--input-size",
            parse=whole(),
            nargs="+",
            metavar="N",
        ),
    ] = ()
    all_files: Annotated[bool, Option("of a folder, take files of any suffix")] = False
