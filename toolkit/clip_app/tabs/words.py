"""Errors as words on the page."""

from __future__ import annotations

import functools
from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from clip_toolkit.errors import ClipToolkitError


def in_words(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Let a handler of events show its errors on the page, where gradio would print a traceback."""

    @functools.wraps(handler)
    def handle(*inputs: Any) -> Any:
        try:
            return handler(*inputs)
        except (ClipToolkitError, OSError) as error:
            raise gr.Error(escape(str(error)), duration=None, print_exception=False) from error

    return handle
