"""Who shares a run, who does not, and what a cancelled request leaves behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from clip_serve.models.batching import Answer, Batcher
from clip_serve.models.kinds import Images, exact_sizes
from clip_toolkit import Classifier


class Network:
    """Doubles numbers, and waits for leave to do so."""

    def __init__(self) -> None:
        self.leave, self.started = threading.Event(), threading.Event()
        self.runs: list[list[int]] = []

    def __call__(self, items: list[int]) -> list[int]:
        self.runs.append(items)
        self.started.set()
        assert self.leave.wait(10)
        if 13 in items:
            raise ValueError("unlucky")
        return [2 * item for item in items]


async def while_busy(network: Network, sizes: Sequence[int], numbers: Sequence[int]) -> list[asyncio.Task[Answer[int]]]:
    """Ask for 0, and for the numbers once its run is under way."""
    pool, threads = ThreadPoolExecutor(2), ThreadPoolExecutor(4)
    batcher = Batcher[int, int](network, sizes, 0.0, pool, runs=1)
    tasks = [asyncio.create_task(batcher.answer(lambda: 0, threads))]
    while not network.started.is_set():
        await asyncio.sleep(0.001)
    for number in numbers:
        tasks.append(asyncio.create_task(batcher.answer(lambda number=number: number, threads)))
        while batcher.pending < len(tasks) - 1:
            await asyncio.sleep(0.001)
    return tasks


def test_those_who_wait_share_runs_of_the_largest_size():
    network = Network()

    async def scene() -> list[int]:
        tasks = await while_busy(network, (1, 2, 4), range(1, 8))
        network.leave.set()
        return [answer.result for answer in await asyncio.gather(*tasks)]

    assert asyncio.run(scene()) == [2 * number for number in range(8)]
    assert network.runs == [[0], [1, 2, 3, 4], [5, 6], [7]]


def test_a_cancelled_request_takes_no_part():
    network = Network()

    async def scene() -> list[Any]:
        tasks = await while_busy(network, (1, 2), [1, 2, 3])
        tasks[2].cancel()
        await asyncio.sleep(0)
        network.leave.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(scene())
    assert isinstance(results[2], asyncio.CancelledError)
    assert network.runs == [[0], [1, 3]]


def test_an_error_reaches_those_of_its_run_alone():
    network = Network()

    async def scene() -> list[Any]:
        tasks = await while_busy(network, (1, 2), [13, 1, 2])
        network.leave.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, unlucky, neighbour, last = asyncio.run(scene())
    assert str(unlucky) == str(neighbour) == "unlucky"
    assert (first.result, last.result) == (0, 4)


def test_a_run_waits_for_those_on_their_way():
    network, slow = Network(), threading.Event()
    network.leave.set()

    async def scene() -> None:
        threads = ThreadPoolExecutor(4)
        batcher = Batcher[int, int](network, (1, 2), 10.0, ThreadPoolExecutor(1), runs=1)
        late = asyncio.create_task(batcher.answer(lambda: slow.wait(10) and 2, threads))
        early = asyncio.create_task(batcher.answer(lambda: 1, threads))
        while not batcher.pending:
            await asyncio.sleep(0.001)
        slow.set()
        await asyncio.gather(early, late)

    asyncio.run(scene())
    assert network.runs == [[1, 2]]


def test_batches_of_the_built_in_model_change_no_digit(classifier: Classifier):
    kind = Images(classifier)
    sizes = exact_sizes(kind.trials(4), kind.compute, lambda found: [found.logits, found.embedding])
    assert sizes == (1, 2, 4)


@pytest.mark.parametrize(
    ("compute", "sizes"),
    [
        (lambda items: [item / max(map(abs, items)) for item in items], (1,)),  # a range over the whole batch
        (lambda items: [item + (len(items) > 2) for item in items], (1, 2)),  # another order of sums from 4 on
        (lambda items: items, (1, 2, 4, 8)),
    ],
)
def test_sizes_that_change_digits_are_not_used(compute: Callable[[list[Any]], list[Any]], sizes: tuple[int, ...]):
    trials = list(np.linspace(0.2, 1, 8, dtype=np.float32))
    assert exact_sizes(trials, compute, lambda found: [np.float32([found])]) == sizes
