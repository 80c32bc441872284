"""Heads as programs, TorchScript or `torch.export`, loaded only where the user trusts them.

A TorchScript program runs no Python, but may read and write files. Loading a `torch.export` program may run any code:
it evaluates expressions, and unpickles what is no plain tensor.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from clip_export.heads.given_head import ROWS, GivenHead, guarded, tried_head
from clip_export.heads.reading import Reading
from clip_export.heads.weight_files import archive_names
from clip_toolkit.errors import HeadError

PROGRAM = ".pt2"
"""Suffix of a file that is always a program."""

_TORCHSCRIPT, _EXPORT = "TorchScript", "torch.export"
_DANGERS = {
    _TORCHSCRIPT: "which runs no Python, but may read and write files",
    _EXPORT: "and loading it may run any code",
}


def program_kind(path: Path) -> str | None:
    """Tell a program from a file of weights, without loading it; None for weights.

    Raises:
        HeadError: the file ends in ``.pt2`` and holds no program, or its archive is damaged.
    """
    names = archive_names(path)
    if "constants.pkl" in {name.rpartition("/")[2] for name in names}:
        return _TORCHSCRIPT
    if any("exported_program" in name or name.endswith("models/model.json") for name in names):
        return _EXPORT
    if path.suffix == PROGRAM:
        raise HeadError(f"{path}: holds no torch.export program. Save one with torch.export.save(program, 'head.pt2')")
    return None


def head_from_program(path: Path, kind: str, reading: Reading) -> GivenHead:
    """Load a program and try it.

    Args:
        path: its file.
        kind: as `program_kind` found.
        reading: what the program does not tell, and whether it is trusted.

    Raises:
        HeadError: it is not trusted, damaged, reads something else than features ``[batch, dim]``, or cannot be traced.
    """
    if not reading.trust_program:
        raise HeadError(
            f"{path}: is a {kind} program, {_DANGERS[kind]}. If you trust where it comes from, add --trust-program; "
            "otherwise save the head's state_dict."
        )
    if reading.says_layers:
        raise HeadError(
            f"{path}: is a {kind} program, which says its own layers. Leave out --activation, --norm-position and "
            "--head-class."
        )
    with guarded(str(path)), _quiet():
        module, inputs = _from_torchscript(path) if kind == _TORCHSCRIPT else _from_export(path)
        return tried_head(module.float(), inputs, reading, str(path), source="program", word=kind)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch's deprecations and the converter's progress off the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _from_torchscript(path: Path) -> tuple[nn.Module, int]:
    try:
        from torch._export.converter import TS2EPConverter
    except ImportError as error:
        raise HeadError(
            f"{path}: this PyTorch ({torch.__version__}) no longer converts TorchScript. Save the head with "
            "torch.export.save, or its state_dict."
        ) from error
    script: Any = torch.jit.load(path, map_location="cpu")
    script = script.eval().float()
    inputs = next((width for width in _widths(script) if _reads(script, width)), None)
    if inputs is None:
        raise HeadError(
            f"{path}: the program reads no features [batch, dim]. Save the head alone, without the encoder."
        )
    return _plain(TS2EPConverter(script, (torch.zeros(ROWS, inputs),)).convert()), inputs


def _widths(script: nn.Module) -> Iterator[int]:
    """Widths that the feature may have: what the weights are applied to, in their order."""
    yield from dict.fromkeys(int(value.shape[-1]) for value in script.state_dict().values() if value.ndim in (1, 2))


def _reads(script: nn.Module, width: int) -> bool:
    try:
        with torch.inference_mode():
            return isinstance(script(torch.zeros(ROWS, width)), Tensor)
    except RuntimeError:  # of TorchScript, for shapes that do not fit
        return False


def _from_export(path: Path) -> tuple[nn.Module, int]:
    program = torch.export.load(path)
    names = set(program.graph_signature.user_inputs)
    shapes = [tuple(node.meta["val"].shape) for node in program.graph.nodes if node.name in names]
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise HeadError(
            f"{path}: expected a program of one input, the features [batch, dim], found {shapes}. Save the head alone, "
            "without the encoder."
        )
    (batch, width), module = shapes[0], _plain(program)
    try:
        module(torch.zeros(ROWS, int(width)))
    except RuntimeError as error:
        if not isinstance(batch, int):
            raise
        raise HeadError(
            f"{path}: works for a batch of {batch} alone. Export it with "
            "dynamic_shapes=({0: torch.export.Dim('batch')},)"
        ) from error
    return module, int(width)


def _plain(program: torch.export.ExportedProgram) -> nn.Module:
    """Return the program as a module that fits into another, for any batch size: its own was that of the example."""
    module = program.module(check_guards=False)
    return fx.GraphModule(module, module.graph)
