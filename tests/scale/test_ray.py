"""Runs on a Ray cluster of several nodes, each with processes of its own on this machine."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_scale import BatchClassifier, RayEngine, Source, SourceError, Summary, WorkerError, run
from clip_scale.commands.scale import main
from clip_scale.part_worker import PartWorker
from clip_toolkit import ModelError

ray = pytest.importorskip("ray", reason="needs the ray extra")
pytestmark = pytest.mark.filterwarnings(r"ignore:::ray\.")  # of its own making

Records = list[dict[str, Any]]
STORE = {"object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without processors, and a node with two; connected."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0} | STORE)
    cluster.add_node(num_cpus=2, **STORE)
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def written(folder: Path) -> list[dict[str, Any]]:
    parts = sorted(folder.glob("part-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text(encoding="utf-8").splitlines()]


@pytest.mark.usefixtures("cluster")
def test_the_command_gives_the_records_of_clip_infer(model: Path, photos: Path, inferred: Records, tmp_path: Path):
    options = ["--format", "jsonl", "--engine", "ray", "--part-size", "8", "--model", str(model)]
    assert main(["run", str(photos), str(tmp_path / "out"), *options]) == 1
    assert written(tmp_path / "out") == inferred


def test_a_node_that_dies_takes_nothing_with_it(
    cluster: Any, model: Path, photos: Path, inferred: Records, tmp_path: Path
):
    node = cluster.add_node(num_cpus=2, **STORE)
    told: list[Summary] = []

    def end_node(counts: Summary) -> None:
        told.append(counts)
        if len(told) == 3:
            cluster.remove_node(node, allow_graceful=False)

    source, classify = Source((str(photos),), part_size=8), BatchClassifier(model, top_k=3)
    summary = run(source, tmp_path / "out", classify, RayEngine(), form="jsonl", on_part=end_node)
    assert (summary.images, summary.errors, len(told)) == (61, 1, 8)
    assert written(tmp_path / "out") == inferred


def test_a_killed_driver_is_continued_by_the_next(
    cluster: Any, model: Path, photos: Path, inferred: Records, tmp_path: Path
):
    options = ["--engine", "ray", "--address", cluster.address, "--workers", "1", "--format", "jsonl"]
    options += ["--part-size", "1", "--batch-size", "1", "--model", str(model)]
    command = [sys.executable, "-m", "clip_scale.commands.scale", "run", str(photos), str(tmp_path / "out"), *options]
    ledger = tmp_path / "out/_ledger"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as driver:
        while not ledger.exists() or ledger.read_bytes().count(b"\n") < 5:
            assert driver.poll() is None, "ended before it was killed"
            time.sleep(0.02)
        driver.kill()
    finished = ledger.read_bytes().count(b"\n") - 1
    assert finished < 61
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert f"61 images, 1 errors; {61 - finished} now" in done.stderr
    assert written(tmp_path / "out") == inferred


@pytest.mark.usefixtures("cluster")
def test_a_run_that_is_stopped_leaves_what_has_not_begun(model: Path, photos: Path, inferred: Records, tmp_path: Path):
    source, classify = Source((str(photos),), part_size=1), BatchClassifier(model, top_k=3, batch_size=1)
    told: list[Summary] = []
    for resume in (False, True):
        stopped = (lambda: False) if resume else (lambda: len(told) == 2)
        run(
            source,
            tmp_path / "out",
            classify,
            RayEngine(),
            form="jsonl",
            resume=resume,
            on_part=told.append,
            stopped=stopped,
        )
        assert len(told) == (61 if resume else 2)
    assert written(tmp_path / "out") == inferred


@pytest.mark.usefixtures("cluster")
def test_a_model_that_no_worker_can_read_is_named_once(model: Path, photos: Path):
    worker, tasks = PartWorker(BatchClassifier(model), "jsonl"), enumerate(Source((str(photos),), part_size=8).parts())
    model.unlink()
    with pytest.raises(ModelError, match="there is no such model file on this machine"):
        list(RayEngine()(worker, tasks))


@pytest.mark.usefixtures("cluster")
def test_a_source_that_workers_do_not_see_is_named_once(model: Path, photos: Path, tmp_path: Path):
    (photos / "list.csv").write_text("path\nelsewhere/1.png\nelsewhere/2.png\n", encoding="utf-8")
    source = Source((str(photos / "list.csv"),), part_size=8)
    with pytest.raises(SourceError, match=r"1\.png and all 2 files of its part are missing on .*every worker sees it"):
        run(source, tmp_path / "out", BatchClassifier(model), RayEngine(), form="jsonl")


@pytest.mark.usefixtures("cluster")
def test_workers_that_no_node_has_room_for_are_refused(model: Path, photos: Path, tmp_path: Path):
    source, classify = Source((str(photos),)), BatchClassifier(model, threads=3)
    with pytest.raises(WorkerError, match="no machine of the cluster has 3 CPUs and 0 GPUs"):
        run(source, tmp_path / "out", classify, RayEngine(), form="jsonl")


@pytest.mark.usefixtures("cluster")
def test_the_callable_in_a_dataset(model: Path, photos: Path, inferred: Records):
    names = [str(photos / f"{number:02}.png") for number in range(16)]
    dataset = ray.data.read_binary_files(names, include_paths=True)
    expected = {row["image"]: row for row in inferred}
    for classify, options in (
        (BatchClassifier(model), {}),
        (BatchClassifier, {"fn_constructor_args": [str(model)], "compute": ray.data.ActorPoolStrategy(size=1)}),
    ):
        rows = dataset.map_batches(classify, batch_format="pyarrow", batch_size=8, **options).take_all()
        assert sorted(row["path"] for row in rows) == names
        for row in rows:
            assert (row["label"], row["probability"]) == tuple(
                expected[row["path"]][key] for key in ("label", "probability")
            )


def test_a_cluster_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for engine in (RayEngine(address="127.0.0.1:1"), RayEngine()):
        with pytest.raises(
            WorkerError, match=r"no Ray cluster answers at 127\.0\.0\.1:1 .*Start one: ray start --head"
        ):
            engine.connect()
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")


def test_nothing_is_sent_about_the_use():
    from ray._common.usage.usage_lib import usage_stats_enabled

    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert not usage_stats_enabled()
