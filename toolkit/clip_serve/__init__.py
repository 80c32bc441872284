"""Serve model files over HTTP: the Open Inference Protocol, friendlier routes, and a page to try them.

from clip_serve import ServeOptions, create_app

app = create_app(ServeOptions(models=("model.onnx",)))  # for any ASGI server; clip-serve brings one
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clip_toolkit.lazy import lazy_names

_HOMES = {
    "ServeOptions": "options",
    "create_app": "app",
}
"""Where each public name lives."""

__all__ = list(_HOMES)

if TYPE_CHECKING:
    from clip_serve.app import create_app as create_app
    from clip_serve.options import ServeOptions as ServeOptions
else:
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
