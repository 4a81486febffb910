"""Tools for finished stores: verify, statistics, subset, merge, show."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from unsealed import edit_store, remedies, unseal_store

from eofm.cli import main
from eofm.contract.spec import Unit
from eofm.errors import ConfigError, DataError, PixelError, StoreError
from eofm.store.choice import held_out
from eofm.store.config import (
    MergeConfig,
    ShowConfig,
    StatsConfig,
    SubsetConfig,
    VerifyConfig,
)
from eofm.store.describe import class_counts, show_store, verify_store
from eofm.store.edit import merge_stores, subset_store
from eofm.store.reader import Store
from eofm.store.stats import (
    BINS,
    PERCENTILES,
    Bins,
    FloatHistogram,
    IntegerHistogram,
    make_statistics,
    read_statistics,
)
from eofm.store.writer import StoreWriter, on_disk

# ------------------------------------------------------------------------------- verify


def flip(path: Path, file: str, place: int) -> None:
    """Change one bit of a file."""
    data = bytearray((path / file).read_bytes())
    data[place] ^= 4
    (path / file).write_bytes(data)


@pytest.mark.parametrize("threads", [1, 4])
def test_verify(tmp_path: Path, miniature, threads: int) -> None:
    """A sound store passes; every damaged image is named, and no other."""
    path = miniature.store(tmp_path / "s", 9)
    assert "9 images" in verify_store(VerifyConfig(str(path), threads)).describe()
    flip(path, "shard-00000/10m.npy", 130)
    flip(path, "shard-00002/valid.npy", -1)

    with pytest.raises(StoreError, match="have changed") as caught:
        verify_store(VerifyConfig(str(path), threads))
    assert "2 of 9 with a wrong checksum, in shards 0, 2: 0 (p0_0), 8 (p4_8)" == caught.value.found


def test_verify_from_the_command_line(tmp_path: Path, miniature, capsys) -> None:
    """Exit status 0 for a sound store, 1 for a damaged one."""
    path = miniature.store(tmp_path / "s", 3)
    assert 0 == main(["data", "verify", str(path)])
    flip(path, "shard-00000/60m.npy", -1)
    assert 1 == main(["data", "verify", str(path)])
    assert "2 (p1_2)" in capsys.readouterr().err


def other(plain: dict[str, Any], **changes: object) -> None:
    """Change what a card says of the images or the labels."""
    for key, value in changes.items():
        part = "labels" if key in plain["labels"] else "image"
        plain[part][key] = value


def exchange(plain: dict[str, Any]) -> None:
    """Let two planes have one another's band."""
    plain["groups"]["10"], plain["groups"]["20"] = plain["groups"]["20"], plain["groups"]["10"]


def column(name: str, change: Callable[[list[Any]], list[Any]]) -> Callable[[Path], object]:
    """Change a column of the index."""

    def apply(path: Path) -> None:
        table = pq.read_table(path / "index.parquet")
        at = table.schema.get_field_index(name)
        values = pa.array(change(table[name].to_pylist()), table.schema.field(at).type)
        table = table.set_column(at, table.schema.field(at), values)
        pq.write_table(table, path / "index.parquet")

    return apply


def _exchanged_rows(path: Path) -> None:
    """Let two images have one another's pixels, with their checksums."""
    for name in ("row", "crc32"):
        column(name, lambda v: [v[1], v[0], *v[2:]])(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "bands exchanged": lambda p: edit_store(p, exchange),
    "another sensor": lambda p: edit_store(p, lambda c: other(c, sensor="s2-l2a")),
    "another unit": lambda p: edit_store(p, lambda c: other(c, unit="uint8")),
    "another gsd": lambda p: edit_store(p, lambda c: other(c, gsd=20.0)),
    "classes reversed": lambda p: edit_store(p, lambda c: c["labels"]["classes"].reverse()),
    "another threshold": lambda p: edit_store(p, lambda c: other(c, threshold=0.5)),
    "not synthetic": lambda p: edit_store(p, lambda c: c["provenance"].update(synthetic=False)),
    "labels inverted": column("multi_hot", lambda v: [[1 - x for x in row] for row in v]),
    "fractions rotated": column("fraction", lambda v: [row[1:] + row[:1] for row in v]),
    "labels known": column("known", lambda v: [not x for x in v]),
    "another split": column("split", lambda v: ["test"] * len(v)),
    "another place": column("location", lambda v: [f"{x}-{i}" for i, x in enumerate(v)]),
    "other side of the Earth": column("latitude", lambda v: [-x for x in v]),
    "names exchanged": column("id", lambda v: v[::-1]),
    "rows exchanged": _exchanged_rows,
}


@pytest.mark.parametrize("how", DAMAGES)
def test_changed_truth_is_found(tmp_path: Path, miniature, how: str, capsys) -> None:
    """Whatever is edited in card or index, with its pixels untouched, is no sound store."""
    path = miniature.store(tmp_path / "s", 5)
    assert 0 == main(["data", "verify", str(path)])
    DAMAGES[how](path)

    assert 1 == main(["data", "verify", str(path)])
    assert str(path) in capsys.readouterr().err
    with pytest.raises(StoreError):
        Store(path)


def test_a_store_of_before_has_no_checksum(tmp_path: Path, miniature, capsys) -> None:
    """It is read, and said to have none; the command that is printed gives it one."""
    path = miniature.store(tmp_path / "s", 5)
    unseal_store(path)
    assert 0 == main(["data", "verify", str(path)])
    said = capsys.readouterr().out
    assert "has no checksum" in said

    (command,) = remedies(said)
    assert 0 == main(command)
    DAMAGES["labels inverted"](path)

    assert 1 == main(["data", "verify", str(path)])


def test_columns_in_fortran_order(tmp_path: Path, miniature) -> None:
    """A header that reads the numbers in another order is refused."""
    path = miniature.store(tmp_path / "s", 3)
    file = path / "shard-00000/10m.npy"
    data = file.read_bytes().replace(b"'fortran_order': False", b"'fortran_order': True ", 1)
    file.write_bytes(data)

    with pytest.raises(StoreError, match="damaged") as caught:
        Store(path).images([0])
    assert "Fortran" in str(caught.value.found)


# --------------------------------------------------------------------------- histograms


def in_chunks(histogram, values: np.ndarray, cuts: list[int]):
    """Feed values in pieces."""
    for piece in np.split(values, sorted(min(cut, len(values)) for cut in cuts)):
        histogram.add(piece)
    return histogram.summary()


@given(
    hnp.arrays(np.uint16, st.integers(1, 60), elements=st.sampled_from([0, 1, 7, 900, 65535])),
    st.lists(st.integers(0, 60), max_size=3),
)
def test_integers_are_counted_exactly(values: np.ndarray, cuts: list[int]) -> None:
    """Every number is numpy's own, however the values are cut into chunks."""
    found = in_chunks(IntegerHistogram(), values, cuts)

    assert len(values) == found.count
    assert (values.min(), values.max()) == (found.minimum, found.maximum)
    np.testing.assert_allclose(found.mean, values.mean(dtype=np.float64), rtol=1e-14)
    np.testing.assert_allclose(found.std, values.std(dtype=np.float64), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(
        found.percentiles, np.percentile(values.astype(float), PERCENTILES), rtol=1e-12, atol=1e-9
    )


def test_no_overflow() -> None:
    """A spread of 0.5 on top of the largest values survives 10**12 pixels."""
    histogram = IntegerHistogram()
    histogram._counts[[65534, 65535]] = 10**12

    assert 65534.5 == histogram.summary().mean
    assert 0.5 == histogram.summary().std


@given(
    hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-60, 40, width=32)),
    st.lists(st.integers(0, 60), max_size=3),
)
def test_decibels_are_counted_to_a_bin(values: np.ndarray, cuts: list[int]) -> None:
    """Mean, spread and ends are numpy's; percentiles are within half a bin."""
    bins = BINS[Unit.DB]
    found = in_chunks(FloatHistogram(bins), values, cuts)
    exact = values.astype(np.float64)

    assert (exact.min(), exact.max()) == (found.minimum, found.maximum)
    np.testing.assert_allclose(found.mean, exact.mean(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.std, exact.std(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        found.percentiles, np.percentile(exact, PERCENTILES), atol=bins.width / 2 + 1e-6
    )


def test_values_outside_the_bins() -> None:
    """They count at the ends, and do not stretch beyond what was seen."""
    histogram = FloatHistogram(Bins(0.0, 1.0, 2))
    histogram.add(np.array([-50.0, 0.5, 90.0]))
    found = histogram.summary()

    assert (-50.0, 90.0) == (found.minimum, found.maximum)
    assert 3 == found.count


def test_no_statistics_of_nothing() -> None:
    """No pixel, or one that is not a number, is an error."""
    with pytest.raises(PixelError, match="no pixel is valid"):
        IntegerHistogram().summary()
    with pytest.raises(PixelError, match="not a number"):
        FloatHistogram(BINS[Unit.DB]).add(np.array([1.0, np.nan]))


# --------------------------------------------------------------------------- statistics


def oracle(store: Store, rows) -> dict[str, np.ndarray]:
    """Every valid pixel of each band, one by one."""
    found: dict[str, list[float]] = {band: [] for band in store.spec.bands}
    for row in rows:
        image = store.images([row])
        valid = image.valid[0].numpy()
        for gsd, plane in image.planes.items():
            step = int(gsd / store.spec.gsd)
            for band, pixels in zip(image.bands[gsd], plane[0].numpy(), strict=True):
                for (y, x), value in np.ndenumerate(pixels):
                    if valid[y * step : (y + 1) * step, x * step : (x + 1) * step].all():
                        found[band].append(float(value))
    return {band: np.array(values) for band, values in found.items()}


@pytest.mark.parametrize("split", ["all", "train", "held-out"])
def test_statistics_of_a_split(tmp_path: Path, miniature, split: str) -> None:
    """They are those of every valid pixel at native resolution, of the places of the split."""
    store = Store(miniature.store(tmp_path / "s", 9))
    config = StatsConfig(str(store.path), split=split, holdout=0.4, seed=3)
    report = make_statistics(config)
    outside = held_out(store.locations.tolist(), 0.4, 3)
    chosen = {"all": outside | True, "train": ~outside, "held-out": outside}[split]
    rows = np.flatnonzero(chosen)
    statistics = read_statistics(store.path / "stats.json")

    assert 0 < len(rows) <= 9
    for i, (band, values) in enumerate(oracle(store, rows).items()):
        assert len(values) == report.bands[band].count
        np.testing.assert_allclose(statistics.mean[i], values.mean(), rtol=1e-12)
        np.testing.assert_allclose(statistics.std[i], values.std(), rtol=1e-9)
    assert (store.spec.bands, Unit.DN) == (statistics.bands, statistics.unit)
    assert f"{len(rows)} of 9 images" in statistics.source
    plain = json.loads((store.path / "stats.json").read_text())
    assert {"name": split, "holdout": 0.4, "seed": 3, "where": []} == plain["split"]
    assert 0 == plain["percentile_bin_width"]
    assert 9 == len(Store(store.path))  # the file does no harm to the store


def test_statistics_of_decibels(tmp_path: Path, radar_miniature) -> None:
    """A float store says how wide its bins are; a sample and a list of images are named."""
    store = Store(radar_miniature.store(tmp_path / "s", 6))
    (tmp_path / "ids.txt").write_text("\n".join(store.ids[:4]) + "\n\n")
    out = tmp_path / "mine.json"
    config = StatsConfig(str(store.path), ids=str(tmp_path / "ids.txt"), sample=3, out=str(out))
    report = make_statistics(config)

    assert "listed in ids.txt, a sample of 3: 3 of 6 images" in report.describe()
    assert 0.01 == json.loads(out.read_text())["percentile_bin_width"]
    assert not (store.path / "stats.json").exists()


def test_statistics_that_cannot_be_written(tmp_path: Path, miniature) -> None:
    """They ended in an OSError; so did no other file of a verb."""
    store = miniature.store(tmp_path / "s", 2)
    (tmp_path / "file").touch()

    with pytest.raises(DataError, match="cannot be written") as caught:
        make_statistics(StatsConfig(str(store), out=str(tmp_path / "file" / "stats.json")))

    assert "name another --out" == caught.value.remedy


def test_a_disk_that_is_full_is_that_of_the_copy(tmp_path: Path) -> None:
    """An error of a copy names its source first."""
    source, target = tmp_path / "from" / "10m.npy", tmp_path / "to" / "10m.npy"

    with pytest.raises(StoreError, match="cannot be written") as caught, on_disk(target.parent):
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))

    assert str(target) == caught.value.where
    assert "free some space" in str(caught.value.remedy)


@pytest.mark.parametrize("text", ["{}", "[", '{"name": "x", "sensor": "s9"}'])
def test_no_statistics(tmp_path: Path, text: str) -> None:
    """Other JSON is not read as statistics."""
    (tmp_path / "x.json").write_text(text)

    with pytest.raises(StoreError, match="not a file of statistics"):
        read_statistics(tmp_path / "x.json")


# ------------------------------------------------------------------------------- copies


def rows_of(store: Store, source: Store) -> list[int]:
    """The rows of `source` that `store` holds, checked pixel by pixel and label by label."""
    ids = source.ids.tolist()
    rows = [ids.index(name) for name in store.ids]
    for own, row in enumerate(rows):
        assert store.table["crc32"][own] == source.table["crc32"][row]
        mine, theirs = (
            s.table.slice(i, 1).drop_columns(["shard", "row"])
            for s, i in ((store, own), (source, row))
        )
        assert mine.equals(theirs)
    store.verify()
    return rows


def subset(path: Path, out: Path, **changes) -> Store:
    """Copy some images."""
    subset_store(SubsetConfig(str(path), str(out), **changes))
    return Store(out)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (["latitude<0"], list(range(9))),
        (["longitude>=10.25", "longitude < 12.25"], [3, 4]),
        (["season=s1"], [1, 3, 5, 7]),
        (["known=false"], [2, 5, 8]),
        (["known != true", "location=p2"], [5]),
        (["class=trees"], [1, 3, 7]),
        (["class!=trees"], [0, 4, 6]),  # of an unlabelled image it is not known
        (["id=p1_2"], [2]),
    ],
)
def test_subset_by_conditions(tmp_path: Path, miniature, where, expected) -> None:
    """The rows that meet every condition, in their order."""
    path = miniature.store(tmp_path / "s", 9)

    assert expected == rows_of(subset(path, tmp_path / "out", where=where), Store(path))


@pytest.mark.parametrize(
    "condition", ["latitude", "nowhere=1", "known=perhaps", "latitude=x", "class=fire", "class<1"]
)
def test_unclear_condition(tmp_path: Path, miniature, condition: str) -> None:
    """A condition that cannot be understood says what can."""
    path = miniature.store(tmp_path / "s", 2)

    with pytest.raises(ConfigError, match="cannot be understood") as caught:
        subset(path, tmp_path / "out", where=[condition])
    assert condition == caught.value.found


def test_subset_by_list_and_sample(tmp_path: Path, miniature) -> None:
    """Listed images; unknown ones are named; samples nest."""
    path = miniature.store(tmp_path / "s", 9)
    listed = tmp_path / "ids.txt"
    listed.write_text("p3_6\np0_1\n")
    assert [1, 6] == rows_of(subset(path, tmp_path / "a", ids=str(listed)), Store(path))
    small = rows_of(subset(path, tmp_path / "b", sample=3), Store(path))
    large = rows_of(subset(path, tmp_path / "c", sample=6), Store(path))
    assert (3, 6) == (len(small), len(large))
    assert set(small) < set(large)

    listed.write_text("p3_6\nnobody\n")
    with pytest.raises(StoreError, match="not in the store") as caught:
        subset(path, tmp_path / "d", ids=str(listed))
    assert "1: nobody" == caught.value.found
    with pytest.raises(StoreError, match="no image meets"):
        subset(path, tmp_path / "d", where=["latitude>0"])
    assert not (tmp_path / "d").exists()
    with pytest.raises(StoreError, match="into itself"):
        subset(path, path, sample=2)


def test_copy_that_was_killed(tmp_path: Path, miniature, tree, kill) -> None:
    """A copy that is interrupted, again and again, resumes to the same bytes."""
    path = miniature.store(tmp_path / "s", 9)
    subset(path, tmp_path / "whole", where=["known=true"])
    kills = 0
    for call in (5, 9, 14, 20, 26, 31, 37):
        with kill.at(call):
            try:
                subset(path, tmp_path / "out", where=["known=true"])
            except kill.Error:
                kills += 1
    subset(path, tmp_path / "out", where=["known=true"])

    assert kills > 2
    assert tree(tmp_path / "whole") == tree(tmp_path / "out")


def test_damage_is_not_copied(tmp_path: Path, miniature) -> None:
    """A damaged image does not get a right checksum by being copied."""
    path = miniature.store(tmp_path / "s", 4)
    flip(path, "shard-00000/20m.npy", -1)

    with pytest.raises(StoreError, match=r"have changed"):
        subset(path, tmp_path / "out", where=["latitude<0"])
    assert [0, 1] == rows_of(subset(path, tmp_path / "ok", where=["location=p0"]), Store(path))


def test_merge(tmp_path: Path, miniature) -> None:
    """Parts of a store, merged, have its rows; sources of the same name are counted apart."""
    path = miniature.store(tmp_path / "s", 9)
    north = subset(path, tmp_path / "n", where=["season=s0"])
    south = subset(path, tmp_path / "o", where=["season=s1"])
    report = merge_stores(MergeConfig([str(north.path), str(south.path)], str(tmp_path / "m")))
    both = Store(tmp_path / "m")

    assert [0, 2, 4, 6, 8, 1, 3, 5, 7] == rows_of(both, Store(path))
    assert (9, 9) == (report.windows, both.card.sources)
    again = merge_stores(MergeConfig([str(north.path), str(south.path)], str(tmp_path / "m")))
    assert again.already


def test_merge_of_the_same_images(tmp_path: Path, miniature) -> None:
    """An image that is in both is named, and nothing is written."""
    one = miniature.store(tmp_path / "a", 3)
    two = miniature.store(tmp_path / "b", 2)

    with pytest.raises(StoreError, match="same identifier") as caught:
        merge_stores(MergeConfig([str(one), str(two)], str(tmp_path / "m")))
    assert "2: p0_0, p0_1" == caught.value.found
    assert not (tmp_path / "m").exists()


def test_merge_of_two_kinds(tmp_path: Path, miniature, radar_miniature) -> None:
    """Other pixels, and labels by another rule, are told apart."""
    one = miniature.store(tmp_path / "a", 2)
    radar = radar_miniature.store(tmp_path / "b", 2)
    rule = replace(miniature.card.labels, threshold=0.5)
    other = replace(miniature, card=replace(miniature.card, labels=rule))
    with pytest.raises(StoreError, match="different kinds of images"):
        merge_stores(MergeConfig([str(one), str(radar)], str(tmp_path / "m")))
    with pytest.raises(StoreError, match="different kinds of labels"):
        merge_stores(
            MergeConfig([str(one), str(other.store(tmp_path / "c", 2))], str(tmp_path / "m"))
        )
    with pytest.raises(ConfigError, match="two stores"):
        MergeConfig([str(one)], "m")


def test_merge_from_the_command_line(tmp_path: Path, miniature, radar_miniature, capsys) -> None:
    """Any number of stores stand behind the verb."""
    one = miniature.store(tmp_path / "a", 3)
    rows = range(3, 6)
    with StoreWriter(tmp_path / "b", miniature.card) as writer:
        miniature.write(writer, rows)

    assert 0 == main(["data", "merge", str(one), str(tmp_path / "b"), "--out", str(tmp_path / "m")])
    assert "6 windows" in capsys.readouterr().out
    assert 2 == main(["data", "merge", "--out", str(tmp_path / "m2")])


# --------------------------------------------------------------------------------- show


def test_class_counts(tmp_path: Path, miniature) -> None:
    """Of the labelled images alone, by a plain loop over them."""
    store = Store(miniature.store(tmp_path / "s", 9))
    labels = store.labels(range(9))

    counts = class_counts(store)

    expected = np.zeros((len(store.classes),) * 2, int)
    for hot, known in zip(labels.multi_hot.numpy(), labels.known.tolist(), strict=True):
        expected += np.outer(hot, hot).astype(int) * known
    np.testing.assert_array_equal(expected, counts.together)
    assert (6, 3) == (counts.known, counts.unknown)


@pytest.mark.parametrize("kind", ["optical", "radar"])
def test_show(tmp_path: Path, miniature, radar_miniature, kind: str) -> None:
    """A picture and a description, for stores with and without labels or a composite."""
    small = miniature if kind == "optical" else radar_miniature
    path = small.store(tmp_path / "s", 9)
    report = show_store(ShowConfig(str(path), samples=3))

    assert b"\x89PNG" == (path / "store.png").read_bytes()[:4]
    assert "5 places" in report.describe()
    assert ("6 of 9 labelled" in report.describe()) == (kind == "optical")
    assert ("water  100.0%" in report.describe()) == (kind == "optical")
