"""A real QGIS opens the layers with their styles, and runs the provider of `contrib/qgis`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import rasterio
from matplotlib.image import imread
from vector_world import chips_of, drawn, on_disk, world

import eofm
from eofm.geo.mapping.class_map import map_classes
from eofm.geo.mapping.map_files import write_map
from eofm.geo.vectors.grid_file import write_tiff

PYTHON = Path("/usr/bin/python3")
PLUGINS = Path(__file__).parents[2] / "contrib" / "qgis"


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


def test_the_provider_runs_the_program_of_another_python(tmp_path: Path) -> None:
    """`qgis_process run eofm:map` writes a map by this Python; its error is the program's own."""
    require_qgis()
    patches, truth = world(size=(24, 24))
    write_tiff(tmp_path / "patches.tif", patches)
    labels = on_disk(drawn(patches, truth), tmp_path / "labels.gpkg", "EPSG:4326")
    root = Path(eofm.__file__).parents[1]
    program = tmp_path / "eofm"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{root}" exec "{sys.executable}" -m eofm "$@"\n')
    program.chmod(0o755)
    variables = {**settings(tmp_path / "home"), "EOFM_PROGRAM": str(program)}
    variables |= {k: v for k, v in os.environ.items() if k.startswith("OMP_")}
    processing(["plugins", "enable", "eofm_processing"], variables)
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
