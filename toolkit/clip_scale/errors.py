"""What goes wrong between many images and many workers.

ClipToolkitError
├── SourceError (ValueError)
└── WorkerError (RuntimeError)
"""

from __future__ import annotations

from clip_toolkit.errors import ClipToolkitError


class SourceError(ClipToolkitError, ValueError):
    """A source of images, or a batch of columns, does not hold what is wanted."""


class WorkerError(ClipToolkitError, RuntimeError):
    """A worker cannot do its work, or too many images failed."""
