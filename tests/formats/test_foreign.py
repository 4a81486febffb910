"""One error for whatever a parser raises."""

from __future__ import annotations

import errno
import subprocess
import tracemalloc
from pathlib import Path

import pytest
from rasterio.errors import RasterioIOError

from eofm.errors import DataError, SpecError, StoreError, WeightsError
from eofm.formats.foreign import advice, foreign, in_words, read_bounded


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("image"), "no 'image'"),
        (RecursionError("maximum"), "nested too deeply"),
        (MemoryError(), "more memory"),
        (ValueError("a\nb\n"), "ValueError: a b"),
        (FileNotFoundError(2, "x"), "no such file"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (SpecError("no such band", found="B99"), "no such band: B99"),
        (StoreError("a store"), "a store"),
    ],
)
def test_words(error: Exception, words: str) -> None:
    """Every kind of failure becomes the error that was asked for, with its words in one line."""
    with (
        pytest.raises(WeightsError, match="cannot be read") as caught,
        foreign(WeightsError, "it cannot be read", where="here"),
    ):
        raise error

    assert words in str(caught.value.found)
    assert error is caught.value.__cause__


def test_an_error_of_that_kind_passes() -> None:
    """What the body says by itself stays as it said it."""
    with pytest.raises(DataError, match="mine"), foreign(DataError, "other", where="here"):
        raise StoreError("mine")


def test_a_stop_is_no_failure() -> None:
    """Ctrl-C is not turned into an error of the file."""
    with pytest.raises(KeyboardInterrupt), foreign(DataError, "other", where="here"):
        raise KeyboardInterrupt


def test_long_words() -> None:
    """A parser that quotes a whole file is cut short."""
    assert len(in_words(ValueError("x" * 10_000))) < 310


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EMFILE, "open files"),
        (errno.EACCES, "permissions"),
        (errno.EROFS, "not read-only"),
        (errno.ENOSPC, "free some space"),
        (errno.EFBIG, "file sizes"),
        (errno.ENAMETOOLONG, "shorter name"),
        (errno.EIO, "pack it again"),
    ],
)
def test_a_file_that_the_system_does_not_open_is_not_damaged(number: int, words: str) -> None:
    """With 24 open files, a whole store was to be packed again."""
    with (
        pytest.raises(StoreError) as caught,
        foreign(StoreError, "it cannot be read", where="here", remedy="pack it again"),
    ):
        raise OSError(number, "refused")

    assert words in str(caught.value.remedy)
    assert (number == errno.EIO) == ("pack it again" in str(caught.value.remedy))


def test_lack_of_memory_is_not_damage() -> None:
    """A file may also ask for too much because it is damaged: both are named."""
    found = advice(MemoryError(), "pack it again")

    assert "free memory; if that does not help, pack it again" == found
    assert "free memory" == advice(MemoryError(), None)
    assert "it asks for more memory than there is" == in_words(MemoryError())


def test_the_advice_about_open_files_can_be_followed() -> None:
    """The command after the colon is one of the shell."""
    command = str(advice(OSError(errno.EMFILE, "x"), "")).partition(": ")[2]

    done = subprocess.run(
        ["bash", "-c", f"ulimit -Sn 24; {command} && ulimit -Sn"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "4096\n" == done.stdout


def test_a_small_file_needs_little_memory(tmp_path: Path) -> None:
    """All that a reader accepts was allocated: 600 bytes of a card needed 64 MiB."""
    file = tmp_path / "card.json"
    file.write_bytes(b"x" * 600)
    tracemalloc.start()
    try:
        assert 600 == len(read_bounded(file, 2**28))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_the_words_of_gdal_are_found() -> None:
    """Rasterio says no more than "see previous exception for details"."""
    error = RasterioIOError("Read failed. See previous exception for details.")
    error.__cause__ = ValueError("tile 3 is cut off")

    assert "ValueError: tile 3 is cut off" == in_words(error)
