"""Labels are counted on ground that the image shows, and alike from pack, folder, store, relabel.

The oracle looks up the map under the centre of every pixel with PROJ, one by one.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points
from remedies import run_rio

from eofm.cli import main
from eofm.datasets.tiles import PackTilesConfig
from eofm.datasets.tiles.pack import pack_tiles
from eofm.errors import ConfigError, LabelError, PixelError
from eofm.landcover.config import LabelsConfig
from eofm.landcover.multilabel import Cover, Reason, class_fractions
from eofm.landcover.run import write_labels
from eofm.landcover.schemes import SCHEMES
from eofm.store.config import RelabelConfig
from eofm.store.edit import relabel_store
from eofm.store.reader import Store

SIDE = 24
BANDS = ["B02", "B03", "B04", "B08"]
SCHEME = """
name: mine
classes: {1: a, 2: b, 3: c}
nodata: [0]
cloud: [9]
"""


def from_origin(x: float, y: float, width: float, height: float) -> Affine:
    """North-up pixels from their upper left corner: rasterio's own warns with affine 3."""
    return Affine(width, 0, x, 0, -height, y)


def write(path: Path, pixels: np.ndarray, crs: str, transform: Affine, **options) -> Path:
    """Write a GeoTIFF on any grid."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = pixels[None] if pixels.ndim == 2 else pixels
    with rasterio.open(
        path, "w", driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2],
        dtype=bands.dtype, crs=crs, transform=transform, **options,
    ) as dataset:  # fmt: skip
        dataset.write(bands)
    return path


def reflective(margin: int = 0, seed: int = 0) -> np.ndarray:
    """Digital numbers of four bands, with unmeasured columns on the left."""
    pixels = np.random.default_rng(seed).integers(300, 3000, (4, SIDE, SIDE)).astype(np.uint16)
    pixels[:, :, :margin] = 0
    return pixels


def lookup(map_file: Path, crs: str, transform: Affine, seen: np.ndarray) -> np.ndarray:
    """Fractions of classes 1, 2, 3 among the seen pixels of an image, pixel by pixel."""
    with rasterio.open(map_file) as dataset:
        codes, inverse, map_crs = dataset.read(1), ~dataset.transform, dataset.crs
    found = []
    for row, col in zip(*np.nonzero(seen), strict=True):
        x = transform.a * (col + 0.5) + transform.b * (row + 0.5) + transform.c
        y = transform.d * (col + 0.5) + transform.e * (row + 0.5) + transform.f
        (x,), (y,) = warp_points(CRS.from_user_input(crs), map_crs, [x], [y])
        if map_crs.is_geographic and map_crs.to_epsg() == 4326:
            left = -inverse.c / inverse.a
            x += 360 * np.ceil((left - x) / 360)
        c = int(np.floor(inverse.a * x + inverse.b * y + inverse.c))
        r = int(np.floor(inverse.d * x + inverse.e * y + inverse.f))
        inside = 0 <= r < codes.shape[0] and 0 <= c < codes.shape[1]
        found.append(int(codes[r, c]) if inside else 0)
    counts = np.bincount(found, minlength=10)[[1, 2, 3]]
    return counts / max(counts.sum(), 1)


def every_route(tmp_path: Path, maps: Path, **stated) -> dict[str, list[dict]]:
    """Label the images of a folder by pack, by labels of folder and store, and by relabel."""
    scheme = tmp_path / "scheme.yaml"
    scheme.write_text(SCHEME)
    pack = PackTilesConfig(
        images=str(tmp_path / "images"), sensor="s2-l2a", unit="dn", out=str(tmp_path / "store"),
        landcover=str(maps), scheme=str(scheme), window=SIDE, bands=BANDS, min_pixels=0.1, **stated,
    )  # fmt: skip
    pack_tiles(pack)
    table = ["id", "fraction", "multi_hot", "known", "valid_share"]
    found = {"pack": Store(tmp_path / "store").table.select(table).to_pylist()}
    for name, scenes in (("folder", "images"), ("store", "store")):
        out = tmp_path / f"{name}.parquet"
        write_labels(LabelsConfig([str(maps)], str(scheme), str(out), str(tmp_path / scenes)))
        found[name] = pq.read_table(out, columns=table).to_pylist()
    relabel_store(
        RelabelConfig(str(tmp_path / "store"), str(tmp_path / "store.parquet"), in_place=True)
    )
    found["relabel"] = Store(tmp_path / "store").table.select(table).to_pylist()
    return found


def assert_alike(found: dict[str, list[dict]]) -> list[dict]:
    """All routes agree, digit by digit; return the rows."""
    names = [row["id"].removesuffix("_0_0") for row in found["pack"]]
    for rows in found.values():
        assert names == [row["id"].removesuffix("_0_0") for row in rows]
        for key in ("fraction", "multi_hot", "known", "valid_share"):
            assert [r[key] for r in found["pack"]] == [r[key] for r in rows], key
    return found["pack"]


NORTH = 60.0
GRIDS = {
    "utm": ("EPSG:32632", from_origin(500_000, 6_650_000, 10, 10)),
    "degrees": ("EPSG:4326", from_origin(10, NORTH, 1e-4, 1e-4)),
    "south-up": ("EPSG:32632", Affine(10, 0, 500_000, 0, 10, 6_650_000)),
    "rotated": ("EPSG:32632", Affine(8, 6, 500_000, 6, -8, 6_650_000)),
    "laea": ("EPSG:3035", from_origin(4_300_000, 4_100_000, 10, 10)),
    "no code": (
        CRS.from_user_input("+proj=laea +lat_0=59 +lon_0=9 +units=m").to_wkt(),
        from_origin(1_000, 2_000, 10, 10),
    ),
}


@pytest.mark.parametrize("name", GRIDS)
def test_labels_from_a_store_are_those_of_its_folder(name: str, tmp_path: Path) -> None:
    """In any CRS, at 60 degrees north, rotated or south-up: from the store as from the folder."""
    crs, transform = GRIDS[name]
    write(tmp_path / "images/i.tif", reflective(), crs, transform)
    x, y = (12 * transform.a + 12 * transform.b + transform.c,
            12 * transform.d + 12 * transform.e + transform.f)  # fmt: skip
    (lon,), (lat,) = warp_points(CRS.from_user_input(crs), "EPSG:4326", [x], [y])
    codes = np.random.default_rng(3).choice([1, 2, 3], (200, 400)).astype(np.uint8)
    codes = np.kron(codes[:40, :80], np.ones((5, 5), np.uint8))
    maps = write(tmp_path / "map/m.tif", codes, "EPSG:4326", Affine(2e-5, 0, lon - 400.3e-5, 0,
                 -2e-5, lat + 200.7e-5))  # fmt: skip

    (row,) = assert_alike(every_route(tmp_path, maps))

    expected = lookup(maps, crs, transform, np.ones((SIDE, SIDE), bool))
    np.testing.assert_allclose(row["fraction"], expected, atol=2.1 / SIDE**2)
    assert row["valid_share"] > 0.99


@pytest.mark.parametrize("nodata", [0, None])
def test_unmeasured_ground_does_not_count(nodata, tmp_path: Path) -> None:
    """What the map says under the image's nodata, declared or not, is in nobody's label."""
    crs, transform = GRIDS["utm"]
    write(tmp_path / "images/i.tif", reflective(margin=10), crs, transform, nodata=nodata)
    codes = np.full((SIDE, SIDE), 1, np.uint8)
    codes[:, :10] = 2  # under the margin alone
    codes[:6, 10:] = 0  # of the seen pixels, a quarter without a class
    codes[6:9, 10:] = 9
    maps = write(tmp_path / "map/m.tif", codes, crs, transform, nodata=0)

    (row,) = assert_alike(every_route(tmp_path, maps))

    assert [1.0, 0.0, 0.0] == row["fraction"]
    assert [1, 0, 0] == row["multi_hot"]
    assert np.float32(15 / 24) == np.float32(row["valid_share"])


def test_unknown_codes_under_the_margin(tmp_path: Path) -> None:
    """A code that the scheme does not know is no error where nobody sees it, and one elsewhere."""
    crs, transform = GRIDS["utm"]
    codes = np.full((SIDE, SIDE), 1, np.uint8)
    codes[:, :10] = 77
    maps = write(tmp_path / "map/m.tif", codes, crs, transform)
    write(tmp_path / "images/i.tif", reflective(margin=10), crs, transform, nodata=0)
    (row,) = assert_alike(every_route(tmp_path, maps))
    assert [1.0, 0.0, 0.0] == row["fraction"]

    write(tmp_path / "images/i.tif", reflective(margin=9), crs, transform, nodata=0)
    with pytest.raises(LabelError, match="does not know") as from_folder:
        write_labels(
            LabelsConfig([str(maps)], str(tmp_path / "scheme.yaml"), str(tmp_path / "x.parquet"),
                         str(tmp_path / "images"))
        )  # fmt: skip
    with pytest.raises(LabelError, match="does not know") as from_pack:
        pack_tiles(
            PackTilesConfig(
                images=str(tmp_path / "images"), sensor="s2-l2a", unit="dn",
                out=str(tmp_path / "other"), landcover=str(maps),
                scheme=str(tmp_path / "scheme.yaml"), window=SIDE, bands=BANDS, min_pixels=0.1,
            )
        )  # fmt: skip

    assert "77 (24 pixels)" == from_folder.value.found == from_pack.value.found


def test_bands_of_several_files(tmp_path: Path, write_bands) -> None:
    """A hole in a coarse band hides the fine pixels that draw from it, in folder and store."""
    folder = write_bands(tmp_path / "images/i", {"B02": SIDE, "B8A": 12, "B09": 4}, nodata=1)
    with rasterio.open(folder / "B8A.tif", "r+") as dataset:
        pixels = dataset.read(1)
        pixels[:, :5] = 1
        dataset.write(pixels, 1)
        crs, transform = dataset.crs, dataset.transform
    codes = np.full((12, 12), 1, np.uint8)
    codes[:, :5] = 2
    maps = write(tmp_path / "map/m.tif", codes, crs, transform)
    (tmp_path / "s.yaml").write_text(SCHEME)
    config = PackTilesConfig(
        images=str(tmp_path / "images"), sensor="s2-l2a", unit="dn", out=str(tmp_path / "store"),
        landcover=str(maps), scheme=str(tmp_path / "s.yaml"), window=SIDE,
        bands=["B02", "B8A", "B09"],
    )  # fmt: skip
    pack_tiles(config)
    write_labels(LabelsConfig([str(maps)], config.scheme, str(tmp_path / "l.parquet"),
                              config.images))  # fmt: skip

    store = Store(config.out)
    (row,) = pq.read_table(tmp_path / "l.parquet").to_pylist()
    assert store.fractions([0])[0].tolist() == row["fraction"]
    assert [1.0, 0.0, 0.0] == row["fraction"]
    seen = store.valid([0])[0]
    assert (~seen[:, :10]).all() and seen[:, 12:].all()  # noqa: PT018 (one mask)


def test_image_without_a_measured_pixel(tmp_path: Path) -> None:
    """Nothing is known of an image that measures nothing, and the table says why."""
    crs, transform = GRIDS["utm"]
    write(tmp_path / "images/i.tif", reflective(margin=SIDE), crs, transform, nodata=0)
    maps = write(tmp_path / "map/m.tif", np.ones((SIDE, SIDE), np.uint8), crs, transform)
    (tmp_path / "s.yaml").write_text(SCHEME)

    write_labels(LabelsConfig([str(maps)], str(tmp_path / "s.yaml"), str(tmp_path / "l.parquet"),
                              str(tmp_path / "images")))  # fmt: skip

    (row,) = pq.read_table(tmp_path / "l.parquet").to_pylist()
    assert (False, Reason.UNSEEN, 0.0) == (row["known"], row["reason"], row["valid_share"])


def test_bands_beside_the_measurement_are_not_seen_ground(tmp_path: Path) -> None:
    """`dataMask` of 0 is no ground, and an angle is none in a margin: both were counted."""
    transform = from_origin(500_000, 5_400_000, 10, 10)
    classes = np.full((SIDE, SIDE), 1, np.uint8)
    classes[:, :8] = 2
    write(tmp_path / "map" / "m.tif", classes, "EPSG:32632", transform)
    scheme = tmp_path / "mine.yaml"
    scheme.write_text(SCHEME, encoding="utf-8")
    mask, angle = np.ones((2, 1, SIDE, SIDE), np.uint16)
    mask[:, :, :8] = 0
    images = {
        "mask": (np.concatenate([reflective(), mask]), [*BANDS, "dataMask"]),
        "angle": (np.concatenate([reflective(8), angle * 38]), [*BANDS, "angle"]),
    }
    for name, (pixels, bands) in images.items():
        with rasterio.open(
            write(tmp_path / "in" / f"{name}.tif", pixels, "EPSG:32632", transform), "r+"
        ) as file:
            file.descriptions = bands
    settings = LabelsConfig(
        [str(tmp_path / "map")],
        str(scheme),
        str(tmp_path / "o.parquet"),
        scenes=str(tmp_path / "in"),
    )

    write_labels(settings)

    assert [[1, 0, 0]] * 2 == pq.read_table(tmp_path / "o.parquet").column("fraction").to_pylist()


@pytest.mark.parametrize(
    ("fill", "kind"), [(-9999, "int16"), (65_535, "uint16"), (1e20, "float32")]
)
def test_undeclared_nodata_is_refused_as_everywhere(fill: float, kind: str, tmp_path: Path) -> None:
    """It was seen ground, and the classes of the map below it were labels."""
    transform = from_origin(500_000, 5_400_000, 10, 10)
    write(tmp_path / "map" / "m.tif", np.full((SIDE, SIDE), 1, np.uint8), "EPSG:32632", transform)
    scheme = tmp_path / "mine.yaml"
    scheme.write_text(SCHEME, encoding="utf-8")
    pixels = reflective().astype(kind)
    pixels[:, :, :8] = fill
    image = write(tmp_path / "in" / "a.tif", pixels, "EPSG:32632", transform)
    settings = LabelsConfig(
        [str(tmp_path / "map")],
        str(scheme),
        str(tmp_path / "o.parquet"),
        scenes=str(tmp_path / "in"),
    )
    with pytest.raises(PixelError, match="is not declared") as caught:
        write_labels(settings)
    assert "a.tif" in str(caught.value.found)

    run_rio(caught.value, {"FILE": image})

    write_labels(settings)
    assert [[1, 0, 0]] == pq.read_table(tmp_path / "o.parquet").column("fraction").to_pylist()


def test_relabel_refuses_unseen_ground(tmp_path: Path) -> None:
    """A table of whole footprints is refused where images have a margin; both remedies work."""
    crs, transform = GRIDS["utm"]
    write(tmp_path / "images/i.tif", reflective(margin=10), crs, transform, nodata=0)
    codes = np.full((SIDE, SIDE), 1, np.uint8)
    codes[:, :10] = 2
    maps = write(tmp_path / "map/m.tif", codes, crs, transform)
    every_route(tmp_path, maps)
    (tmp_path / "store").rename(tmp_path / "store one")
    store, scheme = str(tmp_path / "store one"), str(tmp_path / "scheme.yaml")
    boxes = tmp_path / "boxes.parquet"
    pq.write_table(pq.read_table(tmp_path / "store.parquet"), boxes)
    whole = str(tmp_path / "whole.parquet")
    write_labels(LabelsConfig([str(maps)], scheme, whole, str(boxes)))

    with pytest.raises(LabelError, match="ground that some images do not show") as caught:
        relabel_store(RelabelConfig(store, whole, in_place=True))

    assert "1 of 1 images" in str(caught.value.found)
    command = str(caught.value.remedy).partition(": eofm ")[2].partition("; or")[0]
    told = {"MAPS": str(maps), "SCHEME": scheme, "OTHER.parquet": str(tmp_path / "other.parquet")}
    assert 0 == main([told.get(word, word) for word in shlex.split(command)])
    relabel_store(RelabelConfig(store, str(tmp_path / "other.parquet"), in_place=True))
    assert [1.0, 0.0, 0.0] == Store(store).fractions([0])[0].tolist()
    relabel_store(RelabelConfig(store, whole, in_place=True, ground="all"))
    assert [14 / 24, 10 / 24, 0] == pytest.approx(Store(store).fractions([0])[0].tolist())


def test_stated_crs_of_a_store_that_knows(tmp_path: Path) -> None:
    """A CRS is stated for stores without grids alone."""
    crs, transform = GRIDS["utm"]
    write(tmp_path / "images/i.tif", reflective(), crs, transform)
    maps = write(tmp_path / "map/m.tif", np.ones((SIDE, SIDE), np.uint8), crs, transform)
    every_route(tmp_path, maps)
    with pytest.raises(ConfigError, match="keeps where its images lie"):
        write_labels(
            LabelsConfig([str(maps)], str(tmp_path / "scheme.yaml"), str(tmp_path / "n.parquet"),
                         str(tmp_path / "store"), scene_crs="utm")
        )  # fmt: skip


def test_counting_of_seen_pixels() -> None:
    """Shares are of the seen pixels: by hand, on four pixels of which one is not seen."""
    codes, seen = np.array([[1, 2], [8, 0]]), np.array([[True, False], [True, True]])

    cover = class_fractions(codes, SCHEMES["terramesh"], seen=seen)

    assert [1.0, 0.0] == cover.fractions[:2].tolist()
    assert (1 / 3, 1 / 3) == (cover.valid_share, cover.cloud_share)
    nothing = Cover.of(np.zeros(10, np.int64), 0)
    assert (0.0, 0.0) == (nothing.valid_share, nothing.cloud_share)


@pytest.mark.parametrize("left", [179.999, -180.001])
@pytest.mark.parametrize("image", ["EPSG:32660", "EPSG:32601", "EPSG:4326"])
@pytest.mark.parametrize("map_left", [179.99, -180.01])
def test_over_the_180th_meridian(left, image, map_left, tmp_path: Path) -> None:
    """Image and map over the 180th meridian, on whichever side of it each is written down, meet."""
    transform = from_origin(left, 10.001, 1e-4, 1e-4)
    if image != "EPSG:4326":
        (x,), (y,) = warp_points("EPSG:4326", CRS.from_user_input(image), [180.0], [10.0])
        transform = from_origin(x - SIDE * 5, y + SIDE * 5, 10, 10)
    write(tmp_path / "images/i.tif", reflective(), image, transform)
    codes = np.random.default_rng(1).choice([1, 2, 3], (40, 40)).astype(np.uint8)
    codes = np.kron(codes, np.ones((5, 5), np.uint8))
    maps = write(
        tmp_path / "map/m.tif", codes, "EPSG:4326", from_origin(map_left, 10.01, 1e-4, 1e-4)
    )

    (row,) = assert_alike(every_route(tmp_path, maps))

    expected = lookup(maps, image, transform, np.ones((SIDE, SIDE), bool))
    np.testing.assert_allclose(row["fraction"], expected, atol=6.1 / SIDE**2)
    assert 1.0 == row["valid_share"]
