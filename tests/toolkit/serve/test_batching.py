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
        self.sizes: list[int] = []

    def __call__(self, items: list[int]) -> list[int]:
        self.runs.append(items)
        self.started.set()
        assert self.leave.wait(10)
        if 13 in items:
            raise ValueError("unlucky")
        return [2 * item for item in items]

    def was_used(self, size: int, seconds: float) -> None:
        assert seconds >= 0
        self.sizes.append(size)


def prepare(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} cannot be prepared")
    return number


@pytest.fixture(params=[4, 0], ids=["prepared ahead", "prepared by the run"])
def preparing(request: pytest.FixtureRequest) -> ThreadPoolExecutor | None:
    return ThreadPoolExecutor(request.param) if request.param else None


async def while_busy(
    network: Network, sizes: Sequence[int], numbers: Sequence[int], preparing: ThreadPoolExecutor | None
) -> list[asyncio.Task[Answer[int, int]]]:
    """Ask for 0, and for the numbers once its run is under way."""
    pool = ThreadPoolExecutor(2)
    batcher = Batcher[int, int, int](
        prepare, network, sizes, 0.0, pool, runs=1, preparing=preparing, on_run=network.was_used
    )
    tasks = [asyncio.create_task(batcher.answer(0))]
    while not network.started.is_set():
        await asyncio.sleep(0.001)
    for number in numbers:
        tasks.append(asyncio.create_task(batcher.answer(number)))
        while not tasks[-1].done() and batcher.pending < sum(not task.done() for task in tasks[1:]):
            await asyncio.sleep(0.001)
    return tasks


def test_those_who_wait_share_runs_of_the_largest_size(preparing: ThreadPoolExecutor | None):
    network = Network()

    async def scene() -> list[Answer[int, int]]:
        tasks = await while_busy(network, (1, 2, 4), range(1, 8), preparing)
        network.leave.set()
        return await asyncio.gather(*tasks)

    answers = asyncio.run(scene())
    assert [answer.result for answer in answers] == [2 * number for number in range(8)]
    assert [answer.item for answer in answers] == [*range(8)]
    assert all(min(answer.prepared, answer.queued, answer.computed) >= 0 for answer in answers)
    assert network.runs == [[0], [1, 2, 3, 4], [5, 6], [7]]
    assert network.sizes == [1, 4, 2, 1]


def test_a_cancelled_request_takes_no_part(preparing: ThreadPoolExecutor | None):
    network = Network()

    async def scene() -> list[Any]:
        tasks = await while_busy(network, (1, 2), [1, 2, 3], preparing)
        tasks[2].cancel()
        await asyncio.sleep(0)
        network.leave.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(scene())
    assert isinstance(results[2], asyncio.CancelledError)
    assert network.runs == [[0], [1, 3]]


def test_an_error_reaches_those_of_its_run_alone(preparing: ThreadPoolExecutor | None):
    network = Network()

    async def scene() -> list[Any]:
        tasks = await while_busy(network, (1, 2), [13, 1, 2], preparing)
        network.leave.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, unlucky, neighbour, last = asyncio.run(scene())
    assert str(unlucky) == str(neighbour) == "unlucky"
    assert (first.result, last.result) == (0, 4)


def test_what_cannot_be_prepared_leaves_the_others_runs_of_exact_sizes(preparing: ThreadPoolExecutor | None):
    network = Network()

    async def scene() -> list[Any]:
        tasks = await while_busy(network, (1, 2, 4), [1, -2, 3, 4], preparing)
        network.leave.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(scene())
    assert str(results.pop(2)) == "-2 cannot be prepared"
    assert [answer.result for answer in results] == [0, 2, 6, 8]
    assert network.runs == [[0], [1, 3], [4]]


def test_a_run_waits_for_those_on_their_way():
    network, slow = Network(), threading.Event()
    network.leave.set()

    async def scene() -> None:
        batcher = Batcher[int, int, int](
            lambda number: slow.wait(10) and number if number == 2 else number,
            network,
            (1, 2),
            10.0,
            ThreadPoolExecutor(1),
            runs=1,
            preparing=ThreadPoolExecutor(4),
        )
        late, early = (asyncio.create_task(batcher.answer(number)) for number in (2, 1))
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
