"""Copies are told by their pixels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from eofm.bench.samples import copies_in_test, copy_remarks, values_sha256
from eofm.cli import main
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets.images.chips import Chip, FilePixels
from eofm.raster.source import RasterSource

BANDS = ("B02", "B03", "B04", "B08")
SPEC = ImageSpec(Sensor.S2_L2A, BANDS, Unit.DN, (16, 16), 10.0)


def write(path: Path, seed: int, **options: object) -> Path:
    """An image of its own pixels and ground."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(500, 3_000, (4, 16, 16))
    profile = {"driver": "GTiff", "count": 4, "height": 16, "width": 16, "dtype": "uint16"}
    place = Affine(10, 0, 400_000 + 1_000 * seed, 0, -10, 6_000_000)
    with rasterio.open(
        path, "w", **{**profile, "crs": "EPSG:32632", "transform": place, **options}
    ) as file:
        file.write(values.astype("uint16"))
    return path


def chip(path: Path, root: Path) -> Chip:
    """The image of a file, called like its path."""
    name = path.relative_to(root).with_suffix("").as_posix()
    source = RasterSource(name, (path,), Sensor.S2_L2A, Unit.DN, BANDS, 10.0)
    return Chip(name, 0, (FilePixels(source, SPEC),))


def test_content_decides_not_the_file(tmp_path: Path) -> None:
    """Other compression, tags and name: a copy; another file of the same name: none."""
    train = write(tmp_path / "train" / "a.tif", 1)
    copy = write(tmp_path / "test" / "b.tif", 1, compress="deflate", crs="EPSG:32633")
    same_name = write(tmp_path / "test" / "a.tif", 2)
    twin = write(tmp_path / "train" / "c.tif", 1)
    assert train.read_bytes() != copy.read_bytes()
    splits = {
        "train": [chip(train, tmp_path), chip(twin, tmp_path)],
        "val": [],
        "test": [chip(copy, tmp_path), chip(same_name, tmp_path)],
    }
    every = [one for part in splits.values() for one in part]
    digests = {one.id: values_sha256(one) for one in every}

    assert {"test/b": "train/c"} == copies_in_test(splits, digests)
    across, within = copy_remarks(splits, digests, tmp_path)
    assert across.startswith("Leak: copies of training images in test: test/b.tif is train/c.tif.")
    assert within.startswith("Images that are there twice within a split: train/c.tif is train/a")
    assert "2 more" not in across


def test_what_is_not_measured_counts(tmp_path: Path) -> None:
    """Two images with one sum of values but other masks are two."""
    one = write(tmp_path / "a.tif", 3)
    other = write(tmp_path / "b.tif", 3)
    with rasterio.open(other, "r+") as file:
        file.nodata = int(file.read(1)[0, 0])

    assert 2 == len({values_sha256(chip(path, tmp_path)) for path in (one, other)})


def test_bench_names_the_copy_and_its_remedy_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training image, compressed otherwise, in test of one's own folder; then it is removed."""
    root = tmp_path / "mine"
    for split, start in (("train", 0), ("test", 50)):
        for number, name in enumerate(("crop", "forest")):
            for k in range(5):
                write(root / split / name / f"{k}.tif", start + 10 * number + k)
    leak = write(root / "test" / "crop" / "9.tif", 3, compress="deflate")
    command = ["bench", "folder", "--root", str(root), "--sensor", "s2-l2a", "--unit", "dn"]
    command += ["--bands", ",".join(BANDS), "--model", "imagestats", "--controls", "false"]
    command += ["--bootstrap", "10", "--probe", "nmc", "--cache", str(tmp_path / "cache")]

    assert 0 == main([*command, "--out", str(tmp_path / "a.jsonl")])
    said = capsys.readouterr().out
    assert "Leak: copies of training images in test: test/crop/9.tif is train/crop/3.tif." in said
    assert "**1 test samples are copies**" in said
    leak.unlink()
    assert 0 == main([*command, "--out", str(tmp_path / "b.jsonl")])
    said = capsys.readouterr().out
    assert "Leak" not in said
    assert "copies" not in said
    shutil.rmtree(tmp_path / "cache")
