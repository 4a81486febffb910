"""The feeder: the store's own images, in order, in memory that is used again and never too soon."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eofm.contract.imagery import Labels, NativeImagery
from eofm.errors import ConfigError, SpecError, StoreError
from eofm.loading.feeder import Feeder
from eofm.loading.sampler import epoch_rows, replayed_rows
from eofm.store.reader import Store

ROWS = 11


@pytest.fixture
def store(tmp_path: Path, miniature) -> Store:
    """Eleven images in three shards."""
    return Store(miniature.store(tmp_path / "s", ROWS))


def same(left: tuple[NativeImagery, Labels], store: Store, rows, bands=None) -> None:
    """Compare a batch with what the store's own reader gives."""
    imagery, labels = left
    expected, wanted = store.images(rows, bands), store.labels(rows)
    assert expected.spec == imagery.spec
    assert expected.bands == imagery.bands
    for gsd, plane in expected.planes.items():
        assert plane.dtype == imagery.planes[gsd].dtype
        assert torch.equal(plane, imagery.planes[gsd])
    assert torch.equal(expected.valid, imagery.valid)
    assert torch.equal(wanted.multi_hot, labels.multi_hot)
    assert torch.equal(wanted.known, labels.known)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
@given(
    st.lists(st.lists(st.integers(0, ROWS - 1), max_size=5), max_size=12),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([None, ("B8A",), ("B09", "B02")]),
)
def test_batches_are_those_of_the_store(store, batches, ahead, threads, hold, bands) -> None:
    """Any lists of rows come in order, whole, and stay unchanged as long as promised."""
    with Feeder(store, 5, ahead=ahead, threads=threads, hold=hold, bands=bands) as feeder:
        held = []
        count = 0
        for rows, batch in zip(batches, feeder.feed(batches), strict=True):
            held = [*held, (rows, batch)][-hold:]
            for earlier, kept in held:
                same(kept, store, earlier, bands)
            count += 1
        assert len(batches) == count


def test_decibels(tmp_path: Path, radar_miniature) -> None:
    """Float stores without labels, of an odd size, come as they are."""
    store = Store(radar_miniature.store(tmp_path / "s", 6))
    with Feeder(store, 4) as feeder:
        count = 0
        for rows, batch in zip([[5, 0, 1], [2]], feeder.feed([[5, 0, 1], [2]]), strict=True):
            same(batch, store, rows)
            count += 1
    assert 2 == count


def test_memory_is_used_again(store: Store) -> None:
    """Two hundred batches live in as many buffers as are read ahead and held, for all epochs."""
    seen = set()
    with Feeder(store, 3, ahead=2, hold=2) as feeder:
        for epoch in range(3):
            rows = np.concatenate([epoch_rows(ROWS, epoch, s, batch=3) for s in range(22)])
            for imagery, _ in feeder.feed(rows):
                seen.add(imagery.planes[10].data_ptr())
    assert len(seen) <= 4


def test_reads_ahead_and_no_further(store: Store) -> None:
    """The sampler is asked for as many batches as there is room for, not for all."""
    asked = []

    def sampler() -> Iterator[list[int]]:
        for i in range(8):
            asked.append(i)
            yield [i]

    with Feeder(store, 1, ahead=2) as feeder:
        stream = feeder.feed(sampler())
        next(stream)
        assert 2 == len(asked)
        next(stream)
        assert 3 == len(asked)
        assert 6 == len(list(stream))


@pytest.mark.parametrize("fault", ["sampler", "row", "size", "file"])
def test_errors_come_in_their_turn(store: Store, fault: str) -> None:
    """What goes wrong ahead is raised after the batches before it, and the feeder can go on."""

    def sampler() -> Iterator[list[int]]:
        yield [0]
        yield [1]
        if fault == "sampler":
            raise ZeroDivisionError
        yield {"row": [ROWS], "size": [0, 1, 2], "file": [9]}[fault]
        yield [2]

    expected = {
        "sampler": ZeroDivisionError,
        "row": IndexError,
        "size": ConfigError,
        "file": StoreError,
    }[fault]
    if fault == "file":
        file = store.piece(2, "20m")
        os.truncate(file, file.stat().st_size - 100)
    got = []
    with Feeder(store, 2, ahead=3) as feeder:
        stream = (int(imagery.planes[10][0, 0, 0, 0]) for imagery, _ in feeder.feed(sampler()))
        with pytest.raises(expected):
            got.extend(stream)
        assert [100, 1100] == got
        del stream
        assert 1 == len(list(feeder.feed([[3, 4]])))


def test_file_cut_while_open(store: Store) -> None:
    """A file that shrinks under the reader is an error, not old pixels."""
    with Feeder(store, 1) as feeder:
        assert 1 == len(list(feeder.feed([[10]])))
        os.truncate(store.piece(2, "10m"), 500)
        with pytest.raises(StoreError, match="has changed"):
            list(feeder.feed([[10]]))


def test_consumer_that_stops(store: Store) -> None:
    """Leaving the loop ends the threads and frees the feeder; two consumers at once are refused."""
    with Feeder(store, 1, ahead=3) as feeder:
        stream = feeder.feed([[i % ROWS] for i in range(100)])
        next(stream)
        with pytest.raises(ConfigError, match="one consumer"):
            next(feeder.feed([[0]]))
        stream.close()
        assert not [t for t in threading.enumerate() if t.name.startswith("eofm-feed")]
        assert 1 == len(list(feeder.feed([[0]])))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_files_are_closed(store: Store) -> None:
    """A feeder that is closed, or forgotten, leaves no file open."""

    def open_pieces() -> int:
        links = Path("/proc/self/fd").iterdir()
        return sum(link.is_symlink() and "shard-" in str(link.readlink()) for link in links)

    gc.collect()  # stores of other tests
    before = open_pieces()
    feeder = Feeder(store, 2)
    list(feeder.feed([[0, 1], [10]]))
    assert open_pieces() == before + 8
    feeder.close()
    assert before == open_pieces()
    list(feeder.feed([[0]]))
    del feeder
    gc.collect()
    assert before == open_pieces()


def test_replay_from_a_second_store(store: Store, tmp_path: Path, miniature) -> None:
    """Rows beyond the first store are those of the second, in the same batch, with their labels."""
    old = Store(miniature.store(tmp_path / "old", 3))
    rows = replayed_rows(len(store), len(old), 0.5, 0, 0, batch=4)
    with Feeder([store, old], 4) as feeder:
        assert ROWS + 3 == len(feeder)
        for lines, (imagery, labels) in zip(rows, feeder.feed(rows), strict=True):
            for i, row in enumerate(lines.tolist()):
                source, line = (store, row) if row < ROWS else (old, row - ROWS)
                expected = source.images([line])
                assert torch.equal(expected.planes[20][0], imagery.planes[20][i])
                assert torch.equal(expected.valid[0], imagery.valid[i])
                assert torch.equal(source.labels([line]).multi_hot[0], labels.multi_hot[i])


def test_stores_of_two_kinds(store: Store, tmp_path: Path, miniature, radar_miniature) -> None:
    """Other pixels or classes cannot share a batch."""
    radar = Store(radar_miniature.store(tmp_path / "r", 2))
    with pytest.raises(StoreError, match="different spec"):
        Feeder([store, radar], 2)
    rule = replace(miniature.card.labels, classes=("a", "b", "c"))
    other = replace(miniature, card=replace(miniature.card, labels=rule))
    with pytest.raises(StoreError, match="different classes"):
        Feeder([store, Store(other.store(tmp_path / "o", 2))], 2)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"ahead": 0}, {"threads": 0}, {"hold": 0}])
def test_numbers(store: Store, wrong: dict[str, int]) -> None:
    """Nothing can be read into no buffer."""
    with pytest.raises(ConfigError, match="positive"):
        Feeder(store, **{"batch": 1, **wrong})
    with pytest.raises(SpecError):
        Feeder(store, 1, bands=("B01",))
