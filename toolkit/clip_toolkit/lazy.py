"""Public names that are imported when they are asked for, so that a command's start waits for no library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__`` (https://peps.python.org/pep-0562/).

    Args:
        package: its ``__name__``.
        homes: the module of the package in which each public name lives, or in full one of the runtime.
    """

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(module_of(package, homes[name])), name)

    return get, lambda: list(homes)


def module_of(package: str, home: str) -> str:
    """Return the full name of the module that a home stands for."""
    return home if home.startswith("clip_toolkit.") else f"{package}.{home}"
