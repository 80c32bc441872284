"""Processes of their own that need not load PyTorch: each is forked from one that has loaded it."""

import functools
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import pytest

from commands_in_process import Done

ROOT = Path(__file__).parents[2]

SECONDS = 300
LOADED = (
    "pytest",
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.image_processing_clip",
    "sklearn.linear_model",
    "onnxruntime",
    "onnxscript",
)
"""Packages of others: our own modules are loaded in each process anew, so that a test may change them there."""


def run_forked(main: Callable[..., int], *arguments: object, cwd: Path) -> Done:
    """Run a function in a process of its own.

    Args:
        main: a function of a module, which returns an exit code.
        *arguments: what JSON can hold, and paths.
        cwd: where the process runs.
    """
    if not hasattr(os, "fork"):
        pytest.skip("needs processes that fork")
    with TemporaryDirectory() as name:
        out, said = Path(name) / "out", Path(name) / "said"
        server = _server()
        request = (main.__module__, main.__name__, arguments, cwd, out, said)
        print(json.dumps(request, default=str), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        return Done(code, out.read_text(encoding="utf-8"), said.read_text(encoding="utf-8"))


@functools.cache
def _server() -> "subprocess.Popen[str]":
    """Start the process that forks; it ends when its standard input does, with this one."""
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, __file__], env=os.environ | paths, text=True, **pipes)


def serve() -> None:
    """Run what each line of standard input asks for in a fork, and print its exit code; a signal's is negative."""
    for name in LOADED:
        import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.alarm(SECONDS)  # which ends it, if it hangs
            _run(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run(module: str, name: str, arguments: list[object], cwd: str, out: str, said: str) -> NoReturn:
    os.chdir(cwd)
    os.environ.pop("CLIP_MODEL", None)
    for stream, path in ((1, out), (2, said)):
        with Path(path).open("wb") as opened:
            os.dup2(opened.fileno(), stream)
    try:
        code = getattr(import_module(module), name)(*arguments)
    except BaseException:  # whatever it is, the test that asked for this process has to see it
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)  # what Python does at its own end takes a second with so much loaded


if __name__ == "__main__":
    serve()
