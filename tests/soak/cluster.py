"""``make soak-cluster``: 20,500 JPEGs on a Ray cluster whose driver and node are killed, and 2,000 by every engine.

Every record has to be that of ``clip-infer``: none twice, none missing. The cluster's nodes are processes of this
machine. The exit code is 1 where records differ.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from clip_scale import BatchClassifier, RayEngine, Source, Summary, classify_daft, classify_spark, run

DEMO = Path(__file__).parents[2] / "models" / "demo.onnx"
STORE = {"object_store_memory": 200 * 2**20}
SMALL, LARGE = (160, 120), (2400, 1800)
BROKEN_EVERY = 67  # cut short, or no image at all
PART, SHARED = 128, 2000
Records = list[dict[str, Any]]


def main() -> int:
    """Draw, run, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=20_000, help="small pictures (default: %(default)s)")
    parser.add_argument("--large", type=int, default=500, help="large pictures (default: %(default)s)")
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        photos = draw(folder / "photos", options.small, options.large)
        expected = inferred(photos, folder / "inferred.jsonl")
        checks = [*on_cluster(photos, folder, expected), *by_every_engine(folder, expected[:SHARED])]
    return not all(checks)


def draw(folder: Path, small: int, large: int) -> Path:
    """Write pictures that differ, and some files that cannot be read."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(small + large):
        noise = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
        buffer = io.BytesIO()
        noise.resize(LARGE if number % (1 + small // max(large, 1)) == 0 else SMALL).save(buffer, "JPEG")
        content = buffer.getvalue()
        if number % BROKEN_EVERY == 0:
            content = content[: len(content) // 2] if number % 2 else b"no image"
        (folder / f"{number:06}.jpg").write_bytes(content)
    return folder


def inferred(photos: Path, output: Path) -> Records:
    """Return the records of ``clip-infer``."""
    command = [sys.executable, "-m", "clip_toolkit.commands.infer", str(photos), "--model", str(DEMO), "--quiet"]
    subprocess.run([*command, "--output", str(output)], stderr=subprocess.DEVNULL, check=False)
    return read(output)


def on_cluster(photos: Path, folder: Path, expected: Records) -> Iterator[bool]:
    """Kill the driver in the middle and start it again; then kill a node in the middle."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0} | STORE)
    cluster.add_node(num_cpus=1, **STORE)
    node = cluster.add_node(num_cpus=1, **STORE)
    try:
        yield same("driver killed", killed_driver(cluster.address, photos, folder / "driver"), expected)
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        done = 0

        def end_node(part: Summary) -> None:
            nonlocal node, done
            done += part.images
            if node is not None and done > len(expected) / 2:
                cluster.remove_node(node, allow_graceful=False)
                node = None

        source, classify = Source((str(photos),), part_size=PART), BatchClassifier(DEMO, top_k=3)
        run(source, folder / "node", classify, RayEngine(), form="jsonl", on_part=end_node)
        yield node is None and same("node killed", parts_of(folder / "node"), expected)
    finally:
        ray.shutdown()
        cluster.shutdown()


def killed_driver(address: str, photos: Path, output: Path) -> Records:
    """Kill a run once it has written a third of its parts, and let another one go on."""
    command = [sys.executable, "-m", "clip_scale.commands.scale", "run", str(photos), str(output), "--engine", "ray"]
    command += ["--address", address, "--format", "jsonl", "--part-size", str(PART), "--model", str(DEMO), "--quiet"]
    wanted = len(list(photos.iterdir())) // PART // 3
    ledger = output / "_ledger"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as driver:
        while not ledger.exists() or ledger.read_bytes().count(b"\n") < wanted:
            assert driver.poll() is None, "ended before it was killed"
            time.sleep(0.02)
        driver.kill()
    subprocess.run([*command, "--resume"], stderr=subprocess.DEVNULL, check=False)
    return parts_of(output)


def by_every_engine(folder: Path, expected: Records) -> Iterator[bool]:
    """Classify the first pictures by processes of this machine, Ray, Daft and Spark."""
    import daft
    from pyspark.sql import SparkSession

    paths = [record["image"] for record in expected]
    manifest = folder / "first.csv"
    manifest.write_text("\n".join(["path", *paths]) + "\n", "utf-8")
    for engine in ("local", "ray"):
        command = [sys.executable, "-m", "clip_scale.commands.scale", "run", str(manifest), str(folder / engine)]
        command += ["--engine", engine, "--format", "jsonl", "--part-size", str(PART), "--model", str(DEMO), "--quiet"]
        subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
        yield same(f"{len(paths)} by {engine}", parts_of(folder / engine), expected)
    classify = BatchClassifier(DEMO, top_k=3)
    columns = {"path": paths, "bytes": [Path(path).read_bytes() for path in paths]}
    rows = classify_daft(daft.from_pydict(columns), classify, batch_size=32).to_pylist()
    yield same(f"{len(paths)} by daft", in_order(rows, expected), expected)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        frame = session.createDataFrame([*zip(*columns.values(), strict=True)], [*columns])
        rows = [row.asDict(recursive=True) for row in classify_spark(frame, classify).collect()]
        yield same(f"{len(paths)} by spark", in_order(rows, expected), expected)
    finally:
        session.stop()


def in_order(rows: Records, expected: Records) -> Records:
    """Return rows of a DataFrame as records, with the fields and in the order of those that are expected."""
    by_path = {row["path"]: row for row in rows}
    found = [by_path[record["image"]] for record in expected] if len(by_path) == len(rows) else []
    return [
        {name: row["path" if name == "image" else name] for name in record}
        for row, record in zip(found, expected, strict=False)
    ]


def parts_of(folder: Path) -> Records:
    """Return what a run has written."""
    return [record for path in sorted(folder.glob("part-*.jsonl")) for record in read(path)]


def read(path: Path) -> Records:
    """Read JSON lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def same(title: str, found: Records, expected: Records) -> bool:
    """Compare, and print."""
    errors, distinct = sum(record["error"] is not None for record in found), len({record["image"] for record in found})
    equal = found == expected
    print(f"{title}: rows {len(found)} of {len(expected)}, distinct {distinct}, errors {errors}, equal {equal}")
    return equal


if __name__ == "__main__":
    sys.exit(main())
