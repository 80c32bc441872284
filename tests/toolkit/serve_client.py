"""A client of a running service, without a library."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from clip_serve.service import Service


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of a refusal."""
        found: str = self.json["error"]
        return found


class Client:
    """A service, running."""

    def __init__(self, app: Starlette, port: int) -> None:
        self.app, self.port = app, port
        self.service: Service = app.state.service

    def ask(self, method: str, path: str, body: bytes | str | None = None, **headers: str) -> Reply:
        """Send one request on a connection of its own; underscores in names of headers are hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            response = connection.getresponse()
            found = {name.lower(): text for name, text in response.getheaders()}
            return Reply(response.status, found, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        """GET."""
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: object, content_type: str = "application/json", **headers: str) -> Reply:
        """POST bytes, or anything else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body)
        return self.ask("POST", path, data, content_type=content_type, **headers)

    def upload(self, path: str, files: list[tuple[str, bytes]], **fields: str) -> Reply:
        """POST a form, as ``curl -F`` does."""
        parts = [(f'name="{name}"', text.encode()) for name, text in fields.items()]
        parts += [(f'name="file"; filename="{name}"', data) for name, data in files]
        body = b"".join(
            f"--XX\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts
        )
        return self.post(path, body + b"--XX--\r\n", "multipart/form-data; boundary=XX")
