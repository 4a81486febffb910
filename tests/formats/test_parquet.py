"""Parquet: columns and their checksums, and tables that unpack to more than they can hold."""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eofm.errors import DataError
from eofm.formats.foreign import foreign
from eofm.formats.parquet import (
    ColumnDigests,
    RowsError,
    is_sealed,
    null_count,
    read_sealed,
    read_table,
    seal_columns,
)

TABLE = pa.table(
    {
        "id": ["a", "bc", "", "é", None],
        "number": pa.array([1, 2, 3, None, 5], pa.int32()),
        "share": pa.array([0.5, 0.25, float("nan"), 0, None], pa.float32()),
        "known": [True, False, None, True, False],
        "hot": pa.array([[1, 0], [0, 1], [1, 1], [0, 0], [1, 0]], pa.list_(pa.uint8(), 2)),
        "names": pa.array([["x", "y"], [], ["xy"], [""], None], pa.list_(pa.string())),
        "box": pa.array([[1.5] * 6, None, [2.5] * 6, [0] * 6, [3] * 6], pa.list_(pa.float64(), 6)),
    }
)  # fmt: skip


def digests(table: pa.Table) -> dict[str, str]:
    """The checksums of the columns of a table."""
    made = ColumnDigests()
    made.add(table)
    return made.result()


def write_sealed(table: pa.Table, file: Path) -> None:
    """Write a table with its checksums."""
    pq.write_table(seal_columns(table, {}), file)


def test_nulls_are_counted_in_lists_too() -> None:
    """Rows without a value and gaps in lists count, in every piece; an empty list is a value."""
    assert {"id": 1, "number": 1, "share": 1, "known": 1, "hot": 0, "names": 1, "box": 1} == {
        name: null_count(TABLE[name]) for name in TABLE.schema.names
    }
    for kind in (pa.list_(pa.uint8()), pa.list_(pa.uint8(), 2)):
        pieces = pa.chunked_array([pa.array([[1, None]], kind), pa.array([[None, None]], kind)])
        assert 3 == null_count(pieces)


def test_a_table_comes_back(tmp_path: Path) -> None:
    """With and without checksums, whole and by columns, as pyarrow itself reads it."""
    file = tmp_path / "x.parquet"
    pq.write_table(TABLE, file)
    assert not is_sealed(file)
    assert read_table(file).to_pylist().__repr__() == TABLE.to_pylist().__repr__()
    assert TABLE.schema.equals(read_table(file).schema)

    write_sealed(TABLE, file)

    assert is_sealed(file)
    assert ["known", "id"] == read_sealed(file, ["known", "id"]).column_names
    assert repr(TABLE.to_pylist()) == repr(read_sealed(file).to_pylist())


@given(st.lists(st.integers(0, 5), max_size=5))
def test_checksums_do_not_depend_on_pieces(cuts: list[int]) -> None:
    """However a table is cut into pieces and chunks, its columns have the same checksums."""
    made = ColumnDigests()
    for start, end in itertools.pairwise([0, *sorted(cuts), 5]):
        made.add(TABLE.slice(start, end - start))

    assert digests(TABLE) == made.result()


@pytest.mark.parametrize("name", TABLE.column_names)
def test_every_change_is_found(tmp_path: Path, name: str) -> None:
    """Two rows of one column exchanged are not the column that was written."""
    file = tmp_path / "x.parquet"
    at = TABLE.column_names.index(name)
    changed = TABLE.set_column(at, TABLE.schema.field(at), TABLE[name].take([1, 0, 2, 3, 4]))
    made = ColumnDigests()
    made.add(TABLE)
    pq.write_table(changed.replace_schema_metadata(made.metadata()), file)

    with pytest.raises(ValueError, match=f"not as written: {name}"):
        read_sealed(file)


def test_a_column_less_and_one_more_are_found(tmp_path: Path) -> None:
    """What is sealed is the whole table; a choice of its columns may be read."""
    file = tmp_path / "x.parquet"
    made = ColumnDigests()
    made.add(TABLE)
    for changed in (TABLE.drop(["share"]), TABLE.append_column("more", TABLE["known"])):
        pq.write_table(changed.replace_schema_metadata(made.metadata()), file)
        with pytest.raises(ValueError, match=r"not as written: (share|more)"):
            read_sealed(file)
        assert ["id"] == read_sealed(file, ["id"]).column_names


def test_rows_are_counted_before_they_are_read(tmp_path: Path) -> None:
    """Another number of rows than the card's is said by the footer."""
    file = tmp_path / "x.parquet"
    pq.write_table(TABLE, file)

    with pytest.raises(RowsError) as caught:
        read_table(file, rows=4)
    assert 5 == caught.value.found


def bomb(file: Path, kind: str) -> Path:
    """A file of kilobytes that asks for gigabytes."""
    match kind:
        case "rows":  # two numbers, and how often
            column = pa.array(np.zeros(12_000_000, np.float64))
            pq.write_table(pa.table({"x": column}), file, compression="zstd")
        case "texts":  # one long text, and how often
            text = pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(16_384, np.int32)), pa.array(["x" * 2**20])
            )
            pq.write_table(pa.table({"x": text}), file, compression="zstd", store_schema=False)
        case "lists":
            column = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(80_000_000, "u1")), 500)
            pq.write_table(pa.table({"x": column}), file, compression="zstd")
    return file


@pytest.mark.parametrize("kind", ["rows", "texts", "lists"])
def test_a_bomb_is_refused(tmp_path: Path, kind: str) -> None:
    """By a process that may have 1 GB in all, and says so in words."""
    file = bomb(tmp_path / "x.parquet", kind)
    assert file.stat().st_size < 1_000_000

    with pytest.raises(DataError) as caught, foreign(DataError, "no table", where=file):
        read_table(file)
    assert "too many for a file of its size" in str(caught.value.found)


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """Its refusal takes no more memory than a small table does, and not a tenth of a gigabyte."""
    files = [bomb(tmp_path / "x.parquet", "texts"), tmp_path / "small.parquet"]
    pq.write_table(TABLE, files[1])
    code = (
        "import sys, resource; from pathlib import Path; from eofm.formats.parquet import *\n"
        "try: read_table(Path(sys.argv[1]))\n"
        "except ValueError: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for file in files:
        done = subprocess.run(
            [sys.executable, "-c", code, str(file)], capture_output=True, check=True
        )
        peaks.append(int(done.stdout))
    unit = 1 if sys.platform == "darwin" else 1024

    assert resource.RUSAGE_SELF is not None
    assert peaks[0] * unit < peaks[1] * unit + 10**8


@pytest.mark.parametrize("cut", [slice(0, 6), slice(2, 5), slice(4, 4), slice(5, 6)])
def test_texts_are_hashed_as_they_are_read(cut: slice) -> None:
    """A part of a column has the checksum of its texts, wherever it lies in memory."""
    words = ["ä", "", None, "xyz", "日本", "end"]
    part = pa.table({"name": pa.array(words, pa.string())}).slice(cut.start, cut.stop - cut.start)
    alone = pa.table({"name": pa.array(words[cut], pa.string())})
    digests = []
    for table in (part, alone, alone.combine_chunks()):
        found = ColumnDigests()
        found.add(table)
        digests.append(found.result())
    assert digests[0] == digests[1] == digests[2]
