"""Say how far a long loop is: a bar on a terminal, a plain line now and then elsewhere.

Everything goes to stderr, so that stdout stays free for results. Worker processes are silent.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Final, TypeVar

T = TypeVar("T")

# Between two plain lines; a loop that is over sooner writes nothing to a log.
LINE_EVERY_S: Final = 10.0


_SAID: Final[set[str]] = set()


def notice(text: str) -> None:
    """Write a line to stderr, each text once in a process. Worker processes are silent."""
    if text not in _SAID and multiprocessing.parent_process() is None:
        _SAID.add(text)
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items of `iterable`, showing progress, rate and time left on stderr.

    Args:
        iterable: What to iterate over.
        description: What is being done, as in "packing tiles".
        total: Number of items. None takes `len(iterable)` where there is one.

    Yields:
        The items, unchanged and in order.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if multiprocessing.parent_process() is not None:
        return iter(iterable)
    # weights are also fetched where torch and timm are all there is
    if sys.stderr.isatty() and importlib.util.find_spec("rich"):
        return _bar(iterable, description, total)
    return _lines(iterable, description, total)


def _bar(iterable: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total, rate="")
        for item in iterable:
            yield item
            speed = progress.tasks[task].speed
            progress.update(task, advance=1, rate="" if speed is None else f"{speed:.1f}/s")


def _lines(iterable: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    start = time.monotonic()
    due = start + LINE_EVERY_S
    for done, item in enumerate(iterable, 1):
        yield item
        now = time.monotonic()
        if now >= due:
            due = now + LINE_EVERY_S
            print(_line(description, done, total, now - start), file=sys.stderr, flush=True)  # noqa: T201


def _line(description: str, done: int, total: int | None, elapsed: float) -> str:
    """Return one line of a log.

    >>> _line("packing", 50, 200, 10.0)
    'packing: 50 of 200, 5.0/s, 30 s left'
    >>> _line("packing", 50, None, 10.0)
    'packing: 50, 5.0/s'
    """
    rate = done / elapsed
    if total is None:
        return f"{description}: {done}, {rate:.1f}/s"
    left = max(total - done, 0) / rate
    return f"{description}: {done} of {total}, {rate:.1f}/s, {left:.0f} s left"
