"""A limit on what graphs may take. It lasts as long as its process, so that the test of it starts one."""

import subprocess
import sys
from pathlib import Path

import pytest
from onnx_bytes import FLOAT, GRAPH, INPUT, INT64, NODE, OUTPUT, field, node, value

from clip_toolkit.commands.infer import main

_LIMITED = """
import sys
import numpy as np
from clip_toolkit import ClipToolkitError, load
from clip_toolkit.runtime.memory import limit_memory
from clip_toolkit.runtime.session import open_graph

def attempt(action):
    try:
        print("fine", np.size(action()))
    except ClipToolkitError as error:
        print(error)

limit_memory(64)
limit_memory(64)
attempt(lambda: limit_memory(65))
graph = open_graph(sys.stdin.buffer.read())
for values in (10**6, 10**9, 10**6):
    attempt(lambda: graph.run(["y"], {"x": np.array([values], np.int64)}))
model = load(sys.argv[1], device="cpu")
attempt(lambda: model.predict(np.zeros((8, 8, 3), np.uint8)).probabilities[:1])
"""


def _filled() -> bytes:
    """A graph whose output has as many values as its input says."""
    graph = field(NODE, node("ConstantOfShape", ["x"], "y")) + field(2, b"filled")
    graph += field(INPUT, value("x", INT64, [1])) + field(OUTPUT, value("y", FLOAT, [b"n"]))
    return field(1, 10) + field(8, field(2, 20)) + field(GRAPH, graph)


def test_a_graph_that_asks_for_more_fails_and_the_process_goes_on(demo: Path):
    found = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(demo)], input=_filled(), capture_output=True, check=True, timeout=60
    )
    assert found.stderr == b""
    assert found.stdout.decode().splitlines() == [
        "memory: 64 MiB is in force, and a process has one limit. Start another for 65.",
        "fine 1000000",
        "ONNX Runtime failed on CPUExecutionProvider: it takes more than the 64 MiB of --max-memory",
        "fine 1000000",
        "fine 1",
    ]


def test_the_command_sets_it_before_it_opens_the_model(demo: Path, monkeypatch: pytest.MonkeyPatch):
    def limit(mebibytes: int) -> None:
        raise RuntimeError(mebibytes)

    monkeypatch.setattr("clip_toolkit.runtime.memory.limit_memory", limit)
    with pytest.raises(RuntimeError, match="17"):
        main(["--selftest", str(demo), "--max-memory", "17"])
