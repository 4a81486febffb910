"""Files are replaced whole, or not at all."""

from __future__ import annotations

import errno
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from no_locks import refuse

from eofm import io
from eofm.errors import DataError
from eofm.io import awaited, locked, open_locked, prefetched, replacing, write_file


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """And nothing is left beside it."""
    file = tmp_path / "a.txt"
    file.write_text("old")
    with replacing(file) as temporary:
        temporary.write_text("new")
        assert "old" == file.read_text()
    assert "new" == file.read_text()
    assert [file] == list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("begun", [True, False])
def test_a_file_that_cannot_be_written_stays_as_it_was(
    error: BaseException, begun: bool, tmp_path: Path
) -> None:
    """The half of a new one took the room that the full disk lacked."""
    file = tmp_path / "a.txt"
    file.write_text("old")

    def fail() -> None:
        with replacing(file) as temporary:
            if begun:
                temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert "old" == file.read_text()
    assert [file] == list(tmp_path.iterdir())


def test_a_file_has_one_lock(tmp_path: Path) -> None:
    """A second handle gets none until the first is closed."""
    file = tmp_path / "lock"
    first = open_locked(file)
    assert first is not None
    assert open_locked(file) is None
    os.close(first)
    again = open_locked(file)
    assert again is not None
    os.close(again)


def test_a_held_lock_is_removed_by_its_holder_alone(tmp_path: Path) -> None:
    """A body may remove the folder of the lock, and another process make its own."""
    file = tmp_path / "lock"
    with locked(file) as first:
        assert first
        with locked(file) as second:
            assert not second
        assert file.exists()
    assert not file.exists()

    with locked(file):
        file.unlink()
        other = open_locked(file)
        assert other is not None
    assert file.exists()
    os.close(other)


def test_an_interrupt_while_its_file_is_removed_releases_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C there may be caught, and the same process may go on to lock the file again."""

    def interrupt(_: Path) -> None:
        raise KeyboardInterrupt

    with (
        monkeypatch.context() as patch,
        pytest.raises(KeyboardInterrupt),
        locked(tmp_path / "lock"),
    ):
        patch.setattr(Path, "unlink", interrupt)

    with locked(tmp_path / "lock") as alone:
        assert alone


def test_the_lock_of_a_file_that_was_removed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last holder removed it between the opening and the locking; others lock a new one."""
    file = tmp_path / "lock"
    really = io.try_lock
    monkeypatch.setattr(io, "try_lock", lambda handle: file.unlink() or really(handle))
    assert open_locked(file) is None


def test_without_locks_everybody_is_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network disks have none."""
    monkeypatch.setattr("fcntl.flock", refuse)
    handle = open_locked(tmp_path / "lock")
    assert handle is not None
    os.close(handle)


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    """Nothing else is left beside it."""
    path = write_file(tmp_path / "a" / "b.txt", b"x")

    assert b"x" == path.read_bytes()
    assert [path] == list(path.parent.iterdir())


def test_a_file_that_cannot_be_written_names_the_way_out(tmp_path: Path) -> None:
    """The remedy is the caller's; the file in the way stays."""
    (tmp_path / "file").write_bytes(b"old")

    with pytest.raises(DataError, match="cannot be written") as caught:
        write_file(tmp_path / "file" / "inside", b"new", "go elsewhere")

    assert "go elsewhere" in str(caught.value)
    assert b"old" == (tmp_path / "file").read_bytes()


def test_a_lock_that_another_has_is_awaited(tmp_path: Path) -> None:
    """The second begins when the first has ended."""
    done: list[str] = []

    def second() -> None:
        with awaited(tmp_path / "lock"):
            done.append("second")

    with awaited(tmp_path / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        done.append("first")
    thread.join()
    assert ["first", "second"] == done


@pytest.mark.skipif(sys.platform == "win32", reason="locks files otherwise")
def test_where_there_are_no_locks_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network disk: the body runs, and what it raises is its own."""
    monkeypatch.setattr("fcntl.flock", refuse)
    with awaited(tmp_path / "lock"):
        done = True
    assert done
    with pytest.raises(OSError, match="disk"), awaited(tmp_path / "lock"):
        raise OSError(errno.ENOSPC, "the disk is full")


@pytest.mark.parametrize("ahead", [0, 1, 3, 99])
def test_results_come_in_the_order_of_the_tasks(ahead: int) -> None:
    """However many are under way, and no more of them than were allowed."""
    begun: list[int] = []

    def submit(task: int) -> Future[int]:
        begun.append(task)
        return pool.submit(pow, task, 2)

    with ThreadPoolExecutor(3) as pool:
        for number, (task, result) in enumerate(prefetched(iter(range(20)), submit, ahead)):
            assert (number, number**2) == (task, result)
            assert len(begun) == min(20, number + 1 + ahead)


def test_an_error_comes_at_its_place_and_the_rest_is_cancelled() -> None:
    """What has not begun never does."""
    made: list[Future[int]] = []

    def submit(task: int) -> Future[int]:
        made.append(Future())
        if task == 1:
            made[1].set_exception(OSError("broken"))
        elif task == 0:
            made[0].set_result(5)
        return made[-1]

    results = prefetched(range(9), submit, 3)
    assert (0, 5) == next(results)
    with pytest.raises(OSError, match="broken"):
        next(results)
    assert [False, False, True, True, True] == [one.cancelled() for one in made]


def test_a_consumer_that_stops_cancels_the_rest() -> None:
    """As on Ctrl-C."""
    made: list[Future[int]] = []

    def submit(task: int) -> Future[int]:
        made.append(Future())
        if task == 0:
            made[0].set_result(5)
        return made[-1]

    results = prefetched(range(9), submit, 2)
    next(results)
    results.close()
    assert [False, True, True] == [one.cancelled() for one in made]


def test_a_device_or_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    """With the rights of root, `--out /dev/full` made a file of the device."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="cannot be written") as caught:
        write_file(pipe, b"x")

    assert pipe.is_fifo()
    assert "a device or a pipe" in str(caught.value.found)
