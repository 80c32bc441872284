"""Keep ONNX Runtime from sending usage data, by importing this module before it.

ONNX Runtime 1.29 and later for Linux and macOS writes a device id into the user's cache folder and reports sessions to
Microsoft, unless this variable is set when its first environment is made (microsoft/onnxruntime#27379, #29843). A value
that the user has set stays.
"""

from __future__ import annotations

import os

VARIABLE = "ORT_DISABLE_TELEMETRY"
_ON = ("", "0", "false", "no", "off")

os.environ.setdefault(VARIABLE, "1")


def telemetry_is_off() -> bool:
    """Tell whether the variable keeps ONNX Runtime from sending usage data."""
    return os.environ.get(VARIABLE, "").strip().lower() not in _ON
