"""`eofm embed`: what a user sees, of good scenes and of bad ones."""

from __future__ import annotations

import errno
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401 (gives Dataset its .rio)
import xarray as xr
from affine import Affine
from geo_scenes import BANDS, config, export, small_encoder, texture, write_scene
from safe_product import write_product

import eofm
from eofm.cli import main
from eofm.contract.recipe import Pooling, default_recipe
from eofm.errors import ConfigError, DataError, EofmError, PixelError, RasterError, SpecMismatch
from eofm.formats.foreign import sealed
from eofm.geo.embedding.config import EmbedConfig
from eofm.geo.embedding.embed import embed
from eofm.geo.embedding.job import Work
from eofm.geo.embedding_files import open_chips, open_embeddings, open_patches
from eofm.geo.embeddings import PatchGrid, require_same_vectors
from eofm.weights.cards import WEIGHTS
from eofm.weights.encoder import random_encoder


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The folder of a small encoder for three bands of Level-2A."""
    return export(tmp_path / "model", small_encoder())


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A small scene."""
    return write_scene(tmp_path / "scene.tif", texture(64, 96))


def test_the_command_line(scene: Path, model: str, tmp_path: Path, capsys) -> None:
    """One command writes both layouts, and says what they are; the same again finds them there."""
    words = ["embed", str(scene), "--sensor", "s2-l2a", "--unit", "dn", "--model", model]
    words += ["--chips", "32", "--patches", "--out", str(tmp_path / "out")]

    assert main(words) == 0
    first = capsys.readouterr().out
    assert main(words) == 0
    second = capsys.readouterr().out

    assert "6 chips, float32" in first
    assert "5 x 7 patches of 140 m, 34 with a vector, float16" in first
    assert second.count("complete already") == 2
    assert len(open_chips(tmp_path / "out")) == 6
    assert open_patches(tmp_path / "out").valid.shape == (5, 7)


def test_the_settings_that_are_kept_can_be_run_again(
    scene: Path, model: str, tmp_path: Path
) -> None:
    """`config.yaml` of a run is a `--config` that makes the same vectors."""
    embed(config(scene, model, tmp_path / "a", chips=16, stride=8))

    status = main(
        ["embed", "--config", str(tmp_path / "a" / "config.yaml"), "--out", str(tmp_path / "b")]
    )

    assert status == 0
    first, second = (tmp_path / name / "chips.parquet" for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_explain_says_what_would_be_done_and_writes_nothing(
    scene: Path, model: str, tmp_path: Path
) -> None:
    """Grid, windows, plan, ground of a patch, size and time are said; no folder is made."""
    out = tmp_path / "out"

    text = embed(config(scene, model, out, patches=True, explain=True)).describe()

    assert not out.exists()
    for words in (
        "64 x 96 px at 10 m",
        "6 of 32 px, 320 m on the ground, every 32 px",
        "5 x 7 of 14 px, 140 m on the ground",
        "resize to 28 x 28",
        "35 x 192 float16, 13.4 kB",
        "windows/s",
    ):
        assert words in text


def test_a_safe_product_says_itself_what_it_is(tmp_path: Path) -> None:
    """Neither sensor nor unit is stated; date and hash of the product stand in the table."""
    product = write_product(tmp_path)
    name = "random:vit-tiny-14"
    # its digital numbers are made up, and no scenery has such ones
    plain = EmbedConfig([str(product)], name, str(tmp_path / "out"), chips=12, size=28)

    embed(replace(plain, force=["pixels"]))

    found = open_chips(tmp_path / "out")
    opened = eofm.open_scene(product)
    assert found.provenance.sensor == str(opened.sensor)
    assert found.provenance.unit == str(opened.unit)
    assert found.table["datetime"].iloc[0].isoformat()[:19] == opened.date
    assert len(found.provenance.scenes[0].sha256) == 64


def test_a_list_may_lie_beside_its_scenes(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names in it are seen from the working directory, or else from the list; a BOM is none."""
    (tmp_path / "data").mkdir()
    (tmp_path / "work").mkdir()
    for number, folder in enumerate(("data", "data", "work")):
        write_scene(tmp_path / folder / f"s{number}.tif", texture(32, 32, number))
    listed = tmp_path / "data" / "scenes.txt"
    listed.write_bytes("\ufeffs0.tif\r\ns1.tif\r\n../work/s2.tif\r\n".encode())
    monkeypatch.chdir(tmp_path / "work")

    done = embed(config(listed, model, tmp_path / "out", chips=16))

    assert not done.failed
    assert len(open_embeddings(tmp_path / "out").provenance.scenes) == 3


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_several_scenes_are_jobs_of_their_own(model: str, tmp_path: Path, workers: int) -> None:
    """A list of scenes makes a folder for each; one that fails does not stop the others."""
    for number in range(2):
        write_scene(tmp_path / f"s{number}.tif", texture(32, 32, number))
    write_scene(tmp_path / "dark.tif", np.zeros((3, 32, 32), np.uint16))
    listed = tmp_path / "scenes.txt"
    listed.write_text("\n".join(str(tmp_path / f"{n}.tif") for n in ("s0", "dark", "s1")))

    done = embed(config(listed, model, tmp_path / "out", chips=16, workers=workers))

    assert done.status == 1
    assert [*done.failed] == ["dark"]
    assert "free of clouds" in done.describe()
    vectors = [open_chips(tmp_path / "out" / name).vectors for name in ("s0", "s1")]
    assert not np.allclose(*vectors)
    grids = replace(config(listed, model, tmp_path / "grids"), chips=None, patches=True)
    embed(replace(grids, scenes=[str(tmp_path / "s0.tif"), str(tmp_path / "s1.tif")]))
    with pytest.raises(DataError, match="no embeddings") as caught:
        open_embeddings(tmp_path / "grids")
    assert isinstance(open_embeddings(str(caught.value.remedy).rpartition(": ")[2]), PatchGrid)
    both = open_chips(tmp_path / "out")
    assert np.array_equal(both.vectors, np.concatenate(vectors))
    assert ["s0", "s1"] == [scene.id for scene in both.provenance.scenes]
    assert ["s0_0_0", "s1_0_0"] == [name for name in both.table["id"] if name.endswith("_0_0")]
    with pytest.raises(DataError, match="no embeddings of patches") as caught:
        open_patches(tmp_path / "out")
    assert "eofm embed" in str(caught.value.remedy)  # no folder of one scene, which has none either


def test_scenes_of_two_zones_are_searched_together(model: str, tmp_path: Path, capsys) -> None:
    """Chips of int8 with codes of their own, of one named grid, in one table and one search."""
    places = {"west": ("EPSG:32632", 500_000), "east": ("EPSG:32633", 500_000)}
    for number, (name, (crs, x)) in enumerate(places.items()):
        there = Affine(10, 0, x, 0, -10, 5_400_000)
        pixels = texture(96, 96, number)
        write_scene(tmp_path / f"{name}.tif", pixels, crs=crs, transform=there)
    listed = tmp_path / "scenes.txt"
    listed.write_text("\n".join(str(tmp_path / f"{name}.tif") for name in places))
    asked = config(listed, model, tmp_path / "out", chips=32, quantization="int8")
    embed(replace(asked, grid="majortom"))

    every = open_chips(tmp_path / "out")
    apart = {name: open_chips(tmp_path / "out" / name) for name in places}
    assert {"east", "west"} == set(every.table["scene"])
    for name, own in apart.items():
        mine = np.flatnonzero(every.table["scene"] == name)
        assert np.array_equal(own.vectors, every.vectors[mine])
        degrees = every.table.iloc[mine].to_crs(4326).geometry
        assert degrees.geom_equals_exact(own.table.to_crs(4326).geometry, 1e-6, align=False).all()

    words = ["search", str(tmp_path / "out"), "--at", "9.002,48.747", "--top", "5"]
    assert 0 == main([*words, "--out", str(tmp_path / "found")])
    assert "chips of 2 scenes together" in capsys.readouterr().err
    import geopandas

    names = geopandas.read_file(tmp_path / "found" / "ranked.gpkg")["id"]
    assert set(names) <= set(every.table["id"])

    shutil.copytree(tmp_path / "out", tmp_path / "mixed")
    shutil.rmtree(tmp_path / "mixed" / "east")
    other = export(tmp_path / "other", small_encoder(42))
    east = config(tmp_path / "east.tif", other, tmp_path / "mixed" / "east", chips=32)
    embed(east)
    with pytest.raises(EofmError, match="cannot be compared") as caught:
        open_chips(tmp_path / "mixed")
    assert "chips.parquet" in str(caught.value.where)


def test_a_scene_that_cannot_be_opened_does_not_stop_the_others(
    model: str, tmp_path: Path, capsys
) -> None:
    """It is a job that failed, named with its reason; of scenes that run it is said how far."""
    listed = three_scenes(tmp_path)
    lost, nowhere = tmp_path / "lost.tif", tmp_path / "nowhere.tif"
    write_scene(nowhere, texture(32, 32), crs=None)
    listed.write_text(f"{lost}\n{listed.read_text()}\n{nowhere}\n")
    asked = config(listed, model, tmp_path / "out", chips=16)

    done = embed(asked)

    assert (1, 3) == (done.status, len(done.done))
    assert [*done.failed] == [str(lost), str(nowhere)]
    assert "no such file" in done.describe()
    assert "no georeference" in done.describe()
    assert "scene 3 of 3: t2, about " in capsys.readouterr().err
    explained = embed(replace(asked, explain=True)).describe()
    assert "no such file" in explained
    assert "about 1 s" in explained

    listed.write_text(f"{lost}\n{nowhere}\n")
    with pytest.raises(DataError, match="no such file"):
        embed(asked)


@pytest.mark.parametrize("text", ["", "\n\n", "# scenes of May\n"])
def test_a_list_without_a_scene_is_refused(text: str, model: str, tmp_path: Path) -> None:
    """It made nothing, and said nothing, with status 0."""
    listed = tmp_path / "scenes.txt"
    listed.write_text(text)

    with pytest.raises(DataError, match="list of scenes is empty"):
        embed(config(listed, model, tmp_path / "out"))


@pytest.mark.parametrize("layout", ["chips", "patches"])
def test_a_scene_without_enough_ground_says_how_much_there_is(
    layout: str, model: str, tmp_path: Path
) -> None:
    """The share is counted, and the one that the remedy names makes vectors."""
    pixels = texture(56, 56)
    pixels[:, np.random.default_rng(0).random((56, 56)) < 0.7] = 0
    scene = write_scene(tmp_path / "thin.tif", pixels, nodata=0)
    asked = config(scene, model, tmp_path / "out", **{layout: 14 if layout == "chips" else True})
    if layout == "patches":
        asked = replace(asked, chips=None)

    with pytest.raises(DataError, match="free of clouds") as caught:
        embed(asked)

    measured = (pixels[0] > 0).mean()
    assert str(caught.value.found).startswith(f"{measured:.1%} of the pixels of ")
    less = str(caught.value.remedy).rpartition("--min_valid ")[2]
    embed(replace(asked, min_valid=float(less)))

    empty = write_scene(tmp_path / "empty.tif", np.zeros((3, 56, 56), np.uint16))
    with pytest.raises(DataError, match="free of clouds") as caught:
        embed(replace(asked, scenes=[str(empty)], out=str(tmp_path / "none")))
    assert "--min_valid" not in str(caught.value.remedy)


def test_a_job_that_is_refused_leaves_the_settings_of_the_other(
    scene: Path, model: str, tmp_path: Path
) -> None:
    """`config.yaml` is that of the half-finished job, not of whoever asks for another one there."""
    out = tmp_path / "out"
    Work(out / ".chips.work", "another job").commit(1)
    (out / "config.yaml").write_text("of the other\n")

    with pytest.raises(ConfigError, match="half finished"):
        embed(config(scene, model, out))

    assert (out / "config.yaml").read_text() == "of the other\n"


def three_scenes(folder: Path) -> Path:
    """Write three scenes, and return the list of them."""
    names = [write_scene(folder / f"t{i}.tif", texture(32, 32, i)) for i in range(3)]
    (folder / "three.txt").write_text("\n".join(map(str, names)))
    return folder / "three.txt"


def vectors_in(folder: Path) -> list[bytes]:
    """The bytes of the vectors of three scenes."""
    return [(folder / f"t{i}" / "chips.parquet").read_bytes() for i in range(3)]


@pytest.mark.slow  # two processes import torch
def test_scenes_are_divided_among_devices(model: str, tmp_path: Path) -> None:
    """A process for each device, here twice the CPU; the vectors are those of one process."""
    plain = config(three_scenes(tmp_path), model, tmp_path / "plain", chips=16, device="cpu")
    embed(plain)

    done = embed(replace(plain, out=str(tmp_path / "both"), device="auto", devices=["cpu", "cpu"]))

    assert (0, 3) == (done.status, len(done.done))
    assert vectors_in(tmp_path / "plain") == vectors_in(tmp_path / "both")


def test_scenes_on_a_dask_cluster(model: str, tmp_path: Path) -> None:
    """On a cluster the vectors have the same bytes, and a scene that fails stops no other."""
    distributed = pytest.importorskip("distributed")
    listed = three_scenes(tmp_path)
    plain = config(listed, model, tmp_path / "plain", chips=16, device="cpu")
    embed(plain)
    write_scene(tmp_path / "dark.tif", np.zeros((3, 32, 32), np.uint16))
    listed.write_text(listed.read_text() + f"\n{tmp_path / 'dark.tif'}")

    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "protocol": "tcp"}
    with distributed.LocalCluster(**options, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        done = embed(replace(plain, out=str(tmp_path / "cluster"), dask=address))

    assert ["dark"] == [*done.failed]
    assert vectors_in(tmp_path / "plain") == vectors_in(tmp_path / "cluster")
    kept = (tmp_path / "cluster" / "config.yaml").read_text()
    assert f"dask: {address}" in kept
    assert not (tmp_path / "cluster" / "t0" / "config.yaml").exists()


def test_two_scenes_of_one_name_are_refused(model: str, tmp_path: Path) -> None:
    """They would be written over each other."""
    (tmp_path / "other").mkdir()
    scenes = [write_scene(tmp_path / p / "s.tif", texture(32, 32)) for p in ("", "other")]
    both = EmbedConfig(
        [str(s) for s in scenes], model, str(tmp_path / "out"), sensor="s2-l2a", unit="dn"
    )

    with pytest.raises(ConfigError, match="the same name"):
        embed(both)


# ---------------------------------------------------------------------------- bad input


def test_another_job_in_the_folder_is_refused(scene: Path, model: str, tmp_path: Path) -> None:
    """Finished or half finished, vectors of other settings are not overwritten."""
    out = tmp_path / "out"
    embed(config(scene, model, out, chips=32))

    kept = (out / "config.yaml").read_text()
    with pytest.raises(ConfigError, match="another job"):
        embed(config(scene, model, out, chips=16))
    assert kept == (out / "config.yaml").read_text()

    shutil.rmtree(out)
    work = out / ".chips.work"
    work.mkdir(parents=True)
    (work / "state.json").write_text(json.dumps(sealed({"job": "other", "done": 1})))
    with pytest.raises(ConfigError, match="half finished") as caught:
        embed(config(scene, model, out, chips=32))
    words = shlex.split(str(caught.value.remedy).partition("remove it: ")[2])
    assert words[:2] == ["rm", "-r"]
    shutil.rmtree(words[2])
    embed(config(scene, model, out, chips=32))


def test_vectors_of_two_models_do_not_mix(scene: Path, model: str, tmp_path: Path) -> None:
    """Vectors of another network are refused by whoever compares them; of another scene, not."""
    other = export(tmp_path / "other", small_encoder(pooling=Pooling.MEAN))
    brighter = write_scene(tmp_path / "brighter.tif", texture(64, 96) + 1_000)
    embed(config(scene, model, tmp_path / "a", chips=32))
    embed(config(scene, other, tmp_path / "b", chips=32))
    embed(config(brighter, model, tmp_path / "c", chips=32, unit="dn-offset1000"))
    embed(config(scene, model, tmp_path / "d", chips=16))

    a, b, c, d = (open_chips(tmp_path / name).provenance for name in "abcd")

    require_same_vectors(a, c)
    assert a.plan_hash != c.plan_hash
    for other_way in (b, d):
        with pytest.raises(EofmError, match="cannot be compared"):
            require_same_vectors(a, other_way)


def test_a_full_disk_loses_nothing(scene: Path, model: str, tmp_path: Path, monkeypatch) -> None:
    """One clear error; with room again the same command goes on with what is finished."""
    monkeypatch.setattr("eofm.geo.embedding.outputs._BLOCK", 1)
    real, calls = eofm.geo.embedding.job.write_all, []

    def full(handle: int, data: memoryview) -> None:
        calls.append(len(data))
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle, data)

    settings = config(scene, model, tmp_path / "out", chips=32, batch=1)
    with monkeypatch.context() as patch:
        patch.setattr("eofm.geo.embedding.job.write_all", full)
        with pytest.raises(DataError, match="cannot be written") as caught:
            embed(settings)
    assert "No space" in str(caught.value.found)

    before = len(calls)
    with monkeypatch.context() as patch:
        patch.setattr("eofm.geo.embedding.job.write_all", full)  # its fourth call is over
        embed(settings)
    assert len(calls) - before == 2 * (6 - 1)
    assert len(open_chips(tmp_path / "out")) == 6


def test_a_disk_without_room_is_said_before(scene, model, tmp_path: Path, monkeypatch) -> None:
    """What cannot fit is not begun."""
    usage = type(shutil.disk_usage("/"))(10, 9, 1)
    monkeypatch.setattr("eofm.geo.embedding.job.shutil.disk_usage", lambda folder: usage)

    with pytest.raises(DataError, match="no space"):
        embed(config(scene, model, tmp_path / "out"))


def test_a_scene_of_another_sensor_is_refused(scene: Path, model: str, tmp_path: Path) -> None:
    """Level-1C in a network of Level-2A is refused, and forced only by name, which is written."""
    stranger = config(scene, model, tmp_path / "out", sensor="s2-l1c", chips=32)
    with pytest.raises(SpecMismatch, match="another sensor"):
        embed(stranger)

    embed(config(scene, model, tmp_path / "out", sensor="s2-l1c", force=["sensor"], chips=32))

    assert open_chips(tmp_path / "out").provenance.sensor == "s2-l1c"


def test_a_band_that_is_missing_is_filled_only_by_force(tmp_path: Path) -> None:
    """Level-2A in a network of Level-1C with B10, as SoftCon's: by the words its card names."""
    bands = (*BANDS, "B10")
    spec = eofm.ImageSpec(eofm.Sensor.S2_L1C, bands, eofm.Unit.DN, None, 10.0)
    encoder = random_encoder("vit-tiny-14-2blocks", default_recipe(spec, (28, 28), Pooling.CLS), 0)
    model = export(tmp_path / "model", encoder)
    scene = write_scene(tmp_path / "scene.tif", texture(64, 64))
    plain = config(scene, model, tmp_path / "out", chips=32)
    note = WEIGHTS["softcon_vits14_s2"].note
    words = note.partition("--force ")[2].partition("`")[0].split()
    with pytest.raises(SpecMismatch):
        embed(plain)
    with pytest.raises(SpecMismatch, match="B10"):
        embed(replace(plain, force=words[:1]))

    embed(replace(plain, force=words))

    item = json.loads((tmp_path / "out" / "chips.item.json").read_text())
    lines = "\n".join(item["properties"]["emb:preprocessing"]["expression"])
    assert "insert B10 = 0 (normalised)" in lines
    assert "AcceptSensor" in lines
    assert len(open_chips(tmp_path / "out")) == 4


def test_pixels_of_another_scale_are_refused(model: str, tmp_path: Path) -> None:
    """Pixels of 60 m are not those of Sentinel-2; forced, they are taken."""
    coarse = Affine(60, 0, 500_000, 0, -60, 5_400_000)
    scene = write_scene(tmp_path / "scene.tif", texture(32, 32), transform=coarse)
    with pytest.raises(SpecMismatch, match="ground size of the pixels"):
        embed(config(scene, model, tmp_path / "out", chips=32))

    embed(config(scene, model, tmp_path / "out", chips=32, force=["scale"]))

    assert open_chips(tmp_path / "out").provenance.settings["patch_metres"] == 1920


def test_pixels_of_another_unit_are_refused(model: str, tmp_path: Path) -> None:
    """Reflectance stated as digital numbers is refused before a vector is made."""
    pixels = texture(64, 64).astype(np.float32) / 10_000
    scene = write_scene(tmp_path / "scene.tif", pixels)
    with pytest.raises(PixelError) as caught:
        embed(config(scene, model, tmp_path / "out", chips=32))

    assert "--force pixels" in str(caught.value.remedy)
    assert not (tmp_path / "out" / "chips.parquet").exists()
    embed(config(scene, model, tmp_path / "out", chips=32, force=["pixels"]))


def test_undeclared_nodata_in_the_middle_of_a_scene_is_refused(model: str, tmp_path: Path) -> None:
    """Every window is looked at, not only the first ones, and the place is named."""
    pixels = texture(64, 640).astype(np.int16)
    pixels[:, 40:44, 500:504] = -9_999
    scene = write_scene(tmp_path / "scene.tif", pixels)

    with pytest.raises(PixelError, match=r"row 32, column \d+"):
        embed(config(scene, model, tmp_path / "out", chips=16))


@pytest.mark.parametrize(
    ("changes", "profile", "error", "words"),
    [
        ({}, {"crs": None}, RasterError, "no georeference"),
        ({}, {"transform": Affine(0, 10, 5e5, 10, 0, 5.4e6)}, RasterError, "west to east"),
        ({"where": "0,0,1,1"}, {}, RasterError, "area is outside the image"),
        ({"where": "nowhere.gpkg"}, {}, EofmError, "four numbers"),
        ({"where": "9,48,8,49"}, {}, EofmError, "west to east"),
        ({"cloud_mask": "SCL"}, {}, RasterError, "no cloud mask"),
        ({"cloud_mask": "haze"}, {}, RasterError, "there is no cloud mask"),
        ({"window": 31, "patches": True}, {}, ConfigError, "whole pixels"),
        ({"overlap": 2, "patches": True}, {}, ConfigError, "more than half"),
        ({"size": 56}, {}, ConfigError, "state the size"),
        ({"unit": "celsius"}, {}, EofmError, "no unit"),
        ({"model": "softcon_vits14_s3"}, {}, EofmError, "no such weights"),
    ],
)
def test_bad_input_is_one_clear_error(
    model: str, tmp_path: Path, changes, profile, error, words: str
) -> None:
    """No foreign exception reaches a user, and nothing is left half written."""
    scene = write_scene(tmp_path / "scene.tif", texture(64, 64), **profile)

    with pytest.raises(error) as caught:
        embed(replace(config(scene, model, tmp_path / "out"), **changes))

    assert words in str(caught.value)


def test_remedies_of_the_patch_grid_work(scene: Path, model: str, tmp_path: Path) -> None:
    """The windows, the overlap and the stride that an error names are taken."""
    for changes in ({"window": 31}, {"overlap": 2}, {"stride": 6}):
        with pytest.raises(ConfigError) as caught:
            embed(config(scene, model, tmp_path / "out", patches=True, chips=None, **changes))
        word, value = str(caught.value.remedy).split()
        repaired = {word.removeprefix("--"): int(value)}
        name = tmp_path / word
        embed(config(scene, model, name, patches=True, chips=None, **repaired))
        assert open_patches(name).valid[:4, :6].all()


@pytest.mark.parametrize(
    "changes",
    [
        {"chips": 0}, {"min_valid": 0.0}, {"min_valid": 1.5}, {"batch": 0}, {"overlap": -1},
        {"force": ["unit"]}, {"formats": ["png"]}, {"window": 28}, {"scenes": []},
        {"chips": 16, "patches": True, "stride": 7}, {"device": "gpu"}, {"devices": ["cuda:x"]},
        {"workers": 2, "dask": "tcp://x:1"}, {"devices": ["cpu", "cpu"], "workers": 2},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(scene: Path, model: str, tmp_path: Path, changes) -> None:
    """Each is refused before anything is read."""
    with pytest.raises(ConfigError):
        config(scene, model, tmp_path / "out", **changes)


def test_areas_are_read_from_files(model: str, tmp_path: Path) -> None:
    """GeoJSON and GeoPackage in another CRS cut out the same ground as numbers do."""
    import geopandas
    import shapely

    scene = write_scene(tmp_path / "scene.tif", texture(96, 96), "degrees")
    box = shapely.box(9.0032, 48 - 0.0064, 9.0064, 48 - 0.0032)
    table = geopandas.GeoDataFrame(geometry=[box], crs="EPSG:4326")
    table.to_file(tmp_path / "a.geojson", driver="GeoJSON")
    table.to_crs(32632).to_file(tmp_path / "a.gpkg")
    # older than RFC 7946, but what QGIS and ogr2ogr write of a layer in metres
    table.to_crs(32632).to_file(tmp_path / "metres.geojson", driver="GeoJSON")
    (tmp_path / "bare.geojson").write_text(json.dumps(shapely.geometry.mapping(box)))
    words = {
        "numbers": ",".join(f"{x:.6f}" for x in box.bounds),
        "json": str(tmp_path / "a.geojson"),
        "metres": str(tmp_path / "metres.geojson"),
        "bare": str(tmp_path / "bare.geojson"),
        "package": str(tmp_path / "a.gpkg"),
    }

    found = {}
    for name, where in words.items():
        embed(config(scene, model, tmp_path / name, chips=32, where=where, min_valid=0.9))
        found[name] = list(open_chips(tmp_path / name).table["id"])

    assert [found[name] for name in words] == [["scene_32_32"]] * 5


def test_an_address_that_does_not_answer_is_one_error(model: str, tmp_path: Path) -> None:
    """A scene on a server that is not there is said as such."""
    there = EmbedConfig(
        ["http://127.0.0.1:9/scene.tif"], model, str(tmp_path / "out"), sensor="s2-l2a", unit="dn"
    )

    with pytest.raises(RasterError, match="URL"):
        embed(there)


def test_the_real_sites(real_data: Path, tmp_path: Path) -> None:
    """A TerraMesh site and a patch of S2-100K: every chip and patch of real pixels has a vector."""
    site = next(
        p for p in sorted((real_data / "terramesh/S2L1C").glob("*.tif")) if p.name[0] == "3"
    )
    settings = {"size": 56, "chips": 32, "patches": True}
    embed(config(site, "random:vit-tiny-14", tmp_path / "a", sensor="s2-l1c", **settings))
    patch = sorted((real_data / "s2_100k/images").glob("*.tif"))[3]
    embed(config(patch, "random:vit-tiny-14", tmp_path / "b", sensor="s2-l2a", **settings))

    assert open_patches(tmp_path / "a").valid.shape == (16, 16)
    assert open_patches(tmp_path / "a").valid.all()
    assert len(open_chips(tmp_path / "a")) == 49
    assert len(open_chips(tmp_path / "b")) == 64
    with rasterio.open(site) as source, rasterio.open(tmp_path / "a" / "patches.tif") as found:
        assert source.bounds == found.bounds


@pytest.mark.parametrize("layout", ["--chips", "--patches"])
def test_a_scene_that_is_refused_leaves_no_job_behind(
    layout: str, scene: Path, model: str, tmp_path: Path, capsys
) -> None:
    """After a wrong unit the right one is no "other job that is half finished"."""
    words = [
        "embed",
        str(scene),
        "--sensor",
        "s2-l2a",
        "--model",
        model,
        "--out",
        str(tmp_path / "o"),
    ]
    words += [layout, *(["32"] if layout == "--chips" else [])]

    assert main([*words, "--unit", "reflectance"]) == 1
    assert "in the range of unit reflectance" in capsys.readouterr().err
    assert main([*words, "--unit", "dn"]) == 0


def test_one_time_of_a_series_is_embedded(model: str, tmp_path: Path, capsys) -> None:
    """A netCDF of several times was refused, with an option that there was not: `--time`."""
    series = tmp_path / "series.nc"
    dates = np.array(["2021-07-04T10:00:00", "2021-07-14T10:00:00"], "datetime64[ns]")
    x, y = 500_005 + 10.0 * np.arange(64), 5_399_995 - 10.0 * np.arange(56)
    cube = xr.Dataset(
        {
            band: (("time", "y", "x"), np.stack([texture(56, 64, seed)[k] for seed in (0, 1)]))
            for k, band in enumerate(BANDS)
        },
        coords={"time": dates, "y": y, "x": x},
    ).rio.write_crs("EPSG:32632")
    cube.to_netcdf(series)
    words = ["embed", str(series), "--sensor", "s2-l2a", "--unit", "dn", "--model", model]
    words += ["--patches", "--out"]

    assert 0 != main([*words, str(tmp_path / "a")])
    said = capsys.readouterr().err.partition("in Python, ")[2].partition(" in a command")[0]
    assert ["--time", "2021-07-04T10:00:00"] == shlex.split(said)
    assert 0 == main([*words, str(tmp_path / "a"), *shlex.split(said)])
    assert 0 == main([*words, str(tmp_path / "b"), "--time", "2021-07-14"])

    first, second = (open_patches(tmp_path / name) for name in "ab")
    assert ("2021-07-04T10:00:00",) == first.provenance.dates
    plain = write_scene(tmp_path / "plain.tif", texture(56, 64, 1))
    assert np.array_equal(
        second.rows(slice(None)),
        eofm.embed_patches(eofm.open_scene(plain, sensor="s2-l2a", unit="dn"), model)
        .array.to_numpy().astype(np.float16).transpose(1, 2, 0).astype(np.float32),
        equal_nan=True,
    )  # fmt: skip
    # two dates of one file are two dates, and its pictures are those of the time that is named
    change = ["change", str(tmp_path / "a"), str(tmp_path / "b"), "--rate", "0.4"]
    assert 0 == main([*change, "--out", str(tmp_path / "change")])
    page = ["explore", str(tmp_path / "a"), "--scene", str(series), "--sensor", "s2-l2a"]
    page += ["--unit", "dn", "--out", str(tmp_path / "page.html")]
    assert 0 != main(page)
    assert 0 == main([*page, *shlex.split(said)])
    sheet = ["search", str(tmp_path / "a"), "--at", "9.004,48.75", "--scene", str(series)]
    sheet += ["--sensor", "s2-l2a", "--unit", "dn", "--time", "2021-07-04"]
    assert 0 == main([*sheet, "--out", str(tmp_path / "found")])
    assert (tmp_path / "found/sheet.png").is_file()


def test_one_item_of_several_is_embedded(scene: Path, model: str, tmp_path: Path, capsys) -> None:
    """All items are jobs of their own; `--item` names one, also as the scene of a page."""
    items = [
        {
            "type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None,
            "properties": {"datetime": "2021-07-04T10:00:00Z", "processing:level": "L2A",
                           "constellation": "sentinel-2"},
            "links": [],
            "assets": {"data": {"href": str(scene), "eo:bands": [{"name": b} for b in BANDS]}},
        }
        for name in ("one", "two")
    ]  # fmt: skip
    file = tmp_path / "items.json"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    words = ["embed", str(file), "--unit", "dn", "--model", model, "--patches", "--item", "two"]

    assert 0 == main([*words, "--out", str(tmp_path / "out")]), capsys.readouterr().err
    (record,) = open_patches(tmp_path / "out").provenance.scenes
    assert "two" == record.id
    page = ["explore", str(tmp_path / "out"), "--scene", str(file), "--unit", "dn"]
    page += ["--out", str(tmp_path / "page.html")]
    assert 0 != main(page)
    said = capsys.readouterr().err.partition("in Python, ")[2].partition(" in a command")[0]
    assert 0 == main([*page, *shlex.split(said)])


@pytest.mark.slow
def test_a_real_series_is_embedded(real_data: Path, tmp_path: Path) -> None:
    """WorldCereal's netCDF at one of its 118 dates, from the command line."""
    (path,) = real_data.glob("worldcereal/S2_L2A_10m_*.nc")
    words = ["embed", str(path), "--sensor", "s2-l2a", "--unit", "dn", "--time", "2017-08-14"]
    words += ["--model", "random:vit-tiny-14", "--size", "56", "--patches"]

    assert 0 == main([*words, "--out", str(tmp_path / "out")])
    assert ("2017-08-14T10:55:17",) == open_patches(tmp_path / "out").provenance.dates


def test_what_needs_words_is_opened_first(scene: Path, tmp_path: Path) -> None:
    """`embed_chips` takes no sensor: the remedy is to open the scene; imagery says what it is."""
    encoder = small_encoder()
    for wrong in (scene, texture(64, 64)):
        with pytest.raises(EofmError) as refused:
            eofm.embed_chips(wrong, encoder)
        assert 'eofm.open_scene(source, sensor="s2-l2a", unit="dn")' in str(refused.value.remedy)
    opened = eofm.open_scene(scene, sensor="s2-l2a", unit="dn")

    found = eofm.embed_chips(opened.read(), encoder)

    assert np.array_equal(eofm.embed_chips(opened, encoder).vectors, found.vectors)
