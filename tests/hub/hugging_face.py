"""A Hugging Face on this machine: as much of its HTTP interface as uploading and downloading small files takes."""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories by name.

    Attributes:
        files: name -> path -> content.
        private: name -> whether it is private.
        requests: method and path of every request.
        token: what writers must show.
    """

    def __init__(self, token: str):
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.requests: list[str] = []
        self.token = token
        self.url = ""


@contextlib.contextmanager
def running(monkeypatch: pytest.MonkeyPatch, token: str = "hf_mine") -> Iterator[Hub]:
    """Serves a `Hub`, to which huggingface_hub then speaks, with the token."""
    hub = Hub(token)
    handler = type("Bound", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setenv("HF_TOKEN", token)
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    """https://huggingface.co/docs/hub/api, for models at the revision "main"."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # pytest shows no log
        self.hub.requests.append(format % args)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        path = urlsplit(self.path).path
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if self.headers["Authorization"] != f"Bearer {self.hub.token}":
            return self._answer({"error": "Invalid credentials in Authorization header"}, 401)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        _, _, _, organisation, name, action, *_ = path.split("/")
        repository = f"{organisation}/{name}"
        if action == "preupload":
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self._answer({"files": files})
        assert action == "commit", path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                value = line["value"]
                self.hub.files[repository][value["path"]] = base64.b64decode(value["content"])
        url = f"{self.hub.url}/{repository}/commit/{SHA}"
        return self._answer({"commitUrl": url, "commitOid": SHA, "success": True})

    def do_GET(self) -> None:
        parts = urlsplit(self.path).path.split("/")
        if parts[1] != "api":
            content = self.hub.files["/".join(parts[1:3])]["/".join(parts[5:])]
            return self._send(content, "application/octet-stream")
        repository = "/".join(parts[3:5])
        if repository not in self.hub.files:
            return self._answer({"error": "Repository not found"}, 404)
        files = self.hub.files[repository]
        if "tree" in parts:
            entries = [
                {"type": "file", "path": path, "size": len(files[path]), "oid": _oid(files[path])} for path in files
            ]
            return self._answer(entries)
        siblings = [{"rfilename": path} for path in files]
        return self._answer(
            {"id": repository, "private": self.hub.private[repository], "sha": SHA, "siblings": siblings, "tags": []}
        )

    do_HEAD = do_GET

    def _create(self, asked: dict[str, Any]) -> None:
        repository = f"{asked['organization']}/{asked['name']}"
        answer = {"url": f"{self.hub.url}/{repository}", "name": repository}
        if repository in self.hub.files:
            return self._answer({**answer, "error": "You already created this model repo"}, 409)
        self.hub.files[repository] = {}
        self.hub.private[repository] = asked.get("visibility") == "private" or asked.get("private", False)
        return self._answer(answer)

    def _answer(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("ETag", f'"{_oid(content)}"'),
            ("X-Repo-Commit", SHA),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
