"""Rectangles of a scene: the same pixels however they are cut, read ahead in order."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from geo_scenes import texture, write_scene
from safe_product import write_product

import eofm
from eofm.errors import RasterError
from eofm.geo.embedding.windows import GroundPixels, GroundReader, Readers, SceneGround
from eofm.raster.grid import Window


def whole(scene) -> SceneGround:
    """All of a scene."""
    return SceneGround(scene, Window(0, 0, scene.grid.height, scene.grid.width))


def test_pixels_do_not_depend_on_the_cut(tmp_path: Path) -> None:
    """Bands of 20 and 60 m are the same in a rectangle as in the whole scene, at any corner."""
    scene = eofm.open_scene(write_product(tmp_path))
    expected = scene.read()
    height, width = scene.grid.height, scene.grid.width
    assert scene.step == 6

    with GroundReader(whole(scene)) as reader:
        for top, left, rows, columns in ((0, 0, 7, 9), (5, 3, 8, 8), (height - 5, width - 7, 5, 7)):
            found = reader.read(top, left, rows, columns)
            cut = (slice(top, top + rows), slice(left, left + columns))
            assert torch.allclose(found.values, expected.pixels[0][:, *cut], rtol=1e-6)
            assert torch.equal(found.measured, expected.valid[0][cut])


def test_what_lies_beyond_the_edge_is_unmeasured(tmp_path: Path) -> None:
    """A rectangle may reach over every edge of a part of a scene."""
    pixels = texture(40, 50)
    scene = eofm.open_scene(write_scene(tmp_path / "s.tif", pixels), sensor="s2-l2a", unit="dn")
    part = SceneGround(scene, Window(4, 6, 20, 30))

    with GroundReader(part) as reader:
        found = reader.read(-3, -2, 30, 40)
        beyond = reader.read(20, 0, 5, 5)

    assert found.values.shape == (3, 30, 40)
    expected = np.zeros((30, 40), bool)
    expected[3:23, 2:32] = True
    assert np.array_equal(found.measured.numpy(), expected)
    assert np.array_equal(found.values.numpy()[:, 3:23, 2:32], pixels[:, 4:24, 6:36])
    assert not beyond.measured.any()


def test_rectangles_come_in_order(tmp_path: Path) -> None:
    """Whichever thread is first, what is read comes in the order of the tasks."""
    scene = eofm.open_scene(
        write_scene(tmp_path / "s.tif", texture(64, 64)), sensor="s2-l2a", unit="dn"
    )

    def read(reader: GroundReader, task: int) -> GroundPixels:
        time.sleep(0.002 * (task % 3))
        return reader.read(task, 0, 1, 64)

    with Readers(whole(scene), 3) as readers:
        found = list(readers.ahead(range(20), read))

    expected = scene.read().pixels[0]
    assert [task for task, _ in found] == list(range(20))
    for task, pixels in found:
        assert torch.equal(pixels.values[:, 0], expected[:, task])


def test_an_error_of_a_thread_reaches_the_caller(tmp_path: Path) -> None:
    """A file that is damaged while it is read is the error of whoever asked for it."""
    scene = eofm.open_scene(
        write_scene(tmp_path / "s.tif", texture(64, 64)), sensor="s2-l2a", unit="dn"
    )
    (tmp_path / "s.tif").write_bytes((tmp_path / "s.tif").read_bytes()[:900])

    with Readers(whole(scene), 2) as readers, pytest.raises(RasterError):
        list(readers.ahead([0], lambda reader, task: reader.read(task, 0, 8, 8)))
