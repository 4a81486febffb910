"""The packed store: its files, and reading them."""

from __future__ import annotations

import io
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eofm.contract.imagery import Imagery, NativeImagery
from eofm.contract.preprocess import to_grid
from eofm.contract.spec import (
    SENSOR_BANDS,
    ImageSpec,
    Normalization,
    Sensor,
    Unit,
    resolution_groups,
)
from eofm.errors import SpecError, StoreError
from eofm.store.format import HEADER_BYTES, Entry, StoreCard, npy_header
from eofm.store.reader import Store
from eofm.store.writer import StoreWriter

# ------------------------------------------------------------------------------ layout


@given(
    st.lists(st.integers(0, 10**9), min_size=1, max_size=4),
    st.sampled_from(["<u2", "<f4", "|u1"]),
)
def test_header_is_numpys(shape: list[int], dtype: str) -> None:
    """Numpy reads from the header of fixed length what was put into it."""
    stream = io.BytesIO(npy_header(tuple(shape), np.dtype(dtype)))

    assert (1, 0) == np.lib.format.read_magic(stream)
    assert (tuple(shape), False, np.dtype(dtype)) == np.lib.format.read_array_header_1_0(stream)
    assert HEADER_BYTES == stream.tell()


def test_card_survives_json(miniature, radar_miniature) -> None:
    """What `spec.json` says is what was stated, for labelled and unlabelled stores."""
    for card in (miniature.card, radar_miniature.card):
        full = replace(
            card, rows=3, rows_per_shard=2, sources=2, provenance={"unit_of": {"a": "dn"}}
        )
        assert full == StoreCard.from_json(full.to_json(), Path("x"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not the card"),
        ("[]", "not the card"),
        ('{"version": 2}', "not the card"),
        ('{"version": 1}', "another version"),
        ('{"version": 99}', "another version"),
    ],
)
def test_foreign_card(text: str, problem: str) -> None:
    """Broken JSON, other JSON, and stores of a later eofm are told apart."""
    with pytest.raises(StoreError, match=problem):
        StoreCard.from_json(text, Path("spec.json"))


def test_normalised_pixels_are_not_packed(miniature) -> None:
    """A store holds physical units: normalised pixels belong to one network."""
    spec = replace(
        miniature.card.spec,
        unit=Unit.MODEL,
        normalization=Normalization.divide(1e4, 3, "test"),
    )

    with pytest.raises(StoreError, match="cannot be packed"):
        replace(miniature.card, spec=spec)


def test_files_need_no_eofm(tmp_path: Path, miniature) -> None:
    """Numpy and pyarrow alone find every image, its mask, labels and place."""
    store = miniature.store(tmp_path / "s", 6)
    index = pq.read_table(store / "index.parquet").to_pylist()
    spec = json.loads((store / "spec.json").read_text())

    assert [f"p{i // 2}_{i}" for i in range(6)] == [line["id"] for line in index]
    assert [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)] == [
        (x["shard"], x["row"]) for x in index
    ]
    assert {"10": ["B02"], "20": ["B8A"], "60": ["B09"]} == spec["groups"]
    assert (6, 3, 3) == (spec["rows"], spec["sources"], spec["skipped"])
    line = index[5]
    assert [0.75, 0.25, 0.0] == line["fraction"]
    assert ([0, 0, 0], False) == (line["multi_hot"], line["known"])
    assert ("2021-06-01T10:20:30", 12.25) == (line["date"], line["longitude"])
    for gsd in (10, 20, 60):
        plane = np.load(store / f"shard-00001/{gsd}m.npy")
        assert (2, 1, 120 // gsd, 180 // gsd) == plane.shape
        assert np.dtype("<u2") == plane.dtype
        assert {5000 + 10 * gsd} == set(plane[1].ravel().tolist())
    bits = np.unpackbits(np.load(store / "shard-00001/valid.npy")[1])[: 12 * 18].reshape(12, 18)
    assert [[5, 1]] == np.argwhere(bits == 0).tolist()


# ----------------------------------------------------------------------------- reading


def test_images_come_back(tmp_path: Path, miniature) -> None:
    """Rows in any order, repeated, across shards, are the images that were written."""
    store = Store(miniature.store(tmp_path / "s", 9))
    rows = [8, 0, 3, 4, 3]
    found = store.images(rows)

    assert miniature.card.spec == found.spec == store.spec
    for k, i in enumerate(rows):
        written = miniature.imagery(i)
        assert torch.equal(written.valid[0], found.valid[k])
        for gsd, plane in written.planes.items():
            assert torch.uint16 == found.planes[gsd].dtype
            assert torch.equal(plane[0], found.planes[gsd][k])
    assert (5, 3, 12, 18) == tuple(to_grid(found).pixels.shape)


def test_decibels_come_back(tmp_path: Path, radar_miniature) -> None:
    """Sentinel-1 keeps its fractions: nothing passes through an integer type."""
    store = Store(radar_miniature.store(tmp_path / "s", 3))
    found = store.images(range(3))

    assert torch.float32 == found.planes[10].dtype
    assert 2100.25 == found.planes[10][2, 0, 0, 0]


def test_labels_come_back(tmp_path: Path, miniature) -> None:
    """Labels, fractions, identifiers and places are those of the rows asked for."""
    store = Store(miniature.store(tmp_path / "s", 6))
    labels = store.labels(np.array([5, 1]))

    assert (("water", "trees", "crops"), "terramesh") == (store.classes, store.scheme)
    assert [[0, 0, 0], [1, 1, 0]] == labels.multi_hot.tolist()
    assert [False, True] == labels.known.tolist()
    assert [[0.75, 0.25, 0.0]] == store.fractions([5]).tolist()
    assert ["p0", "p0", "p1", "p1", "p2", "p2"] == store.locations.tolist()
    assert "p2_4" == store.ids[4]
    assert 6 == len(store)


def test_unlabelled_store(tmp_path: Path, radar_miniature) -> None:
    """Without a map there are no classes, and no label is known."""
    store = Store(radar_miniature.store(tmp_path / "s", 3))
    labels = store.labels([0, 2])

    assert ((), None) == (store.classes, store.scheme)
    assert (2, 0) == tuple(labels.multi_hot.shape)
    assert not bool(labels.known.any())


def test_no_rows(tmp_path: Path, miniature) -> None:
    """An empty batch is a batch."""
    store = Store(miniature.store(tmp_path / "s", 2))

    assert (0, 1, 12, 18) == tuple(store.images([]).planes[10].shape)
    assert (0, 3) == tuple(store.labels([]).multi_hot.shape)


@pytest.mark.parametrize("row", [6, -7])
def test_no_such_row(tmp_path: Path, miniature, row: int) -> None:
    """A row beyond the end is an IndexError, not another image."""
    store = Store(miniature.store(tmp_path / "s", 6))

    with pytest.raises(IndexError):
        store.images([row])


def test_workers_and_threads(tmp_path: Path, miniature) -> None:
    """A store travels to a worker as its path, and threads may share it."""
    store = Store(miniature.store(tmp_path / "s", 9))
    store.images(range(9))
    sent = pickle.dumps(store)
    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(pickle.loads(sent).images, [[i] for i in range(9)] * 5))

    assert len(sent) < 1000
    for k, batch in enumerate(batches):
        assert 1000 * (k % 9) + 100 == batch.planes[10][0, 0, 0, 0].item()


# ---------------------------------------------------------------------------- bad stores


def test_flipped_bit_is_found(tmp_path: Path, miniature) -> None:
    """`verify` passes a sound store, and names the one image in which a bit has changed."""
    path = miniature.store(tmp_path / "s", 6)
    Store(path).verify()
    file = path / "shard-00001/20m.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 4  # in the last row
    file.write_bytes(data)

    Store(path).verify([0, 4])
    with pytest.raises(StoreError, match="changed") as caught:
        Store(path).verify()
    assert "1 with a wrong checksum: 5 (p2_5)" == caught.value.found


@pytest.mark.parametrize("file", ["shard-00001/10m.npy", "shard-00000/valid.npy"])
def test_truncated_piece(tmp_path: Path, miniature, file: str) -> None:
    """A store whose copying was cut short is refused on opening."""
    path = miniature.store(tmp_path / "s", 6)
    data = (path / file).read_bytes()
    (path / file).write_bytes(data[:-1])

    with pytest.raises(StoreError, match="missing or damaged") as caught:
        Store(path)

    assert path / file == caught.value.where
    assert f"{len(data) - 1} bytes" == caught.value.found


@pytest.mark.parametrize(
    "file", ["shard-00000/60m.npy", "index.parquet", "spec.json", "shard-00001/valid.npy"]
)
def test_missing_piece(tmp_path: Path, miniature, file: str) -> None:
    """Each file is needed, and its absence is an error."""
    path = miniature.store(tmp_path / "s", 6)
    (path / file).unlink()

    with pytest.raises(StoreError):
        Store(path)


def test_foreign_piece(tmp_path: Path, miniature) -> None:
    """A file of the right length but another shape is not read as pixels."""
    path = miniature.store(tmp_path / "s", 4)
    file = path / "shard-00000/10m.npy"
    data = file.read_bytes()
    file.write_bytes(npy_header((4, 1, 18, 12), np.dtype("<u2")) + data[HEADER_BYTES:])

    with pytest.raises(StoreError, match="missing or damaged"):
        Store(path).images([0])


def test_foreign_index(tmp_path: Path, miniature, radar_miniature) -> None:
    """The index of another store does not fit."""
    path = miniature.store(tmp_path / "s", 4)
    other = radar_miniature.store(tmp_path / "t", 4)
    (other / "index.parquet").replace(path / "index.parquet")

    with pytest.raises(StoreError, match="missing or damaged"):
        Store(path)


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_no_store(tmp_path: Path, name: str) -> None:
    """A path without a store says how to make one."""
    (tmp_path / "empty").mkdir()

    with pytest.raises(StoreError, match="eofm pack"):
        Store(tmp_path / name)


# ------------------------------------------------------------------------------ some bands


@pytest.fixture(scope="module")
def wide_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Four images of all thirteen bands, every value telling image, band and position."""
    bands = SENSOR_BANDS[Sensor.S2_L1C]
    spec = ImageSpec(Sensor.S2_L1C, bands, Unit.DN, (12, 12), 10.0)
    card = StoreCard(spec, resolution_groups(bands), None, {})
    path = tmp_path_factory.mktemp("wide") / "s"
    with StoreWriter(path, card, shard_bytes=3 * card.row_bytes) as writer:
        for i in range(4):
            planes = {}
            for gsd, names in card.groups.items():
                side = 120 // gsd
                ramp = np.arange(side * side, dtype=np.uint16).reshape(side, side)
                values = [ramp + 10_000 * i + 500 * bands.index(name) for name in names]
                planes[gsd] = torch.from_numpy(np.stack(values)[None])
            valid = torch.ones(1, 12, 12, dtype=torch.bool)
            entry = Entry(f"i{i}", "p", "", 0.0, 0.0, "", "p", "dn")
            writer.append(entry, NativeImagery(planes, card.groups, spec, valid))
        writer.finish()
    return Store(path)


@given(st.lists(st.sampled_from(SENSOR_BANDS[Sensor.S2_L1C]), min_size=1, unique=True))
def test_some_bands_are_those_of_all(wide_store: Store, bands: list[str]) -> None:
    """Reading some bands gives what reading all and choosing gives, in the order asked for."""
    rows = [3, 0, 3]
    some, every = store_images(wide_store, rows, bands), to_grid(wide_store.images(rows))
    index = [every.spec.bands.index(band) for band in bands]

    assert tuple(bands) == some.spec.bands
    assert replace(every.spec, bands=tuple(bands)) == some.spec
    assert torch.equal(every.pixels[:, index], some.pixels)
    assert torch.equal(every.valid, some.valid)


def store_images(store: Store, rows: list[int], bands: list[str]) -> Imagery:
    """Return some bands on the store's grid."""
    return to_grid(store.images(rows, bands=bands))


def test_band_of_another_spelling(wide_store: Store) -> None:
    """B4 is B04; planes of other groups are not read at all."""
    found = wide_store.images([1], bands=("B4", "B3"))

    assert (("B04", "B03"), {10}) == (found.spec.bands, set(found.planes))
    assert {10: ("B03", "B04")} == found.bands


@pytest.mark.parametrize("bands", [["B99"], ["B02", "B02"], ["VV"], []])
def test_no_such_band(wide_store: Store, bands: list[str]) -> None:
    """Bands that are unknown, repeated, or of another sensor are refused by name."""
    with pytest.raises(SpecError):
        wide_store.images([0], bands=bands)


def test_band_the_store_lacks(tmp_path: Path, miniature) -> None:
    """A band of the sensor that was not packed is named."""
    store = Store(miniature.store(tmp_path / "s", 2))

    with pytest.raises(SpecError, match="does not hold") as caught:
        store.images([0], bands=["B02", "B03"])
    assert "B03" == caught.value.expected
