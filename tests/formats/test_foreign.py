"""One error for whatever a parser raises."""

from __future__ import annotations

import pytest

from eofm.errors import DataError, SpecError, StoreError, WeightsError
from eofm.formats.foreign import foreign, in_words


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
