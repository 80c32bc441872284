"""Show a model file in the browser, correct its answers, and retrain it: a gradio app on the runtime.

from clip_app import AppOptions, create_app

app = create_app(AppOptions(model="model.onnx"))  # for any ASGI server; clip-app brings one
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from clip_toolkit.lazy import lazy_names

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # gradio reads it when it is imported, and would phone home

_HOMES = {
    "AppOptions": "options",
    "create_app": "app",
}
"""Where each public name lives."""

__all__ = list(_HOMES)

if TYPE_CHECKING:
    from clip_app.app import create_app as create_app
    from clip_app.options import AppOptions as AppOptions
else:
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
