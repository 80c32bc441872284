"""Every command and program of docs/training.md, run as it stands."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")

pytest.importorskip("sklearn", reason="needs the report extra")


def test_the_walk_through_works(tmp_path: Path):
    (tmp_path / "models").symlink_to(ROOT / "models")
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shown = ""
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        commands = [[sys.executable, "-c", block]] if language == "python" else map(shlex.split, block.splitlines())
        for command in commands:
            done = subprocess.run(
                command,
                cwd=tmp_path,
                env=os.environ | {"PATH": tools},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            shown += done.stdout
    assert {path.name for path in (tmp_path / "report").iterdir()} >= {"report.html", "roc-pr.png", "mistakes.png"}
    assert re.search(r"test: 7\d images: normal 3\d, pneumonia 3\d", shown)
    assert re.search(r"thresholds +pneumonia from 0\.", shown)
