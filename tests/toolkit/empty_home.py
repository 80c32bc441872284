"""Commands in the process of a user whose home is empty."""

import os
import subprocess
import sys
from pathlib import Path

_NEEDED = ("PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "OMP_NUM_THREADS")


def run_at_home(home: Path, *arguments: str, **environment: str) -> str:
    """Run Python with a home of its own and return what it prints.

    Nothing of the environment is handed on that redirects caches, or speaks of CI, where ONNX Runtime is silent anyway.
    """
    kept = {name: os.environ[name] for name in _NEEDED if name in os.environ}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=home.parent,
        env=kept | {"HOME": str(home), "USERPROFILE": str(home)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
