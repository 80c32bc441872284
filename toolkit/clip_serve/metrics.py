"""What the service counts, for Prometheus: Triton's names where the meaning is the same, our own elsewhere.

https://github.com/triton-inference-server/server/blob/main/docs/user_guide/metrics.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import Metric

from clip_toolkit.prediction import Prediction

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_MICRO = 1e6

_TRITON = {
    "nv_inference_request_success": "Requests answered",
    "nv_inference_request_failure": "Requests refused, failed or cancelled by the model",
    "nv_inference_count": "Images or texts inferred; a batch of n counts n",
    "nv_inference_exec_count": "Runs of the network",
    "nv_inference_request_duration_us": "Time of requests within the model, cumulated",
    "nv_inference_queue_duration_us": "Time in the queue, cumulated",
    "nv_inference_compute_input_duration_us": "Time of decoding, resizing and tokenizing, cumulated",
    "nv_inference_compute_infer_duration_us": "Time of the network's runs, cumulated",
}


class Metrics:
    """All figures of one service, in a registry of their own."""

    def __init__(self) -> None:
        """Start from zero."""
        self.registry = CollectorRegistry()
        self.responses = self._counter("responses", "Responses, by endpoint and status", "endpoint", "status")
        self.labels = self._counter("predictions", "Predicted labels; empty where none was", "model", "label")
        self.novel = self._counter("novel", "Images unlike the training images, of files that tell it", "model")
        self.reloads = self._counter("reloads", "Reloads of the model files, by outcome", "outcome")
        self.queue = self._histogram("queue_seconds", "Time in the queue")
        self.decode = self._histogram("decode_seconds", "Time of decoding, resizing and tokenizing")
        self.compute = self._histogram("compute_seconds", "Time of a run of the network")
        self.batch = self._histogram("batch_size", "Images of a run of the network", (1, 2, 4, 8, 16, 32, 64))
        self._models: dict[tuple[str, str], ModelFigures] = {}
        self.registry.register(self)

    def of_model(self, name: str, version: str) -> ModelFigures:
        """Return the figures of a model, which go on where it was served before."""
        return self._models.setdefault((name, version), ModelFigures(self, name))

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Give the metrics under Triton's names, which have no suffix as counters of Prometheus have."""
        for name, documentation in _TRITON.items():
            metric = Metric(name, documentation, "unknown")
            for (model, version), figures in self._models.items():
                metric.add_sample(name, {"model": model, "version": version}, figures.triton[name])
            yield metric
        waiting = Metric("nv_inference_pending_request_count", "Images or texts that wait for a run", "gauge")
        for (model, version), figures in self._models.items():
            waiting.add_sample(waiting.name, {"model": model, "version": version}, figures.pending())
        yield waiting

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"clip_serve_{name}", documentation, labels, registry=self.registry)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(f"clip_serve_{name}", documentation, ["model"], registry=self.registry, buckets=buckets)


class ModelFigures:
    """What one version of a model has done.

    Attributes:
        triton: figures by Triton's names.
        pending: asks how many images or texts wait.
    """

    def __init__(self, metrics: Metrics, name: str) -> None:
        """Start from zero."""
        self.triton = dict.fromkeys(_TRITON, 0.0)
        self.pending: Callable[[], int] = lambda: 0
        self._metrics, self._name = metrics, name

    def succeeded(self, seconds: float) -> None:
        """Count a request that was answered."""
        self._add(request_success=1, request_duration_us=seconds * _MICRO)

    def failed(self) -> None:
        """Count a request that was not."""
        self._add(request_failure=1)

    def ran(self, size: int, seconds: float) -> None:
        """Count a run of the network."""
        self._metrics.compute.labels(self._name).observe(seconds)
        self._metrics.batch.labels(self._name).observe(size)
        self._add(count=size, exec_count=1, compute_infer_duration_us=seconds * _MICRO)

    def answered(self, result: object, decode: float, queued: float) -> None:
        """Count an image or text that was answered."""
        self._metrics.decode.labels(self._name).observe(decode)
        self._metrics.queue.labels(self._name).observe(queued)
        self._add(compute_input_duration_us=decode * _MICRO, queue_duration_us=queued * _MICRO)
        if isinstance(result, Prediction):
            for label in result.decisions or ("",):
                self._metrics.labels.labels(self._name, label).inc()
            if result.is_novel is not None:
                self._metrics.novel.labels(self._name).inc(result.is_novel)

    def _add(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self.triton[f"nv_inference_{name}"] += amount
