"""Which execution providers really give PyTorch's answers: each replays the golden vectors, in a process of its own.

A provider that is listed may lack its driver, crash the process or compute something else; only running it tells.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from clip_toolkit.doctor.finding import Finding
from clip_toolkit.errors import MissingDependencyError
from clip_toolkit.runtime.plugins import installed_devices

_SECONDS = 600  # compilers of GPU providers take minutes; beyond this it hangs

_NONE = sys.float_info.min  # in the place of a tolerance of 0, of what has to be equal


def providers(model: Path, threads: int | None) -> Iterator[Finding]:
    """One finding for each provider that is built in or a plugin, and has a device name."""
    try:
        devices = installed_devices()
    except MissingDependencyError:  # said already, of the installation
        return
    for device in devices:
        yield _replayed(model, device, threads)


def _replayed(model: Path, device: str, threads: int | None) -> Finding:
    options = ["--threads", str(threads)] if threads else []
    command = [
        sys.executable,
        "-m",
        "clip_toolkit.commands.infer",
        "--selftest",
        str(model),
        "--device",
        device,
        *options,
    ]
    try:
        done = subprocess.run(  # noqa: S603  # our own command line
            [*command, "--format", "json"], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding(f"device {device}", "wrong", f"hangs: no answer in {_SECONDS} s", "--device cpu")
    if done.returncode < 0:
        return Finding(f"device {device}", "wrong", f"ends the process (signal {-done.returncode})", "--device cpu")
    return _judged(device, done.stdout, done.stderr)


def _judged(device: str, output: str, messages: str) -> Finding:
    fix = "clip-export, to make the model again" if device == "cpu" else "--device cpu, or update its driver"
    try:
        replayed = json.loads(output)
    except ValueError:
        last = (messages.strip().splitlines() or ["no output"])[-1]
        return Finding(f"device {device}", "wrong", last.removeprefix("clip-infer: "), fix)
    worst = max(replayed["drift"], key=lambda row: row["drift"] / (row["tolerance"] or _NONE))
    detail = (
        f"{replayed['provider']}: drift of {worst['output']} {worst['drift']:.1e}, allowed {worst['tolerance']:.1e}"
    )
    return Finding(
        f"device {device}", "fine" if replayed["passed"] else "wrong", detail, "" if replayed["passed"] else fix
    )
