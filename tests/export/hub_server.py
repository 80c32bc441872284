"""A model hub on the loopback interface: what huggingface_hub asks of a server, and no more."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve(repository: str, folder: Path) -> Iterator[str]:
    """Serve ``folder`` as ``repository``, on branch ``main`` and as `COMMIT`; yields the address."""
    handler = type("Handler", (_Hub,), {"repository": repository, "folder": folder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Hub(BaseHTTPRequestHandler):
    repository: str
    folder: Path
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""

    def _answer(self, *, send_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        resolve, api = f"/{self.repository}/resolve/", f"/api/models/{self.repository}"
        if path.startswith(resolve):
            revision, _, name = path.removeprefix(resolve).partition("/")
            self._file(revision, name, send_body=send_body)
        elif path.startswith(f"{api}/revision/") and path.rpartition("/")[2] not in ("main", COMMIT):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif path == api or path.startswith(f"{api}/revision/"):
            siblings = [{"rfilename": item.name} for item in sorted(self.folder.iterdir())]
            self._send(200, json.dumps({"id": self.repository, "sha": COMMIT, "siblings": siblings}).encode(), {})
        elif path.startswith(f"{api}/tree/"):
            files = [
                {"type": "file", "path": item.name, "size": item.stat().st_size, "oid": "0"}
                for item in self.folder.iterdir()
            ]
            self._send(200, json.dumps(files).encode(), {})
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _file(self, revision: str, name: str, *, send_body: bool) -> None:
        path = self.folder / name
        if revision not in ("main", COMMIT):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif not path.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            content = path.read_bytes()
            headers = {"ETag": f'"{hashlib.sha1(content, usedforsecurity=False).hexdigest()}"', "X-Repo-Commit": COMMIT}
            self._send(200, content if send_body else b"", headers, len(content))

    def _send(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
