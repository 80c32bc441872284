"""What a search has found so far, on disk, so that it can go on after an interruption."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip_toolkit.files.atomic import written_atomically


class Record:
    """Results by kind and candidate.

    Attributes:
        path: of the file.
        notes: what of an earlier search was not used, one line each.
    """

    def __init__(self, path: Path, owner: str, machine: str) -> None:
        """Read what an earlier search left, as far as it is of the same images and, for times, of the same machine.

        Args:
            path: of the file.
            owner: hash of images, labels, split and encoders.
            machine: as in `clip_export.tuning.timing.machine`.
        """
        self.path, self.notes = path, list[str]()
        self._content: dict[str, Any] = {"owner": owner, "machine": machine}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            before, where = found["owner"], found["machine"]
            kinds = {name: dict(kind) for name, kind in found.items() if name not in ("owner", "machine")}
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError):
            self.notes.append(f"{path}: is damaged; everything is measured again")
            return
        if before != owner:
            self.notes.append(f"{path}: is of other images, encoders or options; everything is measured again")
            return
        if where != machine:
            self.notes.append(f"{path}: its times are of another machine ({where}); they are measured again")
            kinds.pop("times", None)
        self._content |= kinds

    def get(self, kind: str, name: str) -> Sequence[float] | None:
        """Return the numbers kept of a candidate, or None."""
        found: Sequence[float] | None = self._content.get(kind, {}).get(name)
        return found

    def put(self, kind: str, name: str, numbers: Sequence[float]) -> None:
        """Keep numbers of a candidate."""
        self._content.setdefault(kind, {})[name] = list(numbers)
        with written_atomically(self.path) as temporary:
            temporary.write_text(json.dumps(self._content, indent=1), encoding="utf-8")
