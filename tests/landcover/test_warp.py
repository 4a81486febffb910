"""Reading land-cover maps on the grid of an image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.warp import transform as warp_points
from remedies import run_python, run_rio

from eofm.errors import LabelError, RasterError
from eofm.landcover.maps import LandCover, find_maps
from eofm.landcover.multilabel import Reason
from eofm.landcover.schemes import SCHEMES, Scheme
from eofm.landcover.warp import decode
from eofm.raster.geotiff import grid_of, without_place
from eofm.raster.grid import Grid, Window

DW = SCHEMES["dynamic-world"]
UTM = CRS.from_epsg(32632)
IMAGE = Grid(UTM, Affine(10, 0, 5e5, 0, -10, 5.4e6), 24, 30)
WHOLE = Window(0, 0, 24, 30)


def classes(height: int = 24, width: int = 30) -> np.ndarray:
    """Make a map in which no two neighbours are equal."""
    return ((np.add.outer(np.arange(height) * 3, np.arange(width))) % 9).astype(np.uint8)


def read(path: Path, grid: Grid = IMAGE, window: Window = WHOLE, name: str = ""):
    """Read a map on a grid."""
    with LandCover(find_maps([str(path)]), DW).on(grid, name) as view:
        return view.read(window)


def test_same_grid_gives_the_same_pixels(tmp_path: Path, write_tif) -> None:
    """On the image's own grid, up to 1e-9 m, every pixel is the map's own."""
    path = write_tif(tmp_path / "m.tif", classes(), origin=(5e5 + 1e-9, 5.4e6 - 1e-9))

    assert np.array_equal(classes(), read(path))
    assert np.array_equal(classes()[5:9, 7:20], read(path, window=Window(5, 7, 4, 13)))


def test_outside_is_nodata(tmp_path: Path, write_tif) -> None:
    """A map that covers a part of the image leaves the rest nodata, on either path."""
    inside = np.s_[4:24, 0:20]
    for shift in (0.0, 3.0):  # the same pixels, and pixels three metres aside
        path = write_tif(
            tmp_path / "m.tif", classes(40, 20), origin=(5e5 + shift, 5.4e6 - 40 + shift)
        )
        found = read(path)

        assert np.array_equal(classes(40, 20)[:20], found[inside])
        outside = np.ones(found.shape, bool)
        outside[inside] = False
        assert {255} == set(found[outside].tolist())


def nearest(path: Path, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Look up the centre of every pixel, one by one; and how far it is from a border."""
    with rasterio.open(path) as dataset:
        codes, inverse, crs = dataset.read(1), ~dataset.transform, dataset.crs
    expected = np.full((grid.height, grid.width), 255)
    margin = np.ones(expected.shape)
    for row in range(grid.height):
        for col in range(grid.width):
            x, y = grid.point(col + 0.5, row + 0.5)
            (x,), (y,) = warp_points(grid.crs, crs, [x], [y])
            c = inverse.a * x + inverse.b * y + inverse.c
            r = inverse.d * x + inverse.e * y + inverse.f
            margin[row, col] = min(abs(c - round(c)), abs(r - round(r)))
            if 0 <= r < codes.shape[0] and 0 <= c < codes.shape[1]:
                expected[row, col] = codes[int(r), int(c)]
    return expected, margin


@pytest.mark.parametrize(
    ("crs", "origin", "gsd", "nodata"),
    [
        ("EPSG:32632", (499_973.0, 5_400_041.0), 7.0, None),
        ("EPSG:32632", (499_990.0, 5_400_010.0), 30.0, 255),
        ("EPSG:4326", (8.9995, 48.7530), (1.2e-4, 8e-5), None),
        ("EPSG:4326", (8.9995, 48.7530), (1.2e-4, 8e-5), 255),
        ("EPSG:32633", (58_900.0, 5_419_900.0), 10.0, 255),
        ("EPSG:3035", (4_247_600.0, 2_850_000.0), 10.0, None),
    ],
)
def test_nearest_across_projections(tmp_path, write_tif, crs, origin, gsd, nodata) -> None:
    """Each pixel has the code of the map pixel under its centre, as point by point with PROJ."""
    x, y = warp_points(UTM, CRS.from_string(crs), [5e5 + 150], [5.4e6 - 120])
    step = gsd if isinstance(gsd, tuple) else (gsd, gsd)
    origin = (x[0] - 31.3 * step[0], y[0] + 28.7 * step[1])
    path = write_tif(
        tmp_path / "m.tif", classes(61, 64), crs=crs, origin=origin, gsd=gsd, nodata=nodata
    )
    expected, margin = nearest(path, IMAGE)

    found = read(path)

    sure = margin > 2e-3
    assert sure.mean() > 0.95
    assert np.array_equal(expected[sure], found[sure])
    assert len(np.unique(found)) > 3


def test_declared_nodata_becomes_the_schemes(tmp_path: Path, write_tif) -> None:
    """A map's own nodata value is read as the scheme's."""
    codes = classes()
    codes[3, 4] = 77
    path = write_tif(tmp_path / "m.tif", codes, nodata=77)

    assert 255 == read(path)[3, 4]


def test_class_declared_nodata(tmp_path: Path, write_tif) -> None:
    """Nodata 0 in a map where 0 is water is a contradiction, not missing water."""
    path = write_tif(tmp_path / "m.tif", classes(), nodata=0)

    with pytest.raises(LabelError, match="knows as a class") as caught:
        read(path)

    assert "nodata 0: water" == caught.value.found


def test_map_of_floats(tmp_path: Path, write_tif) -> None:
    """Whole numbers stored as float are codes, NaN is nodata, and fractions are an error."""
    codes = classes().astype(np.float32)
    codes[0, 0] = np.nan
    found = read(write_tif(tmp_path / "m.tif", codes))
    assert 255 == found[0, 0]
    assert 1 == found[0, 1]

    codes[0, 1] = 0.5
    with pytest.raises(LabelError, match="not class codes"):
        read(write_tif(tmp_path / "m.tif", codes))


def test_no_overlap(tmp_path: Path, write_tif) -> None:
    """Of a map of another place there is nothing to read, and the reason is told."""
    path = write_tif(tmp_path / "m.tif", classes(), origin=(6e5, 5.4e6))

    with LandCover(find_maps([str(path)]), DW).on(IMAGE) as view:
        assert Reason.NO_MAP == view.reason
        assert {255} == set(view.read(WHOLE).ravel().tolist())


@pytest.mark.parametrize("bands", [1, 2])
def test_unusable_map(tmp_path: Path, write_tif, bands: int) -> None:
    """A map without CRS, and a file of two bands, are refused by name."""
    pixels = np.stack([classes()] * bands)
    path = write_tif(tmp_path / "m.tif", pixels, crs="EPSG:32632" if bands == 2 else None)

    with pytest.raises(LabelError, match="georeferenced map of one band") as caught:
        read(path)

    assert str(path) == str(caught.value.where)


def test_image_without_crs(tmp_path: Path, write_tif) -> None:
    """An image that lies nowhere cannot be looked up on a map."""
    path = write_tif(tmp_path / "m.tif", classes())

    with pytest.raises(RasterError, match="no georeference"):
        read(path, Grid(None, IMAGE.transform, 24, 30))


def test_folder_prefers_the_images_name(tmp_path: Path, write_tif) -> None:
    """The map with the image's name is used alone, though others overlap."""
    write_tif(tmp_path / "maps/a.tif", np.full((24, 30), 1, np.uint8))
    write_tif(tmp_path / "maps/sub/scene.tif", np.full((24, 30), 2, np.uint8))

    assert {2} == set(read(tmp_path / "maps", name="images/scene").ravel().tolist())
    assert {1} == set(read(tmp_path / "maps", name="other").ravel().tolist())


def test_folder_with_a_name_twice(tmp_path: Path, write_tif) -> None:
    """Two maps of one name are told apart by their folder, or not at all."""
    for folder, code in (("x", 1), ("y", 2)):
        write_tif(tmp_path / folder / "scene.tif", np.full((24, 30), code, np.uint8))

    assert {2} == set(read(tmp_path, name="y/scene").ravel().tolist())
    with pytest.raises(LabelError, match="several land-cover maps"):
        read(tmp_path, name="scene")


def test_folder_of_tiles(tmp_path: Path, write_tif) -> None:
    """Without a map of its name, an image takes all tiles under it; the first in order wins."""
    write_tif(tmp_path / "a.tif", np.full((24, 10), 1, np.uint8))
    write_tif(tmp_path / "b.tif", np.full((24, 15), 2, np.uint8), origin=(5e5 + 50, 5.4e6))
    write_tif(tmp_path / "c.tif", np.full((24, 15), 3, np.uint8), origin=(9e5, 5.4e6))

    found = read(tmp_path)

    assert [1] * 10 + [2] * 10 + [255] * 10 == found[11].tolist()


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_no_maps(tmp_path: Path, name: str) -> None:
    """A missing path and a folder without tifs are errors."""
    with pytest.raises(LabelError, match="land-cover map"):
        find_maps([str(tmp_path / name)])


def test_damaged_map(tmp_path: Path, write_tif) -> None:
    """A truncated map is an error that names it."""
    path = write_tif(tmp_path / "m.tif", classes(400, 400))
    path.write_bytes(path.read_bytes()[:100_000])

    with pytest.raises(RasterError, match="cannot be read") as caught:
        read(path, Grid(UTM, IMAGE.transform, 400, 400), Window(300, 0, 100, 400))

    assert str(path) == str(caught.value.where)


def test_real_terramesh(real_data: Path) -> None:
    """Maps whose grids differ by 1e-9 m from the images' give exactly their own pixels."""
    maps = LandCover(find_maps([str(real_data / "terramesh/LULC")]), SCHEMES["terramesh"])
    images = sorted((real_data / "terramesh/S2L1C").glob("*.tif"))
    for path in images:
        with rasterio.open(path) as dataset:
            grid = grid_of(dataset)
        with maps.on(grid, path.stem) as view:
            found = view.read(Window(0, 0, 224, 224))
        with rasterio.open(real_data / "terramesh/LULC" / path.name) as dataset:
            assert np.array_equal(dataset.read(1), found)

    assert 3 == len(images)


_WORLDCOVER = """
import resource, sys
from affine import Affine
from rasterio.crs import CRS
from eofm.raster.grid import Grid, Window
from eofm.landcover.maps import LandCover, find_maps
from eofm.landcover.multilabel import class_fractions
from eofm.landcover.schemes import SCHEMES, Scheme
from eofm.landcover.warp import decode

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
grid = Grid(CRS.from_epsg(32632), Affine(10, 0, 230000, 0, -10, 35000), 2640, 2640)
scheme = SCHEMES["worldcover"]
with LandCover(find_maps([sys.argv[1]]), scheme).on(grid) as view:
    for row, col in ((0, 0), (1320, 1320), (2376, 2376)):
        cover = class_fractions(view.read(Window(row, col, 264, 264)), scheme)
        print(cover.valid_share, *cover.fractions.round(3).tolist())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_real_worldcover_by_window(real_data: Path) -> None:
    """A window in UTM is read from a tile of 36,000 x 36,000 degrees' pixels in bounded memory.

    The place is Sao Tome: forest in the north-west of the scene, open sea in the south-east.
    """
    run = subprocess.run(
        [sys.executable, "-c", _WORLDCOVER, str(real_data / "esa_worldcover")],
        capture_output=True,
        text=True,
        check=True,
    )
    *covers, megabytes = run.stdout.splitlines()
    shares = [list(map(float, line.split())) for line in covers]

    assert int(megabytes) < 300  # the whole tile takes 1.3 GB
    assert [1.0, 1.0, 1.0] == [share[0] for share in shares]
    tree_cover, water = shares[0][1], shares[2][1 + list(SCHEMES["worldcover"].classes).index(80)]
    assert tree_cover > 0.9
    assert 1.0 == water
    assert all(abs(sum(share[1:]) - 1) < 0.01 for share in shares)


def test_the_band_of_classes_is_taken_out_of_several(tmp_path: Path, write_tif) -> None:
    """Dynamic World has probabilities and then `label`; the commands make a map of it."""
    names = ["water", "trees", "label"]
    stack = np.stack([np.zeros_like(classes()), np.zeros_like(classes()), classes()])
    path, out = write_tif(tmp_path / "m m.tif", stack, descriptions=names), tmp_path / "classes.tif"
    with pytest.raises(LabelError, match="georeferenced map of one band") as caught:
        read(path)
    assert "CRS into" not in str(caught.value.remedy)
    run_rio(caught.value, {"classes.tif": out})
    with rasterio.open(out) as found:
        np.testing.assert_array_equal(classes(), found.read(1))
    read(out)


def test_probabilities_become_classes(tmp_path: Path, write_tif) -> None:
    """The first band alone was offered, whose fractions are no codes; a picture is no map."""
    codes = classes()
    stack = np.stack([np.where(codes == k, 0.8, 0.01) for k in range(9)]).astype(np.float32)
    stack[:, 0, 0] = np.nan
    path = write_tif(tmp_path / "m m.tif", stack, nodata=np.nan)
    with pytest.raises(LabelError, match="georeferenced map of one band") as caught:
        read(path)
    out = Path(run_python(caught.value)[-1])
    with rasterio.open(out) as found:
        written = found.read(1)
    assert 255 == written[0, 0]
    np.testing.assert_array_equal(codes.ravel()[1:], written.ravel()[1:])
    read(out)
    picture = write_tif(tmp_path / "p.tif", np.stack([codes] * 3), photometric="RGB")
    with pytest.raises(LabelError) as caught:
        read(picture)
    assert "not a picture of it" in str(caught.value.remedy)


def test_a_map_without_crs_says_what_to_run(tmp_path: Path, write_tif) -> None:
    """The command names the file itself, and the map is read."""
    path = write_tif(tmp_path / "m m.tif", classes(), crs=None)
    with pytest.raises(LabelError, match="georeferenced map of one band") as caught:
        read(path)
    run_rio(caught.value)
    read(path)


def test_a_map_without_transform_says_what_to_run(tmp_path: Path, write_tif) -> None:
    """The message named neither the file nor a command that could be typed."""
    path = write_tif(tmp_path / "m m.tif", classes())
    with rasterio.open(path) as file:
        profile = {**file.profile, "transform": None}
    with without_place(), rasterio.open(path, "w", **profile) as file:
        file.write(classes(), 1)
    with pytest.raises(LabelError, match="georeferenced map of one band") as caught:
        read(path)
    run_rio(caught.value)
    read(path)


@pytest.mark.parametrize("names", [("y", "x"), ("lat", "lon")])
@pytest.mark.parametrize("crs", [None, "EPSG:32632"])
def test_a_netcdf_map_without_place_becomes_a_geotiff(
    names: tuple[str, str], crs: str | None, tmp_path: Path
) -> None:
    """`rio edit-info` cannot write into netCDF, and degrees are not in UTM."""
    in_degrees = names == ("lat", "lon")
    step, west, north = (1e-4, 9.0, 48.0) if in_degrees else (10, 5e5, 5.4e6)
    rows, columns = classes().shape
    coords = {
        names[0]: north - step * (np.arange(rows) + 0.5),
        names[1]: west + step * (np.arange(columns) + 0.5),
    }
    cube = xr.Dataset({"lc": (names, classes())}, coords)
    if crs is not None and not in_degrees:
        cube["crs"] = ((), 0, {"crs_wkt": CRS.from_string(crs).to_wkt()})
        cube["lc"].attrs["grid_mapping"] = "crs"
    path = tmp_path / "m m.nc"
    cube.to_netcdf(path)
    with pytest.raises(LabelError, match="georeferenced map of one band") as caught:
        read(path)

    out = Path(run_python(caught.value, "ignore")[-1])  # rioxarray's warnings of affine

    with rasterio.open(out) as found:
        assert (4326 if in_degrees else 32632) == found.crs.to_epsg()
        np.testing.assert_allclose((west, north), (found.transform.c, found.transform.f))
        np.testing.assert_array_equal(classes(), found.read(1))
    read(out)


def test_a_class_that_is_declared_nodata_is_taken_back_as_the_remedy_says(
    tmp_path: Path, write_tif
) -> None:
    """The command held the word FILE."""
    path = write_tif(tmp_path / "m m.tif", classes(), nodata=3)
    with pytest.raises(LabelError, match="declares nodata what the scheme knows") as caught:
        read(path)
    run_rio(caught.value)
    assert np.array_equal(classes(), read(path))


def netcdf(path: Path, **variables: np.ndarray) -> Path:
    """Write maps of one place, with the coordinates that GDAL looks for, as CF has them."""
    axes = {}
    for axis, step, start, length in zip("yx", (-10, 10), (5.4e6, 5e5), (24, 30), strict=True):
        name = {"standard_name": f"projection_{axis}_coordinate", "units": "m"}
        axes[axis] = (axis, start + step * (np.arange(length) + 0.5), name)
    cube = xr.Dataset({n: (("time", "y", "x")[-v.ndim :], v) for n, v in variables.items()}, axes)
    cube.rio.write_crs("EPSG:32632").to_netcdf(path)
    return path


def test_of_several_netcdf_maps_the_classes_are_written_out(tmp_path: Path) -> None:
    """It ended in an IndexError; `lc` is the map, whatever stands before it."""
    path = netcdf(tmp_path / "m.nc", quality=np.ones((24, 30), np.uint8), lc=classes())
    with pytest.raises(LabelError, match="no map, or several") as caught:
        read(path)

    out = Path(run_python(caught.value, "ignore")[-1])

    with rasterio.open(out) as found:
        np.testing.assert_array_equal(classes(), found.read(1))
    read(out)


def test_a_time_of_a_netcdf_map_is_written_out(tmp_path: Path) -> None:
    """`rio stack` opens no netCDF for writing."""
    path = netcdf(tmp_path / "m.nc", lc=np.stack([classes(), np.zeros_like(classes())]))
    with pytest.raises(LabelError, match="georeferenced map of one band") as caught:
        read(path)

    out = Path(run_python(caught.value, "ignore")[-1])

    assert np.array_equal(classes(), read(out))


def test_a_netcdf_map_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    """The one that was open was read under the name of its successor."""
    path = netcdf(tmp_path / "m.nc", lc=classes())
    before = read(path)
    path.unlink()
    netcdf(path, lc=np.full((24, 30), 3, np.uint8))

    after = read(path)

    assert np.array_equal(classes(), before)
    assert {3} == set(after.flat)


def test_nodata_beyond_a_byte_is_no_class() -> None:
    """NumPy made class 0 of code 256 in a map of bytes."""
    scheme = Scheme("s", {0: "water", 1: "land"}, (256,), (), "")
    values = np.array([[0, 1, 255]], np.uint8)

    codes = decode(values, np.ones((1, 3), bool), scheme, 255, "m.tif")

    assert [[0, 1, 256]] == codes.tolist()
    fractions = np.array([[np.nan, 1]], np.float32)
    assert [[256, 1]] == decode(fractions, np.ones((1, 2), bool), scheme, None, "m").tolist()


def test_complex_numbers_are_no_classes(tmp_path: Path) -> None:
    """A map of complex integers is refused, as one of fractions is."""
    path = tmp_path / "m.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=20,
        width=20,
        count=1,
        dtype="complex_int16",
        crs="EPSG:32632",
        transform=Affine(10, 0, 5e5, 0, -10, 5.4e6),
    ) as target:
        target.write(np.full((1, 20, 20), 3, np.complex64))
    with pytest.raises(LabelError, match="not class codes"):
        read(path)


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_alpha_beside_the_classes_is_a_mask(shift: float, tmp_path: Path, write_tif) -> None:
    """`gdalwarp -dstalpha` adds it; the remedy dropped it, and what it hides was water."""
    hidden = np.full((24, 30), 255, np.uint8)
    hidden[:, :15] = 0
    pixels = np.stack([np.where(hidden, classes(), 0).astype(np.uint8), hidden])
    path = write_tif(tmp_path / "m.tif", pixels, origin=(5e5 + shift, 5.4e6 - shift))
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (ColorInterp.gray, ColorInterp.alpha)

    found = read(path)

    seen = np.s_[1:, 16:] if shift else np.s_[:, 15:]
    assert 255 == found[:, :14].min()
    assert found[seen].max() < 9
    assert shift or np.array_equal(classes()[:, 15:], found[:, 15:])


def test_alpha_and_nodata_are_not_guessed(tmp_path: Path, write_tif) -> None:
    """GDAL heeds one of them; a map that says both is refused as a map of two bands is."""
    pixels = np.stack([classes(), np.full((24, 30), 255, np.uint8)])
    path = write_tif(tmp_path / "m.tif", pixels, nodata=255)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (ColorInterp.gray, ColorInterp.alpha)

    with pytest.raises(LabelError, match="map of one band"):
        read(path)


def test_a_file_of_several_maps_is_refused(tmp_path: Path, write_tif) -> None:
    """The first page was taken for the map without a word."""
    path = write_tif(tmp_path / "m.tif", classes())
    write_tif(path, np.zeros((24, 30), np.uint8), APPEND_SUBDATASET="YES")
    with pytest.raises(LabelError, match="the first alone") as caught:
        read(path)

    written = Path(run_python(caught.value)[-1])

    assert np.array_equal(classes(), read(written))
