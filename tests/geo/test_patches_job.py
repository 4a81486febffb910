"""Patch grids of whole scenes: the right vector at the right place, whatever the grid."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from geo_scenes import GRIDS, config, export, sloping_encoder, small_encoder, texture, write_scene

import eofm
from eofm.geo.embedding.embed import embed, embed_patches
from eofm.geo.embedding_files import PATCHES_TIFF, PATCHES_ZARR, open_embeddings, open_patches
from eofm.raster.cube import to_xarray


def read(path: Path, *window: int) -> eofm.Imagery:
    """A window of a scene of these tests."""
    return eofm.read_geotiff(path, sensor="s2-l2a", unit="dn", window=window)


@pytest.mark.parametrize("place", GRIDS)
def test_a_bright_block_lights_its_patch(place: str, tmp_path: Path) -> None:
    """The patch on top of a bright block stands out, in both files and in every kind of grid."""
    pixels = texture(120, 160)
    pixels[:, 42:56, 98:112] = 9_000
    scene = write_scene(tmp_path / "scene.tif", pixels, place)
    model = export(tmp_path / "model", small_encoder(56))
    embed(config(scene, model, tmp_path / "out", patches=True, chips=None))

    with rasterio.open(scene) as source:
        corners = [source.xy(r, c, offset="ul") for r, c in ((42, 98), (56, 112))]
    for name in (PATCHES_TIFF, PATCHES_ZARR):
        found = open_embeddings(tmp_path / "out" / name)
        vectors = found.rows(slice(None))
        far = np.linalg.norm(vectors - np.nanmedian(vectors, axis=(0, 1)), axis=-1)
        row, col = np.unravel_index(np.nanargmax(far), far.shape)

        assert (row, col) == (3, 7)
        for (x, y), (i, j) in zip(corners, ((0, 0), (1, 1)), strict=True):
            assert np.allclose(found.grid.point(col + j, row + i), (x, y), rtol=1e-12, atol=1e-9)
        assert found.grid.crs == rasterio.CRS.from_string(GRIDS[place][0])


@pytest.mark.parametrize("place", GRIDS)
def test_a_bright_block_between_patches_lights_the_cell_in_its_middle(
    place: str, tmp_path: Path
) -> None:
    """Of shifted passes, one cell sees the whole block: that in the middle of it, in any grid.

    Its vector is the one of a scene that is bright everywhere.
    """
    bright = np.random.default_rng(1).integers(8_900, 9_100, (3, 120, 160)).astype(np.uint16)
    pixels = texture(120, 160)
    pixels[:, 49:63, 98:112] = bright[:, 49:63, 98:112]  # half a patch below the plain grid
    scene = write_scene(tmp_path / "scene.tif", pixels, place)
    everywhere = write_scene(tmp_path / "bright.tif", bright, place)
    model = export(tmp_path / "model", small_encoder(56))
    for path, out in ((scene, "out"), (everywhere, "bright")):
        embed(config(path, model, tmp_path / out, patches=True, chips=None, stride=7))
    wanted = open_patches(tmp_path / "bright").rows(slice(None))

    with rasterio.open(scene) as source:
        x, y = source.transform @ (105, 56)
    for name in (PATCHES_TIFF, PATCHES_ZARR):
        found = open_embeddings(tmp_path / "out" / name)
        far = np.linalg.norm(found.rows(slice(None)) - wanted, axis=-1)
        row, col = np.unravel_index(np.nanargmin(far), far.shape)

        assert found.valid.shape == (17, 22)
        assert 5 * np.nanmin(far) < np.nanpercentile(far, 1)
        assert (row, col) == (7, 14)
        assert np.allclose(found.grid.point(col + 0.5, row + 0.5), (x, y), rtol=1e-12, atol=1e-9)


def test_shifted_passes_are_plain_grids_of_shifted_scenes(tmp_path: Path) -> None:
    """Every second row and column is the grid of the scene without its first 7 rows or columns."""
    encoder = small_encoder(28)
    pixels = texture(112, 98)
    scene = eofm.open_scene(write_scene(tmp_path / "s.tif", pixels), sensor="s2-l2a", unit="dn")

    finer = embed_patches(scene, encoder, stride=7)

    assert (15, 13) == finer.valid.shape
    for down in (0, 1):
        for across in (0, 1):
            path = write_scene(
                tmp_path / f"{down}{across}.tif",
                pixels[:, 7 * down : 112 - 7 * down, 7 * across : 98 - 7 * across],
            )
            cut = eofm.open_scene(path, sensor="s2-l2a", unit="dn")
            plain = embed_patches(cut, encoder).array.to_numpy()
            every = finer.array.to_numpy()[:, down::2, across::2]
            assert np.abs(every - plain).max() < 2e-3  # float16
    same = embed_patches(scene, encoder, stride=14)
    assert np.array_equal(same.array, embed_patches(scene, encoder).array)


def test_vectors_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    """The blended grid is the weighted mean of what the encoder says of each window by itself."""
    encoder = small_encoder(56)
    pixels = texture(140, 126)
    scene = write_scene(tmp_path / "scene.tif", pixels)

    found = embed_patches(
        eofm.open_scene(scene, sensor="s2-l2a", unit="dn"), encoder, overlap=2, batch=3
    )

    rise = np.sin(np.pi / 2 * np.array([0.25, 0.75])) ** 2
    side = np.array([*rise, *rise[::-1]])
    sums, total = np.zeros((10, 9, 192)), np.zeros((10, 9, 1))
    for row in (0, 2, 4, 6):
        for col in (0, 2, 4, 5):
            tokens = encoder.features(read(scene, row * 14, col * 14, 56, 56))
            weights = np.outer(side, side)[..., None]
            sums[row : row + 4, col : col + 4] += weights * tokens.numpy().reshape(4, 4, 192)
            total[row : row + 4, col : col + 4] += weights
    expected = np.moveaxis(sums / total, -1, 0)
    assert found.valid.all()
    assert np.abs(found.array.to_numpy() - expected).max() < 2e-3  # float16


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def across(vectors: np.ndarray) -> np.ndarray:
    """How far each column of patches is from the next, on average."""
    return np.linalg.norm(np.diff(vectors, axis=1), axis=-1).mean(axis=0)


def test_blending_hides_the_seams(tmp_path: Path) -> None:
    """Without blending the step at the border of two windows stands out; with it, it does not."""
    tile = texture(14, 14)
    scene = write_scene(tmp_path / "scene.tif", np.tile(tile, (1, 8, 24)))
    encoder = sloping_encoder(112)
    opened = eofm.open_scene(scene, sensor="s2-l2a", unit="dn")

    hard = across(embed_patches(opened, encoder, overlap=0).rows(slice(None)))
    soft = across(embed_patches(opened, encoder, overlap=4).rows(slice(None)))

    seams = [7, 15]
    inside = np.delete(hard, seams)
    assert hard[seams].min() > 2 * inside.max()
    borders = [3, 7, 11, 15]
    assert soft[borders].max() <= np.delete(soft, borders).max()
    assert soft.max() < hard[seams].min() / 2


def test_unmeasured_ground_has_no_vector(tmp_path: Path) -> None:
    """A patch with less measured pixels than asked has none; what lies beside it is as it was."""
    pixels = texture(112, 112)
    pixels[:, :, 60:] = 0
    scene = write_scene(tmp_path / "scene.tif", pixels, nodata=0)
    opened = eofm.open_scene(scene, sensor="s2-l2a", unit="dn")

    half = embed_patches(opened, small_encoder(56), min_valid=0.5)
    any_at_all = embed_patches(opened, small_encoder(56), min_valid=0.01)

    assert half.valid[:, :4].all()
    assert not half.valid[:, 4:].any()
    assert any_at_all.valid[:, 4].all()
    assert not any_at_all.valid[:, 5:].any()
    assert np.isnan(half.array[:, :, 4:]).all()


def test_a_scene_smaller_than_a_window(tmp_path: Path) -> None:
    """It is filled up with pixels that count as unmeasured: each patch of it has its vector."""
    scene = write_scene(tmp_path / "scene.tif", texture(30, 45))

    found = embed_patches(
        eofm.open_scene(scene, sensor="s2-l2a", unit="dn"), small_encoder(56), min_valid=0.01
    )

    assert found.valid.shape == (3, 4)
    assert found.valid.all()


def test_an_area_of_a_scene_is_embedded_where_it_lies(tmp_path: Path) -> None:
    """An area has the vectors and the place of its own pixels."""
    pixels = texture(140, 140)
    scene = write_scene(tmp_path / "scene.tif", pixels, "degrees")
    opened = eofm.open_scene(scene, sensor="s2-l2a", unit="dn")
    encoder = small_encoder(56)

    box = (9.0042, 48 - 0.0098, 9.0098, 48 - 0.0042)
    found = embed_patches(opened, encoder, where=box)

    expected = encoder.features(read(scene, 42, 42, 56, 56)).reshape(4, 4, -1).permute(2, 0, 1)
    assert np.allclose(found.grid.point(0, 0), (9.0042, 48 - 0.0042), atol=1e-9)
    assert torch.allclose(torch.from_numpy(found.array.to_numpy()), expected, atol=2e-3)


def test_an_array_of_a_notebook_is_a_scene(tmp_path: Path) -> None:
    """An xarray object gives the vectors that its file gives."""
    scene = write_scene(tmp_path / "scene.tif", texture(56, 56))
    array = to_xarray(read(scene, 0, 0, 56, 56))
    encoder = small_encoder(56)

    found = embed_patches(array, encoder)

    opened = eofm.open_scene(scene, sensor="s2-l2a", unit="dn")
    assert np.array_equal(found.array, embed_patches(opened, encoder).array)
    assert found.grid == embed_patches(opened, encoder).grid


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param({"patches": True, "chips": None, "overlap": 1}, marks=pytest.mark.slow),
        pytest.param(
            {"patches": True, "chips": None, "overlap": 1, "stride": 7, "formats": ["tif"]},
            marks=pytest.mark.slow,
        ),
        {"chips": 16},
    ],
)
def test_a_killed_run_ends_with_the_same_bytes(layout, tmp_path: Path, kill, monkeypatch) -> None:
    """Killed anywhere, again and again, the same command ends with the files of a quiet run."""
    monkeypatch.setattr("eofm.geo.embedding.outputs._BLOCK", 4)
    scene = write_scene(tmp_path / "scene.tif", texture(100, 60))
    model = export(tmp_path / "model", small_encoder())
    out = tmp_path / "outs" / "whole"

    def write(path: Path) -> None:
        embed(config(scene, model, path, batch=2, quantization="int8", **layout))
        (path / "config.yaml").write_text("")  # it names the folder

    write(out)
    draw, kills = random.Random(0), 0
    for number in range(3):
        path = tmp_path / "outs" / str(number)
        # more and more calls are let pass: Zarr alone makes a hundred
        for most in range(10, 2_000, 10):
            try:
                with kill.at(draw.randint(1, most)):
                    write(path)
                break
            except kill.Error:
                kills += 1
        assert tree(out) == tree(path)

    assert kills > 3
    assert open_embeddings(out).provenance.settings["layout"] in {"chips", "patches"}


def test_more_than_one_window_of_patches_is_in_memory_as_rows(tmp_path: Path) -> None:
    """Whatever the number of windows in a batch, the grid is the same up to rounding."""
    scene = write_scene(tmp_path / "scene.tif", texture(84, 140))
    opened = eofm.open_scene(scene, sensor="s2-l2a", unit="dn")
    encoder = small_encoder()

    one = embed_patches(opened, encoder, batch=1)
    many = embed_patches(opened, encoder, batch=16)

    assert np.allclose(one.array, many.array, atol=2e-3)


def test_provenance_says_how_it_was_made(tmp_path: Path) -> None:
    """Weights, plan, scene and settings stand in the files."""
    scene = write_scene(tmp_path / "scene.tif", texture(56, 56))
    encoder = small_encoder(56)
    model = export(tmp_path / "model", encoder)
    embed(config(scene, model, tmp_path / "out", patches=True, chips=None, licence="CC-BY-4.0"))

    made = open_patches(tmp_path / "out").provenance

    spec = read(scene, 0, 0, 56, 56).spec
    assert made.plan_hash == encoder.plan_for(spec).hash
    assert made.weights_sha256 == eofm.load_encoder(model).card.sha256
    assert made.scenes[0].id == "scene"
    assert len(made.scenes[0].sha256) == 64
    assert made.settings["patch_metres"] == 140
    assert made.licence == "CC-BY-4.0"
