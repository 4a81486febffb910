"""Open files: how many there may be at once, and that they are closed.

A store of a million images has more files than a shell allows.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Final, Self

if sys.platform != "win32":
    import resource

_OTHERS: Final = 256  # what the rest of the process may need


def allow_open_files(count: int) -> None:
    """Raise the soft limit of open files so far that `count` more fit, if the hard one allows it.

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
    """What holds files open: a context manager that closes them at its end."""

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
