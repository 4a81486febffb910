"""`eofm data upgrade`: the grids of a store of eofm 0.1, recovered from the images it was cut from.

Such a store keeps the centre of each image, and neither CRS nor transform. The headers of the
images that were packed tell both: a row names its image (`source`), and its identifier the window.
A grid is believed where its centre is the one that the store keeps. Of images that are gone the
grid stays unknown; pixels, labels and identifiers are not touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pyarrow as pa

import eofm
from eofm.errors import RasterError, StoreError
from eofm.progress import track
from eofm.raster.folder import band_of, walk_files
from eofm.raster.geotiff import grid_of, open_geotiff
from eofm.raster.grid import Grid, Window
from eofm.store.config import UpgradeConfig
from eofm.store.edit.rewrite import open_to_rewrite, rewrite
from eofm.store.format import Plain
from eofm.store.grids import coefficients, known_grids
from eofm.store.reader import Store

_NEAR: Final = 2e-6  # degrees, a fifth of a metre: centres are stored to 1e-7
_NAMED: Final = 5


@dataclass(frozen=True)
class UpgradeReport:
    """What became of the grids.

    Args:
        store: The store with its new index.
        rows: Number of images in it.
        known: Number of them whose grid is known now.
        missing: Names of images that were not found, or that several files have.
    """

    store: Path
    rows: int
    known: int
    missing: tuple[str, ...]

    def describe(self) -> str:
        """Return some lines for the terminal."""
        lines = [f"{self.store}: CRS and transform of {self.known} of {self.rows} images are known"]
        if self.missing:
            names = ", ".join(self.missing[:_NAMED]) + ", ..." * (len(self.missing) > _NAMED)
            many = len(self.missing)
            lines.append(f"  {many} images that were packed were not found by name: {names}")
        return "\n".join(lines)


def upgrade_store(config: UpgradeConfig) -> UpgradeReport:
    """Recover the grids of a store, and write it with the present version.

    Raises:
        RasterError: If there is no such folder of images, or one cannot be read.
        StoreError: If the store is damaged, its images lie elsewhere than those of the folder, or
            the new one cannot be written.
    """
    store = open_to_rewrite(config.store, in_place=config.in_place)
    grids, missing = _recover(store, config.images)
    there = [None if grid is None else coefficients(grid) for grid in grids]
    index = store.table
    for name, values in (
        ("crs", [placed[0] if placed else "" for placed in there]),
        ("transform", [placed and placed[1] for placed in there]),
    ):
        at = index.schema.get_field_index(name)
        column = index.schema.field(at)
        index = index.set_column(at, column, pa.array(values, column.type))
    provenance: dict[str, Plain] = {**store.card.provenance, "upgraded_by": eofm.__version__}
    path = rewrite(store, config.out, replace(store.card, provenance=provenance), index)
    return UpgradeReport(path, len(grids), len(grids) - grids.count(None), missing)


def _recover(store: Store, images: str | None) -> tuple[list[Grid | None], tuple[str, ...]]:
    """Return the grid of every row, and the names of the images that are not there."""
    sources = {} if images is None else _sources(Path(images), store)
    finest: dict[str, Grid] = {}
    missing: dict[str, None] = {}
    grids: list[Grid | None] = []
    lines = store.table.select(["id", "source", "longitude", "latitude"]).to_pylist()
    for line, known in zip(track(lines, "looking up grids"), known_grids(store), strict=True):
        name, grid = line["source"], known
        if grid is None and name in sources:
            if name not in finest:
                finest[name] = _finest(sources[name])
            grid = _window_of(finest[name], line, store)
        elif grid is None:
            missing[name] = None
        grids.append(grid)
    return grids, tuple(missing)


def _sources(root: Path, store: Store) -> Mapping[str, list[Path]]:
    """Return the files of the images that the rows of a store name.

    An image is found by its path in the folder, else by its name where only one has it.
    """
    if not root.is_dir():
        raise RasterError("there is no such folder of images", where=root)
    by_path: dict[str, list[Path]] = {}
    for file in walk_files(root):
        for name in _names(file, root, store):
            by_path.setdefault(name, []).append(file)
    by_name: dict[str, list[str]] = {}
    for path in by_path:
        by_name.setdefault(PurePosixPath(path).name, []).append(path)
    found = {}
    for name in store.table["source"].unique().to_pylist():
        alike = by_name.get(PurePosixPath(name).name, [])
        if name in by_path:
            found[name] = by_path[name]
        elif len(alike) == 1:
            found[name] = by_path[alike[0]]
    return found


def _names(file: Path, root: Path, store: Store) -> set[str]:
    """Return what an image may be called to which a file belongs: a band of it, or all of it."""
    whole = file.relative_to(root).with_suffix("").as_posix()
    band, beginning = band_of(file.stem, store.spec.sensor)
    if not band:
        return {whole}
    folder = file.parent.relative_to(root).as_posix()
    inside = beginning if folder == "." else f"{folder}/{beginning}"
    return {whole, root.name if folder == "." else folder, inside} - {"", "."}


def _finest(files: list[Path]) -> Grid:
    grids = []
    for file in files:
        with open_geotiff(file) as dataset:
            grids.append(grid_of(dataset))
    return max(grids, key=lambda grid: grid.height * grid.width)


def _window_of(grid: Grid, line: Mapping[str, Any], store: Store) -> Grid:
    """Return the grid of a row: a window of its image, or all of it.

    Raises:
        StoreError: If its centre is not the one that the store keeps.
    """
    height, width = store.card.size
    _, *ends = str(line["id"]).rsplit("_", 2)
    tried = [grid] if (grid.height, grid.width) == (height, width) else []
    if len(ends) == 2 and all(end.isdigit() for end in ends):
        tried.append(grid.at(Window(int(ends[0]), int(ends[1]), height, width)))
    for candidate in tried:
        longitude, latitude = candidate.centre()
        turn = abs(longitude - line["longitude"]) % 360
        if min(turn, 360 - turn) < _NEAR and abs(latitude - line["latitude"]) < _NEAR:
            return candidate
    found = tried[-1].centre() if tried else "an image of another size"
    raise StoreError(
        "an image of the folder is not the one that was packed",
        found=f"centre {found}",
        expected=f"centre ({line['longitude']}, {line['latitude']})",
        where=f"{store.path}, {line['id']}",
        remedy="give the folder that was packed, or leave --images out: the grids stay unknown",
    )
