"""Packed stores behind `s3://`, `gs://` or `https://`: whole files of shards, cached on this disk.

    Store("s3://bucket/stores/mine")           # pip install "eofm[remote]"
    Store("https://host/mine", cache="/fast/disk")

Card and index are fetched when the store is opened; a file of a shard when a row of it is first
read, and then kept. Files appear in the cache at once and with the size the index demands, also
when several processes fetch them. A cache belongs to one state of a store: when card or index have
changed, another is begun. Nothing is deleted; the cache is a folder that may be.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from eofm.errors import StoreError
from eofm.io import replacing, unfinished
from eofm.store.format import INDEX, JOURNAL, RELABELLED, SPEC

CACHE: Final = "EOFM_CACHE"
_ATTEMPTS: Final = 3


def is_remote(path: str | Path) -> bool:
    """Return whether a store is meant that lies behind a URL."""
    return isinstance(path, str) and "://" in path


def cache_root() -> Path:
    """Return where caches are: `$EOFM_CACHE`, or `eofm` in the user's cache folder."""
    named = os.environ.get(CACHE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eofm"


class Mirror:
    """The cache of one remote store.

    Attributes:
        url: The store.
        folder: The cache, laid out like the store.

    Args:
        url: The store.
        cache: Where caches are; None means `cache_root()`.

    Raises:
        StoreError: If the store cannot be reached, is half written, or is no store.
    """

    def __init__(self, url: str, cache: str | Path | None = None) -> None:
        self.url = url.rstrip("/")
        self._files, self._root = _open(self.url)
        for name, state in ((JOURNAL, "half written"), (f"{RELABELLED}/{SPEC}", "half relabelled")):
            if self._ask(self._files.exists, name):
                raise StoreError(
                    f"the store is {state}",
                    found=name,
                    where=self.url,
                    remedy="finish it where it is written, and copy it again",
                )
        card = self._card()
        size = int(self._ask(self._files.size, INDEX) or 0)
        state = hashlib.sha256(b"%s|%s|%d" % (self.url.encode(), card, size)).hexdigest()
        self.folder = (cache_root() if cache is None else Path(cache)) / "stores" / state[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.fetch(SPEC, len(card))
        self.fetch(INDEX, size or None)

    def fetch(self, name: str, size: int | None) -> Path:
        """Return a file of the cache, fetched if it is not there yet.

        Args:
            name: Its path in the store.
            size: How many bytes it must have; None where that is not known.

        Raises:
            StoreError: If it cannot be fetched, or has another size.
        """
        file = self.folder / name
        if file.exists():
            return file
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(unfinished(file).with_suffix(".lock")):
            for attempt in range(_ATTEMPTS):
                if file.exists():  # fetched by another while this one waited
                    return file
                self._download(name, file, size, last=attempt == _ATTEMPTS - 1)
        return file

    def _download(self, name: str, file: Path, size: int | None, *, last: bool) -> None:
        """Put a file into the cache, whole; only the last attempt raises."""
        try:
            self._ask(lambda at: self._files.get_file(at, str(unfinished(file))), name)
        except StoreError:
            if last:
                raise
            return
        found = unfinished(file).stat().st_size
        if size is None or found == size:
            with replacing(file):
                pass
        elif last:
            unfinished(file).unlink()
            raise StoreError(
                "a file of a remote store has another size than its index says",
                found=f"{found} bytes",
                expected=f"{size} bytes",
                where=f"{self.url}/{name}",
                remedy="copy the store again to where it is served from",
            )

    def _card(self) -> bytes:
        try:
            return bytes(self._ask(self._files.cat_file, SPEC))
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise StoreError(
                    "there is no packed store",
                    found=f"no {SPEC}",
                    where=self.url,
                    remedy="copy one there: all files of a folder that `eofm pack` wrote",
                ) from error
            raise

    def _ask(self, question: Callable[[str], Any], name: str) -> Any:  # noqa: ANN401
        """Call the file system about a file; whatever it raises becomes a StoreError."""
        try:
            return question(f"{self._root}/{name}")
        except Exception as error:
            raise StoreError(
                "a remote store cannot be read",
                found=f"{type(error).__name__}: {error}",
                where=f"{self.url}/{name}",
                remedy="check address, credentials and network",
            ) from error


def _open(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it."""
    try:
        from fsspec.core import url_to_fs

        # what a file system remembers of a listing would hide that a store has changed
        files, root = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise StoreError(
            "remote stores need a library that is not installed",
            found=str(error),
            where=url,
            remedy='pip install "eofm[remote]"',
        ) from error
    except ValueError as error:
        raise StoreError(
            "an address of this kind is not known",
            found=str(error),
            where=url,
            remedy="use s3://, gs:// or https://",
        ) from error
    return files, str(root).rstrip("/")
