"""Requests that wait at the same time share a run of the network."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat
from time import perf_counter
from typing import Generic, NamedTuple, TypeVar

_Source = TypeVar("_Source")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Prepared(NamedTuple, Generic[_Item]):
    """What the model is given of a source, and the seconds that it took to prepare."""

    item: _Item
    seconds: float


class Answer(NamedTuple, Generic[_Item, _Result]):
    """A result, what the model was given for it, and how long it took, in seconds.

    Attributes:
        result: what the model said.
        item: what it was given.
        prepared: of its preparation.
        queued: of its wait for a run.
        computed: of the network, which others may have shared.
    """

    result: _Result
    item: _Item
    prepared: float
    queued: float
    computed: float


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[_Source, _Item, _Result]):
    source: _Source
    prepared: Prepared[_Item] | None
    future: asyncio.Future[Answer[_Item, _Result]]
    since: float


class Batcher(Generic[_Source, _Item, _Result]):
    """Runs of one model. Belongs to one event loop; the runs happen in threads.

    A free run takes what waits by then, up to the largest size. It waits for more only while others are being prepared,
    and no longer than the delay: a lone request is never held up.
    """

    def __init__(
        self,
        prepare: Callable[[_Source], _Item],
        compute: Callable[[list[_Item]], Sequence[_Result]],
        sizes: Sequence[int],
        delay: float,
        pool: ThreadPoolExecutor,
        *,
        runs: int,
        preparing: ThreadPoolExecutor | None,
        on_run: Callable[[int, float], None] = lambda _size, _seconds: None,
    ) -> None:
        """Start nothing yet.

        Args:
            prepare: from a source to an item.
            compute: from items to as many results.
            sizes: how many items the network may be given at a time, ascending from 1.
            delay: seconds that a run may wait for items that are being prepared.
            pool: where runs happen.
            runs: how many at a time.
            preparing: where items are prepared; without it by their run, which spares a change of threads an item, and
                makes those of a run wait for each other.
            on_run: told size and seconds of each use of the network, in the thread of the run.
        """
        self._prepare, self._compute, self._sizes, self._delay = prepare, compute, sizes, delay
        self._pool, self._preparing, self._on_run = pool, preparing, on_run
        self._free = asyncio.Semaphore(runs)
        self._arrived = asyncio.Event()
        self._waiting: deque[_Waiting[_Source, _Item, _Result]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._coming = 0
        self._dispatcher: asyncio.Task[None] | None = None

    @property
    def pending(self) -> int:
        """Number of items that wait for a run."""
        return len(self._waiting)

    async def answer(self, source: _Source) -> Answer[_Item, _Result]:
        """Prepare a source and compute its result; a cancelled caller gives up its place.

        Raises:
            Exception: what ``prepare`` or ``compute`` raises.
        """
        loop = asyncio.get_running_loop()
        prepared = None if self._preparing is None else await self._prepare_ahead(source, self._preparing)
        waiting = _Waiting[_Source, _Item, _Result](source, prepared, loop.create_future(), perf_counter())
        self._waiting.append(waiting)
        if self._dispatcher is None or self._dispatcher.done():
            self._dispatcher = asyncio.create_task(self._dispatch())
        try:
            return await waiting.future
        finally:
            if waiting in self._waiting:  # cancelled
                self._waiting.remove(waiting)

    async def _prepare_ahead(self, source: _Source, threads: ThreadPoolExecutor) -> Prepared[_Item]:
        self._coming += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, self._timed, source)
        finally:
            self._coming -= 1
            self._arrived.set()

    def _timed(self, source: _Source) -> Prepared[_Item]:
        start = perf_counter()
        item = self._prepare(source)
        return Prepared(item, perf_counter() - start)

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

    async def _collect(self) -> list[_Waiting[_Source, _Item, _Result]]:
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

    async def _run(self, batch: list[_Waiting[_Source, _Item, _Result]]) -> None:
        answers: Iterable[Answer[_Item, _Result] | Exception]
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._pool, self._answers, batch)
        except Exception as error:  # each caller raises it
            answers = repeat(error)
        finally:
            self._free.release()
        for waiting, answer in zip(batch, answers, strict=False):
            if waiting.future.done():  # its caller has gone
                continue
            if isinstance(answer, Exception):
                waiting.future.set_exception(answer)
            else:
                waiting.future.set_result(answer)

    def _answers(self, batch: list[_Waiting[_Source, _Item, _Result]]) -> list[Answer[_Item, _Result] | Exception]:
        start = perf_counter()
        prepared = [waiting.prepared or self._prepared_or_error(waiting.source) for waiting in batch]
        items = [found.item for found in prepared if isinstance(found, Prepared)]
        begin = perf_counter()
        results = iter(self._results(items))
        seconds = perf_counter() - begin
        return [
            Answer(next(results), found.item, found.seconds, start - waiting.since, seconds)
            if isinstance(found, Prepared)
            else found
            for waiting, found in zip(batch, prepared, strict=True)
        ]

    def _prepared_or_error(self, source: _Source) -> Prepared[_Item] | Exception:
        try:
            return self._timed(source)
        except Exception as error:  # its caller raises it; the others of the run go on
            return error

    def _results(self, items: list[_Item]) -> list[_Result]:
        """Compute in batches of the allowed sizes: a run is of another where an item could not be prepared."""
        results: list[_Result] = []
        position = 0
        while left := len(items) - position:
            size = max(size for size in self._sizes if size <= left)
            start = perf_counter()
            results += self._compute(items[position : position + size])
            self._on_run(size, perf_counter() - start)
            position += size
        return results
