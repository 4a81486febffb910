"""Progress on stderr."""

from __future__ import annotations

import io
import itertools
import multiprocessing
import time

import pytest

from eofm.terminal import notice, track


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


def test_items_pass_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    """Items come in order; a loop that is over soon says nothing, and stdout stays free."""
    assert [3, 1, 2] == list(track([3, 1, 2], "counting"))
    assert ("", "") == tuple(capsys.readouterr())


def test_a_notice_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A thousand images with the same band left out are one line, and another text another."""
    for text in ("once and for all", "something else", "once and for all"):
        notice(text)

    assert ("", "once and for all\nsomething else\n") == tuple(capsys.readouterr())


def test_progress_is_said_again(capsys: pytest.CaptureFixture[str]) -> None:
    """A second list of scenes in one process has the same lines as the first."""
    for _ in range(2):
        notice("scene 2 of 3", repeat=True)

    assert ("", "scene 2 of 3\nscene 2 of 3\n") == tuple(capsys.readouterr())


def test_lines_elsewhere(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    """Where there is no terminal there is a plain line per interval, with rate and time left."""
    clock = itertools.count(0, 4)  # four seconds per item
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))

    list(track(range(8), "packing"))

    lines = capsys.readouterr().err.splitlines()
    assert ["packing: 3 of 8, 0.2/s, 20 s left", "packing: 6 of 8, 0.2/s, 8 s left"] == lines


def test_unknown_length(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    """A generator has no total, and its line promises no end."""
    clock = itertools.count(0, 10)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))

    list(track((i for i in range(2)), "packing"))

    assert ["packing: 1", "packing: 2, 0.1/s"] == capsys.readouterr().err.splitlines()


def test_what_comes_before_the_first_item_is_no_part_of_the_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    """Twenty processes that start for a minute, and then a hundred items a second."""
    clock = iter([0.0, 60.0, 60.01, 70.0, 70.01])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))

    list(track(range(4), "packing"))

    assert ["packing: 1 of 4", "packing: 3 of 4, 0.2/s, 5 s left"] == (
        capsys.readouterr().err.splitlines()
    )


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal there is a bar that ends with all items done."""
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)

    assert [0, 1, 2] == list(track(range(3), "packing tiles"))

    assert "packing tiles" in stream.getvalue()
    assert "3/3" in stream.getvalue()


def test_workers_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker process draws nothing, even on a terminal."""
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(multiprocessing, "parent_process", object)

    assert [0, 1] == list(track(range(2), "packing"))

    assert "" == stream.getvalue()
