"""Files are replaced whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from eofm.io import replacing


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
