"""The fastest device for a model file on this machine: measured on the file's own golden pictures, and remembered."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from clip_toolkit.classifier import Classifier, load
from clip_toolkit.errors import DeviceError, ModelError
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.files.locate import cache_folder
from clip_toolkit.files.stamp import sha256_of
from clip_toolkit.replay import selftest
from clip_toolkit.runtime.devices import import_onnxruntime
from clip_toolkit.runtime.memory import memory_in_force
from clip_toolkit.runtime.plugins import FASTEST, installed_devices
from clip_toolkit.runtime.processor import processor_facts, usable_cores

_ROUNDS = 7


def fastest_device(path: Path, threads: int | None = None, report: Callable[[str], None] = lambda _: None) -> str:
    """Return the device that runs one image in the least time, of those that pass the selftest.

    All that are installed are opened and take turns on the golden pictures. What came of it is kept in the user's cache
    folder, under a digest of the model file, the version of ONNX Runtime, the devices, the processor, the threads
    and the limit of memory.

    Args:
        path: the model file, of a classifier.
        threads: CPU threads, as in `clip_toolkit.load`.
        report: told of what is measured, and which devices are left out and why, line by line.

    Raises:
        DeviceError: none passes.
        ModelError, MissingDependencyError: as `clip_toolkit.load`.
    """
    devices = installed_devices()
    key = _key(path, devices, threads or usable_cores())
    known = _remembered()
    if known.get(key) in devices:
        report(f"fastest device, as measured before: {known[key]}")
        return known[key]
    opened = {device: found for device in devices if (found := _opened(path, device, threads, report)) is not None}
    if not opened:
        raise DeviceError(f"device {FASTEST}: none of {', '.join(devices)} passes the selftest of {path}.")
    seconds = _measured(opened)
    best = min(seconds, key=lambda device: seconds[device])
    report(f"fastest device: {best} ({', '.join(f'{name} {each * 1000:.2f} ms' for name, each in seconds.items())})")
    _remember({**known, key: best}, report)
    return best


def _opened(path: Path, device: str, threads: int | None, report: Callable[[str], None]) -> Classifier | None:
    try:
        classifier = load(path, device, threads)
        classifier.explains = False
        failed = [drift.output for drift in selftest(classifier) if not drift.passed]
    except (DeviceError, ModelError) as error:
        report(f"left out: {error}")
        return None
    if failed:
        report(f"left out: device {device}: fails the selftest ({', '.join(failed)})")
    return None if failed else classifier


def _measured(opened: Mapping[str, Classifier]) -> dict[str, float]:
    """Return median seconds of a golden picture on each device, which take turns."""
    taken: dict[str, list[float]] = {device: [] for device in opened}
    for _ in range(_ROUNDS):
        for device, classifier in opened.items():
            for vector in classifier.spec.golden:
                pixels = classifier.pixels(vector.png)
                start = time.perf_counter()
                classifier.predict_pixels([pixels], [vector.text])
                taken[device].append(time.perf_counter() - start)
    return {device: statistics.median(seconds) for device, seconds in taken.items()}


def _key(path: Path, devices: list[str], threads: int) -> str:
    facts = [sha256_of(path), import_onnxruntime().__version__, devices, processor_facts(), threads, memory_in_force()]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _file() -> Path:
    return cache_folder() / "fastest.json"


def _remembered() -> dict[str, str]:
    """Return the device of each key; none where the file is missing or damaged."""
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # the last of a user without a home folder
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def _remember(devices: Mapping[str, str], report: Callable[[str], None]) -> None:
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(_file()) as temporary:
            temporary.write_text(json.dumps(devices), encoding="utf-8")
    except (OSError, RuntimeError) as error:
        report(f"not remembered: {error}")
