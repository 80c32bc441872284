"""All that the doctor looks at, in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clip_toolkit.doctor.finding import Finding
from clip_toolkit.doctor.installation import installation
from clip_toolkit.doctor.machine import machine
from clip_toolkit.doctor.providers import providers
from clip_toolkit.errors import MissingDependencyError, ModelError
from clip_toolkit.runtime.devices import outdated
from clip_toolkit.runtime.prepared import find_prepared
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.model_file import read_any_spec
from clip_toolkit.spec.text_tower import TextTowerSpec


def examine(model: Path, threads: int | None = None) -> list[Finding]:
    """Look at the installation, the machine, the model file, and every execution provider running it.

    Args:
        model: the model file.
        threads: CPU threads that runs would use; default all usable cores.
    """
    findings = [*installation()]
    file = _model(model)
    findings += [*machine(model.stat().st_size if model.is_file() else 0, threads), file]
    if file.status != "wrong":
        findings += [*_prepared(model), *providers(model, threads)]
    return findings


def _model(path: Path) -> Finding:
    try:
        spec = read_any_spec(path)
    except ModelError as error:
        return Finding("model", "wrong", str(error), "clip-export --head head.pt -o model.onnx")
    holds = "a text tower" if isinstance(spec, TextTowerSpec) else _answers(spec)
    detail = f"{path}: {holds}, format {spec.version}, {len(spec.golden)} golden vectors"
    if not spec.golden:
        return Finding(
            "model", "wrong", f"{detail}: nothing to test it with", "clip-export --head head.pt -o model.onnx"
        )
    remark = _outdated(spec.onnxruntime)
    if remark is not None:
        return Finding("model", "wrong", f"{detail}: {remark}", "pip install -U onnxruntime (or the build in use)")
    return Finding("model", "fine", detail)


def _prepared(model: Path) -> Iterator[Finding]:
    """Whether what was prepared of the file, if anything, still fits it."""
    try:
        found = find_prepared(model)
    except MissingDependencyError:  # said already, of the installation
        return
    if found.graph is not None:
        yield Finding("prepared weights", "fine", f"opened in the file's place on the CPU: {found.graph.parent}")
    elif found.remarks:
        yield Finding("prepared weights", "note", found.remarks[0], f"clip-infer --prepare {model}")


def _answers(spec: ModelSpec) -> str:
    counts = {name: f"{len(head.labels)} labels" for name, head in spec.heads.items()}
    return ", ".join(f"{count} of {name}" if name else count for name, count in counts.items())


def _outdated(needed: str) -> str | None:
    try:
        return outdated(needed)
    except MissingDependencyError:  # said already, of the installation
        return None
