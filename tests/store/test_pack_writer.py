"""Writing a store: whatever interrupts it, the bytes are those of an undisturbed run."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from no_locks import refuse
from unsealed import unseal_journal

from eofm.contract.imagery import NativeImagery
from eofm.errors import StoreError
from eofm.store.format import JOURNAL
from eofm.store.reader import Store
from eofm.store.writer import StoreWriter

ROWS, PER_SHARD = 5, 2


def write(path: Path, miniature) -> None:
    """Write the store, or resume it."""
    size = PER_SHARD * miniature.card.row_bytes
    with StoreWriter(path, miniature.card, shard_bytes=size) as writer:
        if not writer.complete:
            miniature.write(writer, range(ROWS))


@pytest.mark.slow
def test_killed_anywhere(tmp_path: Path, miniature, kill) -> None:
    """Killed at any of its calls to the system, a run resumes to the same bytes."""
    write(tmp_path / "whole", miniature)

    points = kill.anywhere(lambda path: write(path, miniature), tmp_path)

    assert points > 60
    assert 5 == len(Store(tmp_path / "whole"))


def test_killed_again_and_again(tmp_path: Path, miniature, kill) -> None:
    """Runs that are killed while they take up the work of killed runs end in the same bytes."""
    write(tmp_path / "whole", miniature)

    kills = kill.repeatedly(lambda path: write(path, miniature), tmp_path, stores=8)

    assert kills > 16


def test_loses_at_most_one_row(tmp_path: Path, miniature, kill) -> None:
    """Every row whose `append` has returned is there after a crash."""
    path = tmp_path / "s"
    with StoreWriter(path, miniature.card) as writer:
        for i in range(3):
            writer.append(miniature.entry(i), miniature.imagery(i))
        with kill.at(2), pytest.raises(kill.Error):
            writer.append(miniature.entry(3), miniature.imagery(3))

    with StoreWriter(path, miniature.card) as writer:
        assert {miniature.entry(i).id for i in range(3)} == writer.ids


def damage(path: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Rewrite a piece of the last shard that is not yet sealed."""
    file = path / "shard-00002" / f"{name}.npy.tmp"
    file.write_bytes(change(file.read_bytes()))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-40] + bytes(40),  # the last blocks were never written
        lambda data: data[:-40],
        lambda data: data[:100],
    ],
)
@pytest.mark.parametrize("name", ["10m", "60m"])
def test_power_loss(tmp_path: Path, miniature, tree, name: str, change) -> None:
    """A journal that outlived the pixels it speaks of is cut back to what is whole."""
    write(tmp_path / "whole", miniature)
    path = tmp_path / "s"
    size = PER_SHARD * miniature.card.row_bytes
    with StoreWriter(path, miniature.card, shard_bytes=size) as writer:
        for i in range(ROWS):
            writer.append(miniature.entry(i), miniature.imagery(i))
            if i % 2:
                writer.source_done(f"p{i // 2}", i % 3)
    damage(path, name, change)

    with StoreWriter(path, miniature.card, shard_bytes=size) as writer:
        assert 4 == len(writer)
    write(path, miniature)
    assert tree(tmp_path / "whole") == tree(path)


def test_disk_full(tmp_path: Path, miniature, tree) -> None:
    """A full disk is one clear error, and the same call resumes after it."""
    write(tmp_path / "whole", miniature)
    path = tmp_path / "s"
    size = PER_SHARD * miniature.card.row_bytes
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with StoreWriter(path, miniature.card, shard_bytes=size) as writer:
        writer.append(miniature.entry(0), miniature.imagery(0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (800, before[1]))
        try:
            with pytest.raises(StoreError, match="cannot be written") as caught:
                writer.append(miniature.entry(1), miniature.imagery(1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        with pytest.raises(StoreError, match="closed"):
            writer.append(miniature.entry(1), miniature.imagery(1))

    assert isinstance(caught.value.__cause__, OSError)
    assert "after 1 images" in str(caught.value.remedy)
    write(path, miniature)
    assert tree(tmp_path / "whole") == tree(path)


# ---------------------------------------------------------------------------- refusals


def test_half_written_store_says_so(tmp_path: Path, miniature) -> None:
    """Opening an interrupted store tells how far it is and what to do."""
    with StoreWriter(tmp_path / "s", miniature.card) as writer:
        for i in range(3):
            writer.append(miniature.entry(i), miniature.imagery(i))
        writer.source_done("p0", 0)

    with pytest.raises(StoreError, match="resumes where it stopped") as caught:
        Store(tmp_path / "s")

    assert "3 images so far, and a journal" == caught.value.found


@pytest.mark.parametrize("finished", [False, True])
def test_other_settings(tmp_path: Path, miniature, finished: bool) -> None:
    """A store is not gone on with, nor called complete, under other settings; they are named."""
    with StoreWriter(tmp_path / "s", miniature.card) as writer:
        writer.append(miniature.entry(0), miniature.imagery(0))
        if finished:
            writer.finish()
    other = replace(miniature.card, settings={"window": 13, "landcover": None})

    with pytest.raises(StoreError, match="other settings") as caught:
        StoreWriter(tmp_path / "s", other)

    assert "settings.window 13 instead of 12" == caught.value.found


def test_same_settings(tmp_path: Path, miniature, tree) -> None:
    """A finished store of the same settings is complete, whoever made it; nothing is touched."""
    write(tmp_path / "s", miniature)
    before = tree(tmp_path / "s")
    newer = replace(miniature.card, provenance={"eofm": "99"})
    with StoreWriter(tmp_path / "s", newer, shard_bytes=2 * newer.row_bytes) as writer:
        assert writer.complete
        with pytest.raises(StoreError, match="complete"):
            writer.append(miniature.entry(9), miniature.imagery(9))

    assert before == tree(tmp_path / "s")


def test_foreign_folder(tmp_path: Path, miniature) -> None:
    """A folder with anything else in it is left alone, and so is a file."""
    (tmp_path / "thesis.tex").touch()

    with pytest.raises(StoreError, match="not empty") as caught:
        StoreWriter(tmp_path, miniature.card)
    assert "thesis.tex" == caught.value.found
    with pytest.raises(StoreError, match="is a file"):
        StoreWriter(tmp_path / "thesis.tex", miniature.card)


def test_nothing_before_the_first_row(tmp_path: Path, miniature) -> None:
    """A writer that writes no row leaves no trace, and cannot finish."""
    writer = StoreWriter(tmp_path / "s", miniature.card)
    with writer, pytest.raises(StoreError, match="nothing to pack"):
        writer.finish()

    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("killed", [False, True])
def test_sources_before_the_first_row(tmp_path: Path, miniature, killed: bool, kill) -> None:
    """Images of which every window was left out count, though a crash came between them."""
    path = tmp_path / "s"
    if killed:  # the journal was begun, and no row committed
        with kill.at(8), pytest.raises(kill.Error):
            StoreWriter(path, miniature.card).append(miniature.entry(0), miniature.imagery(0))
        assert (path / JOURNAL).exists()
    with StoreWriter(path, miniature.card) as writer:
        assert not writer.ids
        writer.source_done("empty", 7)
        writer.append(miniature.entry(0), miniature.imagery(0))
        writer.source_done("p0", 0)
        writer.finish()

    assert (2, 7) == (Store(path).card.sources, Store(path).card.skipped)


def test_two_writers(tmp_path: Path, miniature) -> None:
    """A second process that opens the same store is turned away, and can resume later."""
    with StoreWriter(tmp_path / "s", miniature.card) as writer:
        writer.append(miniature.entry(0), miniature.imagery(0))
        with pytest.raises(StoreError, match="another process"):
            StoreWriter(tmp_path / "s", miniature.card)

    with StoreWriter(tmp_path / "s", miniature.card) as writer:
        assert 1 == len(writer)


def damaged_journal(miniature, path: Path, line: int, old: str, new: str) -> Path:
    """Begin a store of seven rows in shards of two, and change a line of its journal."""
    with StoreWriter(path, miniature.card, shard_bytes=2 * miniature.card.row_bytes) as writer:
        for i in range(7):
            writer.append(miniature.entry(i), miniature.imagery(i))
            writer.source_done(f"p{i}", 0)
    lines = (path / JOURNAL).read_text().splitlines()
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    (path / JOURNAL).write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        (4, '"row"', "row"),  # no JSON any more
        (4, '"id": "p', '"id": "q'),  # JSON of another image
        (7, '"skipped": 0', '"skipped": 9'),  # said of a source
        (10, '"crc32": "', '"crc32": "0'),  # the checksum itself
        (4, '{"row"', "[" * 50_000),
        (4, '"longitude": ', '"longitude": ' + "9" * 5000),
    ],
)
def test_damaged_journal(tmp_path: Path, miniature, tree, line: int, old: str, new: str) -> None:
    """From a damaged line on everything is packed again: the store is the undisturbed one."""
    path = damaged_journal(miniature, tmp_path / "s", line, old, new)

    for where in (path, tmp_path / "whole"):
        card = miniature.card
        with StoreWriter(where, card, shard_bytes=2 * card.row_bytes) as writer:
            for i in range(7):
                if miniature.entry(i).id not in writer.ids:
                    writer.append(miniature.entry(i), miniature.imagery(i))
                if f"p{i}" not in writer.skipped:
                    writer.source_done(f"p{i}", 0)
            writer.finish()

    assert tree(tmp_path / "whole") == tree(path)


def test_a_damaged_journal_leaves_no_shard_behind(tmp_path: Path, miniature) -> None:
    """Where fewer rows are packed again than there were, shards of the others are gone."""
    path = damaged_journal(miniature, tmp_path / "s", 4, '"id": "p', '"id": "q')

    with StoreWriter(path, miniature.card, shard_bytes=2 * miniature.card.row_bytes) as writer:
        assert 1 == len(writer)
        writer.finish()

    assert ["shard-00000"] == sorted(folder.name for folder in path.glob("shard-*"))
    Store(path).verify()


def test_a_journal_of_before_has_no_checksum(tmp_path: Path, miniature) -> None:
    """A store that was begun without checksums is resumed."""
    with StoreWriter(tmp_path / "s", miniature.card) as writer:
        writer.append(miniature.entry(0), miniature.imagery(0))
    unseal_journal(tmp_path / "s" / JOURNAL)

    with StoreWriter(tmp_path / "s", miniature.card) as writer:
        assert 1 == len(writer)


def test_a_journal_without_its_beginning(tmp_path: Path, miniature) -> None:
    """A journal that does not say what it is of is not guessed at."""
    path = damaged_journal(miniature, tmp_path / "s", 1, '"card"', '"cord"')

    with pytest.raises(StoreError, match=r"journal .* is damaged"):
        StoreWriter(path, miniature.card)


def test_torn_line(tmp_path: Path, miniature) -> None:
    """A last line without its end belongs to a row that was not committed."""
    with StoreWriter(tmp_path / "s", miniature.card) as writer:
        for i in range(2):
            writer.append(miniature.entry(i), miniature.imagery(i))
    journal = tmp_path / "s" / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-1])

    with StoreWriter(tmp_path / "s", miniature.card) as writer:
        assert 1 == len(writer)
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_row_twice(tmp_path: Path, miniature) -> None:
    """An identifier names one image."""
    with StoreWriter(tmp_path / "s", miniature.card) as writer:
        writer.append(miniature.entry(0), miniature.imagery(0))
        with pytest.raises(StoreError, match="already"):
            writer.append(miniature.entry(0), miniature.imagery(1))
        writer.append(miniature.entry(1), miniature.imagery(1))
        writer.finish()

    assert 2 == len(Store(tmp_path / "s"))


def test_wrong_classes(tmp_path: Path, miniature) -> None:
    """Two fractions are not three."""
    entry = replace(miniature.entry(0), fraction=(0.5, 0.5))
    writer = StoreWriter(tmp_path / "s", miniature.card)
    with writer, pytest.raises(StoreError, match="number of classes"):
        writer.append(entry, miniature.imagery(0))


def altered(imagery: NativeImagery, how: str) -> NativeImagery:
    """Return an image of another kind."""
    planes = dict(imagery.planes)
    if how == "dtype":
        planes[10] = planes[10].float()
    elif how == "batch":
        planes = {gsd: plane.repeat(2, 1, 1, 1) for gsd, plane in planes.items()}
        return replace(imagery, planes=planes, valid=imagery.valid.repeat(2, 1, 1))
    elif how == "size":
        planes[20] = torch.zeros(1, 1, 6, 8, dtype=torch.uint16)
    else:
        return replace(imagery, spec=replace(imagery.spec, gsd=20.0))
    return replace(imagery, planes=planes)


@pytest.mark.parametrize("how", ["dtype", "batch", "size", "spec"])
def test_wrong_kind(tmp_path: Path, miniature, how: str) -> None:
    """Images of another dtype, number, size or spec are refused, and harm nothing."""
    with StoreWriter(tmp_path / "s", miniature.card) as writer:
        writer.append(miniature.entry(0), miniature.imagery(0))
        with pytest.raises(StoreError, match="not of the kind"):
            writer.append(miniature.entry(1), altered(miniature.imagery(1), how))
        writer.append(miniature.entry(1), miniature.imagery(1))
        writer.finish()

    Store(tmp_path / "s").verify()


def test_on_a_disk_without_locks(
    tmp_path: Path, miniature, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on some network disks, where a second writer would not be noticed."""
    monkeypatch.setattr("fcntl.flock", refuse)
    write(tmp_path / "s", miniature)
    assert ROWS == len(Store(tmp_path / "s"))
