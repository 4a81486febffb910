"""Chips of whole scenes: each has the vector that the encoder gives its own pixels."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from geo_scenes import GRIDS, config, export, small_encoder, texture, write_scene

import eofm
from eofm.errors import DataError
from eofm.geo.embedding.embed import embed, embed_chips
from eofm.geo.embedding.outputs import ChipPlaces
from eofm.geo.embedding_files import open_chips


def opened(path: Path):
    """A scene of these tests."""
    return eofm.open_scene(path, sensor="s2-l2a", unit="dn")


def test_vectors_are_those_of_single_windows(tmp_path: Path) -> None:
    """Every chip has the vector of `read_geotiff` and `embed`, and the outline of its pixels."""
    scene = write_scene(tmp_path / "scene.tif", texture(70, 96))
    encoder = small_encoder()

    found = embed_chips(opened(scene), encoder, chips=32, batch=2)

    assert len(found) == 6
    for number, (row, col) in enumerate((r, c) for r in (0, 32) for c in (0, 32, 64)):
        image = eofm.read_geotiff(scene, sensor="s2-l2a", unit="dn", window=(row, col, 32, 32))
        expected = encoder.embed(image)[0]
        assert torch.allclose(torch.from_numpy(found.vectors[number]), expected, atol=1e-4)
        with rasterio.open(scene) as source:
            left, top = source.xy(row, col, offset="ul")
            right, bottom = source.xy(row + 32, col + 32, offset="ul")
        assert found.table.geometry[number].bounds == (left, bottom, right, top)
        assert found.table["id"][number] == f"scene_{row}_{col}"
        assert found.table["valid_share"][number] == 1
    assert np.isnan(found.table["cloud_share"]).all()
    assert found.crs == "EPSG:32632"


@pytest.mark.parametrize("place", GRIDS)
def test_a_bright_block_lights_its_chip(place: str, tmp_path: Path) -> None:
    """The chip on top of a bright block stands out, and covers it, in every kind of grid."""
    pixels = texture(96, 96)
    pixels[:, 32:48, 64:80] = 9_000
    scene = write_scene(tmp_path / "scene.tif", pixels, place)

    found = embed_chips(opened(scene), small_encoder(), chips=16)

    far = np.linalg.norm(found.vectors - np.median(found.vectors, axis=0), axis=1)
    with rasterio.open(scene) as source:
        corners = [source.xy(r, c, offset="ul") for r, c in ((32, 64), (32, 80), (48, 80))]
    outline = found.table.geometry[int(far.argmax())]
    for corner in corners:
        assert outline.exterior.distance(geopandas.points_from_xy(*np.array([corner]).T)[0]) < 1e-6


def test_strides_and_edges(tmp_path: Path) -> None:
    """Chips overlap where the stride is smaller; at the edge, enough of a chip must be there."""
    scene = write_scene(tmp_path / "scene.tif", texture(40, 48))

    half = embed_chips(opened(scene), small_encoder(), chips=32, stride=16)
    strict = embed_chips(opened(scene), small_encoder(), chips=32, stride=16, min_valid=1.0)

    assert list(half.table["id"]) == [
        "scene_0_0", "scene_0_16", "scene_0_32", "scene_16_0", "scene_16_16"
    ]  # fmt: skip
    assert half.table["valid_share"].tolist() == [1, 1, 0.5, 0.75, 0.75]
    assert list(strict.table["id"]) == ["scene_0_0", "scene_0_16"]


def test_clouds_and_unmeasured_ground_are_left_out(tmp_path: Path) -> None:
    """Both shares are stated, and a chip with too little clear ground has no row."""
    pixels = texture(32, 96).astype(np.float32)
    pixels[:, :, 80:] = 0
    mask = np.full((1, 32, 96), 4, np.float32)
    mask[:, :8, :32] = 9
    mask[:, :, 32:60] = 9
    scene = tmp_path / "scene.tif"
    crs, transform = GRIDS["utm"]
    with rasterio.open(
        scene, "w", driver="GTiff", count=4, height=32, width=96, dtype="float32", crs=crs,
        transform=transform,
    ) as target:  # fmt: skip
        target.write(np.concatenate([pixels, mask]))
        target.descriptions = ("B02", "B03", "B04", "SCL")

    found = embed_chips(opened(scene), small_encoder(), chips=32, cloud_mask="SCL")
    plain = embed_chips(opened(scene), small_encoder(), chips=32)

    assert list(found.table["id"]) == ["scene_0_0", "scene_0_64"]
    assert found.table["valid_share"].tolist() == [1, 0.5]
    assert found.table["cloud_share"].tolist() == [0.25, 0]
    assert len(plain) == 3
    image = opened(scene).read((0, 0, 32, 32), cloud_mask="SCL")
    expected = small_encoder().embed(image)[0].numpy()
    assert np.allclose(found.vectors[0], expected, atol=1e-4)


def test_an_area_in_polygons(tmp_path: Path) -> None:
    """Of polygons, what lies outside is unmeasured, and chips are counted from their corner."""
    scene = write_scene(tmp_path / "scene.tif", texture(96, 96), "degrees")
    triangle = {
        "type": "Polygon",
        "coordinates": [[(9, 48), (9.0064, 48), (9, 48 - 0.0064), (9, 48)]],
    }

    found = embed_chips(opened(scene), small_encoder(), chips=32, where=triangle, min_valid=0.4)

    assert list(found.table["id"]) == ["scene_0_0", "scene_0_32", "scene_32_0"]
    assert found.table["valid_share"].tolist() == pytest.approx([1, 0.5, 0.5], abs=0.03)


def test_int8_is_stated_with_its_recall(tmp_path: Path) -> None:
    """Quantised chips are near the float32 ones, and say how many neighbours were kept."""
    scene = write_scene(tmp_path / "scene.tif", texture(160, 160))
    model = export(tmp_path / "model", small_encoder())
    done = embed(config(scene, model, tmp_path / "a", chips=16, quantization="int8"))
    embed(config(scene, model, tmp_path / "b", chips=16))

    codes, plain = open_chips(tmp_path / "a"), open_chips(tmp_path / "b")

    assert codes.stored.dtype == np.int8
    assert np.abs(codes.vectors - plain.vectors).max() <= codes.codes.scale.max()
    stated = codes.provenance.settings["recall_at_10"]
    assert 0.8 < stated <= 1
    assert f"int8, recall@10 {stated:.3f}" in done.describe()
    assert "float32" not in done.describe()


def test_all_clouds_is_one_error(tmp_path: Path) -> None:
    """A scene without one clear chip says so, and the remedy that is printed helps."""
    pixels = texture(64, 64)
    pixels[:, 4:] = 0
    scene = write_scene(tmp_path / "scene.tif", pixels)

    with pytest.raises(DataError, match="valid and free of clouds") as caught:
        embed_chips(opened(scene), small_encoder(), chips=32)

    assert "6.2%" in str(caught.value.found)
    accepted = float(str(caught.value.remedy).rpartition("--min_valid ")[2])
    assert len(embed_chips(opened(scene), small_encoder(), chips=32, min_valid=accepted)) == 2


def test_groups_are_neighbours_in_a_row() -> None:
    """Chips that are read together lie in one row, none twice, in order."""
    tops, lefts = np.divmod(np.arange(12), 5)
    places = ChipPlaces(np.array(["x"] * 12, object), tops * 8, lefts * 8, 8)

    groups = places.groups(3)

    assert [list(group) for group in groups] == [[0, 1, 2], [3, 4], [5, 6, 7], [8, 9], [10, 11]]
