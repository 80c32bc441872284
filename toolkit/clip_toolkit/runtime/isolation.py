"""Decoding in processes of their own, with limits on memory and time, for images from strangers.

Whatever a file does to the libraries that decode it, a process that crashes, hangs or takes too much memory costs that
one image: it is killed, the image becomes an `ImageError`, and the next image gets a new process. Only decoding and
resizing happen there. The model stays in this process, which sees nothing of an image but its pixels.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import weakref
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_toolkit.errors import ImageError, ImageNotFoundError, MissingDependencyError, TransientImageError
from clip_toolkit.images.arrays import is_tensor
from clip_toolkit.images.preparing import Preparation
from clip_toolkit.images.sources import ImageSource, binary_file, source_name
from clip_toolkit.runtime.isolation_limits import WAITING, Limits
from clip_toolkit.runtime.processor import memory_limit
from clip_toolkit.spec.json_codec import to_json

_ANSWER_BYTES = 4096  # of an answer's first line, which holds a shape or a message

_SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
"""Threads and their heaps would count as memory of the image."""


class IsolatedPreparation:
    """A `Preparation` in worker processes. Safe to share between threads, each of which gets a worker while it waits.

    There are as many workers as threads, or fewer where the control group's memory would not hold the limits of all.
    They are started when they are needed, and end with this object or this process.
    """

    def __init__(self, preparation: Preparation, limits: Limits, threads: int) -> None:
        """Start no worker yet.

        Raises:
            MissingDependencyError: the system is not Linux, where alone a limit on memory holds.
        """
        if sys.platform != "linux":
            raise MissingDependencyError("isolation needs Linux: other systems do not hold a process to its memory.")
        self._preparation, self._limits = preparation, limits
        most = (memory_limit() or 2**62) // (2 * limits.memory * 2**20)  # half of it is for the model
        self._workers: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(max(1, min(threads, most))):
            self._workers.put(None)
        weakref.finalize(self, _end_all, self._workers)

    def __call__(self, image: ImageSource) -> NDArray[np.uint8]:
        """Decode and prepare one image; what is no file any more, a Pillow image or an array, in this process.

        Raises:
            ImageError: as `Preparation` does.
            TransientImageError: the worker ended: the image took too much memory or time, or crashed it.
        """
        if isinstance(image, (Image.Image, np.ndarray)) or is_tensor(image):
            return self._preparation(image)
        request, content = _request(image)
        worker = self._workers.get()
        try:
            if worker is not None and not worker.is_alive:  # it was killed while it was idle
                worker.end()
                worker = None
            if worker is None:
                worker = _Worker(self._preparation, self._limits)
            return worker.prepared(request, content)
        except _WorkerEndedError as error:
            raise TransientImageError(f"{source_name(image)}: {error}") from error
        finally:
            self._workers.put(worker if worker is not None and worker.is_alive else None)


class _WorkerEndedError(Exception):
    """The worker has ended, and the message says why."""


class _Worker:
    def __init__(self, preparation: Preparation, limits: Limits) -> None:
        self._limits = limits
        self._process = subprocess.Popen(  # noqa: S603  # our own module; -P keeps the working folder out of its imports
            [sys.executable, "-P", "-m", "clip_toolkit.runtime.worker", json.dumps(to_json((preparation, limits)))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | _SINGLE_THREADED,
            start_new_session=True,  # Ctrl-C is for this process, which lets the images in flight finish
        )
        self._ran_out = False

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def prepared(self, request: dict[str, Any], content: bytes) -> NDArray[np.uint8]:
        timer = threading.Timer(self._limits.seconds * WAITING, self._run_out)
        timer.daemon = True
        timer.start()
        try:
            answer = self._answer(request, content)
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
        ) as error:  # a pipe that is closed, or an answer that is none
            self.end()
            raise _WorkerEndedError(self._reason()) from error
        except BaseException:  # such as Ctrl-C: the answer that is still to come must not be taken for the next image's
            self.end()
            raise
        finally:
            timer.cancel()
        if isinstance(answer, ImageError):
            raise answer
        return answer

    def _answer(self, request: dict[str, Any], content: bytes) -> NDArray[np.uint8] | ImageError:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n" + content)
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline(_ANSWER_BYTES))
        if "error" in answer:
            return _ERRORS[answer["error"]](answer["message"])
        height, width, channels = map(int, answer["shape"])
        if channels != 3 or not 0 < height * width * channels <= self._limits.memory * 2**20:
            raise ValueError(answer)
        return np.frombuffer(_exactly(self._process.stdout, height * width * 3), np.uint8).reshape(height, width, 3)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:  # what was not written yet
                continue

    def _run_out(self) -> None:
        self._ran_out = True
        self._process.kill()

    def _reason(self) -> str:
        if self._ran_out or self._process.returncode == -signal.SIGXCPU:
            return f"decoding takes more than the {self._limits.seconds} seconds of --isolate-seconds"
        code = self._process.returncode
        return f"the process that decoded it ended ({code}), for lack of memory or by a fault in a decoder"


_ERRORS = {kind.__name__: kind for kind in (ImageError, ImageNotFoundError, TransientImageError)}


def _request(image: Any) -> tuple[dict[str, Any], bytes]:
    """Return the first line of a request, and what follows it."""
    if isinstance(image, (str, os.PathLike)):
        return {"path": os.fspath(image)}, b""
    with binary_file(image) as file:
        try:
            file.seek(0)  # as Pillow does
            content = file.read()
        except (OSError, ValueError) as error:
            raise TransientImageError(f"{source_name(image)}: cannot be read ({error})") from error
    return {"bytes": len(content)}, content


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    content = pipe.read(size)
    if len(content) != size:
        raise ValueError("cut short")
    return content


def _end_all(workers: queue.LifoQueue[_Worker | None]) -> None:
    while not workers.empty():
        worker = workers.get_nowait()
        if worker is not None:
            worker.end()
