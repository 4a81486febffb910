"""Half-finished jobs: arrays written by rows, and a state that says how far they are."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from eofm.errors import ConfigError, DataError
from eofm.formats.foreign import sealed
from eofm.geo.embedding.job import Work, as_planes, working
from eofm.geo.embeddings import Codes


def test_rows_are_written_in_any_order(tmp_path: Path) -> None:
    """Rows come back as they were written; those that were not are zeros."""
    rows = Work(tmp_path / "w", "job").rows("a", (6, 3), np.float32)
    values = np.arange(18, dtype=np.float32).reshape(6, 3)

    rows.write(4, values[4:5])
    rows.write(1, values[1:3])

    expected = values.copy()
    expected[[0, 3, 5]] = 0
    assert np.array_equal(rows.read(0, 6), expected)
    assert np.array_equal(rows.read(2, 5), expected[2:5])


def test_the_state_is_kept(tmp_path: Path) -> None:
    """A job that is taken up again knows how far it was, and is gone when it is removed."""
    work = Work(tmp_path / "w", "job")
    work.commit(3)

    assert Work(tmp_path / "w", "job").done == 3
    work.remove()
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "state",
    ["{", "[]", '{"job": "job", "done": 7}', json.dumps(sealed({"job": "job", "done": -1}))],
)
def test_a_broken_state_is_one_error(state: str, tmp_path: Path) -> None:
    """Also where it says that more is done; the remedy is to remove the folder, and that helps."""
    work = Work(tmp_path / "w", "job")
    (work.folder / "state.json").write_text(state)

    with pytest.raises(DataError, match="half-finished") as caught:
        Work(tmp_path / "w", "job")

    shutil.rmtree(str(caught.value.remedy).rpartition("rm -r ")[2])
    assert Work(tmp_path / "w", "job").done == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no locks that end with a process")
def test_two_processes_do_not_work_on_one_job(tmp_path: Path) -> None:
    """The second is refused, whatever its job, and leaves what the first has on the disk."""
    with working(tmp_path / "w", "job") as work:
        work.commit(2)
        for job in ("job", "another"):
            with (
                pytest.raises(ConfigError, match="another process"),
                working(tmp_path / "w", job),
            ):
                pass
        assert Work(tmp_path / "w", "job").done == 2

    assert not (tmp_path / "w").exists()
    with working(tmp_path / "w", "job") as work:
        assert work.done == 0


def some(size: int) -> st.SearchStrategy[slice]:
    """Slices that hold something: xarray itself stumbles over an empty one that runs backwards."""
    return st.slices(size).filter(lambda part: len(range(size)[part]) > 0)


@given(dims=some(3), rows=some(7), columns=some(5), row=st.integers(-7, 6))
def test_planes_are_indexed_like_an_array(
    tmp_path_factory: pytest.TempPathFactory, dims: slice, rows: slice, columns: slice, row: int
) -> None:
    """What is read from the disk when it is asked for is what an array in memory would give."""
    folder = tmp_path_factory.mktemp("work")
    values = np.random.default_rng(0).normal(size=(7, 5, 3)).astype(np.float32)
    stored = Work(folder, "job").rows("a", values.shape, np.float32)
    stored.write(0, values)
    codes = Codes(np.full(3, 0.1, np.float32), np.zeros(3, np.float32))

    for lazy, memory in (
        (as_planes(stored), np.moveaxis(values, -1, 0)),
        (as_planes(stored, codes), np.moveaxis(codes.encode(values), -1, 0)),
    ):
        plain = xr.DataArray(memory, dims=("dim", "y", "x"))
        wanted = {"dim": dims, "y": rows, "x": columns}
        assert np.array_equal(lazy.isel(wanted).to_numpy(), plain.isel(wanted).to_numpy())
        assert np.array_equal(lazy.isel(y=row).to_numpy(), plain.isel(y=row).to_numpy())
        assert lazy.dtype == memory.dtype
