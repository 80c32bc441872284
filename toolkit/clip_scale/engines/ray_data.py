"""Actors on a Ray cluster, by Ray Data: what travels is a description of each part and the bytes of its file."""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from clip_scale.errors import WorkerError
from clip_scale.part_worker import Done, PartWorker, Task
from clip_toolkit.errors import ClipToolkitError, MissingDependencyError, first_line
from clip_toolkit.stream.pipeline import chunks

WAVE = 4096
"""Parts whose descriptions are in the object store at once; between two waves the actors are started anew."""

_SECONDS_TO_ANSWER = 10


@dataclass(frozen=True)
class RayEngine:
    """A pool of actors, which grows and shrinks with the cluster; parts of actors that are lost are done again.

    Attributes:
        workers: most actors; default as many as the cluster has CPUs for when the run begins.
        address: of the cluster; default ``$RAY_ADDRESS``, or one that runs on this machine, or a new one.
        num_gpus: share of a GPU that each actor has.
    """

    workers: int | None = None
    address: str | None = None
    num_gpus: float = 0

    def connect(self) -> Any:
        """Connect to the cluster, unless this process is connected, and return Ray.

        Raises:
            MissingDependencyError: Ray is not installed.
            WorkerError: no cluster answers.
        """
        ray = _import_ray()
        if not ray.is_initialized():
            address = self.address or os.environ.get("RAY_ADDRESS")
            try:
                _check_answers(address or "")
                new = {} if address else {"include_dashboard": False}
                ray.init(address, log_to_driver=False, logging_level="ERROR", **new)
            except (OSError, ValueError, RuntimeError) as error:
                raise WorkerError(
                    f"no Ray cluster answers at {address or 'this machine'} ({first_line(error)}). Start one: "
                    "ray start --head, and on other machines ray start --address HOST:6379"
                ) from error
        return ray

    def __call__(
        self, worker: PartWorker, tasks: Iterable[Task], stopped: Callable[[], bool] = lambda: False
    ) -> Generator[Done]:
        """Classify parts, in any order; each actor has as many CPUs as the classifier has threads, or one.

        Those under way are dropped when the run is ``stopped``: Ray has been given many that have not begun.

        Raises:
            WorkerError: no machine of the cluster has room for an actor, or the cluster fails.
            ClipToolkitError: what a worker raises.
        """
        ray = self.connect()
        cpus = worker.classifier.threads or 1
        self._check_room(ray, cpus)
        worker = replace(worker, classifier=replace(worker.classifier, threads=cpus))
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        workers = self.workers or max(1, int(ray.cluster_resources().get("CPU", 0) // cpus))
        for wave in chunks(tasks, WAVE):
            rows = [{"task": pickle.dumps(task)} for task in wave]
            answers = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                _Actor,
                fn_constructor_args=(worker,),
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers, max_tasks_in_flight_per_actor=2),
                num_cpus=cpus,
                num_gpus=self.num_gpus,
            )
            for done in _done(ray, answers):
                yield done
                if stopped():
                    return

    def _check_room(self, ray: Any, cpus: int) -> None:
        """Refuse actors that no machine has room for: Ray would wait for one without end."""
        wanted = {"CPU": cpus, "GPU": self.num_gpus}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0) >= count for name, count in wanted.items()) for node in nodes):
            raise WorkerError(
                f"no machine of the cluster has {cpus} CPUs and {self.num_gpus:g} GPUs, which each worker takes. "
                "Lower --threads or --num-gpus."
            )


class _Actor:
    """A worker in a process of Ray's."""

    def __init__(self, worker: PartWorker) -> None:
        self._worker = worker

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a part, or the error that ends the run: Ray would wrap it in words of its own."""
        try:
            task = pickle.loads(row["task"])  # noqa: S301  # of the process that began the run
            task[1].check_reach()
            return {"done": pickle.dumps(self._worker(task))}
        except ClipToolkitError as error:
            return {"done": pickle.dumps(error)}


def _done(ray: Any, answers: Any) -> Iterator[Done]:
    try:
        for row in answers.iter_rows():
            done = pickle.loads(row["done"])  # noqa: S301  # of our own actors
            if isinstance(done, ClipToolkitError):
                raise done
            yield done
    except ray.exceptions.RayError as error:
        raise WorkerError(
            f"the Ray cluster failed ({first_line(error)}). Finished parts are kept: go on with --resume."
        ) from error


def _check_answers(address: str) -> None:
    """Raise an OSError where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), _SECONDS_TO_ANSWER).close()


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependencyError("--engine ray needs Ray: pip install 'clip-toolkit[cpu,ray]'") from error
    return ray
