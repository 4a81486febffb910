"""A host of weights on loopback, with the moods of real ones."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class File:
    """One file, and how the host behaves about it.

    `cuts` are numbers of bytes after which the next answers break off. `gate` holds an answer
    back, after `sent_first` bytes of it, until it is set.
    """

    body: bytes
    etag: str | None = '"one"'
    modified: str | None = None
    ranges: bool = True
    condition: bool = True
    length: bool = True
    kind: str = "application/octet-stream"
    status: int = 200
    location: str = ""
    cuts: list[int] = field(default_factory=list)
    gate: threading.Event | None = None
    sent_first: int = 0


@dataclass
class Host:
    """The files, and what was asked for: path and headers of each request."""

    files: dict[str, File] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    base: str = ""

    def put(self, name: str, body: bytes = b"", **moods: object) -> str:
        """Offer a file; return its address."""
        self.files[f"/{name}"] = File(body, **moods)
        return f"{self.base}/{name}"

    @property
    def ranges(self) -> list[str | None]:
        """The Range header of each request."""
        return [headers.get("Range") for _, headers in self.asked]


class Handler(BaseHTTPRequestHandler):
    """Answers as the file's mood is."""

    host: Host

    def do_GET(self) -> None:
        self.host.asked.append((self.path, dict(self.headers)))
        file = self.host.files.get(self.path)
        if file is None:
            self.send_error(404)
        elif file.location:
            self.send_response(file.status)
            self.send_header("Location", file.location)
            self.end_headers()
        elif file.status != 200:
            self.send_error(file.status)
        else:
            self.send_file(file)

    def send_file(self, file: File) -> None:
        """Send the whole file, or the part that is asked for."""
        start = self.wanted_from(file)
        if start >= len(file.body) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(file.body)}")
            self.end_headers()
            return
        body = file.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(file.body) - 1}/{len(file.body)}"
            )
        if file.length:
            self.send_header("Content-Length", str(len(body)))
        if file.etag:
            self.send_header("ETag", file.etag)
        if file.modified:
            self.send_header("Last-Modified", file.modified)
        self.send_header("Content-Type", file.kind)
        self.end_headers()
        if file.cuts:
            body = body[: file.cuts.pop(0)]
        self.wfile.write(body[: file.sent_first])
        if file.gate is not None:
            self.wfile.flush()
            file.gate.wait(60)
        try:
            self.wfile.write(body[file.sent_first :])
        except OSError:
            self.close_connection = True  # the other side was killed: that is the test

    def wanted_from(self, file: File) -> int:
        """Return the first byte to send, as RFC 9110 has it."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        holds = condition is None or not file.condition or condition in {file.etag, file.modified}
        return int(match[1]) if match and file.ranges and holds else 0

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Yield a host that answers until the test ends; the network is allowed, but for proxies."""
    for name in ("EOFM_OFFLINE", "HF_HUB_OFFLINE", "EOFM_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("eofm.weights.download.RETRY_DELAYS_S", (0.0, 0.0))
    host = Host()
    handler = type("Bound", (Handler,), {"host": host})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    host.base = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield host
    finally:
        for file in host.files.values():
            if file.gate is not None:
                file.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
