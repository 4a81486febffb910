"""Talking to a host that may be slow, endless, or malicious. No torch.

A timeout of the socket ends a silence, not a trickle: one byte in a while keeps a reader for years,
and so does an answer of nothing but `100 Continue`. Here an answer must have begun in time, and
bytes must come at a rate.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit
from urllib.request import BaseHandler, HTTPHandler, HTTPSHandler, Request

from eofm.errors import WeightsError

CHUNK: Final = 1 << 20
TIMEOUT_S: Final = 30.0
# How long the head of an answer may take, and over what time a rate is measured.
HEAD_S: float = 30.0
RATE_OVER_S: float = 30.0
LEAST_RATE: float = 1024.0  # bytes per second: a quarter of a gigabyte would take three days
LARGEST: Final = 16 * 2**30  # no published encoder comes near


class Interrupted(Exception):  # noqa: N818 (it names what happened)
    """The transfer stopped for a reason that may pass; what arrived is kept."""


@contextlib.contextmanager
def _deadline(line: socket.socket) -> Iterator[None]:
    """End the connection if the body takes longer than `HEAD_S`."""

    def end() -> None:
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(HEAD_S, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Connection(http.client.HTTPConnection):
    """Waits for the head of an answer only so long."""

    def getresponse(self) -> http.client.HTTPResponse:
        """Return the answer, once its head is there."""
        with _deadline(self.sock):
            return super().getresponse()


class _SecureConnection(http.client.HTTPSConnection):
    """The same, encrypted."""

    def getresponse(self) -> http.client.HTTPResponse:
        """Return the answer, once its head is there."""
        with _deadline(self.sock):
            return super().getresponse()


class _Http(HTTPHandler):
    def http_open(self, req: Request) -> http.client.HTTPResponse:
        """Open an address over a connection that waits only so long."""
        return self.do_open(_Connection, req)


class _Https(HTTPSHandler):
    def https_open(self, req: Request) -> http.client.HTTPResponse:
        """Open an address over a connection that waits only so long."""
        return self.do_open(_SecureConnection, req, context=self._context)  # type: ignore[attr-defined]


def handlers() -> tuple[BaseHandler, ...]:
    """Return what opens connections for urllib."""
    return _Http(), _Https()


def chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the body in pieces of `CHUNK`, the last one shorter.

    Raises:
        Interrupted: If the connection ends, or bytes come more slowly than `LEAST_RATE`; the piece
            that had begun is yielded first.
    """
    gathered = bytearray()
    fault: Interrupted | None = None
    since, arrived = time.monotonic(), 0
    while fault is None:
        try:
            piece = response.read1(CHUNK - len(gathered))
        except (OSError, http.client.HTTPException, ValueError) as error:
            fault = Interrupted(str(error) or repr(error))
            fault.__cause__ = error
            break
        gathered += piece
        arrived += len(piece)
        passed = time.monotonic() - since
        if passed >= RATE_OVER_S:
            if arrived < LEAST_RATE * passed:
                fault = Interrupted(f"{arrived} bytes in {passed:.0f} s")
            since, arrived = time.monotonic(), 0
        if not piece or len(gathered) >= CHUNK:
            if gathered:
                yield bytes(gathered)
                gathered.clear()
            if not piece:
                return
    if gathered:
        yield bytes(gathered)
    raise fault


def check_address(url: str) -> None:
    """Refuse what is no address.

    Raises:
        WeightsError: If it has no host, a port that is none, or characters that an address has not.
    """
    problem = "characters that no address has" if re.search(r"[^!-~]", url) else ""
    try:
        parts = urlsplit(url)
        if parts.port == 0 or (parts.scheme in {"http", "https"} and not parts.hostname):
            problem = problem or "no host"
        if parts.hostname:
            parts.hostname.encode("idna")
    except ValueError as error:
        problem = str(error)
    if problem:
        raise WeightsError(
            "this is not an address from which a file can be fetched",
            found=f"{url[:200]!r}: {problem}",
            expected="https://HOST/PATH",
        )


def number_of(text: str) -> int | None:
    """Return a length that a host states; None where it is none.

    >>> number_of("17"), number_of("-1"), number_of("9" * 5000), number_of("²")
    (17, None, None, None)
    """
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None
