"""The table of labels that training is told: inherited ones, covered shares, places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eofm.contract.imagery import Labels
from eofm.errors import ConfigError
from eofm.loading.feeder import Feeder
from eofm.store.reader import Store, inherited_from, label_table

images = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.booleans()), max_size=14)


@given(images)
@settings(max_examples=200, deadline=None)
def test_labels_come_from_the_nearest_labelled_season(rows: list[tuple[int, int, bool]]) -> None:
    """By loops over all images of a place; the earlier of two that are as near; -1 without one."""
    places = np.array([row[0] for row in rows], np.int64)
    times = np.array([row[1] for row in rows], np.float64)
    labelled = np.array([row[2] for row in rows], bool)
    found = inherited_from(places, times, labelled)
    for i, (place, time, sure) in enumerate(rows):
        near = [
            (abs(time - rows[j][1]), rows[j][1])
            for j in range(len(rows))
            if rows[j][0] == place and rows[j][2]
        ]
        if sure or not near:
            assert -1 == found[i]
        else:
            source = rows[found[i]]
            assert (place, True) == (source[0], source[2])
            assert min(near) == (abs(time - source[1]), source[1])


def test_an_unlabelled_season_inherits_within_its_place_only(tmp_path: Path, miniature) -> None:
    """Rows 2 and 5 take the labels of 3 and 4, their places' other season; row 8 has no other."""
    store = Store(miniature.store(tmp_path / "s", 9))
    own = store.labels(range(9))
    table = label_table((store,), inherit=True, shares=True)
    plain = label_table((store,))

    assert [2, 5, 8] == np.flatnonzero(~own.known).tolist()
    assert [8] == np.flatnonzero(~table.known).tolist()
    source = [0, 1, 3, 3, 4, 4, 6, 7, 8]
    assert own.multi_hot[source].equal(table.multi_hot)
    assert store.fractions(source).equal(table.shares)
    assert table.places is None
    assert own.multi_hot.equal(plain.multi_hot)
    assert own.known.equal(plain.known)
    assert plain.shares is None


def test_the_rows_of_two_stores_are_counted_on(tmp_path: Path, miniature) -> None:
    """One behind the other; the same name is the same place in both."""
    first = Store(miniature.store(tmp_path / "a", 5))
    second = Store(miniature.store(tmp_path / "b", 7))
    table = label_table((first, second), places=True, shares=True)

    assert (12, 3) == tuple(table.shares.shape)
    assert [0, 0, 1, 1, 2, 0, 0, 1, 1, 2, 2, 3] == table.places.tolist()
    assert second.labels(range(7)).multi_hot.equal(table.multi_hot[5:])


def test_a_feeder_hands_out_the_table(tmp_path: Path, miniature) -> None:
    """Labels, shares and places of the rows of each batch, in its order; not the store's own."""
    store = Store(miniature.store(tmp_path / "s", 9))
    table = label_table((store,), inherit=True, places=True, shares=True)
    batches = [[3, 8, 2], [0], [5, 5]]
    with Feeder(store, 3, labels=table) as feeder:
        for rows, (imagery, labels) in zip(batches, feeder.feed(batches), strict=True):
            expected = table[torch.tensor(rows)]
            assert len(rows) == len(imagery)
            for name in ("multi_hot", "known", "shares", "places"):
                assert getattr(expected, name).equal(getattr(labels, name))
    with pytest.raises(ConfigError, match="one for each row"):
        Feeder(store, 3, labels=table[:4])


def test_labels_stay_together() -> None:
    """Slices, masks and moves take all tensors along, and leave out what is not there."""
    labels = Labels(
        torch.eye(4), torch.arange(4) > 0, shares=torch.eye(4) / 2, places=torch.arange(4)
    )
    half = labels[2:].to("cpu")

    assert [2, 3] == half.places.tolist()
    assert labels.shares[2:].equal(half.shares)
    assert [1, 2, 3] == labels[labels.known].places.tolist()
    bare = Labels(labels.multi_hot, labels.known)[:1]
    assert bare.shares is None
    assert bare.places is None
