"""The border of the program: streams that may be closed, full or narrow, and signals that end it.

Standard library only, but for a bar of `rich` on a terminal. Progress goes to stderr, and
stdout is only for results; worker processes are silent. A command ends with a line
on stderr and an exit status: 1 for what failed, 128 + N for signal N. Ctrl-C and SIGTERM end every
command in the same way.
"""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from types import FrameType
from typing import Any, Final, NoReturn, TypeVar, cast

from eofm.errors import DataError, EofmError
from eofm.formats.foreign import advice, in_words

__all__ = ["LINE_EVERY_S", "Ended", "T", "guarded", "notice", "signals_end", "track"]

# -------------------------------------------------------------------------- progress of a long loop

T = TypeVar("T")

# Interval of plain lines; a shorter loop writes no line to a log.
LINE_EVERY_S: Final = 10.0


_SAID: Final[set[str]] = set()


def notice(text: str, *, repeat: bool = False) -> None:
    """Write a line to stderr. Worker processes are silent.

    Args:
        text: Line to write.
        repeat: Also write a line that this process has written before, such as progress.
    """
    if (repeat or text not in _SAID) and multiprocessing.parent_process() is None:
        _SAID.add(text)
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items of `iterable`, showing progress, rate and time left on stderr.

    Args:
        iterable: What to iterate over.
        description: Description of the work, as in "packing tiles".
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
    due = time.monotonic() + LINE_EVERY_S
    began = 0.0
    for done, item in enumerate(iterable, 1):
        yield item
        now = time.monotonic()
        if done == 1:
            began = now  # until here, processes were started and files opened: no part of the rate
        if now >= due:
            due = now + LINE_EVERY_S
            print(_line(description, done, total, now - began), file=sys.stderr, flush=True)  # noqa: T201


def _line(description: str, done: int, total: int | None, elapsed: float) -> str:
    """Return one line of a log.

    Args:
        description: Description of the work.
        done: Number of items.
        total: Of all; None where it is not known.
        elapsed: Seconds since the first of them was done. Of that one alone no rate is known.

    >>> _line("packing", 51, 201, 10.0)
    'packing: 51 of 201, 5.0/s, 30 s left'
    >>> _line("packing", 51, None, 10.0)
    'packing: 51, 5.0/s'
    >>> _line("packing", 1, 201, 0.0)
    'packing: 1 of 201'
    """
    rate = (done - 1) / elapsed if elapsed > 0 else None
    words = f"{description}: {done}" + ("" if total is None else f" of {total}")
    if not rate:
        return words
    left = "" if total is None else f", {max(total - done, 0) / rate:.0f} s left"
    return f"{words}, {rate:.1f}/s{left}"


# ---------------------------------------------------------- errors, signals, and streams that close

# Commands that resume where they stopped, if they are given again.
_RESUMED: Final = (
    *("bench", "pack", "data subset", "data merge", "data relabel", "data upgrade"),
    *("embed", "labels", "models download"),
)


class Ended(BaseException):
    """A signal has requested the end of the program. No `except Exception` catches it.

    Args:
        signum: Which.
    """

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signum)


def guarded(words: Sequence[str], body: Callable[[], int]) -> int:
    """Run a command; return its status, whatever happens to its streams or its process.

    Args:
        words: Arguments of the command, without the name of the program.
        body: Does it, and returns its status.
    """
    _prepare()
    hook = sys.unraisablehook
    try:
        with signals_end():
            status = body()
        sys.stdout.flush()
    except Ended as ended:
        _say(_last_words(words, ended.signum))
        status = 128 + ended.signum
    except KeyboardInterrupt:  # raised by a library
        _say(_last_words(words, signal.SIGINT))
        status = 128 + signal.SIGINT
    except BrokenPipeError:
        # the reader of our output has ended (`| head`): no message can reach anyone
        status = 1
    except (OSError, MemoryError, RecursionError, UnicodeError, ImportError) as error:
        _say(f"eofm: error: {_refused(error)}")
        status = 1
    except RuntimeError as error:
        if not any(words in str(error) for words in _SHORTAGES):
            raise
        _say(f"eofm: error: {_exhausted(error)}")
        status = 1
    except BaseException as error:
        # of pyo3, whose class cannot be imported: safetensors raises it where memory is short
        if type(error).__name__ != "PanicException":
            raise
        _say(f"eofm: error: {_exhausted(error)}")
        status = 1
    finally:
        sys.unraisablehook = hook
    _close_stdout()
    return status


# Of torch on a CPU and on a GPU, and of Python: none of them has an exception of its own.
_SHORTAGES: Final = ("can't allocate memory", "out of memory", "can't start new thread")


def _exhausted(error: BaseException) -> EofmError:
    """Report that the processor or the GPU lacks memory."""
    return DataError(
        "there is not enough memory",
        found=in_words(error),
        remedy="free memory, or use smaller batches and fewer workers",
    )


def _refused(error: Exception) -> EofmError:
    """Report an operation that the system refused or lacks resources for."""
    where = getattr(error, "filename2", None) or getattr(error, "filename", None)
    return DataError(
        "this cannot be read or written here",
        found=in_words(error),
        where=os.fsdecode(where) if isinstance(where, str | bytes) else None,
        remedy=advice(
            error,
            "check permissions, disk space, memory, and names: their length and their characters",
        ),
    )


def _last_words(words: Sequence[str], signum: int) -> str:
    """Report what has ended a command, and how to continue."""
    said = f"\neofm: stopped by {signal.Signals(signum).name}"
    text = " ".join(words[:2])
    if not any(text == verb or text.startswith(f"{verb} ") for verb in _RESUMED):
        return said
    again = [*words, *(["--resume"] if words[0] == "labels" and "--resume" not in words else [])]
    return f"{said}; the same command resumes where it stopped\n    eofm {shlex.join(again)}"


# --------------------------------------------------------------------------------- signals


@contextlib.contextmanager
def signals_end() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise `Ended`; training records them while it takes steps."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual: dict[int, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    # ignored signals (nohup, a background job) stay ignored
    ours = [number for number, handler in usual.items() if signal.getsignal(number) == handler]
    for number in ours:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, usual[number])


def _end(signum: int, _: FrameType | None) -> NoReturn:
    # an object that was being built when the signal came may fail to be deleted
    sys.unraisablehook = _ignore
    raise Ended(signum)


def _ignore(_: object) -> None:
    """Write no traceback of an error that cannot be raised."""


# --------------------------------------------------------------------------------- streams


class _Forgiving:
    """A stream for messages; if they cannot be written, the work continues."""

    def __init__(self, stream: Any) -> None:  # noqa: ANN401 (whatever stands for stderr)
        self._stream = stream

    def write(self, text: str) -> int:
        """Write if that can be done."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if that can be done."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._stream, name)


def _prepare() -> None:
    """Replace streams by ones that never fail for lack of a handle or of a character."""
    for handle in range(3):
        try:
            os.fstat(handle)
        except OSError:
            # the next file that is opened would get this number, and be written to as a stream
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 (it lives as long as the process)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # one that stands for it
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if sys.stderr is sys.__stderr__:
        sys.stderr = cast(Any, _Forgiving(sys.stderr))


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def _close_stdout() -> None:
    """Discard buffered text that Python would try to write again at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
