"""Atomic writes, file locks, work done ahead, the limit of open files, and loading of user code.

A store of a million images has more files than a process may open by default.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import os
import re
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar

from eofm.errors import DataError

__all__ = [
    "Closing",
    "Pending",
    "allow_open_files",
    "awaited",
    "load_own",
    "locked",
    "names_own",
    "open_locked",
    "prefetched",
    "replacing",
    "sync_folder",
    "try_lock",
    "unfinished",
    "write_all",
    "write_file",
]

if sys.platform != "win32":
    import fcntl
    import resource

if sys.platform == "win32":
    BINARY: Final = os.O_BINARY  # otherwise line ends are translated
else:
    BINARY: Final = 0


_T = TypeVar("_T")
_R = TypeVar("_R")
_R_co = TypeVar("_R_co", covariant=True)

_OWN: Final = re.compile(r"[\w./-]+:[A-Za-z_]\w*")


def unfinished(file: Path) -> Path:
    """Return the temporary name of a file while it is written."""
    return file.with_name(file.name + ".tmp")


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Let the body write a temporary file; then sync it and rename it to `file`.

    If writing fails, as on a full disk, the temporary file is removed and `file` does not change.

    Raises:
        OSError: If that fails, or `file` is a device or a pipe: root would replace /dev/null.
    """
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise OSError(errno.EINVAL, "a device or a pipe, not a file", str(file))
    temporary = unfinished(file)
    try:
        yield temporary
        _put(temporary, file)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_file(path: Path, content: bytes, remedy: str = "name another --out") -> Path:
    """Write a file, with the folders above it, so that a crash leaves the old one or the new one.

    Args:
        path: The file.
        content: All of it.
        remedy: Advice in the error message if it cannot be written.

    Returns:
        The path.

    Raises:
        DataError: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise DataError(
            "the file cannot be written",
            found=error.strerror or error,
            where=path,
            remedy=remedy,
        ) from error
    return path


def _put(temporary: Path, file: Path) -> None:
    handle = os.open(temporary, os.O_RDWR | BINARY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    temporary.replace(file)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that renames survive a power failure."""
    if sys.platform != "win32":  # where folders cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def try_lock(handle: int) -> bool:
    """Lock an open file against other processes until it is closed; return whether it succeeded.

    Where there are no such locks, as on Windows and some network disks, everybody is alone: it
    always succeeds.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # ENOLCK, EOPNOTSUPP, ENOSYS, as the file system has it
            return True
    return True


def open_locked(file: Path) -> int | None:
    """Open a file and lock it (`try_lock`) until the handle is closed; it is created if needed.

    Returns:
        The handle; None if another process holds the lock, or has removed the file meanwhile.
    """
    handle = os.open(file, os.O_RDWR | os.O_CREAT | BINARY, 0o666)
    if try_lock(handle) and file.exists() and os.path.samestat(file.stat(), os.fstat(handle)):
        return handle
    os.close(handle)
    return None


@contextlib.contextmanager
def locked(file: Path) -> Iterator[bool]:
    """Hold a lock on a file while the body runs; it is created if needed, and then removed.

    On Windows, which has no such locks, the body runs without one and no file is created.

    Args:
        file: The lock file, in an existing folder.

    Yields:
        Whether this process holds the lock; False if another process does.
    """
    if sys.platform == "win32":
        yield True
        return
    handle = open_locked(file)
    if handle is None:
        yield False
        return
    try:
        yield True
    finally:
        try:
            # removed while locked; the body may have removed it, and another process made its own
            with contextlib.suppress(OSError):
                if os.path.samestat(file.stat(), os.fstat(handle)):
                    file.unlink()
        finally:
            os.close(handle)


@contextlib.contextmanager
def awaited(file: Path) -> Iterator[None]:
    """Hold a lock on a file while the body runs, after any other process that holds it.

    On a file system without locks, as some network disks, nobody waits.

    Args:
        file: The lock file, in an existing folder; it is created if needed.
    """
    from filelock import FileLock

    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            held.enter_context(FileLock(file))
        yield


def write_all(handle: int, data: memoryview) -> None:
    """Write all of `data`; a single call may write less, for example on a nearly full disk."""
    while data:
        data = data[os.write(handle, data) :]


class Pending(Protocol[_R_co]):
    """A result to come, as a future has it."""

    def result(self) -> _R_co:
        """Wait for the result and return it, or raise its error."""
        ...


def prefetched(
    tasks: Iterable[_T], submit: Callable[[_T], Pending[_R]], ahead: int
) -> Generator[tuple[_T, _R]]:
    """Yield each task with its result, in order, while up to `ahead` later ones are under way.

    So neither tasks nor results pile up. Those that have not begun are cancelled when the consumer
    stops, or a task fails; a cluster does so itself when its client goes.

    Args:
        tasks: What to do.
        submit: Begins a task in another thread or process.
        ahead: Number of tasks under way beyond the one that is yielded.
    """
    from concurrent.futures import Future  # not at every start of the program

    waiting: deque[tuple[_T, Pending[_R]]] = deque()
    rest = iter(tasks)
    try:
        while True:
            for task in islice(rest, ahead + 1 - len(waiting)):
                waiting.append((task, submit(task)))
            if not waiting:
                return
            task, pending = waiting.popleft()
            yield task, pending.result()
    finally:
        for _, pending in waiting:
            if isinstance(pending, Future):
                pending.cancel()


def names_own(text: str) -> bool:
    """Return whether a text refers to user code: `module:name` or `path/to/file.py:name`.

    >>> names_own("mine.py:probe"), names_own("knn")
    (True, False)
    """
    return bool(_OWN.fullmatch(text))


def load_own(reference: str) -> object:
    """Return the user's function or class at `module:name` or `path/to/file.py:name`.

    The working directory is searched first. Exceptions of the user's code are not converted; the
    caller adds the purpose of the code.

    Args:
        reference: Module or file, a colon, and the name.
    """
    place, _, name = reference.rpartition(":")
    return vars(_import(place))[name]


def _import(place: str) -> object:
    if place.endswith(".py"):
        path = Path(place)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise FileNotFoundError(place)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(place)
    finally:
        sys.path.remove(here)


# -------------------------------------------------------------------------------------- open files


_OTHERS: Final = 256  # reserved for the rest of the process


def allow_open_files(count: int) -> None:
    """Raise the soft limit of open files for `count` more, as far as the hard limit allows.

    The soft limit is often 1024, for the sake of programs that still use `select`. A memory map
    keeps its file open too.
    """
    if sys.platform != "win32":
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = count + _OTHERS
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Closing(ABC):
    """Base class of objects with open files: a context manager that closes them."""

    @abstractmethod
    def close(self) -> None:
        """Close the files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
