"""The options of ``clip-app``, and of `clip_app.create_app`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from clip_toolkit.commands.running_options import MOST, DeviceOptions
from clip_toolkit.numbers import whole
from clip_toolkit.options import Group, Option


@dataclass(frozen=True)
class RetrainingOptions:
    """What a retraining starts from."""

    head: Annotated[Path, Option("head file of clip-train that MODEL was exported from: offers to retrain", parse=Path)]
    data: Annotated[
        Path | None,
        Option("its training data (default: where the head file says they are)", parse=Path, metavar="DATA"),
    ] = None


@dataclass(frozen=True)
class SearchingOptions:
    """What is searched."""

    index: Annotated[Path, Option("index of clip-search: offers to search it", parse=Path, metavar="DIR")]
    text_model: Annotated[
        Path | None, Option("file of clip-export --text-tower, to search by words", parse=Path, metavar="FILE")
    ] = None


@dataclass(frozen=True)
class AppOptions:
    """All options of the app; the defaults are those of ``clip-app``."""

    model: Annotated[str | None, Option("model file of clip-export", "MODEL", nargs="?")] = None
    corrections: Annotated[
        Path, Option("folder for corrected images and their manifest.csv", parse=Path, metavar="DIR")
    ] = Path("corrections")
    top_k: Annotated[int, Option("labels shown of each image", parse=whole(most=MOST), metavar="N")] = 5
    max_file: Annotated[int, Option("size of an uploaded file", parse=whole(most=4096), metavar="MIB")] = 64
    port: Annotated[int, Option("port on this machine; 0 picks a free one", parse=whole(0, 65535), metavar="N")] = 7860
    device: Annotated[DeviceOptions, Group("running")] = DeviceOptions()
    retraining: Annotated[RetrainingOptions | None, Group("retraining (needs the extra export)")] = None
    searching: Annotated[SearchingOptions | None, Group("searching")] = None
