"""Which maps there are and which are taken: companions, links, names, dates, lists, schemes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from eofm.cli import main
from eofm.datasets.tiles import PackTilesConfig
from eofm.datasets.tiles.pack import pack_tiles
from eofm.errors import ConfigError, DataError, LabelError, RasterError
from eofm.landcover.config import LabelsConfig
from eofm.landcover.maps import LandCover, find_maps
from eofm.landcover.run import write_labels
from eofm.landcover.schemes import SCHEMES
from eofm.raster.folder import walk_files
from eofm.raster.grid import Grid, Window
from eofm.store.reader import Store

DW = SCHEMES["dynamic-world"]
IMAGE = Grid(CRS.from_epsg(32632), Affine(10, 0, 5e5, 0, -10, 5.4e6), 24, 30)
BOX = {"minx": [5e5], "miny": [5.4e6 - 240], "maxx": [5e5 + 240], "maxy": [5.4e6]}


def of(code: int, size: int = 24) -> np.ndarray:
    """Make a map of one class."""
    return np.full((size, size), code, np.uint8)


def names(*paths: Path) -> list[str]:
    """Name the maps that are found."""
    return [entry.file.name for entry in find_maps([str(p) for p in paths]).maps]


# ------------------------------------------------------------------------------- companions


def test_worldcover_as_delivered(tmp_path: Path, write_tif) -> None:
    """The map is labelled; its quality layers beside it are left out, and that is said."""
    tile = "ESA_WorldCover_10m_2021_v200_N60E009"
    write_tif(tmp_path / f"{tile}_Map.tif", of(10))
    write_tif(tmp_path / f"{tile}_InputQuality.tif", np.ones((3, 24, 24), np.int16))
    (tmp_path / f"{tile}_Map.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    out = tmp_path / "l.parquet"

    report = write_labels(LabelsConfig([str(tmp_path)], "worldcover", str(out), window=24))

    assert [f"{tile}_Map_0_0"] == pq.read_table(out)["id"].to_pylist()
    assert f"left out beside the maps: {tile}_InputQuality.tif" in report.describe()
    assert [f"{tile}_Map.tif"] == names(*sorted(tmp_path.glob("*.tif")))  # as a shell names them


@pytest.mark.parametrize(
    ("there", "maps"),
    [
        (["a.tif", "a_mask.tif", "a.tif.msk", "a_preview.tif"], ["a.tif"]),
        (["x_Map.tif", "x_InputQuality.TIF", "y_InputQuality.tif"],
         ["x_Map.tif", "y_InputQuality.tif"]),  # one that stands alone may be a map
        (["cloud_mask.tif", "snow_mask.tif"], ["cloud_mask.tif", "snow_mask.tif"]),
        (["sub/a.tif", "a_mask.tif"], ["a_mask.tif", "a.tif"]),
        (["a-map.tif", "a-proba.tif", "a.confidence.tif"], ["a-map.tif"]),
        (["._a.tif", "a.tif"], ["a.tif"]),
    ],
)  # fmt: skip
def test_companions(there: list[str], maps: list[str], tmp_path: Path, write_tif) -> None:
    """A file is left out where its last word is a companion's and a map beside it has the rest."""
    for name in there:
        write_tif(tmp_path / name, of(1))

    catalogue = find_maps([str(tmp_path)])

    assert maps == [entry.file.name for entry in catalogue.maps]
    tifs = [n for n in there if n.lower().endswith(".tif") and not n.startswith(".")]
    assert len(tifs) - len(maps) == len(catalogue.left_out)
    assert bool(catalogue.left_out) == bool(catalogue.notes())


def test_pack_says_what_it_leaves_out(tmp_path: Path, write_tif) -> None:
    """`pack tiles` finds the map beside its companion and names what it left out."""
    config = pack(tmp_path, write_tif, of(1))
    write_tif(tmp_path / "maps/m_mask.tif", np.ones((3, 24, 24), np.int16))

    assert "left out beside the maps: m_mask.tif" in pack_tiles(config).describe()


# ---------------------------------------------------------------------------------- folders


def test_links_are_followed(tmp_path: Path, write_tif) -> None:
    """A symlinked folder is searched; a link to what is listed already is refused, and the remedy
    helps.
    """
    write_tif(tmp_path / "disk/far/b.tif", of(1))
    write_tif(tmp_path / "maps/a.tif", of(1))
    (tmp_path / "maps/more").symlink_to(tmp_path / "disk")
    assert ["a.tif", "b.tif"] == names(tmp_path / "maps")

    for link, target in (("maps/too", "disk/far"), ("disk/far/back", "maps")):
        (tmp_path / link).symlink_to(tmp_path / target)
        with pytest.raises(DataError, match="reached by two paths") as caught:
            names(tmp_path / "maps")
        Path(str(caught.value.remedy).removeprefix("remove the link: ")).unlink()
        assert ["a.tif", "b.tif"] == names(tmp_path / "maps")


def calls_of(run: Callable[[], object]) -> int:
    """Count the Python calls that a function makes."""
    counted = Counter[str]()
    sys.setprofile(lambda frame, event, _: counted.update([event]))
    try:
        run()
    finally:
        sys.setprofile(None)
    return counted["call"] + counted["c_call"]


@pytest.mark.slow
def test_listing_is_linear(tmp_path: Path, write_tif) -> None:
    """Four times the maps, each with a mask, are four times the work: to list and to choose."""
    work = []
    for count in (24, 96):  # more than stay open
        folder = tmp_path / str(count)
        for n in range(count):
            for name in (f"m{n:03d}.tif", f"m{n:03d}_mask.tif"):
                write_tif(folder / name, of(1, 4), origin=(5e5 + 40 * n, 5.4e6))
        find_maps([str(folder)])  # fills caches

        def every_image(folder: Path = folder, count: int = count) -> None:
            cover = LandCover(find_maps([str(folder)]), DW)
            for n in range(count):
                grid = Grid(IMAGE.crs, Affine(10, 0, 5e5 + 40 * n, 0, -10, 5.4e6), 4, 4)
                with cover.on(grid, f"m{n:03d}") as view:
                    assert [f"m{n:03d}.tif"] == [m.file.name for m in view.maps]

        work.append(calls_of(every_image))

    assert work[1] < 4.6 * work[0]


def test_walk_of_files_alone(tmp_path: Path) -> None:
    """A folder called x.tif is searched, not taken as a file; endings are in any case."""
    (tmp_path / "x.tif").mkdir()
    for name in ("x.tif/a.TIF", "b.tiff", "c.txt", ".d.tif"):
        (tmp_path / name).touch()

    assert ["b.tiff", "x.tif/a.TIF"] == [
        f.relative_to(tmp_path).as_posix() for f in walk_files(tmp_path)
    ]


# ---------------------------------------------------------------------------------- choosing


def test_own_name_stands_for_its_folder(tmp_path: Path, write_tif) -> None:
    """Of a folder the map of the image's name is taken; files that are named keep their order."""
    write_tif(tmp_path / "maps/a.tif", of(1))
    write_tif(tmp_path / "maps/scene.tif", of(2))
    first = write_tif(tmp_path / "first.tif", of(3))
    chosen = []
    for paths in (
        [tmp_path / "maps"],
        [first, tmp_path / "maps"],
        [first, tmp_path / "maps/a.tif"],
    ):
        cover = LandCover(find_maps([str(p) for p in paths]), DW)
        with cover.on(IMAGE, "images/scene") as view:
            chosen.append([entry.file.name for entry in view.maps])

    expected = [["scene.tif"], ["first.tif", "scene.tif"], ["first.tif", "a.tif"]]
    assert expected == chosen


def test_own_name_of_another_place(tmp_path: Path, write_tif) -> None:
    """A map that has the image's name by chance, and lies elsewhere, is not taken for it."""
    write_tif(tmp_path / "maps/1.tif", of(1), origin=(7e5, 5.4e6))
    write_tif(tmp_path / "maps/2.tif", of(2))
    with LandCover(find_maps([str(tmp_path / "maps")]), DW).on(IMAGE, "1") as view:
        assert ["2.tif"] == [entry.file.name for entry in view.maps]


def test_mask_of_a_warped_map(tmp_path: Path, write_tif) -> None:
    """What a mask hides is nodata where pixels coincide, and where GDAL warps."""
    for origin in ((5e5, 5.4e6), (5e5 + 3, 5.4e6 + 2)):
        for nodata in (None, 255):
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
                path = write_tif(tmp_path / "m.tif", of(4, 40), origin=origin, nodata=nodata)
                with rasterio.open(path, "r+") as dataset:
                    dataset.write_mask(np.arange(40)[:, None] * np.ones(40) >= 10)
            with LandCover(find_maps([str(path)]), DW).on(IMAGE) as view:
                found = view.read(Window(0, 0, 24, 30))
            assert [255] * 10 + [4] * 14 == found[:, 5].tolist()


# -------------------------------------------------------------- the options of labels, in pack


def pack(tmp_path: Path, write_tif, codes: np.ndarray | None, **options) -> PackTilesConfig:
    """Write one image, and a map where codes are given; return the settings that pack it."""
    pixels = np.full((3, 24, 24), 900, np.uint16)
    write_tif(tmp_path / "images/i_20210611.tif", pixels)
    if codes is not None:
        write_tif(tmp_path / "maps/m.tif", codes)
    stated = {"landcover": str(tmp_path / "maps"), "scheme": "dynamic-world", **options}
    return PackTilesConfig(
        images=str(tmp_path / "images"), sensor="s2-l2a", unit="dn", out=str(tmp_path / "store"),
        window=24, bands=["B02", "B03", "B04"], **stated,
    )  # fmt: skip


def test_pack_with_a_scheme_of_ones_own(tmp_path: Path, write_tif) -> None:
    """`pack tiles --scheme my.yaml` labels by it; when the file changes, the store is another."""
    scheme = tmp_path / "my.yaml"
    scheme.write_text("name: mine\nclasses: {1: wood, 2: wood, 5: lake}\nnodata: [0]\n")
    codes = of(1)
    codes[:6], codes[6:8] = 2, 0
    config = pack(tmp_path, write_tif, codes, scheme=str(scheme))
    pack_tiles(config)

    store = Store(tmp_path / "store")
    assert ("mine", ("wood", "lake")) == (store.scheme, store.classes)
    assert [[1, 0]] == store.labels([0]).multi_hot.tolist()
    assert [22 / 24] == pytest.approx(store.table["valid_share"].to_pylist())
    scheme.write_text("name: mine\nclasses: {1: wood, 2: lake, 5: lake}\nnodata: [0]\n")
    with pytest.raises(DataError, match="other settings") as caught:
        pack_tiles(config)
    assert "scheme_digest" in str(caught.value.found)


def dated(tmp_path: Path, write_tif) -> None:
    """Write maps of three days."""
    for day, code in (("0601", 1), ("0608", 2), ("0901", 3)):
        write_tif(tmp_path / f"maps/dw_2021{day}.tif", of(code))


def test_pack_by_date(tmp_path: Path, write_tif) -> None:
    """The map nearest in time labels the image, as in `labels`, by the same options."""
    dated(tmp_path, write_tif)
    options = {"dates": "_%Y%m%d", "scene_dates": "_%Y%m%d", "max_gap_days": 5.0}
    config = pack(tmp_path, write_tif, None, **options)
    pack_tiles(config)
    out = tmp_path / "l.parquet"
    write_labels(
        LabelsConfig([str(config.landcover)], "dynamic-world", str(out), config.images, **options)
    )

    store, (row,) = Store(config.out), pq.read_table(out).to_pylist()
    assert row["fraction"] == store.fractions([0])[0].tolist()
    assert 1.0 == row["fraction"][2]
    assert ["2021-06-11"] == store.table["date"].to_pylist()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dates": "_%Y%m%d"}, "of several dates"),
        ({"max_gap_days": 5.0}, "a map has no date"),
        ({"dates": "_%Y%m%d", "max_gap_days": 5.0}, "no land-cover map of the image's time"),
        ({"dates": "_%Y%m%d", "max_gap_days": 0.5, "scene_dates": "_%Y%m%d"},
         "no land-cover map of the image's time"),
        ({"scheme": "mine.yaml"}, "no such scheme file"),
        ({"scheme": "dynamicworld"}, "no such scheme"),
    ],
)  # fmt: skip
def test_pack_refuses(options: dict, said: str, tmp_path: Path, write_tif) -> None:
    """Dates and schemes that lack are refused before anything is written, as in `labels`."""
    dated(tmp_path, write_tif)
    with pytest.raises((LabelError, ConfigError), match=said) as caught:
        pack_tiles(pack(tmp_path, write_tif, None, **options))
    assert not (tmp_path / "store").exists()

    if "image's time" in said:  # its remedies: a wider gap with the date of names, or unlabelled
        near = {**options, "scene_dates": "_%Y%m%d", "max_gap_days": 3.0}
        pack_tiles(pack(tmp_path, write_tif, None, **near))
        assert Store(tmp_path / "store").labels([0]).known.all()
        assert "--allow_unlabelled true" in str(caught.value.remedy)
        alone = {**options, "out": "x", "allow_unlabelled": True}
        alone.pop("out")
        config = pack(tmp_path / "other", write_tif, None, **alone)
        dated(tmp_path / "other", write_tif)
        pack_tiles(config)
        assert not Store(config.out).labels([0]).known.any()


def test_pack_from_a_stac_list(tmp_path: Path, write_tif) -> None:
    """`pack tiles --landcover items.json` takes the maps of a list, by asset and by date."""
    write_tif(tmp_path / "far.tif", of(1))
    write_tif(tmp_path / "near.tif", of(2))
    items = [
        {"type": "Feature", "id": name, "properties": {"datetime": f"2021-06-{day}T00:00:00Z"},
         "assets": {"map": {"href": f"{name}.tif"}, "other": {"href": "other.tif"}}}
        for name, day in (("far", "01"), ("near", "10"))
    ]  # fmt: skip
    (tmp_path / "items.json").write_text(json.dumps(items))
    options = {"landcover": str(tmp_path / "items.json"), "scene_dates": "_%Y%m%d"}
    config = pack(tmp_path, write_tif, None, asset="map", max_gap_days=20.0, **options)

    pack_tiles(config)

    assert 1.0 == Store(config.out).fractions([0])[0, 2].item()
    with pytest.raises(LabelError, match="which asset") as caught:
        find_maps([str(tmp_path / "items.json")])
    assert "--asset map" in str(caught.value.remedy)


# --------------------------------------------------------------------------------- remedies


def rio(*words: str) -> None:
    """Run the command of rasterio."""
    subprocess.run([str(Path(sys.executable).with_name("rio")), *words], check=True)


def test_remedies_of_a_map(tmp_path: Path, write_tif) -> None:
    """Writing the CRS and taking back a wrong nodata, by the commands that the errors name."""
    path = write_tif(tmp_path / "m.tif", of(1), crs=None)
    with pytest.raises(LabelError, match="georeferenced map") as caught:
        find_maps([str(path)])
    remedy = str(caught.value.remedy)
    rio(*shlex.split(remedy.partition("as in: ")[2].partition(";")[0])[1:])
    assert 1 == len(find_maps([str(path)]).maps)

    path = write_tif(tmp_path / "n.tif", of(1), nodata=0)
    boxes, out = tmp_path / "boxes.parquet", str(tmp_path / "l.parquet")
    pq.write_table(pa.table({"id": ["a"], **BOX, "crs": ["EPSG:32632"]}), boxes)
    words = ["labels", str(path), "--scheme", "dynamic-world", "--out", out, "--scenes", str(boxes)]
    with pytest.raises(LabelError, match="knows as a class") as caught:
        write_labels(LabelsConfig([str(path)], "dynamic-world", out, str(boxes)))
    command = str(caught.value.remedy)[str(caught.value.remedy).index("rio edit-info") :]
    rio(*command.replace("FILE", str(path)).split()[1:])
    assert 0 == main(words)


def test_remedy_of_unknown_codes(tmp_path: Path, write_tif) -> None:
    """`unknown: ignore` in one's own scheme counts other codes as nodata, as the error says."""
    codes = of(1)
    codes[:6] = 77
    path = write_tif(tmp_path / "m.tif", codes)
    out = tmp_path / "l.parquet"
    with pytest.raises(LabelError, match="does not know") as caught:
        write_labels(LabelsConfig([str(path)], "terramesh", str(out), window=24))
    assert "`unknown: ignore`" in str(caught.value.remedy)
    (tmp_path / "my.yaml").write_text("name: m\nclasses: {1: a}\nnodata: [0]\nunknown: ignore\n")

    report = write_labels(LabelsConfig([str(path)], str(tmp_path / "my.yaml"), str(out), window=24))

    assert {"77": 144} == report.ignored
    assert [0.75] == pq.read_table(out)["valid_share"].to_pylist()


PLAN = CRS.from_wkt('LOCAL_CS["plan",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]')


def test_crs_without_a_place(tmp_path: Path, write_tif) -> None:
    """A plan's CRS, of a scene or of a map, is one error that names it; its remedy works."""
    plan = write_tif(tmp_path / "plan/i.tif", of(1), crs=PLAN)
    path = write_tif(tmp_path / "m.tif", of(1))
    out = str(tmp_path / "l.parquet")
    for maps, options in (
        (path, {"scenes": str(tmp_path / "plan")}),
        (plan, {"window": 12}),
    ):
        with pytest.raises(RasterError, match="no place on the earth") as caught:
            write_labels(LabelsConfig([str(maps)], "dynamic-world", out, **options))
        assert 'LOCAL_CS["plan"' in str(caught.value.found)
        assert "i.tif" in str(caught.value.where) or "scene i" in str(caught.value.where)
    remedy = str(caught.value.remedy)
    rio(*remedy[remedy.index("edit-info") :].replace("FILE", str(plan)).split())
    write_labels(LabelsConfig([str(path)], "dynamic-world", out, str(tmp_path / "plan")))
    assert [True] == pq.read_table(out)["known"].to_pylist()
