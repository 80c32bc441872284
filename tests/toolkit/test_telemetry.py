"""ONNX Runtime sends nothing, and the runtime writes nothing into the home of whoever runs it."""

import json
from pathlib import Path

import pytest
from empty_home import run_at_home

from clip_toolkit.commands.infer import main
from clip_toolkit.telemetry import VARIABLE


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty folder."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_clip_infer_and_clip_search_leave_the_home_empty(demo: Path, home: Path, tmp_path: Path):
    run_at_home(home, "-m", "clip_toolkit.commands.infer", "--selftest", str(demo))
    (tmp_path / "photos").mkdir()
    run_at_home(home, "-m", "clip_search.commands.search", "index", "photos", "--model", str(demo))
    assert not list(home.rglob("*"))


@pytest.mark.parametrize("module", ["clip_toolkit", "clip_search", "clip_toolkit.runtime.devices"])
def test_importing_a_package_turns_telemetry_off(module: str, home: Path):
    show = f"import os, {module}; print(os.environ['{VARIABLE}'])"
    assert run_at_home(home, "-c", show).strip() == "1"
    assert run_at_home(home, "-c", show, **{VARIABLE: "0"}).strip() == "0"  # the user's own choice stands


@pytest.mark.parametrize(
    ("package", "variable", "off", "on"),
    [
        ("clip_app", "GRADIO_ANALYTICS_ENABLED", "False", "True"),
        ("clip_scale", "RAY_USAGE_STATS_ENABLED", "0", "1"),
        ("clip_scale", "DAFT_ANALYTICS_ENABLED", "0", "1"),
    ],
)
def test_importing_a_package_turns_off_that_of_others(package: str, variable: str, off: str, on: str, home: Path):
    show = f"import os, {package}; print(os.environ['{variable}'])"
    assert run_at_home(home, "-c", show).strip() == off
    assert run_at_home(home, "-c", show, **{variable: on}).strip() == on


@pytest.mark.parametrize(("value", "status"), [("1", "fine"), ("true", "fine"), ("0", "note")])
def test_the_doctor_reports_it(
    value: str, status: str, demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv(VARIABLE, value)
    main(["--doctor", str(demo), "--format", "json"])
    rows = {row["subject"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["telemetry"]["status"] == status
    assert f"{VARIABLE}={value}" in rows["telemetry"]["detail"]
