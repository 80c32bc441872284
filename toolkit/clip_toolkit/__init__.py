"""Run CLIP classifiers from one ONNX file with numpy, Pillow and ONNX Runtime.

from clip_toolkit import load

classifier = load("model.onnx")
print(classifier.predict("photo.jpg").label)
"""

import clip_toolkit.telemetry  # noqa: F401  # before whatever imports ONNX Runtime
from clip_toolkit.classifier import Classifier, Outputs, load
from clip_toolkit.errors import (
    ClipToolkitError,
    DeviceError,
    ImageError,
    ImageNotFoundError,
    MissingDependencyError,
    ModelError,
    ModelNotFoundError,
    SpecError,
    TextError,
    TextTruncatedWarning,
)
from clip_toolkit.images import decode, open_image
from clip_toolkit.images.preprocess import preprocess
from clip_toolkit.prediction import Prediction, Score
from clip_toolkit.selftest import Drift, selftest, selftest_text
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.text_tower import TextTowerSpec
from clip_toolkit.text.tokenization import Tokenizer, Tokens
from clip_toolkit.text_encoder import TextEncoder, TextOutputs, load_text
from clip_toolkit.version import __version__

__all__ = [
    "Classifier",
    "ClipToolkitError",
    "DeviceError",
    "Drift",
    "ImageError",
    "ImageNotFoundError",
    "MissingDependencyError",
    "ModelError",
    "ModelNotFoundError",
    "ModelSpec",
    "Outputs",
    "Prediction",
    "Score",
    "SpecError",
    "TextEncoder",
    "TextError",
    "TextOutputs",
    "TextTowerSpec",
    "TextTruncatedWarning",
    "Tokenizer",
    "Tokens",
    "__version__",
    "decode",
    "load",
    "load_text",
    "open_image",
    "preprocess",
    "selftest",
    "selftest_text",
]
