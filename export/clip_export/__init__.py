"""Train heads on frozen image encoders, and export both as one proved ONNX file. Needs the ``export`` extra."""

import clip_toolkit.telemetry  # noqa: F401  # before any module here imports ONNX Runtime
