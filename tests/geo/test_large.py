"""Scenes far larger than what may be in memory, and runs that are killed from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from geo_scenes import BANDS, GRIDS, export, small_encoder, texture, write_scene

from eofm.geo.embedding_files import open_chips, open_patches

pytestmark = pytest.mark.slow

TILE = 1_000
PROGRAM = """
import resource, sys
from eofm.cli import main
status = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
raise SystemExit(status)
"""


def virtual_scene(folder: Path, side: int) -> Path:
    """A VRT of that many pixels at a side, of one small file again and again."""
    tile = folder / "tile.tif"
    if not tile.exists():
        write_scene(tile, texture(TILE, TILE))
    crs, t = GRIDS["utm"]
    bands = []
    for number, name in enumerate(BANDS, 1):
        sources = "".join(
            f"<SimpleSource><SourceFilename relativeToVRT='1'>tile.tif</SourceFilename>"
            f"<SourceBand>{number}</SourceBand>"
            f"<SrcRect xOff='0' yOff='0' xSize='{TILE}' ySize='{TILE}'/>"
            f"<DstRect xOff='{x}' yOff='{y}' xSize='{TILE}' ySize='{TILE}'/></SimpleSource>"
            for y in range(0, side, TILE)
            for x in range(0, side, TILE)
        )
        bands.append(
            f"<VRTRasterBand dataType='UInt16' band='{number}'>"
            f"<Description>{name}</Description>{sources}</VRTRasterBand>"
        )
    place = ", ".join(map(str, t.to_gdal()))
    file = folder / f"scene{side}.vrt"
    file.write_text(
        f"<VRTDataset rasterXSize='{side}' rasterYSize='{side}'><SRS>{crs}</SRS>"
        f"<GeoTransform>{place}</GeoTransform>{''.join(bands)}</VRTDataset>"
    )
    return file


def words(scene: Path, model: str, out: Path) -> list[str]:
    """The command that embeds a large scene of these in a few thousand windows."""
    return [
        "embed", str(scene), "--sensor", "s2-l2a", "--unit", "dn", "--model", model, "--chips",
        "400", "--patches", "--window", "500", "--quantization", "int8", "--device", "cpu",
        "--out", str(out), "--force", "scale",
    ]  # fmt: skip


def peak(scene: Path, model: str, out: Path) -> int:
    """The most memory in MB that a process takes to embed a scene."""
    command = [sys.executable, "-c", PROGRAM, *words(scene, model, out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    return int(done.stderr.split()[-1])


def test_memory_is_flat(tmp_path: Path) -> None:
    """20,000 x 20,000 pixels take hardly more memory than 2,000 x 2,000, a hundredth of them."""
    model = export(tmp_path / "model", small_encoder(70))

    small = peak(virtual_scene(tmp_path, 2_000), model, tmp_path / "small")
    large = peak(virtual_scene(tmp_path, 20_000), model, tmp_path / "large")

    assert open_patches(tmp_path / "large").valid.shape == (200, 200)
    assert len(open_chips(tmp_path / "large")) == 2_500
    # GDAL keeps up to 256 MB of what it has decoded, and the VRT its four hundred sources
    assert large < small + 450


def test_a_killed_process_goes_on(tmp_path: Path) -> None:
    """Killed by signal in the middle of its work, a run ends with the bytes of a quiet one."""
    model = export(tmp_path / "model", small_encoder(70))
    scene = virtual_scene(tmp_path, 4_000)
    peak(scene, model, tmp_path / "quiet")

    out = tmp_path / "killed"
    kills = 0
    for wait in (2, 3, 4, 5, 6, 1_000):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words(scene, model, out)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        work = time.monotonic()
        while process.poll() is None and time.monotonic() - work < 600:
            if list(out.glob("*.work")) and time.monotonic() - work > wait:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.05)
        if process.wait() == 0:
            break

    assert kills
    for name in ("chips.parquet", "patches.tif", "chips.item.json"):
        assert (out / name).read_bytes() == (tmp_path / "quiet" / name).read_bytes()
    quiet, killed = (open_patches(tmp_path / n / "patches.zarr") for n in ("quiet", "killed"))
    assert np.array_equal(quiet.array, killed.array, equal_nan=True)
