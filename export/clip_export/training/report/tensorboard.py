"""Curves for TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from clip_export.extra import require
from clip_export.training.epochs import Epoch
from clip_toolkit.errors import OutputError

_FIGURES = ("loss", "train_score", "val_loss", "val_score")


@contextmanager
def scalars(folder: Path) -> Iterator[Callable[[Epoch], None]]:
    """Yield a function that writes the figures of an epoch below ``folder``, and raises OSError where it cannot.

    Each epoch is written at once: PyTorch's writer leaves that to a thread, which prints a traceback on a full disk.

    Raises:
        MissingDependencyError: the extra ``tensorboard`` is not installed.
        OutputError: the folder cannot be written to from the beginning.
    """
    require("tensorboard", "tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    with _opened(folder) as file:
        records = RecordWriter(file)

        def write(epoch: Epoch) -> None:
            values = [Summary.Value(tag=name, simple_value=getattr(epoch, name)) for name in _FIGURES]
            event = Event(wall_time=time.time(), step=epoch.number, summary=Summary(value=values))
            records.write(event.SerializeToString())

        yield write


def _opened(folder: Path) -> FileIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / f"events.out.tfevents.{time.time():017.6f}").open("wb", buffering=0)
    except OSError as error:
        raise OutputError(f"{folder}: curves cannot be written ({error.strerror}). Name another folder.") from error
