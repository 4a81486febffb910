"""What the index of a store must be to be read: columns, values, places in the shards, grids."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from affine import Affine
from rasterio.crs import CRS
from unsealed import unseal_journal, unseal_store

from eofm.errors import StoreError
from eofm.raster.grid import Grid
from eofm.store.config import CardConfig, ShowConfig
from eofm.store.describe import show_store
from eofm.store.format import JOURNAL, index_schema
from eofm.store.grids import known_grids, located
from eofm.store.reader import Store
from eofm.store.writer import StoreWriter

UTM = CRS.from_epsg(32632)
ODD = CRS.from_user_input("+proj=laea +lat_0=11.5 +lon_0=7 +units=m")
TRANSFORM = Affine(10.1, 0.25, 500_000.123456789, -0.25, -10.3, 5_400_000.987654321)


def placed_store(miniature, path: Path, rows: int = 5) -> Path:
    """Write a store of which every image has a grid, but image 2."""
    with StoreWriter(path, miniature.card, shard_bytes=4 * miniature.card.row_bytes) as writer:
        for i in range(rows):
            grid = Grid(ODD if i == 1 else UTM, TRANSFORM, 12, 18)
            entry = miniature.entry(i)
            writer.append(entry if i == 2 else located(entry, grid), miniature.imagery(i))
        writer.finish()
    return path


def test_grids_come_back(tmp_path: Path, miniature) -> None:
    """CRS, as code or WKT, and all digits of the transform are what was written."""
    store = Store(placed_store(miniature, tmp_path / "s"))

    grids = known_grids(store)

    assert [UTM, ODD, None, UTM, UTM] == [grid and grid.crs for grid in grids]
    assert {TRANSFORM} == {grid.transform for grid in grids if grid}
    assert {(12, 18)} == {(grid.height, grid.width) for grid in grids if grid}
    crs = store.table["crs"].to_pylist()
    assert ["EPSG:32632", "", "EPSG:32632", "EPSG:32632"] == [crs[0], *crs[2:]]
    assert crs[1].startswith("PROJCS[")
    assert index_schema(3) == store.table.schema


def test_the_index_opens_without_eofm(tmp_path: Path, miniature) -> None:
    """Any Parquet reader finds the six doubles, and a null where they are not known."""
    placed_store(miniature, tmp_path / "s")

    rows = pq.read_table(tmp_path / "s/index.parquet").to_pylist()

    assert [*TRANSFORM[:6]] == rows[0]["transform"]
    assert rows[2]["transform"] is None


def test_card_and_sheet_say_where_images_lie(tmp_path: Path, miniature) -> None:
    """`eofm card` and `eofm data show` tell the CRS of the images, and how many are unknown."""
    from eofm.store.describe import write_card

    store = placed_store(miniature, tmp_path / "s")

    card = write_card(CardConfig(str(store))).text
    sheet = show_store(ShowConfig(str(store), str(tmp_path / "s.png"), samples=1)).describe()

    for text in (card, sheet):
        assert "3 in EPSG:32632, 1 in a CRS without a code, 1 in an unknown CRS" in text


def rewritten(path: Path, **columns: object) -> Path:
    """Give the index of a store other columns."""
    file = path / "index.parquet"
    table = pq.read_table(file)
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        if values is None:
            table = table.drop([name])
            continue
        array = (
            values
            if isinstance(values, pa.Array)
            else pa.array(values, table.schema.field(at).type)
        )
        table = table.set_column(at, pa.field(name, array.type), array)
    pq.write_table(table, file)
    return path


@pytest.mark.parametrize(
    ("columns", "found", "expected"),
    [
        ({"row": pa.array([0, 1, 2, 3, 0], pa.int64())}, "row (int64)", "row (int32)"),
        ({"date": None}, "none more", "date (string)"),
        ({"id": ["a", None, "c", "d", "e"]}, "nulls in id", "a value in every row"),
        ({"known": [True, None, True, True, True]}, "nulls in known", "a value"),
        ({"fraction": [[0.1, 0.2, 0.7]] * 4 + [None]}, "nulls in fraction", "a value"),
        ({"multi_hot": [[1, 0, 0]] * 4 + [[1, None, 0]]}, "nulls in multi_hot", "a value"),
        ({"crs": ["EPSG:32632"] * 4 + [None]}, "nulls in crs", "a value"),
        ({"row": [0, 1, -2, 3, 0]}, "row -2 in shard 0", "every row of a shard once"),
        ({"row": [0, 1, 1, 3, 0]}, "row 1 in shard 0", "every row of a shard once"),
        ({"row": [0, 1, 2, 4, 0]}, "row 4 in shard 0", "every row of a shard once"),
        ({"multi_hot": [[1, 0, 0]] * 4 + [[255, 0, 0]]}, "a label 255", "labels 0 and 1"),
        ({"fraction": [[0.1, 0.2, 0.7]] * 4 + [[1.5, 0, 0]]}, "a share 1.5", "from 0 to 1"),
        ({"valid_share": [0.5] * 4 + [-7.0]}, "a share -7", "from 0 to 1"),
        ({"shard": [0, 0, 0, 0, -1]}, "shards -1, 0", "numbered from 0"),
        ({"shard": [0, 0, 0, 0, 2]}, "shards 0, 2", "numbered from 0"),
        ({"shard": [1, 1, 1, 1, 2]}, "shards 1, 2", "numbered from 0"),
    ],
)  # fmt: skip
def test_an_index_that_cannot_be(columns, found: str, expected: str, tmp_path, miniature) -> None:
    """Other columns, nulls and impossible places are one StoreError each when a store is opened."""
    path = rewritten(placed_store(miniature, tmp_path / "s"), **columns)

    with pytest.raises(StoreError, match="missing or damaged") as caught:
        Store(path)

    assert found in str(caught.value.found)
    assert expected in str(caught.value.expected)
    assert "index.parquet" in str(caught.value.where)


def test_an_order_of_its_own(tmp_path: Path, miniature) -> None:
    """Rows of the index may be in any order: the places are what counts."""
    path = placed_store(miniature, tmp_path / "s")
    file = path / "index.parquet"
    table = pq.read_table(file).take(pa.array([4, 2, 0, 3, 1]))
    pq.write_table(table, file)
    unseal_store(path)

    store = Store(path)

    store.verify()
    assert [(1, 0), (0, 2), (0, 0), (0, 3), (0, 1)] == store.places(range(5))


def test_rows_of_another_number(tmp_path: Path, miniature) -> None:
    """An index that lost a row is not that of the card."""
    path = placed_store(miniature, tmp_path / "s")
    table = pq.read_table(path / "index.parquet")
    pq.write_table(table.slice(0, 4), path / "index.parquet")

    with pytest.raises(StoreError, match="missing or damaged") as caught:
        Store(path)

    assert ("4 rows", "5 rows, as spec.json says") == (caught.value.found, caught.value.expected)


def test_a_crs_that_is_none(tmp_path: Path, miniature) -> None:
    """A CRS that cannot be read is an error where the grids are asked for, and names the image."""
    path = rewritten(placed_store(miniature, tmp_path / "s"), crs=["EPSG:32632"] * 4 + ["nonsense"])
    unseal_store(path)

    with pytest.raises(StoreError, match="CRS that cannot be read") as caught:
        known_grids(Store(path))

    assert "p2_4" in str(caught.value.where)


def test_half_written_by_another_version(tmp_path: Path, miniature) -> None:
    """A store that 0.1 began is not gone on with: its rows lack columns and counted otherwise."""
    with StoreWriter(tmp_path / "s", miniature.card) as writer:
        writer.append(miniature.entry(0), miniature.imagery(0))
    journal = tmp_path / "s" / JOURNAL
    unseal_journal(journal, lambda card: card.update(version=2))

    with pytest.raises(StoreError, match="begun by another version") as caught:
        StoreWriter(tmp_path / "s", miniature.card)

    assert "delete the folder and pack again" in str(caught.value.remedy)
    assert dataclasses.replace(miniature.card, version=2).differences(miniature.card) == []
    assert np.isfinite(TRANSFORM[0])
