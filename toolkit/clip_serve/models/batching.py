"""Requests that wait at the same time share a run of the network."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, NamedTuple, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Answer(NamedTuple, Generic[_Result]):
    """A result and how long it took, in seconds.

    Attributes:
        result: what the model said.
        queued: from being prepared to the start of the run.
        computed: of the run, which others may have shared.
    """

    result: _Result
    queued: float
    computed: float


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[_Item, _Result]):
    item: _Item
    future: asyncio.Future[Answer[_Result]]
    since: float


class Batcher(Generic[_Item, _Result]):
    """Runs of one model. Belongs to one event loop; the runs happen in threads.

    A free run takes what waits by then, up to the largest size. It waits for more only while others are on their way,
    and no longer than the delay: a lone request is never held up.
    """

    def __init__(
        self,
        compute: Callable[[list[_Item]], Sequence[_Result]],
        sizes: Sequence[int],
        delay: float,
        pool: ThreadPoolExecutor,
        *,
        runs: int,
        on_run: Callable[[int, float], None] = lambda _size, _seconds: None,
    ) -> None:
        """Start nothing yet.

        Args:
            compute: from items to as many results.
            sizes: how many items a run may have, ascending from 1.
            delay: seconds that a run may wait for items on their way.
            pool: where runs happen.
            runs: how many at a time.
            on_run: told size and seconds of each run.
        """
        self._compute, self._sizes, self._delay, self._pool, self._on_run = compute, sizes, delay, pool, on_run
        self._free = asyncio.Semaphore(runs)
        self._arrived = asyncio.Event()
        self._waiting: deque[_Waiting[_Item, _Result]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._coming = 0
        self._dispatcher: asyncio.Task[None] | None = None

    @property
    def pending(self) -> int:
        """Number of items that wait for a run."""
        return len(self._waiting)

    async def answer(self, prepare: Callable[[], _Item], threads: ThreadPoolExecutor) -> Answer[_Result]:
        """Prepare an item in a thread and compute its result; a cancelled caller gives up the item's place.

        Raises:
            Exception: what ``prepare`` or ``compute`` raises.
        """
        loop = asyncio.get_running_loop()
        self._coming += 1
        try:
            item = await loop.run_in_executor(threads, prepare)
        finally:
            self._coming -= 1
            self._arrived.set()
        waiting = _Waiting[_Item, _Result](item, loop.create_future(), perf_counter())
        self._waiting.append(waiting)
        if self._dispatcher is None or self._dispatcher.done():
            self._dispatcher = asyncio.create_task(self._dispatch())
        try:
            return await waiting.future
        finally:
            if waiting in self._waiting:  # cancelled
                self._waiting.remove(waiting)

    async def _dispatch(self) -> None:
        """End when nothing waits: a model that was replaced is let go of with its last request."""
        while self._waiting:
            await self._free.acquire()
            batch = await self._collect()
            if batch:
                run = asyncio.create_task(self._run(batch))
                self._running.add(run)
                run.add_done_callback(self._running.discard)
            else:  # all were cancelled meanwhile
                self._free.release()

    async def _collect(self) -> list[_Waiting[_Item, _Result]]:
        deadline = perf_counter() + self._delay
        while self._coming and len(self._waiting) < self._sizes[-1] and (left := deadline - perf_counter()) > 0:
            await self._arrival(left)
        size = max((size for size in self._sizes if size <= len(self._waiting)), default=0)
        return [self._waiting.popleft() for _ in range(size)]

    async def _arrival(self, seconds: float) -> None:
        self._arrived.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._arrived.wait()

    async def _run(self, batch: list[_Waiting[_Item, _Result]]) -> None:
        start = perf_counter()
        try:
            items = [waiting.item for waiting in batch]
            results = await asyncio.get_running_loop().run_in_executor(self._pool, self._compute, items)
            seconds = perf_counter() - start
            for waiting, result in zip(batch, results, strict=True):
                if not waiting.future.done():  # its caller may have gone
                    waiting.future.set_result(Answer(result, start - waiting.since, seconds))
            self._on_run(len(batch), seconds)
        except Exception as error:  # each caller raises it
            for waiting in batch:
                if not waiting.future.done():
                    waiting.future.set_exception(error)
        finally:
            self._free.release()
