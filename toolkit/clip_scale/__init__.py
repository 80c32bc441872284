"""Classify more images than one machine should, with one callable that every data engine takes.

from clip_scale import BatchClassifier

classify = BatchClassifier("model.onnx")
columns = classify({"bytes": [image], "path": ["image.jpg"]})
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from clip_toolkit.lazy import lazy_names

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reads it when a cluster is started, and would phone home
os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")  # Daft likewise, when it is imported

_HOMES = {
    "BatchClassifier": "batch_classifier",
    "Columns": "columns",
    "LabelledSource": "sources.labelled",
    "LocalEngine": "engines.local",
    "RayEngine": "engines.ray_data",
    "Source": "sources.source",
    "SourceError": "errors",
    "Summary": "summary",
    "WorkerError": "errors",
    "classify_daft": "engines.daft_frames",
    "classify_spark": "engines.spark_frames",
    "run": "running",
}
"""Where each public name lives."""

__all__ = list(_HOMES)

if TYPE_CHECKING:
    from clip_scale.batch_classifier import BatchClassifier as BatchClassifier
    from clip_scale.columns import Columns as Columns
    from clip_scale.engines.daft_frames import classify_daft as classify_daft
    from clip_scale.engines.local import LocalEngine as LocalEngine
    from clip_scale.engines.ray_data import RayEngine as RayEngine
    from clip_scale.engines.spark_frames import classify_spark as classify_spark
    from clip_scale.errors import SourceError as SourceError
    from clip_scale.errors import WorkerError as WorkerError
    from clip_scale.running import run as run
    from clip_scale.sources.labelled import LabelledSource as LabelledSource
    from clip_scale.sources.source import Source as Source
    from clip_scale.summary import Summary as Summary
else:
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
