"""Run CLIP classifiers from one ONNX file with numpy, Pillow and ONNX Runtime.

from clip_toolkit import load

classifier = load("model.onnx")
print(classifier.predict("photo.jpg").label)
"""

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
)
from clip_toolkit.images import decode, open_image
from clip_toolkit.prediction import Prediction, Score
from clip_toolkit.preprocess import preprocess
from clip_toolkit.selftest import Drift, selftest
from clip_toolkit.spec import ModelSpec
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
    "__version__",
    "decode",
    "load",
    "open_image",
    "preprocess",
    "selftest",
]
