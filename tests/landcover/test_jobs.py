"""`eofm labels MAP --window`: from files, whatever their type, blocks, masks and size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.windows import Window as RasterioWindow

from eofm.errors import ConfigError, EofmError, LabelError, RasterError
from eofm.landcover import jobs, multilabel, warp
from eofm.landcover.config import LabelsConfig
from eofm.landcover.run import LabelReport, write_labels
from eofm.landcover.schemes import SCHEMES, Scheme
from eofm.landcover.table import open_table, schema

DW = SCHEMES["dynamic-world"]
TILED = {"tiled": True, "blockxsize": 16, "blockysize": 32, "compress": "deflate"}


def label(maps: Path, out: Path, scheme: str = "dynamic-world", **options) -> LabelReport:
    """Label the windows of maps."""
    return write_labels(LabelsConfig([str(maps)], scheme, str(out), **{"window": 20, **options}))


def slow(class_map: np.ndarray, window: int, stride: int, scheme: Scheme) -> list[dict]:
    """Label window by window with np.unique, as the definition says."""
    rows = []
    for top in range(0, class_map.shape[0] - window + 1, stride):
        for left in range(0, class_map.shape[1] - window + 1, stride):
            part = class_map[top : top + window, left : left + window]
            codes, pixels = np.unique(part, return_counts=True)
            found = dict(zip(codes.tolist(), pixels.tolist(), strict=True))
            covered = [found.get(code, 0) for code in scheme.classes]
            valid = sum(covered)
            fraction = [np.float32(c / max(valid, 1)) for c in covered]
            known = valid / part.size >= 0.25
            hot = [int(known and f > 0) for f in fraction]
            rows.append(
                {"id": (top, left), "fraction": fraction, "multi_hot": hot, "known": known,
                 "valid_share": np.float32(valid / part.size)}
            )  # fmt: skip
    return rows


def assert_same(out: Path, expected: list[dict], name: str = "m") -> None:
    """Compare a table with rows of the slow loop."""
    rows = pq.read_table(out).to_pylist()
    assert [f"{name}_{top}_{left}" for top, left in (row["id"] for row in expected)] == [
        row["id"] for row in rows
    ]
    for want, row in zip(expected, rows, strict=True):
        for key in ("fraction", "multi_hot", "known", "valid_share"):
            assert want[key] == row[key], (key, row["id"])
        assert (row["reason"] == "") == row["known"]


@pytest.fixture
def class_map() -> np.ndarray:
    """A map of patches of classes, with nodata in a corner, over several blocks."""
    rng = np.random.default_rng(5)
    small = rng.integers(0, 9, (20, 17)).astype(np.uint8)
    big = np.kron(small, np.ones((5, 7), np.uint8))[:97, :115]
    big[:30, :45] = 255
    return big


@pytest.mark.parametrize("stride", [None, 7, 33])
@pytest.mark.parametrize("profile", [TILED, {}, {"blockysize": 97}], ids=["tiles", "lines", "one"])
def test_blocks(stride, profile, class_map, tmp_path: Path, write_tif) -> None:
    """Windows that cross blocks, overlap or leave gaps are counted as the loop says."""
    path = write_tif(tmp_path / "m.tif", class_map, nodata=255, **profile)

    label(path, tmp_path / "l.parquet", stride=stride, batch=5)

    assert_same(tmp_path / "l.parquet", slow(class_map, 20, stride or 20, DW))


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("uint16", 65535), ("int16", -1), ("int32", -9999), ("float32", np.nan), ("uint8", 200)],
)
def test_types(dtype: str, nodata: float, class_map, tmp_path: Path, write_tif) -> None:
    """A map of any number type, with its own nodata value, gives the labels of its classes."""
    stored = class_map.astype(dtype)
    stored[class_map == 255] = nodata
    path = write_tif(tmp_path / "m.tif", stored, nodata=nodata, **TILED)

    label(path, tmp_path / "l.parquet")

    assert_same(tmp_path / "l.parquet", slow(class_map, 20, 20, DW))


def test_mask(class_map, tmp_path: Path, write_tif) -> None:
    """Pixels that a mask band hides are nodata, though their codes are classes."""
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write_tif(tmp_path / "m.tif", np.where(class_map == 255, 0, class_map), **TILED)
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(class_map != 255)

    label(path, tmp_path / "l.parquet")

    assert_same(tmp_path / "l.parquet", slow(class_map, 20, 20, DW))


def test_level_three_codes(tmp_path: Path, write_tif) -> None:
    """CORINE's codes of three digits are labelled like any other."""
    corine = SCHEMES["corine"]
    codes = np.random.default_rng(2).choice([*corine.classes, 999], (60, 60)).astype(np.uint16)
    path = write_tif(tmp_path / "m.tif", codes)

    label(path, tmp_path / "l.parquet", "corine")

    assert_same(tmp_path / "l.parquet", slow(codes, 20, 20, corine))


def test_wide_map_by_panels(class_map, tmp_path: Path, write_tif, monkeypatch) -> None:
    """A map too wide for one strip is done in panels: the same rows, in another order."""
    path = write_tif(tmp_path / "m.tif", class_map, nodata=255, **TILED)
    label(path, tmp_path / "whole.parquet", stride=9)
    monkeypatch.setattr(warp, "STRIP_BYTES", 256 * 40)

    label(path, tmp_path / "panels.parquet", stride=9, batch=3)

    whole, panels = (
        pq.read_table(tmp_path / f"{name}.parquet").sort_by("id").to_pylist()
        for name in ("whole", "panels")
    )
    assert whole == panels
    ids = pq.read_table(tmp_path / "panels.parquet")["id"].to_pylist()
    assert ids.index("m_9_0") < ids.index("m_0_63")


def test_any_number_of_threads(class_map, tmp_path: Path, write_tif, monkeypatch) -> None:
    """However many threads share a map's pieces, the table is the same byte for byte."""
    monkeypatch.setattr(warp, "PIECE_BYTES", 16 * 32)
    path = write_tif(tmp_path / "m.tif", class_map, nodata=255, **TILED)
    for threads in (1, 2, 5):
        monkeypatch.setattr(jobs, "THREADS", threads)
        label(path, tmp_path / f"{threads}.parquet", stride=7, batch=20)

    one, two, five = ((tmp_path / f"{n}.parquet").read_bytes() for n in (1, 2, 5))
    assert one == two == five


def test_a_map_is_lent_to_one_at_a_time(class_map, tmp_path: Path, write_tif) -> None:
    """Two borrowers have two handles; what was given back is lent again, until the file changes."""
    path = write_tif(tmp_path / "m.tif", class_map)
    with warp.opened(path) as first, warp.opened(path) as second:
        assert first is not second
    with warp.opened(path) as again, warp.opened(path) as too:
        assert [first, second] == [again, too]
    write_tif(tmp_path / "m.tif", class_map[:50])
    with warp.opened(path) as changed:
        assert 50 == changed.height


def test_few_maps_stay_open(class_map, tmp_path: Path, write_tif) -> None:
    """A thousand maps are not a thousand open files: those longest unused are closed."""
    paths = [write_tif(tmp_path / f"{n}.tif", class_map[:8, :8]) for n in range(20)]
    lent = []
    for path in paths:
        with warp.opened(path) as dataset:
            lent.append(dataset)

    assert [True] * 4 + [False] * 16 == [dataset.closed for dataset in lent]


@pytest.mark.slow
def test_any_number_of_workers(class_map, tmp_path: Path, write_tif) -> None:
    """Processes and batch sizes change nothing: the tables are equal byte for byte."""
    path = write_tif(tmp_path / "m.tif", class_map, nodata=255, **TILED)
    label(path, tmp_path / "one.parquet", stride=4)
    label(path, tmp_path / "two.parquet", stride=4, workers=2, batch=100)

    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


@pytest.mark.parametrize("stride", [None, 7, 10, 33])
def test_compiled_or_not(stride, class_map, tmp_path: Path, write_tif, monkeypatch) -> None:
    """The table is the same byte for byte, whether numba is installed or not."""
    pytest.importorskip("numba")
    path = write_tif(tmp_path / "m.tif", class_map, nodata=255, **TILED)
    for name, kernel in (("numpy", None), ("numba", multilabel.load_kernel())):
        monkeypatch.setattr(jobs, "choose_kernel", lambda _, kernel=kernel: kernel)
        label(path, tmp_path / f"{name}.parquet", stride=stride)

    assert (tmp_path / "numpy.parquet").read_bytes() == (tmp_path / "numba.parquet").read_bytes()


def test_empty_windows(class_map, tmp_path: Path, write_tif) -> None:
    """Windows of nothing but nodata are kept as unknown, or left out and counted."""
    path = write_tif(tmp_path / "m.tif", class_map, nodata=255)
    expected = slow(class_map, 10, 10, DW)
    empty = sum(row["valid_share"] == 0 for row in expected)

    kept = label(path, tmp_path / "kept.parquet", window=10)
    skipped = label(path, tmp_path / "skipped.parquet", window=10, empty="skip", batch=7)

    assert 12 == empty
    assert (len(expected), 0) == (kept.rows, kept.skipped)
    assert (len(expected) - empty, empty) == (skipped.rows, skipped.skipped)
    assert {"too few valid map pixels"} == set(kept.unknown)
    assert f"{empty} with nothing but nodata left out" in skipped.describe()
    assert "the last 7 lines and 5 columns of a map hold no whole window" in kept.describe()


def test_threshold(tmp_path: Path, write_tif) -> None:
    """A class below the threshold is absent; a window with none above it is unknown."""
    codes = np.zeros((20, 40), np.uint8)
    codes[0, :4] = 1  # 1 % of the first window
    codes[:, 20:] = np.arange(20) % 8  # at most 15 % each
    path = write_tif(tmp_path / "m.tif", codes)

    report = label(path, tmp_path / "l.parquet", threshold=0.2)

    first, second = pq.read_table(tmp_path / "l.parquet").to_pylist()
    assert [1, 0, 0, 0, 0, 0, 0, 0, 0] == first["multi_hot"]
    assert np.float32(0.01) == first["fraction"][1]
    assert (False, "no class reaches the threshold") == (second["known"], second["reason"])
    assert {"no class reaches the threshold": 1} == report.unknown


def test_where_and_whence(class_map, tmp_path: Path, write_tif, picture) -> None:
    """Rows say where they lie and which map of when they are from; metadata says the rest."""
    path = write_tif(tmp_path / "lulc_2021.tif", class_map, nodata=255)
    report = label(path, tmp_path / "l.parquet", dates="_%Y")

    table = open_table(tmp_path / "l.parquet")
    rows = {row["id"]: row for row in table.read().to_pylist()}
    row = rows["lulc_2021_20_40"]

    assert (500_400, 5_399_600, 500_600, 5_399_800) == tuple(
        row[key] for key in ("minx", "miny", "maxx", "maxy")
    )
    assert "EPSG:32632" == row["crs"]
    assert abs(row["longitude"] - 9.0068) < 1e-3
    assert [path.as_posix()] == row["source"]
    assert ["2021-01-01/2021-12-31"] == row["map_date"]
    assert [] == rows["lulc_2021_0_0"]["source"]
    about = table.about
    assert table.classes == DW.names
    assert ("dynamic-world", "V1") == (about["scheme"]["name"], about["scheme"]["version"])
    assert f"eofm labels {path} --scheme dynamic-world --window 20 --dates _%Y" == about["command"]
    hot, known = table.labels()
    assert (len(rows), 9) == hot.shape
    assert report.known == known.sum()
    assert table.read().schema.equals(schema(9))
    assert (tmp_path / "l.png").stat().st_size > 10_000


def test_unknown_codes(tmp_path: Path, write_tif) -> None:
    """Codes of another scheme are one error with codes and counts, and leave nothing behind."""
    codes = np.zeros((40, 40), np.uint8)
    codes[25, 3:6], codes[30, 1] = 90, 77
    path = write_tif(tmp_path / "m.tif", codes)

    with pytest.raises(LabelError, match="does not know") as caught:
        label(path, tmp_path / "l.parquet")

    assert "77 (1 pixel), 90 (3 pixels)" == caught.value.found
    assert f"{path}, window 20, 0" == caught.value.where
    assert [path] == list(tmp_path.iterdir())


def test_unknown_codes_that_a_scheme_ignores(tmp_path: Path, write_tif) -> None:
    """With `unknown: ignore` they are not valid, and the summary says what they were."""
    plain = {"name": "own", "classes": {0: "a"}, "nodata": 255, "unknown": "ignore"}
    (tmp_path / "own.yaml").write_text(json.dumps(plain).replace('"0"', "0"))
    codes = np.zeros((20, 20), np.uint8)
    codes[:5], codes[5] = 90, 77
    for dtype in ("uint8", "int16"):
        path = write_tif(tmp_path / f"{dtype}.tif", codes.astype(dtype))
        report = label(path, tmp_path / f"{dtype}.parquet", str(tmp_path / "own.yaml"))

        row = pq.read_table(tmp_path / f"{dtype}.parquet").to_pylist()[0]
        assert (np.float32(0.7), [1.0]) == (row["valid_share"], row["fraction"])
        assert "ignores: 77 (20 pixels), 90 (100 pixels)" in report.describe()


def test_several_maps_of_one_name(class_map, tmp_path: Path, write_tif) -> None:
    """Each map of a folder gives its own windows; ids stay unique."""
    for folder in ("a", "b"):
        write_tif(tmp_path / "maps" / folder / "m.tif", class_map, nodata=255)
    paths = [str(tmp_path / "maps/a/m.tif"), str(tmp_path / "maps/b/m.tif")]
    config = LabelsConfig(paths, "dynamic-world", str(tmp_path / "l.parquet"), window=40)

    write_labels(config)
    label(tmp_path / "maps", tmp_path / "f.parquet", window=40)

    ids, from_folder = (pq.read_table(tmp_path / f"{n}.parquet")["id"].to_pylist() for n in "lf")
    assert {"m_0_0", "m~2_0_0"} <= set(ids)
    assert {"a/m_0_0", "b/m_40_40"} <= set(from_folder)
    assert len(set(ids)) == len(ids) == len(from_folder)


# -------------------------------------------------------------------------------- bad input


def test_truncated(class_map, tmp_path: Path, write_tif) -> None:
    """A half-copied map is an error which names file and lines."""
    noise = np.random.default_rng(0).integers(0, 9, (400, 400)).astype(np.uint8)
    path = write_tif(tmp_path / "m.tif", noise, **TILED)
    path.write_bytes(path.read_bytes()[:40_000])

    with pytest.raises(RasterError) as caught:
        label(path, tmp_path / "l.parquet")

    assert "m.tif" in str(caught.value.where)
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", ["no CRS", "two bands", "missing", "text", "small", "folder"])
def test_bad_maps(fault: str, tmp_path: Path, write_tif) -> None:
    """Each fault of a map is one error before anything is written."""
    path, codes = tmp_path / "m.tif", np.zeros((30, 30), np.uint8)
    if fault == "no CRS":
        write_tif(path, codes, crs=None)
    elif fault == "two bands":
        write_tif(path, np.stack([codes, codes]))
    elif fault == "text":
        path.write_text("no map")
    elif fault == "small":
        write_tif(path, codes[:19])
    elif fault == "folder":
        path = tmp_path / "empty"
        path.mkdir()
    before = list(tmp_path.iterdir())

    with pytest.raises(EofmError) as caught:
        label(path, tmp_path / "l.parquet")

    assert {
        "no CRS": "no CRS",
        "two bands": "2 band(s)",
        "missing": "no such land-cover map",
        "text": "cannot be read",
        "small": "smaller than the window",
        "folder": "holds no land-cover maps",
    }[fault] in str(caught.value)
    assert before == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        {"window": None},
        {"scenes": "x"},
        {"window": 0},
        {"threshold": 1.5},
        {"max_gap_days": 3.0},
        {"workers": 2, "dask": "tcp://x:1"},
        {"window": None, "scenes": "x", "stride": 3},
        {"window": None, "scenes": "x", "max_gap_days": -1.0},
    ],
)
def test_settings_that_contradict(options, tmp_path: Path) -> None:
    """Settings out of range, or meaningless together, are refused."""
    with pytest.raises(ConfigError):
        label(tmp_path, tmp_path / "l.parquet", **options)


# -------------------------------------------------------------------------------- real data

# Counted with rasterio and np.unique alone.
_GOLDEN = {
    (30888, 7392): {10: 3880, 30: 7507, 40: 241, 50: 612, 60: 57, 80: 57368, 90: 1, 95: 30},
    (31152, 8184): {10: 14510, 20: 1, 30: 27086, 40: 309, 50: 1458, 60: 117, 80: 26111, 90: 104},
    (17424, 6336): {0: 69696},
    (0, 27720): {0: 69516, 80: 180},
}
# VmHWM, and not getrusage: to that, a new process inherits the peak of the one that started it.
# The libraries come first: how much memory torch alone takes depends on its build.
_RUN = """
import sys
from pathlib import Path
import matplotlib.pyplot, pandas, pyarrow.parquet, rasterio, torch
from eofm.cli import main
def memory():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
before = memory()
print(main(sys.argv[1:]), memory() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read there")
def test_real_worldcover(real_data: Path, tmp_path: Path) -> None:
    """A whole tile of 36,000 x 36,000 is labelled right, with less than 300 MB beside libraries."""
    (path,) = (real_data / "esa_worldcover").glob("*.tif")
    out = tmp_path / "labels.parquet"
    words = ["labels", str(path), "--scheme", "worldcover", "--window", "264", "--out", str(out)]
    run = subprocess.run(
        [sys.executable, "-c", _RUN, *words], capture_output=True, text=True, check=True
    )
    status, kilobytes = map(int, run.stdout.splitlines()[-1].split())

    assert 0 == status
    assert kilobytes < 300_000  # the map is 1,300 MB
    rows = {row["id"]: row for row in pq.read_table(out).to_pylist()}
    assert 136 * 136 == len(rows)
    for (top, left), counts in _GOLDEN.items():
        row = rows[f"{path.stem}_{top}_{left}"]
        valid = 264 * 264 - counts.get(0, 0)
        share = [
            np.float32(counts.get(c, 0) / max(valid, 1)) for c in SCHEMES["worldcover"].classes
        ]
        assert share == row["fraction"]
        assert np.float32(valid / 264**2) == row["valid_share"]
        with rasterio.open(path) as dataset:
            part = dataset.read(1, window=RasterioWindow(left, top, 264, 264))
        assert counts == dict(
            zip(*(x.tolist() for x in np.unique(part, return_counts=True)), strict=True)
        )
