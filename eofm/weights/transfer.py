"""One attempt to download a file over HTTP, resuming an earlier one. No torch.

The bytes so far are in `NAME.part`; `NAME.part.json` next to it identifies their file by the
address and the host's version tag (RFC 9110: ETag, or else Last-Modified). The rest is requested
on the condition that the version is still the same (If-Range).

A host may be slow, endless, or malicious. A socket timeout limits silence, not a trickle: a single
byte from time to time, or an answer of only `100 Continue`, could block a reader for years. Here
the response must begin in time, and bytes must arrive at a minimum rate.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import json
import os
import re
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    BaseHandler,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    Request,
    build_opener,
)

from eofm import __version__
from eofm.errors import WeightsError
from eofm.formats.foreign import advice, foreign
from eofm.formats.text import read_json
from eofm.terminal import track

__all__ = [
    "CHUNK",
    "HEAD_S",
    "LARGEST",
    "LEAST_RATE",
    "RATE_OVER_S",
    "TIMEOUT_S",
    "Interrupted",
    "Part",
    "check_address",
    "chunks",
    "handlers",
    "number_of",
    "transfer",
]

# -------------------------------------------------------------------------------- talking to a host

CHUNK: Final = 1 << 20
TIMEOUT_S: Final = 30.0
# Time limit for the head of a response, and interval over which the rate is measured.
HEAD_S: float = 30.0
RATE_OVER_S: float = 30.0
LEAST_RATE: float = 1024.0  # bytes per second: a quarter of a gigabyte would take three days
LARGEST: Final = 16 * 2**30  # far above any published encoder


class Interrupted(Exception):  # noqa: N818 (it names what happened)
    """The transfer stopped for a possibly temporary reason; received bytes are kept."""


@contextlib.contextmanager
def _deadline(line: socket.socket) -> Iterator[None]:
    """Close the connection if the body takes longer than `HEAD_S`."""

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
    """Connection with a time limit for the head of a response."""

    def getresponse(self) -> http.client.HTTPResponse:
        """Return the response when its head has arrived."""
        with _deadline(self.sock):
            return super().getresponse()


class _SecureConnection(http.client.HTTPSConnection):
    """The same for TLS."""

    def getresponse(self) -> http.client.HTTPResponse:
        """Return the response when its head has arrived."""
        with _deadline(self.sock):
            return super().getresponse()


class _Http(HTTPHandler):
    def http_open(self, req: Request) -> http.client.HTTPResponse:
        """Open an address over a connection with the time limit."""
        return self.do_open(_Connection, req)


class _Https(HTTPSHandler):
    def https_open(self, req: Request) -> http.client.HTTPResponse:
        """Open an address over a connection with the time limit."""
        return self.do_open(_SecureConnection, req, context=self._context)  # type: ignore[attr-defined]


def handlers() -> tuple[BaseHandler, ...]:
    """Return the handlers that open connections for urllib."""
    return _Http(), _Https()


def chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the body in pieces of `CHUNK`, the last one shorter.

    Raises:
        Interrupted: If the connection ends, or bytes arrive more slowly than `LEAST_RATE`; the
            incomplete piece is yielded first.
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
    """Raise an error for an invalid address.

    Raises:
        WeightsError: If it has no host, an invalid port, or invalid characters.
    """
    problem = "characters not allowed in an address" if re.search(r"[^!-~]", url) else ""
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
    """Return a length stated by a host; None if it is not a number.

    >>> number_of("17"), number_of("-1"), number_of("9" * 5000), number_of("²")
    (17, None, None, None)
    """
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None


# -------------------------------------------------------------------------------------- one attempt

# With a complete sha256, mixed versions would be detected, and no version tag is needed.
_WHOLE_SHA256: Final = 64
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_GZIP: Final = b"\x1f\x8b"
_LFS_POINTER: Final = b"version https://git-lfs"


@dataclass(frozen=True)
class Part:
    """The bytes of an unfinished download, with the identity of its file.

    Args:
        path: `NAME.part`.
    """

    path: Path

    @property
    def size(self) -> int:
        """Number of bytes so far."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def _label(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def version(self, url: str) -> str | None:
        """Return the host's version tag; "" for none, None if the part is not of `url`."""
        try:
            with foreign(WeightsError, "the note of a part cannot be read", where=self._label):
                label = read_json(self._label)
                return str(label["version"]) if label["url"] == url else None
        except WeightsError:
            return None

    def begin(self, url: str, version: str) -> None:
        """Discard the existing bytes and record the identity of the new ones."""
        self.path.unlink(missing_ok=True)
        self._label.write_text(json.dumps({"url": url, "version": version}), encoding="utf-8")

    def remove(self) -> None:
        """Delete the bytes and the note."""
        self.path.unlink(missing_ok=True)
        self._label.unlink(missing_ok=True)


def transfer(url: str, part: Part, target: Path, sha256: str, *, progress: bool) -> None:
    """Download the missing bytes of the file at `url` into `part`.

    Args:
        url: http or https.
        part: Bytes of an earlier attempt, if any; on return, the complete file.
        target: Final path of the file; for messages.
        sha256: Expected hash, to decide what can be verified without the host.
        progress: Whether to report progress on stderr.

    Raises:
        Interrupted: If another attempt may succeed.
        WeightsError: If no attempt will.
    """
    version = part.version(url)
    offset = part.size
    if not offset or version is None or (not version and len(sha256) < _WHOLE_SHA256):
        offset, version = 0, ""
    try:
        response = _open(url, offset, version or "", target)
    except _Beyond as beyond:
        if beyond.total == offset:
            return  # the earlier attempt was complete and was killed before recording that
        part.remove()
        raise Interrupted("the file on the host has become shorter") from beyond
    with response:
        _receive(response, url, part, offset, target, sha256, progress=progress)
    _refuse_foreign_content(part, url)


def _receive(
    response: http.client.HTTPResponse,
    url: str,
    part: Part,
    offset: int,
    target: Path,
    sha256: str,
    *,
    progress: bool,
) -> None:
    headers = response.headers
    if headers.get_content_type() == "text/html":
        raise _web_page(url, headers.get("Content-Type"))
    packed = headers.get("Content-Encoding", "identity")
    if packed.lower() != "identity":
        raise _packed(url, f"Content-Encoding: {packed}")
    start, total = _extent(response.status, headers, part)
    if start not in (0, offset):
        part.remove()
        raise Interrupted(f"the host sent bytes from {start} on, not from {offset}")
    if start and part.version(url) != _version(headers):
        part.remove()  # not every host supports If-Range
        raise Interrupted("the file on the host has changed")
    if total is None and not sha256:
        raise WeightsError(
            "a truncated download could not be detected",
            found="neither a length from the host nor a published hash",
            where=url,
            remedy=f"download it by hand and put it at {target}",
        )
    if total is not None and total > LARGEST:
        raise _too_large(url, f"{total} bytes, as the host says")
    try:
        if start == 0:
            part.begin(url, _version(headers))
        _check_room(part, start, total)
        _write(response, part, start, total, target.name, url, progress=progress)
    except OSError as error:
        raise _disk(error, part) from error
    if total is not None and part.size != total:
        raise Interrupted(f"{part.size} of {total} bytes arrived")


def _write(
    response: http.client.HTTPResponse,
    part: Part,
    start: int,
    total: int | None,
    name: str,
    url: str,
    *,
    progress: bool,
) -> None:
    pieces: Iterator[bytes] = chunks(response)
    if progress:
        left = None if total is None else -(-(total - start) // CHUNK)
        pieces = track(pieces, f"{name}, MiB", left)
    # unbuffered: a write that failed on a full disk is not repeated on closing
    with part.path.open("r+b" if start else "wb", buffering=0) as file:
        file.seek(start)
        try:
            for piece in pieces:
                _write_all(file, piece)
                if file.tell() > LARGEST:
                    raise _too_large(url, f"more than {LARGEST} bytes so far")
        finally:
            os.fsync(file.fileno())


def _write_all(file: io.FileIO, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[file.write(view) :]


# ---------------------------------------------------------------------------- the host


class _Beyond(Exception):  # noqa: N818
    """The host has no bytes beyond our offset; `total` is the length it states."""

    def __init__(self, total: int | None) -> None:
        self.total = total
        super().__init__(total)


class _SafeRedirects(HTTPRedirectHandler):
    """Follow a redirect to https, or from http to http; urllib itself refuses files."""

    def redirect_request(
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> Request | None:
        """Return the request for the new address, or raise."""
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new != "https" and (old, new) != ("http", "http"):
            raise HTTPError(newurl, code, f"redirect from {old} to {new}", headers, fp)
        check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, offset: int, version: str, target: Path) -> http.client.HTTPResponse:
    headers = {"User-Agent": f"eofm/{__version__}", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if version:
            headers["If-Range"] = version
    try:
        response: http.client.HTTPResponse = build_opener(_SafeRedirects, *handlers()).open(
            Request(url, headers=headers),
            timeout=TIMEOUT_S,
        )
    except HTTPError as error:
        with error:
            raise _refusal(error, url, target) from error
    except URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise WeightsError(
                "the host could not prove who it is",
                found=error.reason,
                where=url,
                remedy="set SSL_CERT_FILE to the certificates of your network, if it has its own",
            ) from error
        raise Interrupted(f"no connection: {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # of a foreign status line
        raise Interrupted(str(error) or repr(error)) from error
    return response


def _refusal(error: HTTPError, url: str, target: Path) -> Exception:
    """Return the error for a response of the host that is not the file."""
    by_hand = f"download it by hand and put it at {target}"
    match error.code:
        case 416:
            stated = error.headers.get("Content-Range", "")
            return _Beyond(number_of(stated.removeprefix("bytes */")))
        case code if code in _TRANSIENT:
            return Interrupted(f"the host answered {code} {error.reason}")
        case 401 | 403:
            problem = "the host does not hand out this file"
            by_hand = f"log in there, accept its licence if it asks, {by_hand}"
        case 404 | 410:
            problem = "the host has no such file"
            by_hand = f"check whether it has moved, {by_hand}"
        case code if 300 <= code < 400:
            problem = "the host redirects to an address that weights must not come from"
        case _:
            problem = "the host refuses the request"
    return WeightsError(problem, found=f"{error.code} {error.reason}", where=url, remedy=by_hand)


def _extent(status: int, headers: Message, part: Part) -> tuple[int, int | None]:
    """Return the first byte of the response, and the length of the whole file if stated."""
    if status != http.client.PARTIAL_CONTENT:
        return 0, number_of(headers.get("Content-Length", ""))
    form = r"bytes ([0-9]{1,15})-[0-9]{1,15}/([0-9]{1,15}|\*)"
    stated = re.fullmatch(form, headers.get("Content-Range", ""))
    if not stated:
        part.remove()
        raise Interrupted(f"the host sent a part without saying which: {str(dict(headers))[:200]}")
    return int(stated[1]), number_of(stated[2])


def _version(headers: Message) -> str:
    """Return a tag suitable for If-Range: a weak ETag does not guarantee equal bytes."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


# ---------------------------------------------------------------------------- what arrived


def _refuse_foreign_content(part: Part, url: str) -> None:
    with part.path.open("rb") as file:
        head = file.read(64)
    if not head:
        part.remove()
        raise Interrupted("the host sent nothing")
    if head.startswith(_GZIP) and not urlsplit(url).path.endswith(("gz", "tgz")):
        part.remove()
        raise _packed(url, "a gzip stream")
    if head.lstrip().startswith(b"<"):
        part.remove()
        raise _web_page(url, head.decode(errors="replace").strip().splitlines()[0])
    if head.startswith(_LFS_POINTER):
        part.remove()
        raise WeightsError(
            "the host sent a pointer to the file, not the file",
            found="a git LFS pointer",
            where=url,
            remedy="on a hub, the address has 'resolve' in it, not 'raw' or 'blob'",
        )


def _packed(url: str, found: str) -> WeightsError:
    return WeightsError(
        "the host sent the file compressed, though that was not requested",
        found=found,
        where=url,
        remedy="download it by hand and unpack it, or tell the owner of the host",
    )


def _too_large(url: str, found: str) -> WeightsError:
    return WeightsError(
        "the host sends more than any file of weights has",
        found=found,
        expected=f"at most {LARGEST} bytes",
        where=url,
        remedy="compare the address with that of the publisher",
    )


def _web_page(url: str, found: object) -> WeightsError:
    return WeightsError(
        "the host sent a web page, not a file",
        found=found,
        where=url,
        remedy="open the address in a browser: it may ask for a login, or have moved",
    )


def _check_room(part: Part, start: int, total: int | None) -> None:
    free = shutil.disk_usage(part.path.parent).free
    if total is not None and free < total - start:
        raise OSError(errno.ENOSPC, f"{total - start} bytes are to come, {free} are free")


def _disk(error: OSError, part: Part) -> WeightsError:
    return WeightsError(
        "the file cannot be written",
        found=error,
        where=part.path,
        remedy=f"{advice(error, 'free some space')}, and try again: it resumes where it stopped; "
        "or name another disk by EOFM_WEIGHTS or directory=",
    )
