"""`eofm data check`: every planted fault is found and named, and sound sets pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import ben_world
import numpy as np
import pytest
import rasterio

from eofm.cli import main
from eofm.datasets.check import check_data
from eofm.datasets.check_types import CheckReport, spread
from eofm.datasets.eurosat import CLASSES
from eofm.datasets.pack_config import PackSsl4eoConfig
from eofm.datasets.sets_config import CheckConfig
from eofm.datasets.ssl4eo_pack import pack_ssl4eo
from eofm.errors import ConfigError, DataError
from eofm.world.config import WorldConfig
from eofm.world.files import write_world


def check(path: Path, **more: object) -> CheckReport:
    """Check a folder."""
    return check_data(CheckConfig(path=str(path), **more))


def problems(report: CheckReport) -> dict[str, list[str]]:
    """Problem -> names."""
    return {problem: [f.name for f in found] for problem, found in report.by_problem.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three places of the embedded world."""
    root = tmp_path_factory.mktemp("made") / "world"
    write_world(WorldConfig(out=str(root), scenes=3, size=48, seed=1))
    return root


@pytest.fixture
def world(made: Path, tmp_path: Path) -> Path:
    """A copy to do harm to."""
    return Path(shutil.copytree(made, tmp_path / "world"))


# -------------------------------------------------------------------------- sound sets


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
        (_no_crs, "nothing about where it lies"),
        (_offset, "offset of processing baseline 04.00"),
        (_reflectance, "not of the size that unit dn has"),
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


def test_bands_in_another_order(world: Path) -> None:
    """Radar bands that were exchanged in every scene are seen."""
    for folder in world.glob("s1/*/*"):
        (folder / "VV.tif").rename(folder / "x.tif")
        (folder / "VH.tif").rename(folder / "VV.tif")
        (folder / "x.tif").rename(folder / "VH.tif")

    assert any("VH is darker than VV" in problem for problem in problems(check(world)))


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


@pytest.mark.parametrize("name", ["worldcereal", "nowhere"])
def test_other_folders(real_data: Path, name: str) -> None:
    """A folder that eofm does not know is refused, with the list of those it does."""
    with pytest.raises(DataError):
        check(real_data / name)


def test_settings() -> None:
    """Half a statement, and a negative limit, are refused."""
    with pytest.raises(ConfigError, match="belong together"):
        CheckConfig(path="p", sensor="s2-l1c")
    with pytest.raises(ConfigError, match="negative"):
        CheckConfig(path="p", limit=-1)


def test_spread() -> None:
    """The sample holds the first and the last, each once, and all where there is no limit."""
    assert [0, 1, 2] == spread(3, 0)
    assert [0, 1, 2] == spread(3, 3)
    assert [0, 33, 66, 99] == spread(100, 4)
    assert [0] == spread(100, 1)
