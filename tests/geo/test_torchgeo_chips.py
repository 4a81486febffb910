"""Chips in the hands of torchgeo, whose data set of Earth Index reads files of their kind."""

from __future__ import annotations

import importlib
from pathlib import Path

import geopandas
import numpy as np
import pytest
import torch
from geo_scenes import config, export, small_encoder, texture, write_scene

from eofm.geo.embedding.embed import embed
from eofm.geo.embedding_files import open_chips


@pytest.fixture
def chips(tmp_path: Path) -> Path:
    """The file of four chips."""
    scene = write_scene(tmp_path / "scene.tif", texture(64, 64))
    model = export(tmp_path / "model", small_encoder())
    embed(config(scene, model, tmp_path / "out", chips=32))
    return tmp_path / "out" / "chips.parquet"


def as_earth_index(chips: Path, folder: Path) -> Path:
    """What `docs/embedding.md` says: points, under a name of tile and dates."""
    table = geopandas.read_parquet(chips)
    table.geometry = table.centroid
    file = folder / "32UMV_2021-07-04_2021-07-04.parquet"
    table.to_parquet(file)
    return file


def test_what_torchgeo_reads_is_there(chips: Path, tmp_path: Path) -> None:
    """A row has a list of float32 and a point, and nothing of eofm is needed to read them."""
    table = geopandas.read_parquet(as_earth_index(chips, tmp_path))
    plain = geopandas.read_parquet(chips)

    row = table.iloc[2]

    assert torch.equal(torch.tensor(row["embedding"]), torch.tensor(open_chips(chips).vectors[2]))
    assert (row["geometry"].x, row["geometry"].y) == (500_160, 5_400_000 - 480)
    assert set(plain.geometry.geom_type) == {"Polygon"}
    assert np.stack(plain["embedding"].to_list()).dtype == np.float32


def test_torchgeo_reads_chips(chips: Path, tmp_path: Path) -> None:
    """`EarthIndexEmbeddings` returns the vectors of the chips."""
    datasets = importlib.import_module("torchgeo.datasets")
    if not hasattr(datasets, "EarthIndexEmbeddings"):
        pytest.skip("this torchgeo has no EarthIndexEmbeddings yet")
    data = datasets.EarthIndexEmbeddings(as_earth_index(chips, tmp_path))

    assert len(data) == 4
