"""Miniature GeoTIFFs and stores: true formats, fractional values, one constant per band."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from eofm.contract.imagery import NativeImagery
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.errors import StoreError
from eofm.store.format import JOURNAL, Entry, LabelRule, StoreCard
from eofm.store.reader import Store
from eofm.store.writer import StoreWriter

UTM_ORIGIN = (500_000.0, 5_400_000.0)

WriteTif = Callable[..., Path]


def _write_tif(
    path: Path,
    pixels: np.ndarray,
    *,
    crs: str | None = "EPSG:32632",
    origin: tuple[float, float] = UTM_ORIGIN,
    gsd: float | tuple[float, float] = 10.0,
    nodata: float | None = None,
    descriptions: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    bare: bool = False,
    **profile: object,
) -> Path:
    """Write (c, h, w) or (h, w) pixels as a GeoTIFF; a bare one lies nowhere."""
    bands = pixels[None] if pixels.ndim == 2 else pixels
    x, y = gsd if isinstance(gsd, tuple) else (gsd, gsd)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=bands.shape[0],
        height=bands.shape[1],
        width=bands.shape[2],
        dtype=bands.dtype,
        nodata=nodata,
        crs=crs,
        transform=None if bare else Affine(x, 0, origin[0], 0, -y, origin[1]),
        **profile,
    ) as dataset:
        dataset.write(bands)
        if descriptions:
            dataset.descriptions = descriptions
        if tags:
            dataset.update_tags(**tags)
    return path


@pytest.fixture
def write_tif() -> WriteTif:
    """Write pixels as a georeferenced GeoTIFF and return its path."""
    return _write_tif


def _write_bands(folder: Path, sizes: Mapping[str, int], dtype: str = "uint16", **keywords) -> Path:
    """Write one file per band, a gradient on a constant of the band's own, over one extent."""
    widest = max(sizes.values())
    for number, (band, size) in enumerate(sizes.items(), 1):
        ramp = np.add.outer(np.arange(size) * 3, np.arange(size))
        values = 100 * number + ramp if dtype == "uint16" else -5.0 * number - ramp / 7
        _write_tif(
            folder / f"{band}.tif", values.astype(dtype), gsd=10.0 * widest / size, **keywords
        )
    return folder


@pytest.fixture
def write_bands() -> Callable[..., Path]:
    """Write a folder with one GeoTIFF per band and return it."""
    return _write_bands


@dataclass(frozen=True)
class Miniature:
    """Small images for a store: bands at 10, 20 and 60 m, three classes."""

    card: StoreCard

    def imagery(self, i: int) -> NativeImagery:
        """Return image number i: every band its own constant, and one odd invalid pixel."""
        height, width = self.card.size
        planes = {}
        for gsd, bands in self.card.groups.items():
            values = 1000 * i + 10 * gsd + np.arange(len(bands))
            shape = (1, len(bands), height * 10 // gsd, width * 10 // gsd)
            plane = np.broadcast_to(values[None, :, None, None], shape) + 0.25
            planes[gsd] = torch.from_numpy(plane.astype(self.card.dtype))
        valid = torch.ones(1, height, width, dtype=torch.bool)
        valid[0, i % height, 1] = False
        return NativeImagery(planes, dict(self.card.groups), self.card.spec, valid)

    def entry(self, i: int) -> Entry:
        """Return the index line of image number i; every third is unlabelled."""
        k = len(self.card.classes)
        known = i % 3 != 2
        return Entry(
            id=f"p{i // 2}_{i}",
            location=f"p{i // 2}",
            season=f"s{i % 2}",
            longitude=7.25 + i,
            latitude=-3.5,
            date="2021-06-01T10:20:30" if i else "",
            source=f"p{i // 2}",
            source_unit=self.card.spec.unit.value,
            fraction=(0.75, 0.25, 0.0)[:k],
            multi_hot=((1, i % 2, 0) if known else (0, 0, 0))[:k],
            known=known and k > 0,
            valid_share=0.5,
        )

    def write(self, writer: StoreWriter, rows: range) -> None:
        """Append images that are not there yet, and finish."""
        for i in rows:
            if self.entry(i).id not in writer.ids:
                writer.append(self.entry(i), self.imagery(i))
            if i % 2 and f"p{i // 2}" not in writer.skipped:
                writer.source_done(f"p{i // 2}", i % 3)
        writer.finish()

    def store(self, path: Path, rows: int, per_shard: int = 4) -> Path:
        """Write a finished store."""
        size = per_shard * self.card.row_bytes
        with StoreWriter(path, self.card, shard_bytes=size) as writer:
            self.write(writer, range(rows))
        return path


@pytest.fixture
def miniature() -> Miniature:
    """Images of three bands in uint16, 12 x 18 pixels, with labels of three classes."""
    bands = ("B02", "B8A", "B09")
    spec = ImageSpec(Sensor.S2_L1C, bands, Unit.DN, (12, 18), 10.0)
    groups = {10: ("B02",), 20: ("B8A",), 60: ("B09",)}
    rule = LabelRule("terramesh", ("water", "trees", "crops"), 0.0, 0.25)
    return Miniature(StoreCard(spec, groups, rule, {"window": 12, "landcover": None}))


@pytest.fixture
def radar_miniature() -> Miniature:
    """Images of two bands in float32, without labels."""
    spec = ImageSpec(Sensor.S1_GRD, ("VV", "VH"), Unit.DB, (5, 7), 10.0)
    return Miniature(StoreCard(spec, {10: ("VV", "VH")}, None, {"window": 5}))


def _tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, by its path."""
    files = (f for f in sorted(folder.rglob("*")) if f.is_file())
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in files}


@pytest.fixture
def tree() -> Callable[[Path], dict[str, bytes]]:
    """Return the content of every file below a folder."""
    return _tree


class KilledError(BaseException):
    """Stands for SIGKILL: nothing catches it to write a last word."""


@contextmanager
def killed_at(call: int) -> Iterator[Callable[[], int]]:
    """Let the n-th call that changes the disk be the last; a write gets half of its bytes out."""
    calls = 0
    patch = pytest.MonkeyPatch()

    def guard(name: str) -> None:
        original = getattr(os, name)

        def last(*arguments, **keywords):
            nonlocal calls
            calls += 1
            if calls > call:
                raise KilledError
            if calls == call:
                if name == "write":
                    handle, data = arguments
                    original(handle, data[: len(data) // 2])
                elif call % 2:  # by turns, die just before the call and just after it
                    original(*arguments, **keywords)
                raise KilledError
            return original(*arguments, **keywords)

        patch.setattr(os, name, last)

    for name in ("write", "ftruncate", "replace", "rename", "unlink", "rmdir", "mkdir", "link"):
        guard(name)
    patch.setattr(os, "fsync", lambda handle: None)  # slow, and without effect here
    try:
        yield lambda: calls
    finally:
        patch.undo()


class Kill:
    """Dying at a chosen call to the system."""

    Error = KilledError
    at = staticmethod(killed_at)

    @classmethod
    def anywhere(cls, write: Callable[[Path], object], folder: Path, step: int = 1) -> int:
        """Kill `write(store)` at every `step`-th call it makes; the same run then ends it.

        Every store is the same bytes as one written undisturbed, `folder / "whole"`, and until it
        is whole, it cannot be read. Returns how often it was killed.
        """
        expected = _tree(folder / "whole")
        points = 0
        for call in range(1, 1000, step):
            path = folder / str(call)
            with cls.at(call) as calls:
                try:
                    write(path)
                except cls.Error:
                    points += 1
            done = calls() < call
            if (path / JOURNAL).exists():
                with pytest.raises(StoreError, match="half written"):
                    Store(path)
            with cls.at(10_000):
                write(path)
            assert expected == _tree(path), f"killed at call {call}"
            if done:
                break
        return points

    @classmethod
    def repeatedly(cls, write: Callable[[Path], object], folder: Path, stores: int) -> int:
        """Kill `write(store)` at random calls, also while it takes up a killed run, till it ends.

        Every store is the same bytes as one written undisturbed, `folder / "whole"`. Returns how
        often it was killed.
        """
        expected = _tree(folder / "whole")
        draw = random.Random(0)
        kills = 0
        for number in range(stores):
            path = folder / str(number)
            for _ in range(200):
                with cls.at(draw.randint(1, 40)):
                    try:
                        write(path)
                    except cls.Error:
                        kills += 1
                        continue
                break
            assert expected == _tree(path)
        return kills


@pytest.fixture
def kill() -> type[Kill]:
    """`with kill.at(n)`: the n-th call that changes the disk raises `kill.Error`."""
    return Kill
