"""Hashes of images: remembered while the files stay, and never longer."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from eofm.bench import features as module
from eofm.bench.features import digests_of as digests_in
from eofm.contract.imagery import Imagery
from eofm.datasets.images.chips import Chip, Chips, StoredAt

HASHED: list[str] = []


@dataclass(frozen=True)
class Noted:
    """An image in a file; every hash of it is noted."""

    file: Path

    @property
    def place(self) -> StoredAt:
        return StoredAt((self.file,))

    def read(self) -> Imagery:
        raise NotImplementedError

    def digest(self) -> str:
        HASHED.append(self.file.name)
        return hashlib.sha256(self.file.read_bytes()).hexdigest()


@pytest.fixture
def chips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chips:
    """Four images of two files each; they count as settled at once."""
    monkeypatch.setattr(module, "_SETTLED_NS", 0)
    HASHED.clear()
    (tmp_path / "set").mkdir()
    found = []
    for name in "abcd":
        files = [tmp_path / "set" / f"{name}{part}" for part in (1, 2)]
        for file in files:
            file.write_text(file.name)
        found.append(Chip(name, 0, tuple(map(Noted, files))))
    splits = {"train": tuple(found[:2]), "val": (), "test": tuple(found[2:])}
    return Chips(tmp_path / "set", "given", ("x",), splits)


def digests_of(chips: Chips, cache: Path | None = None) -> dict[str, str]:
    """The hashes of a set, as a run asks for them."""
    return digests_in(chips.root, {chip.id: chip.pixels for chip in chips.all}, cache)


def hashed() -> list[str]:
    """What has been hashed since the last call."""
    out = sorted(HASHED)
    HASHED.clear()
    return out


def test_nothing_is_hashed_twice(chips: Chips, tmp_path: Path) -> None:
    """The second time no file is opened, and the hashes are those without a memory."""
    plain = digests_of(chips)
    assert 8 == len(hashed())
    assert plain == digests_of(chips, tmp_path / "cache")
    assert 8 == len(hashed())
    assert plain == digests_of(chips, tmp_path / "cache")
    assert [] == hashed()


def rewritten(file: Path) -> None:
    """Other content."""
    file.write_text("x1")


def rewritten_with_its_old_times(file: Path) -> None:
    """Other content, which size and time of change do not show."""
    found = file.stat()
    file.write_text("xx")  # of the same length
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))


def replaced(file: Path) -> None:
    """Another file under the name."""
    other = file.with_name("other")
    other.write_text("yy")
    other.rename(file)


@pytest.mark.parametrize("change", [rewritten, rewritten_with_its_old_times, replaced])
def test_a_changed_file_is_hashed_again(chips: Chips, tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    """Its image alone, also where someone put the old time and length back."""
    before = digests_of(chips, tmp_path / "cache")
    hashed()
    time.sleep(0.02)  # a tick of the file system's clock
    change(tmp_path / "set" / "b1")

    after = digests_of(chips, tmp_path / "cache")

    assert ["b1", "b2"] == hashed()
    assert {"b"} == {name for name in before if before[name] != after[name]}
    assert after == digests_of(chips)


def test_a_file_of_this_moment_is_not_remembered(
    chips: Chips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could be written again before the clock of the file system ticks."""
    monkeypatch.setattr(module, "_SETTLED_NS", 2_000_000_000)
    for _ in range(2):
        digests_of(chips, tmp_path / "cache")
        assert 8 == len(hashed())


def test_some_of_the_images_leave_the_others_remembered(chips: Chips, tmp_path: Path) -> None:
    """A run with --limit, then the whole set, then the limit again."""
    some = chips.keeping({"test": frozenset("c")})
    digests_of(some, tmp_path / "cache")
    assert 6 == len(hashed())
    digests_of(chips, tmp_path / "cache")
    assert ["d1", "d2"] == hashed()
    digests_of(some, tmp_path / "cache")
    digests_of(chips, tmp_path / "cache")
    assert [] == hashed()


@pytest.mark.parametrize("text", ["", "[]", '{"version": 1}', '{"version": 0, "images": {}}'])
def test_a_memory_that_is_not_whole_is_made_anew(chips: Chips, tmp_path: Path, text: str) -> None:
    """Cut short or of another version."""
    plain = digests_of(chips, tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("digests-*.json")
    file.write_text(text)
    hashed()

    assert plain == digests_of(chips, tmp_path / "cache")
    assert 8 == len(hashed())
    assert plain == digests_of(chips, tmp_path / "cache")
    assert [] == hashed()


def test_a_folder_that_cannot_be_written_costs_nothing(
    chips: Chips, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file where it should be: all images are hashed, and a line says that it was in vain."""
    (tmp_path / "file").touch()

    assert digests_of(chips, tmp_path / "cache") == digests_of(chips, tmp_path / "file")
    assert "cannot be kept" in capsys.readouterr().err


@dataclass(frozen=True)
class Letter:
    """One letter of a file."""

    file: Path
    number: int

    @property
    def place(self) -> StoredAt:
        return StoredAt((self.file,), str(self.number))

    def digest(self) -> str:
        return self.file.read_text()[self.number]


def test_another_part_of_the_same_file_is_another_image(chips: Chips, tmp_path: Path) -> None:
    """One sensor of a file, then the other: under one name, of files that look alike."""
    (tmp_path / "both").write_text("ab")

    found = [
        digests_in(tmp_path, {"x": [Letter(tmp_path / "both", number)]}, tmp_path / "cache")
        for number in (0, 1, 0)
    ]

    assert [{"x": "a"}, {"x": "b"}, {"x": "a"}] == found


def test_two_runs_write_the_memory_at_once(
    chips: Chips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a temporary file of its own: neither takes the other's away."""
    plain = digests_of(chips)
    inner = Path.write_text

    def beside(self: Path, *words: object, **options: object) -> int:
        if self.name.endswith(".tmp"):
            with monkeypatch.context() as patch:
                patch.setattr(Path, "write_text", inner)
                patch.setattr("os.getpid", lambda: 1)
                assert plain == digests_of(chips, tmp_path / "cache")
        return inner(self, *words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", beside)
    assert plain == digests_of(chips, tmp_path / "cache")
