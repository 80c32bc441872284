"""The page as an ASGI application, and the server that shows it to this machine alone."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from clip_app.answers import STYLE
from clip_app.corrections import Corrections
from clip_app.options import AppOptions
from clip_app.retraining import Retraining
from clip_app.shown import ShownModel
from clip_app.tabs.batch import BatchTab
from clip_app.tabs.classify import ClassifyTab
from clip_app.tabs.retrain import RetrainTab
from clip_app.tabs.search import SearchTab
from clip_toolkit.errors import ClipToolkitError
from clip_toolkit.files.locate import find_model
from clip_toolkit.spec.description import describe
from clip_toolkit.terminal import say

_HOST = "127.0.0.1"
_HOSTS = [_HOST, "localhost"]  # a page of another site cannot reach the app by a name of its own
_MIB = 2**20


def create_app(options: AppOptions) -> FastAPI:
    """Open the model and make the application that shows it; ``app.state.retraining`` is its `Retraining`, or None.

    Raises:
        ModelError: the file is missing, foreign or damaged, or reads texts.
        MissingDependencyError: the extra ``export`` is needed for a retraining and is not installed.
        SearchIndexError: the index is missing, damaged or of another encoder.
        ClipToolkitError: the head file is missing, or the model is the built-in demo, which cannot be replaced.
    """
    located = find_model(options.model)
    if located.is_demo:
        if options.retraining is not None:
            raise ClipToolkitError("--head: name the MODEL that was exported from it")
        say("no model given: using the built-in demo, which has seen nothing but drawn shapes")
    shown = ShownModel(located.path, options.device)
    corrections = Corrections(options.corrections, shown.classifier.spec)
    asked = options.retraining
    retraining = None if asked is None else Retraining(shown, corrections, asked)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS)
    app.state.retraining = retraining
    gr.mount_gradio_app(
        app,
        _page(shown, corrections, options, retraining),
        "/",
        server_name=_HOST,
        footer_links=[],
        show_error=False,
        max_file_size=options.max_file * _MIB,
        ssr_mode=False,
        mcp_server=False,
        css=STYLE,
        theme=gr.themes.Default(primary_hue="blue"),
    )
    return app


def _page(shown: ShownModel, corrections: Corrections, options: AppOptions, retraining: Retraining | None) -> Any:
    with gr.Blocks(title=shown.path.name, analytics_enabled=False) as page:
        gr.Markdown(f"# {shown.path.name}")
        with gr.Accordion("What the file says of itself", open=False):
            gr.Code("\n".join(describe(shown.classifier.spec, shown.path)), language=None, show_label=False)
        with gr.Tab("Classify"):
            ClassifyTab(shown, corrections, options.top_k)
        with gr.Tab("Many images"):
            BatchTab(shown)
        if options.searching is not None:
            with gr.Tab("Search"):
                SearchTab(shown, options.searching)
        if retraining is not None:
            with gr.Tab("Retrain"):
                RetrainTab(retraining)
    return page


def serve(options: AppOptions) -> None:
    """Show the page to this machine until SIGINT or SIGTERM.

    Raises:
        ClipToolkitError: the port is in use, or as in `create_app`.
    """
    try:
        listener = socket.create_server((_HOST, options.port))
    except OSError as error:
        raise ClipToolkitError(
            f"cannot listen on port {options.port} ({error.strerror}): name another with --port"
        ) from error
    with listener, suppress(KeyboardInterrupt):  # uvicorn raises the signal again that has ended it
        app = create_app(options)
        say(f"listening on http://{_HOST}:{listener.getsockname()[1]}")
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        try:
            server.run([listener])
        finally:
            if app.state.retraining is not None:
                app.state.retraining.stop()
