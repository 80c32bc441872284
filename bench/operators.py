"""Where the time of a model file goes: ONNX Runtime's own profile, summed by operator."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime

from clip_toolkit.spec.model_file import read_spec

_RUNS = 20


def time_by_operator(path: Path, batch: int, threads: int) -> dict[str, float]:
    """Seconds an image spends in each kind of operator, the largest first. Profiling itself takes a little of it."""
    size = read_spec(path).preprocessing.size
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level, options.enable_profiling = threads, 3, True
        options.profile_file_prefix = f"{folder}/profile"
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for _ in range(_RUNS):
            session.run(None, {"image": images})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    total: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            total[event["args"]["op_name"]] += event["dur"]
    return {name: spent / 1e6 / _RUNS / batch for name, spent in total.most_common()}
