"""Processes on this machine: no package beyond the runtime's."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import takewhile
from multiprocessing.connection import wait

from clip_scale.errors import WorkerError
from clip_scale.part_worker import Done, PartWorker, Task
from clip_toolkit.runtime.processor import usable_cores
from clip_toolkit.stream.pipeline import in_order


@dataclass(frozen=True)
class LocalEngine:
    """A pool of processes; one worker is this process itself.

    Attributes:
        workers: number of processes; default one for each core. Unless the classifier has a number of threads, they
            share the cores.
    """

    workers: int | None = None

    def __call__(
        self, worker: PartWorker, tasks: Iterable[Task], stopped: Callable[[], bool] = lambda: False
    ) -> Generator[Done]:
        """Classify parts, lazily and in order; those under way are finished when the run is ``stopped``.

        Raises:
            WorkerError: a process was killed.
            ClipToolkitError: what a worker raises.
        """
        workers = self.workers or usable_cores()
        threads = worker.classifier.threads or max(1, usable_cores() // workers)
        tasks = takewhile(lambda _: not stopped(), tasks)
        worker = replace(worker, classifier=replace(worker.classifier, threads=threads))
        if workers == 1:
            yield from map(worker, tasks)
            return
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start)
        try:
            yield from in_order(tasks, worker, workers, pool)
        except BrokenProcessPool as error:
            raise WorkerError(
                "a worker process was killed, for lack of memory or by a fault in a decoder. Finished parts are kept: "
                "go on with --resume, and with fewer --workers."
            ) from error


def _start() -> None:
    """Leave signals to the process that began the run, and end when it does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "of a worker"
    wait([parent.sentinel])
    os._exit(1)
