"""Run CLIP classifiers from one ONNX file with numpy, Pillow and ONNX Runtime.

from clip_toolkit import load

classifier = load("model.onnx")
print(classifier.predict("photo.jpg").label)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import clip_toolkit.telemetry  # noqa: F401  # before any module here imports ONNX Runtime
from clip_toolkit.lazy import lazy_names

_HOMES = {
    "Classifier": "classifier",
    "ClipToolkitError": "errors",
    "DeviceError": "errors",
    "Drift": "replay",
    "ImageError": "errors",
    "ImageNotFoundError": "errors",
    "MissingDependencyError": "errors",
    "ModelError": "errors",
    "ModelNotFoundError": "errors",
    "ModelSpec": "spec.classifier",
    "Outputs": "network",
    "Prediction": "prediction",
    "Score": "prediction",
    "SpecError": "errors",
    "TextEncoder": "text_encoder",
    "TextError": "errors",
    "TextOutputs": "text_encoder",
    "TextTowerSpec": "spec.text_tower",
    "TextTruncatedWarning": "errors",
    "Tokenizer": "text.tokenization",
    "Tokens": "text.tokenization",
    "__version__": "version",
    "decode": "images",
    "load": "classifier",
    "load_text": "text_encoder",
    "open_image": "images",
    "preprocess": "images.preprocess",
    "selftest": "replay",
    "selftest_text": "replay",
}
"""Where each public name lives."""

__all__ = list(_HOMES)

if TYPE_CHECKING:
    from clip_toolkit.classifier import Classifier as Classifier
    from clip_toolkit.classifier import load as load
    from clip_toolkit.errors import ClipToolkitError as ClipToolkitError
    from clip_toolkit.errors import DeviceError as DeviceError
    from clip_toolkit.errors import ImageError as ImageError
    from clip_toolkit.errors import ImageNotFoundError as ImageNotFoundError
    from clip_toolkit.errors import MissingDependencyError as MissingDependencyError
    from clip_toolkit.errors import ModelError as ModelError
    from clip_toolkit.errors import ModelNotFoundError as ModelNotFoundError
    from clip_toolkit.errors import SpecError as SpecError
    from clip_toolkit.errors import TextError as TextError
    from clip_toolkit.errors import TextTruncatedWarning as TextTruncatedWarning
    from clip_toolkit.images import decode as decode
    from clip_toolkit.images import open_image as open_image
    from clip_toolkit.images.preprocess import preprocess as preprocess
    from clip_toolkit.network import Outputs as Outputs
    from clip_toolkit.prediction import Prediction as Prediction
    from clip_toolkit.prediction import Score as Score
    from clip_toolkit.replay import Drift as Drift
    from clip_toolkit.replay import selftest as selftest
    from clip_toolkit.replay import selftest_text as selftest_text
    from clip_toolkit.spec.classifier import ModelSpec as ModelSpec
    from clip_toolkit.spec.text_tower import TextTowerSpec as TextTowerSpec
    from clip_toolkit.text.tokenization import Tokenizer as Tokenizer
    from clip_toolkit.text.tokenization import Tokens as Tokens
    from clip_toolkit.text_encoder import TextEncoder as TextEncoder
    from clip_toolkit.text_encoder import TextOutputs as TextOutputs
    from clip_toolkit.text_encoder import load_text as load_text
    from clip_toolkit.version import __version__ as __version__
else:
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
