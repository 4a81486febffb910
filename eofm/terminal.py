"""The border of the program: streams that may be closed, full or narrow, and signals that end it.

Standard library only. What crosses the border is a line on stderr and a status: 1 for what failed,
128 + N for signal N. Ctrl-C and SIGTERM end every command alike.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, Final, NoReturn, cast

from eofm.errors import DataError, EofmError
from eofm.formats.foreign import in_words

# What resumes where it stopped, if the same command is given again.
_RESUMED: Final = (
    *("bench", "pack", "data subset", "data merge", "data relabel", "data upgrade"),
    *("labels", "models download"),
)


class Ended(BaseException):
    """A signal has asked the program to end. No `except Exception` keeps it from that.

    Args:
        signum: Which.
    """

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signum)


def guarded(words: Sequence[str], body: Callable[[], int]) -> int:
    """Run a command; return its status, whatever happens to its streams or its process.

    Args:
        words: The command, without the name of the program.
        body: Does it, and returns its status.
    """
    _prepare()
    try:
        with signals_end():
            status = body()
        sys.stdout.flush()
    except Ended as ended:
        _say(_last_words(words, ended.signum))
        status = 128 + ended.signum
    except KeyboardInterrupt:  # from a library that raises it by itself
        _say(_last_words(words, signal.SIGINT))
        status = 128 + signal.SIGINT
    except BrokenPipeError:
        # the reader of our output has gone (`| head`): nothing to say, and nobody to say it to
        status = 1
    except (OSError, MemoryError, RecursionError, UnicodeError) as error:
        _say(f"eofm: error: {_refused(error)}")
        status = 1
    _close_stdout()
    return status


def _refused(error: Exception) -> EofmError:
    """Say what the system, or the machine, does not do."""
    where = getattr(error, "filename", None)
    return DataError(
        "this cannot be read or written here",
        found=in_words(error),
        where=os.fsdecode(where) if isinstance(where, str | bytes) else None,
        remedy="see to permissions, to space on the disk and in memory, and to names: their length "
        "and their characters",
    )


def _last_words(words: Sequence[str], signum: int) -> str:
    """Say what has ended a command, and how to continue."""
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
    # what is ignored (nohup, a job in the background) stays ignored
    ours = [number for number, handler in usual.items() if signal.getsignal(number) == handler]
    for number in ours:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, usual[number])


def _end(signum: int, _: FrameType | None) -> NoReturn:
    raise Ended(signum)


# --------------------------------------------------------------------------------- streams


class _Forgiving:
    """A stream for words beside the work, which continues where they cannot be written."""

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
    """Make streams of which no use can fail for want of a handle or of a character."""
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
    """Leave nothing that Python would try to write once more at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
