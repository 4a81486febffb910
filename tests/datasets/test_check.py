"""`eofm data check`: every planted fault is found and named, and sound sets pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ben_world
import numpy as np
import pytest
import rasterio
from affine import Affine

from eofm.cli import main
from eofm.contract.imagery import NativeImagery
from eofm.contract.spec import SENSOR_BANDS, Sensor
from eofm.datasets.check import CheckConfig, CheckReport, spread
from eofm.datasets.check.run import check_data
from eofm.datasets.eurosat import CLASSES
from eofm.datasets.ssl4eo import PackSsl4eoConfig
from eofm.datasets.ssl4eo.pack import pack_ssl4eo
from eofm.errors import ConfigError, DataError
from eofm.raster.grid import Window
from eofm.raster.source import OpenRaster
from eofm.world.config import WorldConfig
from eofm.world.files import write_world


def check(path: Path, **more: Any) -> CheckReport:
    """Check a folder."""
    return check_data(CheckConfig(path=str(path), **more))


def problems(report: CheckReport) -> dict[str, list[str]]:
    """Problem -> names."""
    return {problem: [f.name for f in found] for problem, found in report.by_problem.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three places of the embedded world."""
    root = tmp_path_factory.mktemp("made") / "world"
    write_world(WorldConfig(out=str(root), scenes=3, size=48, seed=1, workers=1))
    return root


@pytest.fixture
def world(made: Path, tmp_path: Path) -> Path:
    """A copy to do harm to."""
    return Path(shutil.copytree(made, tmp_path / "world"))


# -------------------------------------------------------------------------- sound sets


def test_an_image_is_read_once(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of nine windows is asked of the image that was read whole."""
    read: list[tuple[str, Window | None]] = []
    whole = OpenRaster.read_native

    def noted(raster: OpenRaster, window: Window | None = None) -> NativeImagery:
        read.append((raster.source.name, window))
        return whole(raster, window)

    monkeypatch.setattr(OpenRaster, "read_native", noted)
    report = check(world)

    assert report.looked_at == len(read) == len(set(read))
    assert {None} == {window for _, window in read}


@pytest.mark.slow
def test_real_sets(real_data: Path) -> None:
    """What is published is in order, but for images that carry the offset without saying so."""
    found = {
        name: problems(check(real_data / name))
        for name in ("bigearthnet_v1", "s2_100k", "terramesh")
    }

    assert {} == found["bigearthnet_v1"]
    carry = "images stated to be without the offset of processing baseline 04.00 seem to carry it"
    twins = "the offset of processing baseline 04.00 is stated otherwise than twins show it"
    # darkest pixels of all bands above 1126 and 1148: see eofm.contract.validity
    assert {carry: ["patch_252161", "patch_57755"]} == found["s2_100k"]
    assert {
        carry: ["S2L1C/609U_541L_3_0"],
        twins: ["S2L1C/609U_541L_3_0 and S2L2A/609U_541L_3_0"],
    } == found["terramesh"]


def test_real_eurosat(real_data: Path) -> None:
    """The signature of EuroSAT's own band order passes, with its balance of classes."""
    report = check(real_data / "eurosat_ms", limit=70)

    assert (0, 70, 270) == (report.status, report.looked_at, report.counts["tiles"])
    assert {"Forest": 30, "Pasture": 20} == {k: report.classes[k] for k in ("Forest", "Pasture")}
    assert "200 images were counted only; --limit 0 reads all" in report.notes


def test_sound_world(world: Path) -> None:
    """The embedded world passes, sensor by sensor."""
    report = check(world)

    assert {} == problems(report)
    assert (12, 3, 12) == tuple(report.counts[k] for k in ("s2c scenes", "s2c places", "s1 scenes"))


# ------------------------------------------------------------------------- planted faults


def _band(world: Path, band: str) -> Path:
    return sorted(world.glob(f"s2c/*/*/{band}.tif"))[0]


def _half_copied(world: Path) -> Path:
    file = _band(world, "B8A")
    file.write_bytes(file.read_bytes()[:-100])
    return file


def _missing(world: Path) -> Path:
    file = _band(world, "B8A")
    file.unlink()
    return file


def _rewrite(file: Path, change: Callable[[np.ndarray], np.ndarray], **profile: object) -> None:
    with rasterio.open(file) as dataset:
        kept, values = dataset.profile, dataset.read()
    values = change(values)
    kept.update(height=values.shape[1], width=values.shape[2], **profile)
    with rasterio.open(file, "w", **kept) as dataset:
        dataset.write(values.astype(kept["dtype"]))


def _no_crs(world: Path) -> Path:
    for file in _band(world, "B8A").parent.glob("*.tif"):
        _rewrite(file, lambda v: v, crs=None)
    return _band(world, "B8A")


def _offset(world: Path) -> Path:
    for file in _band(world, "B8A").parent.glob("*.tif"):
        _rewrite(file, lambda v: v + 1000)
    return _band(world, "B8A")


def _reflectance(world: Path) -> Path:
    for file in _band(world, "B8A").parent.glob("*.tif"):
        _rewrite(file, lambda v: v / 10_000, dtype="float32")
    return _band(world, "B8A")


def _blank(world: Path) -> Path:
    for file in _band(world, "B8A").parent.glob("*.tif"):
        _rewrite(file, lambda v: v * 0)
    return _band(world, "B8A")


def _twin(world: Path) -> Path:
    first, second = sorted(world.glob("s2c/*/*"))[:2]
    for file in first.iterdir():
        shutil.copy(file, second / file.name)
    return second / "B8A.tif"


def _smaller(world: Path) -> Path:
    for file in _band(world, "B8A").parent.glob("*.tif"):
        with rasterio.open(file) as dataset:
            half = dataset.height // 2
        _rewrite(file, lambda v, half=half: v[:, :half, :half])
    return _band(world, "B8A")


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (_half_copied, "cannot be read as a GeoTIFF"),
        (_missing, "lacks band B8A"),
        (_no_crs, "no georeference"),
        (_offset, "offset of processing baseline 04.00"),
        (_reflectance, "not in the range of unit dn"),
        (_blank, "holds no measurement"),
        (_twin, "hold the same pixels"),
        (_smaller, "another size than the others"),
    ],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_faults_of_a_scene(world: Path, harm: Callable[[Path], Path], problem: str) -> None:
    """One harmed scene among twelve is the only one that is named, with the fault."""
    folder = harm(world).parent
    found = problems(check(world))

    (said,) = [text for text in found if problem in text]
    assert [f"s2c/{folder.parent.name}/{folder.name}"] == found[said]
    assert 1 == len(found)


@pytest.mark.parametrize(("size", "fault"), [(1, False), (2, True)])
def test_one_pixel_is_a_measurement(tmp_path: Path, write_tif, size: int, fault: bool) -> None:
    """An image of one pixel is constant, and was reported to hold no measurement."""
    pixels = np.array([240, 520, 760, 910], np.uint16)[:, None, None]
    write_tif(tmp_path / "a" / "one.tif", pixels.repeat(size, 1).repeat(size, 2))
    bands = ("B02", "B03", "B04", "B08")
    report = check(tmp_path, sensor="s2-l2a", unit="dn", bands=bands)

    assert fault == ("the image holds no measurement" in problems(report))


def test_bands_in_another_order(world: Path) -> None:
    """Radar bands that were exchanged in every scene are seen."""
    for folder in world.glob("s1/*/*"):
        (folder / "VV.tif").rename(folder / "x.tif")
        (folder / "VH.tif").rename(folder / "VV.tif")
        (folder / "x.tif").rename(folder / "VH.tif")

    assert any("VH is brighter than VV" in problem for problem in problems(check(world)))


def test_order_of_optical_bands(real_data: Path, tmp_path: Path) -> None:
    """Files in the order of the sensor, stated to be EuroSAT's, betray themselves as a batch."""
    order = [*range(1, 9), 13, 9, 10, 11, 12]
    for split in ("train", "test"):
        for name in CLASSES:
            (tmp_path / split / name).mkdir(parents=True)
            for file in sorted((real_data / "eurosat_ms" / split / name).iterdir())[:5]:
                with rasterio.open(file) as dataset:
                    profile, values = dataset.profile, dataset.read(order)
                with rasterio.open(tmp_path / split / name / file.name, "w", **profile) as out:
                    out.write(values)

    assert check(tmp_path).status


def test_labels_of_seasons_that_are_not_there(world: Path, tmp_path: Path) -> None:
    """Labels are joined by name, counted, and what fits no scene is named."""
    scenes = sorted(world.glob("s2c/*/*"))
    content: dict[str, dict[str, list[str]]] = {}
    for scene in scenes[:3]:
        content.setdefault(scene.parent.name, {})[scene.name] = ["1", "4"]
    place = scenes[0].parent.name
    content[place]["20990101T000000_20990101T000000_T31TFJ"] = ["1"]
    (tmp_path / "ml.json").write_text(json.dumps(content))
    report = check(world, labels=str(tmp_path / "ml.json"))

    assert (3, 3, 0) == (report.labelled, report.classes["trees"], report.classes["water"])
    assert {
        "labels of a season that is not there": [f"{place}/20990101T000000_20990101T000000_T31TFJ"]
    } == problems(report)


def test_bigearthnet_faults(tmp_path: Path) -> None:
    """Lists of another length and patches in none of them are found."""
    root = ben_world.first_version(tmp_path / "v1")
    name = "S2A_MSIL2A_20170613T101031_1_2"
    ben_world.write_patch(root / "BigEarthNet-v1.0" / name, ben_world.OPTICAL, 5)
    (root / "BigEarthNet-v1.0" / name / f"{name}_labels_metadata.json").write_text(
        json.dumps({"labels": ["Pastures"], "tile_source": "S2A_T33UUP_x"})
    )
    found = problems(check(root))

    assert ["train", "val", "test"] == found["an official list has another length than published"]
    assert [f"S2 {name}"] == found["a patch is in none of the official lists"]


def test_lists_that_cannot_be_read(tmp_path: Path) -> None:
    """A damaged list is a finding, not a crash."""
    root = ben_world.first_version(tmp_path / "v1")
    (root / "splits" / "val.csv").write_text("nothing\n")

    assert ["this is no list of BigEarthNet patches"] == list(problems(check(root)))


def test_terramesh_site_that_lacks_a_modality(real_data: Path, tmp_path: Path) -> None:
    """A site of which one modality is missing is named; unknown codes of its map too."""
    for name in ("S1RTC", "LULC"):
        shutil.copytree(real_data / "terramesh" / name, tmp_path / name)
        for file in (tmp_path / name).iterdir():
            file.chmod(0o644)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "S1RTC" / "38D_378R_2_3.tif").unlink()
    with rasterio.open(tmp_path / "LULC" / "609U_541L_3_0.tif", "r+") as dataset:
        dataset.write(np.full_like(dataset.read(), 77))
    found = problems(check(tmp_path))

    assert ["38D_378R_2_3"] == found["a site lacks a modality"]
    assert any("codes that the scheme terramesh does not know" in problem for problem in found)


# ------------------------------------------------------------------------------- stores


def test_store(world: Path, tmp_path: Path) -> None:
    """A sound store passes; one whose bytes changed does not, and the row is named."""
    pack_ssl4eo(PackSsl4eoConfig(root=str(world), sensor="s2-l1c", out=str(tmp_path / "store")))
    assert 0 == check(tmp_path / "store").status

    file = tmp_path / "store" / "shard-00000" / "20m.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    found = problems(check(tmp_path / "store"))
    assert ["an image has changed since it was written"] == list(found)

    file.write_bytes(data[:-1])
    assert ["a piece of the store is missing or damaged"] == list(
        problems(check(tmp_path / "store"))
    )


# -------------------------------------------------------------------------- command line


def test_command(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 1 when something is wrong; the JSON says what."""
    assert 0 == main(["data", "check", str(world)])
    assert "nothing is wrong" in capsys.readouterr().out

    _missing(world)
    assert 1 == main(["data", "check", str(world), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert "an image lacks band B8A" == report["wrong"][0]["problem"]
    assert 12 == report["counts"]["s2c scenes"]


def test_tiles_need_sensor_and_unit(real_data: Path) -> None:
    """A folder of GeoTIFFs is nobody's: its owner states what they are, and then it is checked."""
    folder = real_data / "terramesh" / "S2L1C"

    with pytest.raises(ConfigError, match="have to be stated"):
        check(folder)
    assert 1 == len(check(folder, sensor="s2-l1c", unit="dn").findings)
    assert 2 == len(check(folder, sensor="s2-l1c", unit="dn-offset1000").findings)


# -------------------------------------------------------------------------- own GeoTIFFs

L2A = SENSOR_BANDS[Sensor.S2_L2A]
OWN = {"sensor": "s2-l2a", "unit": "dn"}


def own(folder: Path, name: str, seed: int = 0, side: int = 64, **options: Any) -> Path:
    """Write an image of twelve bands on ground of its own."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(500, 3_000, (12, side, side)) + options.pop("offset", 0)
    values = np.array(options.pop("values", drawn[: options.get("count", 12)]))
    for band, value in options.pop("constant", {}).items():
        values[L2A.index(band)] = value
    profile = {"crs": "EPSG:32632", "height": side, "width": side, "dtype": "uint16"}
    at = Affine(10, 0, 400_000 + 10_000 * seed, 0, -10, 5_500_000)
    profile = {**profile, "driver": "GTiff", "transform": at, "count": len(values), **options}
    folder.mkdir(parents=True, exist_ok=True)
    with rasterio.open(folder / f"{name}.tif", "w", **profile) as file:
        file.write(values.astype("uint16"))
    return folder / f"{name}.tif"


def test_a_dead_band_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one image among good ones: every band with its image, 0 or another value."""
    own(tmp_path, "a", 1, constant={"B08": 0, "B11": 0, "B04": 731})
    own(tmp_path, "b", 2)
    report = check(tmp_path, **OWN)

    found = {(f.name, f.band, f.found) for f in report.findings}
    assert {
        ("a", "B08", "0 in every pixel"),
        ("a", "B11", "0 in every pixel"),
        ("a", "B04", "731 in every pixel"),
    } == found
    arguments = ["data", "check", str(tmp_path), "--sensor", "s2-l2a", "--unit", "dn"]
    assert 1 == main(arguments)
    assert "    a, B08: 0 in every pixel" in capsys.readouterr().out.splitlines()
    assert 1 == main([*arguments, "--json"])
    ((wrong,),) = [json.loads(capsys.readouterr().out)["wrong"]]
    assert {"B04", "B08", "B11"} == {image["band"] for image in wrong["images"]}


def test_a_band_of_one_value_in_every_image_is_the_sea(tmp_path: Path) -> None:
    """A single value other than 0 is a fault where other images vary, and in few pixels never."""
    own(tmp_path, "a", 1, constant={"B05": 20})
    own(tmp_path, "b", 2, constant={"B05": 21})
    assert {} == problems(check(tmp_path, **OWN))
    for k in range(2):
        own(tmp_path / "small", f"{k}", k, side=48, constant={"B09": 20} if k else {})
    assert {} == problems(check(tmp_path / "small", **OWN))


def test_units_bands_and_places_are_stated_as_for_pack(tmp_path: Path) -> None:
    """A set of two units is sound when both are stated, and only then; places are counted."""
    for k in range(3):
        own(tmp_path, f"T32_{k}_1", k)
        own(tmp_path, f"T32_{k}_2", k, offset=1_000)
    (problem,) = problems(check(tmp_path, sensor="s2-l2a", unit="dn-offset1000"))
    assert "seem to lack it" in problem
    mixed = {**OWN, "unit_of": {"*_2": "dn-offset1000"}}
    report = check(tmp_path, **mixed)
    assert {} == problems(report)
    assert "GeoTIFFs of s2-l2a in dn and dn-offset1000" == report.kind
    assert 3 == report.counts["places"]
    assert 2 == check(tmp_path, **mixed, place="T32_?_{place}").counts["places"]
    with pytest.raises(ConfigError, match="fits no image"):
        check(tmp_path, **OWN, unit_of={"x*": "dn-offset1000"})

    (tmp_path / "four").mkdir()
    own(tmp_path / "four", "a", count=4)
    with pytest.raises(ConfigError, match="sensor and unit"):
        check(tmp_path / "four", bands=["B02"])
    assert problems(check(tmp_path / "four", **OWN))
    assert {} == problems(check(tmp_path / "four", **OWN, bands=["B02", "B03", "B04", "B08"]))


def test_bands_in_another_order_are_the_same_bands(tmp_path: Path) -> None:
    """Packing reads them by name, and so does the check."""
    own(tmp_path, "a", 1)
    file = own(tmp_path, "b", 2)
    with rasterio.open(file) as source:
        pixels, names = source.read(), [name or "" for name in source.descriptions]
    names = names if all(names) else list(L2A)
    with rasterio.open(file, "r+") as target:
        target.write(pixels[::-1])
        target.descriptions = tuple(names[::-1])

    assert {} == problems(check(tmp_path, **OWN))


def test_sizes_bands_copies_and_ground(tmp_path: Path) -> None:
    """Mixed sizes are a note; other bands, equal pixels and no CRS are faults with names."""
    own(tmp_path, "a", 1)
    own(tmp_path, "b", 2, side=80)
    own(tmp_path, "c", 1, compress="deflate")
    own(tmp_path, "d", 4, crs=None)
    with rasterio.open(own(tmp_path, "e", 5, count=4), "r+") as file:
        file.descriptions = ("B02", "B03", "B04", "B08")
    report = check(tmp_path, **OWN)
    found = problems(report)

    assert ["c"] == found.pop("two images hold the same pixels")
    assert ["e"] == found.pop("an image has other bands or pixels than the others")
    assert [["d"]] == list(found.values())
    assert "images of 2 sizes: 3 of 64 x 64, 1 of 80 x 80 pixels, as b" in report.notes
    assert any("1 of 5 images do not say where they lie" in note for note in report.notes)


@pytest.mark.parametrize(
    ("top", "bottom", "said"),
    [
        (0, 0, None),
        (1_000, 0, "Level-1C alone seems to carry it"),
        (0, 1_000, "Level-2A alone seems to carry it"),
        (1_000, 1_000, "in Level-1C, stated to be in dn"),
    ],
)
def test_level_2a_against_its_level_1c_twin(
    tmp_path: Path, top: int, bottom: int, said: str | None
) -> None:
    """The line of the short-wave infrared tells who carries the offset."""
    rng = np.random.default_rng(3)
    ground = rng.uniform(200, 3_500, (1, 64, 64)) * np.linspace(1, 0.9, 13)[:, None, None]
    l1c = ground + rng.normal(0, 20, ground.shape) + 600
    l1c[10] = rng.uniform(10, 30, (64, 64))
    l1c[11:] = ground[11:]
    l2a = np.delete(1.15 * ground - 60 + rng.normal(0, 20, ground.shape), 10, axis=0).clip(1)
    own(tmp_path / "S2L1C", "site", 1, values=l1c + top)
    own(tmp_path / "S2L2A", "site", 1, values=l2a + bottom)
    report = check(tmp_path)
    twins = [f for f in report.findings if " and S2L2A/" in f.name]

    assert ([] if said is None else ["B11, B12"]) == [f.band for f in twins]
    assert all(said is not None and said in f.found for f in twins)
    assert (0 if said is None else 1) == report.status


def test_twins_of_different_days_say_nothing(tmp_path: Path) -> None:
    """Where the two do not lie on a line, nothing is said of the offset."""
    rng = np.random.default_rng(2)
    l1c = rng.integers(400, 3_000, (13, 64, 64))
    l1c[10] //= 100
    own(tmp_path / "S2L1C", "site", 1, values=l1c)
    own(tmp_path / "S2L2A", "site", 1, values=rng.integers(1_400, 3_000, (12, 64, 64)) - 1_200)

    assert {} == problems(check(tmp_path))


@pytest.mark.parametrize("name", ["worldcereal", "nowhere"])
def test_other_folders(real_data: Path, name: str) -> None:
    """A folder that eofm does not know is refused, with the list of those it does."""
    with pytest.raises(DataError):
        check(real_data / name)


def test_settings() -> None:
    """Half a statement, and a negative limit, are refused."""
    with pytest.raises(ConfigError, match="of which the sensor is not"):
        CheckConfig(path="p", unit="dn")
    with pytest.raises(ConfigError, match="negative"):
        CheckConfig(path="p", limit=-1)


def test_spread() -> None:
    """The sample holds the first and the last, each once, and all where there is no limit."""
    assert [0, 1, 2] == spread(3, 0)
    assert [0, 1, 2] == spread(3, 3)
    assert [0, 33, 66, 99] == spread(100, 4)
    assert [0] == spread(100, 1)


def test_a_copy_of_another_number_type_is_a_copy(tmp_path: Path) -> None:
    """The same whole numbers as float32 are the same pixels."""
    with rasterio.open(own(tmp_path, "a", 1)) as file:
        profile, values = file.profile, file.read()
    with rasterio.open(tmp_path / "b.tif", "w", **(profile | {"dtype": "float32"})) as copy:
        copy.write(values.astype("float32"))

    assert ["b"] == problems(check(tmp_path, **OWN))["two images hold the same pixels"]


def test_a_unit_that_the_files_say_needs_no_statement(tmp_path: Path) -> None:
    """As of `read_geotiff`; an image that says none is a fault with a name, and no end."""
    tagged = own(tmp_path / "in", "tagged", 1)
    with rasterio.open(tagged, "r+") as file:
        file.scales, file.offsets = (1e-4,) * 12, (0.0,) * 12
    report = check(tmp_path / "in", sensor="s2-l2a")
    assert {} == problems(report)
    assert "in dn" in report.kind

    own(tmp_path / "in", "silent", 2)
    found = problems(check(tmp_path / "in", sensor="s2-l2a"))
    assert {"neither the user nor the file states the unit of the values": ["silent"]} == found
