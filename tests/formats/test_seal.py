"""Checksums inside JSON, of lines and of files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eofm.formats import foreign
from eofm.formats.foreign import file_sha256, line_is_whole, opened, sealed, sealed_line

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text().filter("checksum".__ne__), PLAIN, min_size=1, max_size=4)


@given(OBJECTS)
def test_what_was_sealed_is_opened(plain: dict[str, object]) -> None:
    """Whatever JSON holds, in any order of keys, is found whole after it was read back."""
    read = json.loads(json.dumps(sealed(plain)))
    assert (plain, True) == opened(read)
    assert (plain, True) == opened(dict(reversed(read.items())))
    assert (plain, None) == opened(plain)
    assert opened({**read, "checksum": "0" * 64})[1] is False


@given(OBJECTS, st.integers(0, 10**6), st.integers(1, 255))
def test_every_changed_byte_of_a_line_is_seen(plain: dict[str, object], at: int, by: int) -> None:
    """A line that ends in its crc32 is JSON, and no byte of it can be another."""
    line = sealed_line(plain)
    assert plain == {key: value for key, value in json.loads(line).items() if key != "crc32"}
    assert line_is_whole(line)
    assert line_is_whole(json.dumps(plain).encode() + b"\n") is None

    changed = bytearray(line)
    changed[at % len(line)] ^= by

    assert not line_is_whole(bytes(changed))


def test_a_fresh_file_is_hashed_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two changes within a tick of the clock the second leaves no trace in size and dates."""
    file = tmp_path / "x"
    file.write_bytes(b"one")
    first = file_sha256(file)
    monkeypatch.setattr(foreign, "look_of", lambda status: (0, 0, 0, 0))
    file.write_bytes(b"two")

    assert first != file_sha256(file)


def test_a_settled_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again when it was touched."""
    monkeypatch.setattr(foreign, "SETTLED_NS", -(10**12))
    file = tmp_path / "x"
    file.write_bytes(b"one")
    first = file_sha256(file)
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", None)
        assert first == file_sha256(file)
    file.write_bytes(b"other")

    assert first != file_sha256(file)
