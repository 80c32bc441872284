"""One contender in a process of its own: ``worker.py ENGINE PATH BATCH THREADS``.

Prints a line of JSON when it is ready, then for each number on stdin runs so often and prints the seconds of each run.
Between those it sleeps, so that no spinning thread of its disturbs the others.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

WARM_UP = 2


def torch_runner(path: str, batch: int, threads: int) -> Callable[[], object]:
    """Return the transformers encoder and the head, eagerly."""
    import torch

    from clip_export.encoders.image import Encoder
    from clip_export.heads.mlp import VLMtoMLP

    torch.set_num_threads(threads)
    encoder = Encoder.from_pretrained(path)
    head = VLMtoMLP(encoder.dim, 256, 2).eval()
    values = torch.zeros(batch, 3, encoder.preprocessing.size, encoder.preprocessing.size)

    def run() -> object:
        with torch.inference_mode():
            return head(encoder.features(values))

    return run


def onnxruntime_runner(path: str, batch: int, threads: int) -> Callable[[], object]:
    """Return an ONNX file on ONNX Runtime's CPU provider; images at the model's own size."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    feeds = {source.name: _input(source.type, source.shape, batch, path)}
    return lambda: session.run(None, feeds)


def openvino_runner(path: str, batch: int, threads: int) -> Callable[[], object]:
    """Return an ONNX file on OpenVINO in float32, its shapes fixed beforehand as OpenVINO likes them."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    source = model.inputs[0]
    if source.element_type == openvino.Type.u8:
        values = _images(batch, path)
    else:
        values = np.zeros([batch, *(size.get_length() for size in list(source.partial_shape)[1:])], np.float32)
    model.reshape({source.any_name: values.shape})
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer({0: values})


def _input(kind: str, shape: list[int | str], batch: int, path: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    if kind == "tensor(uint8)" and len(shape) == 3:  # the floor of int8 products
        return rng.integers(0, 256, (batch, *shape[1:]), dtype=np.uint8)
    if kind == "tensor(uint8)":
        return _images(batch, path)
    # Optimum leaves every size open; all its encoders here take 224 pixels.
    known = [n if isinstance(n, int) else usual for n, usual in zip(shape[1:], (3, 224, 224), strict=False)]
    return rng.standard_normal((batch, *known), dtype=np.float32)


def _images(batch: int, path: str) -> np.ndarray:
    """Images of the model's own size; a network alone, without a spec, resizes those of the usual one to its own."""
    from clip_toolkit.errors import SpecError
    from clip_toolkit.spec.model_file import read_spec

    try:
        size = read_spec(path).preprocessing.size
    except SpecError:
        size = 224
    return np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)


def _peak_memory() -> int:
    """Largest resident memory so far, in bytes. Not by getrusage, which remembers the parent's from before the exec."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) * 1024


RUNNERS = {"torch": torch_runner, "onnxruntime": onnxruntime_runner, "openvino": openvino_runner}


def serve(opened: Callable[[], Callable[[], object]], size: int | None) -> None:
    """Open a contender, then run it as often as the parent says, until it closes stdin."""
    start = time.perf_counter()
    run = opened()
    loaded = time.perf_counter() - start
    for _ in range(WARM_UP):
        start = time.perf_counter()
        run()
        warm = time.perf_counter() - start
    print(json.dumps({"load": loaded, "peak": _peak_memory(), "size": size, "warm": warm}), flush=True)
    for line in sys.stdin:
        times = []
        run()  # not counted: it brings the weights back into the caches
        for _ in range(int(line)):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        print(json.dumps(times), flush=True)


def main() -> None:
    """Serve the parent."""
    engine, path, batch, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    serve(lambda: RUNNERS[engine](path, batch, threads), Path(path).stat().st_size if Path(path).is_file() else None)


if __name__ == "__main__":
    main()
