"""The deployment files name options, paths and ports that ``clip-serve`` has."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the serve extra")

from clip_serve import ServeOptions
from clip_serve.middleware.door import OPEN
from clip_serve.options import LimitOptions
from clip_toolkit.options import Parser, parse_options

yaml = pytest.importorskip("yaml", reason="needs PyYAML")

DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
ENTRYPOINT = json.loads(re.search(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)[1])  # type: ignore[index]


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def containers(name: str) -> list[dict[str, Any]]:
    """Every container of a file, with the names that Kubernetes has for its settings."""
    if name == "compose.yaml":
        found = documents(name)[0]["services"]["clip-serve"]
        return [{"args": found["command"], "ports": [{"containerPort": int(found["ports"][0].split(":")[-1])}]}]
    spec = documents(name)[0]["spec"]
    found = (spec["predictor"] if name == "kserve.yaml" else spec["template"]["spec"])["containers"]
    return list(found)


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes.yaml", "kserve.yaml"])
def test_the_commands_are_clip_serves(name: str):
    program, *given = ENTRYPOINT
    assert program == "clip-serve"
    [container] = containers(name)
    options = parse_options(Parser(prog=program), ServeOptions, [*given, *container["args"]])
    assert [port["containerPort"] for port in container["ports"]] == [options.address.port]
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        if probe in container:
            get = container[probe]["httpGet"]
            assert get["path"] in OPEN
            assert get["port"] in ("http", options.address.port)


def test_the_health_check_asks_the_port_without_a_token():
    path = re.search(r"http://127\.0\.0\.1:8000(/\S*)'", DOCKERFILE)
    assert path is not None
    assert path[1] in OPEN
    assert f"EXPOSE {ServeOptions().address.port}\n" in DOCKERFILE
    assert re.search(r"^USER (?!0|root)", DOCKERFILE, re.MULTILINE)


def test_the_grace_periods_outlast_the_drain():
    drain = LimitOptions().drain
    pod = documents("kubernetes.yaml")[0]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > drain
    assert int(documents("compose.yaml")[0]["services"]["clip-serve"]["stop_grace_period"].rstrip("s")) > drain


def test_what_the_dockerfile_copies_is_there_and_not_ignored():
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for line in re.findall(r"^COPY (?!--)(.*)$", DOCKERFILE, re.MULTILINE):
        *sources, _ = shlex.split(line)
        for source in sources:
            assert (DEPLOY.parents[1] / source).exists()
            assert f"!{source}" in ignored
