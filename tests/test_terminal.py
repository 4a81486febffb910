"""Streams that are closed, full or narrow, and signals: words where they can be, and a status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eofm.terminal import Ended, guarded

NEEDS_FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


def shell(line: str, code: str = "print('–')", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the program with a body of one's own, by a line of the shell where `$P` stands for it."""
    body = f"def body():\n    {code}\n    return 0\n"
    program = (
        f"import sys, os\nfrom eofm.terminal import guarded\n{body}\n"
        "sys.exit(guarded(['pack', 'tiles', '--out', 'a b'], body))"
    )
    return subprocess.run(
        ["bash", "-c", line],
        env={**os.environ, "P": program, "PY": sys.executable, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path: Path, streams: str) -> None:
    """The work is done, and no file that it writes is taken for a stream."""
    file = tmp_path / "store"
    code = (
        f"h = os.open({str(file)!r}, os.O_WRONLY | os.O_CREAT); os.write(h, b'data'); "
        "print('–'); print('words', file=sys.stderr); os.system('echo from a library >&2')"
    )

    done = shell(f'"$PY" -c "$P" {streams}', code)

    assert 0 == done.returncode, done.stderr
    assert b"data" == file.read_bytes()


@NEEDS_FULL
def test_full_streams() -> None:
    """Output that cannot be written is status 1 and said; words beside the work are not needed."""
    done = shell('"$PY" -c "$P" > /dev/full')
    assert (1, 1) == (done.returncode, done.stderr.count("No space left"))
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr

    code = "[print('x' * 9999, file=sys.stderr, flush=True) for _ in range(9)]; print('done')"
    done = shell('"$PY" -c "$P" 2> /dev/full', code)
    assert (0, "done\n") == (done.returncode, done.stdout)


def test_a_reader_that_has_gone() -> None:
    """`| head` ends the program without a word."""
    done = shell('"$PY" -c "$P" | head -c 1', "[print('x' * 9999) for _ in range(99)]")

    assert "" == done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_narrow_terminals(encoding: str) -> None:
    """A dash, a line separator and a name that is not UTF-8 are written in whatever is there."""
    code = "[print('–\\u2028', os.fsdecode(b'\\xff'), file=s) for s in (sys.stdout, sys.stderr)]"

    done = shell('"$PY" -c "$P"', code, PYTHONIOENCODING=encoding)

    assert 0 == done.returncode, done.stderr
    assert "\\udcff" in done.stdout
    assert "\\udcff" in done.stderr


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("open('/nowhere/x')", "no such file"),
        ("open('/' + 'x' * 300, 'w')", "File name too long"),
        ("raise MemoryError", "more memory"),
        ("'\\udcff'.encode()", "UnicodeEncodeError"),
        ("b = lambda: b(); b()", "nested too deeply"),
        ("raise ImportError('libgdal.so: failed to map segment')", "failed to map segment"),
        ("open('/' + 'x' * 300, 'w')", "choose a shorter name"),
        ("raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')", "smaller batches"),
        ("raise RuntimeError('DefaultCPUAllocator: can\\'t allocate memory')", "free memory"),
        ("raise RuntimeError('can\\'t start new thread')", "fewer workers"),
        ("raise type('PanicException', (BaseException,), {})('pointer is null')", "free memory"),
    ],
)
def test_what_the_system_refuses(code: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Words and status 1, no traceback."""

    def body() -> int:
        exec(code, {})
        return 0

    assert 1 == guarded(["pack"], body)
    assert words in capsys.readouterr().err


def test_a_fault_of_our_own_is_shown_as_it_is() -> None:
    """A wrong type is no matter of the user's: its traceback is what we need."""
    with pytest.raises(TypeError):
        guarded(["pack"], lambda: None + 1)  # type: ignore[operator, no-any-return]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["pack", "tiles", "--out", "a b"], "\n    eofm pack tiles --out 'a b'\n"),
        (["data", "merge", "x"], "\n    eofm data merge x\n"),
        (["embed", "s.tif", "--out", "o"], "\n    eofm embed s.tif --out o\n"),
        (["labels", "m"], "\n    eofm labels m --resume\n"),
        (["labels", "m", "--resume"], "\n    eofm labels m --resume\n"),
        (["data", "verify", "x"], None),
    ],
)
def test_signals(
    signum: int, words: list[str], line: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C and SIGTERM alike: what ended it, the line that goes on, and 128 + N."""

    def body() -> int:
        os.kill(os.getpid(), signum)
        time.sleep(5)
        return 0

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    assert 128 + signum == guarded(words, body)

    said = capsys.readouterr().err
    assert f"stopped by {signal.Signals(signum).name}" in said
    assert (line in said) if line else ("eofm data" not in said)
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def test_an_object_half_made_has_no_last_words(capsys: pytest.CaptureFixture[str]) -> None:
    """A signal in a constructor of xarray wrote the traceback of its destructor."""

    class Half:
        def __init__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
            self.whole = True

        def __del__(self) -> None:
            assert self.whole

    before = sys.unraisablehook

    assert 143 == guarded(["embed"], lambda: 0 if Half() else 1)
    assert "Traceback" not in capsys.readouterr().err
    assert before == sys.unraisablehook


def test_no_handler_of_a_library_keeps_it_from_ending(capsys: pytest.CaptureFixture[str]) -> None:
    """Lightning ends with status 1 and no word on KeyboardInterrupt; it lets this pass."""

    def body() -> int:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except (Exception, KeyboardInterrupt):
            return 1
        return 0

    assert 130 == guarded(["pretrain"], body)
    assert not issubclass(Ended, Exception | KeyboardInterrupt)


def test_what_was_ignored_stays_ignored() -> None:
    """`nohup` and a shell's background jobs ignore signals; the program leaves it so."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:

        def body() -> int:
            os.kill(os.getpid(), signal.SIGINT)
            return 0

        assert 0 == guarded(["pack"], body)
        assert signal.SIG_IGN == signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
