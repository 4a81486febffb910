"""A real QGIS opens the layers with their styles, and runs the provider of `contrib/qgis`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from matplotlib.image import imread
from safe_product import PLACE, SIZE, write_product
from vector_world import chips_of, drawn, made_on, on_disk, world

import eofm
from eofm.contract.spec import BANDS, SENSOR_BANDS, Sensor
from eofm.geo.class_map import map_classes
from eofm.geo.class_map_files import write_map
from eofm.geo.embedding_files import open_patches, write_tiff
from eofm.geo.embeddings import patch_grid

PYTHON = Path("/usr/bin/python3")
PLUGINS = Path(__file__).parents[2] / "contrib" / "qgis"


def test_the_script_leaves_no_test_out() -> None:
    """Those with a QGIS are slow ones, which pytest runs only if it is asked to."""
    assert '-m ""' in (PLUGINS / "test.sh").read_text()


def settings(home: Path) -> dict[str, str]:
    """Variables of a QGIS without a screen, that knows nothing of this Python."""
    home.mkdir(exist_ok=True, mode=0o700)
    return {
        "QT_QPA_PLATFORM": "offscreen",
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "QGIS_PLUGINPATH": str(PLUGINS),
    }


def require_qgis() -> None:
    """Skip where there is no QGIS of the distribution, with its Python."""
    asked = [PYTHON, "-c", "import qgis.core"]
    if not PYTHON.exists() or subprocess.run(asked, check=False, capture_output=True).returncode:
        pytest.skip("no QGIS of the distribution, with its Python")


def processing(words: list[str], variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run QGIS's program for Processing; that of Debian's wrapper is broken, its own is not."""
    found = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
    if found is None:
        pytest.skip("no qgis_process")
    return subprocess.run(
        [found, *words], check=False, capture_output=True, text=True, env=dict(variables)
    )


@pytest.mark.slow
def test_qgis_opens_the_map_with_its_style(tmp_path: Path) -> None:
    """QGIS shows names and colours of the style, the CRS and nodata of the rasters."""
    require_qgis()
    patches, truth = world(size=(24, 24))
    layer = drawn(patches, truth)
    write_map(map_classes(patches, layer, "class"), tmp_path)
    write_map(map_classes(chips_of(patches), layer, "class"), tmp_path / "chips")
    script = Path(__file__).parent / "qgis_layers.py"
    done = subprocess.run(
        [PYTHON, script, tmp_path, tmp_path / "picture.png"],
        check=False,
        capture_output=True,
        text=True,
        env=settings(tmp_path / "home"),
    )
    assert 0 == done.returncode, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])

    assert "EPSG:32632" == found["crs"]
    assert ["built", "crops", "trees", "water"] == [label for _, label, _ in found["classes"]]
    assert 0 == found["nodata"]
    assert "singlebandpseudocolor" == found["probability"]
    assert ["built", "crops", "trees", "water"] == found["chips"]
    with rasterio.open(tmp_path / "map.tif") as raster:
        colours = raster.colormap(1)
    for value, _, colour in found["classes"]:
        assert "#{:02x}{:02x}{:02x}".format(*colours[value][:3]) == colour
    picture = (imread(tmp_path / "picture.png")[..., :3] * 255).round().astype(int)
    shown = {tuple(one) for one in picture.reshape(-1, 3).tolist()}
    assert {tuple(colours[value][:3]) for value, _, _ in found["classes"]} <= shown


def provider(folder: Path) -> dict[str, str]:
    """Enable the provider; return the variables of a QGIS whose program is this Python's eofm."""
    require_qgis()
    root = Path(eofm.__file__).parents[1]
    program = folder / "eofm"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{root}" exec "{sys.executable}" -m eofm "$@"\n')
    program.chmod(0o755)
    variables = {**settings(folder / "home"), "EOFM_PROGRAM": str(program)}
    variables |= {k: v for k, v in os.environ.items() if k.startswith("OMP_")}
    processing(["plugins", "enable", "eofm_processing"], variables)
    return variables


def succeed(verb: str, given: Mapping[str, object], variables: Mapping[str, str]) -> str:
    """Run an algorithm that has to succeed; return what it says."""
    words = [f"{name}={value}" for name, value in given.items()]
    done = processing(["run", f"eofm:{verb}", "--", *words], variables)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_provider_runs_the_program_of_another_python(tmp_path: Path) -> None:
    """`qgis_process run eofm:map` writes a map by this Python; its error is the program's own."""
    variables = provider(tmp_path)
    patches, truth = world(size=(24, 24))
    write_tiff(tmp_path / "patches.tif", patches)
    labels = on_disk(drawn(patches, truth), tmp_path / "labels.gpkg", "EPSG:4326")
    given = [f"EMBEDDINGS={tmp_path}", f"LABELS={labels}", f"OUT={tmp_path / 'out'}"]

    done = processing(["run", "eofm:map", "--", *given, "FIELD=class"], variables)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "overall accuracy" in done.stdout
    assert (tmp_path / "out" / "map.tif").is_file()

    failed = processing(["run", "eofm:map", "--", *given, "FIELD=class", "PURITY=2"], variables)
    assert 0 != failed.returncode
    assert "purity is out of range" in failed.stdout + failed.stderr

    without = {k: v for k, v in variables.items() if k != "EOFM_PROGRAM"}
    missing = processing(["run", "eofm:map", "--", *given, "FIELD=class"], without)
    assert "There is no eofm program" in missing.stdout + missing.stderr


@pytest.mark.slow
def test_the_provider_embeds_a_part_of_a_product(tmp_path: Path) -> None:
    """`eofm:embed` takes a SAFE product and an extent in any CRS; sensor and unit are not asked."""
    variables = provider(tmp_path)
    ramp = {
        band: (1000 + (10 + k) * np.add.outer(np.arange(side), np.arange(side))).astype(np.uint16)
        for k, band in enumerate(SENSOR_BANDS[Sensor.S2_L1C])
        for side in [SIZE * 10 // int(BANDS[band].gsd)]
    }
    product = write_product(tmp_path, pixels=ramp)
    west, north = PLACE.left, PLACE.top
    extent = f"{west + 70},{west + 230},{north - 230},{north - 70} [EPSG:{PLACE.epsg}]"
    given = {"SCENES": product, "MODEL": "random:vit-tiny-14", "SIZE": 28, "WHERE": extent}

    succeed("embed", {**given, "OUT": tmp_path / "emb"}, variables)

    found = open_patches(tmp_path / "emb")
    assert "dn-offset1000" == found.provenance.unit
    assert (2, 2) == found.valid.shape  # of 14 pixels each, over 18 pixels
    # cut between pixels of 60 m
    assert np.allclose(found.grid.point(0, 0), (west + 60, north - 60))


@pytest.mark.slow
def test_the_provider_searches(tmp_path: Path) -> None:
    """`eofm:search` by a place on the map, in any CRS, and by layers of examples."""
    variables = provider(tmp_path)
    patches, truth = world(size=(24, 24))
    write_tiff(tmp_path / "patches.tif", patches)
    layer = drawn(patches, truth)
    like = on_disk(layer[layer["class"] == "water"], tmp_path / "water.gpkg", "EPSG:4326")
    unlike = on_disk(layer[layer["class"] != "water"], tmp_path / "others.gpkg")
    x, y = patches.grid.point(4.5, 4.5)

    place = {"EMBEDDINGS": tmp_path, "AT": f"{x},{y} [EPSG:32632]", "TOP": 7}
    succeed("search", {**place, "OUT": tmp_path / "at"}, variables)
    layers = {"EMBEDDINGS": tmp_path, "LIKE": like, "UNLIKE": unlike}
    said = succeed("search", {**layers, "OUT": tmp_path / "like"}, variables)

    ranked = geopandas.read_file(tmp_path / "at" / "ranked.gpkg")
    middles = shapely.get_coordinates(ranked.centroid)
    rows = ((patches.grid.transform.f - middles[:, 1]) // 140).astype(int)
    columns = ((middles[:, 0] - patches.grid.transform.c) // 140).astype(int)
    assert 7 == len(ranked)
    assert (truth[rows, columns] == truth[4, 4]).all()
    assert "probability" in said
    assert (tmp_path / "like" / "score.tif").is_file()


@pytest.mark.slow
def test_the_provider_compares_dates(tmp_path: Path) -> None:
    """`eofm:change` of two dates, with a date between which nothing has changed."""
    variables = provider(tmp_path)
    patches, _ = world(size=(24, 24))
    for seed, name in enumerate(("before", "after", "unchanged")):
        (tmp_path / name).mkdir()
        noise = 0.05 * np.random.default_rng(seed).normal(size=patches.array.shape)
        values = patches.array.to_numpy() + noise.astype(np.float32)
        if name == "after":
            values[:, 3:6, 3:6] *= -1
        moved = patch_grid(values, patches.grid, made_on(seed))
        write_tiff(tmp_path / name / "patches.tif", moved)
    given = {"BEFORE": tmp_path / "before", "AFTER": tmp_path / "after", "RATE": 0.01}

    null = {"NULL": tmp_path / "unchanged", "OUT": tmp_path / "change"}
    said = succeed("change", {**given, **null}, variables)

    assert "cells changed" in said
    found = geopandas.read_file(tmp_path / "change" / "change.gpkg")
    side = patches.grid.transform.a
    assert (found.area >= 9 * side**2).any()
