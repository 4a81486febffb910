"""Any name can be shown, and a file is written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eofm.errors import DataError
from eofm.report.output import printable, shorten, write_file


@given(st.text(st.characters(exclude_categories=())))
def test_every_text_can_be_encoded_and_holds_nothing_unseen(text: str) -> None:
    """Halves of surrogate pairs, control characters and turned directions stand as escapes."""
    shown = printable(text)

    assert shown == shown.encode().decode()
    assert not set(shown) & set("\x00\x1b\u2028\u2029\u202e\u2066\x85")
    assert shown == printable(shown)


def test_what_can_be_shown_is_left_alone() -> None:
    """Letters of any script, signs and line ends."""
    text = "Möhre, 森林, غابة, µ ± × 95 %\n\tnext"

    assert text == printable(text)


@given(st.text(), st.integers(4, 40), st.booleans())
def test_a_short_name_is_short(name: str, length: int, keep_end: bool) -> None:
    """One line of at most the length; a cut one says so at the side that was cut."""
    made = shorten(name, length, keep_end=keep_end)

    assert len(made) <= length
    assert "\n" not in made
    if len(" ".join(printable(name).split())) > length:
        assert made.startswith("…") if keep_end else made.endswith("…")


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
