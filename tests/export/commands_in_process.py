"""Commands run inside the test's own process, which has the libraries loaded already."""

import contextlib
import io
import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

from tiny_models import TINY_CLIP

ENCODER = ("--encoder", TINY_CLIP)


class Done(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def run(command: str, *arguments: object, cwd: Path) -> Done:
    """Run a command of ours inside this process, which has the libraries loaded already."""
    [script] = entry_points(group="console_scripts", name=command)
    main = script.load()
    out, said = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        code = main([str(item) for item in arguments])
    return Done(code, out.getvalue(), said.getvalue())


def failed(*arguments: object, cwd: Path) -> str:
    """The one line of stderr of a training that fails as it should."""
    done = run("clip-train", *arguments, *ENCODER, cwd=cwd)
    assert done.returncode == 1, done.stdout + done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("clip-train: ")
    return line


def train(*arguments: object, cwd: Path) -> Done:
    done = run("clip-train", *arguments, *ENCODER, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def classified(folder: Path, *images: Path) -> list[dict[str, object]]:
    """The records of the runtime for the head in a folder, by way of a model file."""
    exported = run("clip-export", "--head", "head.pt", cwd=folder)
    assert exported.returncode == 0, exported.stderr
    assert run("clip-infer", "--selftest", "model.onnx", cwd=folder).returncode == 0
    done = run("clip-infer", *images, "--format", "jsonl", cwd=folder)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
