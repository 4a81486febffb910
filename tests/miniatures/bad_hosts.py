"""Hosts that misbehave: each answers a request in its own way, byte by byte.

`HOSTS` maps a name to what the host writes; `serve` lets one answer on a port of this machine.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

BODY: Final = b"PK\x03\x04" + bytes(range(256)) * 64
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
Answer = Callable[[socket.socket], object]


def says(*pieces: bytes) -> Answer:
    """Send these bytes, and hang up."""
    return lambda line: [line.sendall(piece) for piece in pieces]


def for_ever(head: bytes, piece: bytes, pause: float = 0.0) -> Answer:
    """Send a head, then the same piece again and again."""

    def answer(line: socket.socket) -> None:
        line.sendall(head)
        while True:
            line.sendall(piece)
            time.sleep(pause)

    return answer


def counting(head: bytes, text: str) -> Answer:
    """Send a head, then a line for every number."""
    return lambda line: [
        line.sendall(text.format(n).encode()) for n in itertools.chain([0], itertools.count(1))
    ]


def whole(body: bytes, *headers: bytes) -> bytes:
    """An answer with its length."""
    head = b"".join(header + b"\r\n" for header in headers)
    return OK + head + b"Content-Length: %d\r\n\r\n" % len(body) + body


_PACKED: Final = gzip.compress(BODY)
HOSTS: Final[dict[str, Answer]] = {
    # one byte in a while, in the head and in the body
    "drips a status line": for_ever(b"HTTP/1.1 200", b" ", 0.02),
    "drips headers": for_ever(OK, b"X: y\r\n", 0.02),
    "drips a body": for_ever(OK + b"Content-Length: 1000000\r\n\r\n", b"x", 0.02),
    "says nothing": lambda line: time.sleep(2),
    "is silent after a byte": lambda line: (line.sendall(OK + b"\r\nx"), time.sleep(2)),
    # without end
    "continues for ever": for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.001),
    "headers without end": for_ever(OK, b"X: y\r\n"),
    "a header without end": for_ever(OK + b"X: ", b"y" * 1000),
    "chunks without end": for_ever(
        OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"
    ),
    "a body without end": for_ever(OK + b"\r\n", b"x" * 65536),
    # lengths that are none
    **{
        f"length {word[:20]}": says(
            OK + b"Content-Length: " + word.encode("latin-1") + b"\r\n\r\n", BODY
        )
        for word in ("-1", "abc", "1e3", "9" * 30, "9" * 5000, "\xb2", "", "0x10", "1 2", "+5")
    },
    **{
        f"range {word[:20]}": says(
            OK.replace(b"200 OK", b"206 Partial Content")
            + b"Content-Range: " + word.encode() + b"\r\n\r\n",
            BODY,
        )
        for word in ("", "bytes 5-9/20", "bytes 0-1/" + "9" * 5000, "bytes */*", "bytes -1-2/3")
    },
    "beyond what there is": says(
        b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */" + b"9" * 5000 + b"\r\n\r\n"
    ),
    "far too long": says(OK + b"Content-Length: 999999999999\r\n\r\n", BODY),
    "chunks of no size": says(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", BODY),
    "chunks of minus one": says(OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", BODY),
    "cut short": says(OK + b"Content-Length: 100000\r\n\r\n", BODY),
    # no file
    "nothing": says(whole(b"")),
    "gzip by header": says(whole(_PACKED, b"Content-Encoding: gzip")),
    "gzip by content": says(whole(_PACKED)),
    "a page": says(whole(b"<!DOCTYPE html><html>")),
    "a pointer": says(whole(b"version https://git-lfs.github.com/spec/v1\n")),
    # no HTTP
    "hangs up": says(b""),
    "half a line": says(b"HTTP/1."),
    "another protocol": says(b"SSH-2.0-OpenSSH_9\r\n"),
    "no status": says(b"HTTP/1.1 abc OK\r\n\r\n"),
    "status 0": says(b"HTTP/1.1 000 OK\r\n\r\n"),
    "status 999": says(b"HTTP/1.1 999 OK\r\n\r\n"),
    "no version": says(b"HTTP/x.y 200 OK\r\n\r\n"),
    "zeros": says(bytes(10_000)),
    "not latin": says(b"HTTP/1.1 200 \xff\xfe\r\n\xff: \xfe\r\n\r\n"),
    "no colon": says(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"),
    # elsewhere
    **{
        f"sends on to {place}": says(
            b"HTTP/1.1 302 Found\r\nLocation: " + place.encode() + b"\r\n\r\n"
        )
        for place in (
            "", "/", "http://", "http://[::1", "http://h:x/", "http://h:99999999/w", "//",
            "file:///etc/passwd", "ftp://h/w", "http://a b/", "javascript:x", "http://\u00fc/",
            "http://127.0.0.1:1/w", "?",
        )
    },
    **{
        f"refuses with {code}": says(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % code)
        for code in (204, 300, 304, 400, 401, 403, 404, 407, 410, 418, 429, 451, 500, 503, 511)
    },
}  # fmt: skip


@contextlib.contextmanager
def serve(answer: Answer) -> Iterator[str]:
    """Let a host answer every request in one way; yield its address."""
    server = socket.create_server(("127.0.0.1", 0))
    lines: list[socket.socket] = []

    def talk(line: socket.socket) -> None:
        with contextlib.suppress(OSError), line:
            line.settimeout(5)
            line.recv(65536)
            answer(line)
            line.shutdown(socket.SHUT_WR)

    def listen() -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = server.accept()
                lines.append(line)
                threading.Thread(target=talk, args=(line,), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/w.pth"
    finally:
        for line in [server, *lines]:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()
