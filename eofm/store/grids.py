"""Georeference of the images of a store: the CRS and transform in its index.

The index holds them as text and six numbers, so a store can be read without a raster library.

A store of eofm 0.1 keeps the centre of each image, and neither CRS nor transform. `eofm data
upgrade` recovers both from the headers of the images that were packed: a row names its image
(`source`), and its identifier the window. A grid is believed where its centre is the one that the
store keeps. Of images that are gone the grid stays unknown; pixels, labels and identifiers are not
touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Any, Final

import pyarrow as pa
from affine import Affine

import eofm
from eofm.errors import RasterError, StoreError
from eofm.raster.folder import band_of, walk_files
from eofm.raster.geotiff import grid_of, open_geotiff
from eofm.raster.grid import Grid, Window, crs_text, read_crs
from eofm.store.config import UpgradeConfig
from eofm.store.format import Entry, Plain
from eofm.store.reader import Store
from eofm.store.writer import open_to_rewrite, rewrite
from eofm.terminal import track

__all__ = [
    "UpgradeReport",
    "coefficients",
    "known_grids",
    "located",
    "unknown_grid",
    "upgrade_store",
]

# -------------------------------------------------------------------------------- kept in the index


def located(entry: Entry, grid: Grid) -> Entry:
    """Return an entry with the CRS and transform of its image.

    Args:
        entry: Of an image.
        grid: Its finest grid.
    """
    crs, numbers = coefficients(grid)
    return replace(entry, crs=crs, transform=numbers)


def coefficients(grid: Grid) -> tuple[str, tuple[float, ...]]:
    """Return a grid as stored in the index: its CRS as text, and a, b, c, d, e, f."""
    t = grid.transform
    return crs_text(grid.require_crs()), (t.a, t.b, t.c, t.d, t.e, t.f)


def known_grids(store: Store) -> list[Grid | None]:
    """Return the grid of every image, None where the store does not know it.

    Raises:
        StoreError: If a CRS or a transform of the index cannot be read.
    """
    height, width = store.card.size
    found: list[Grid | None] = []
    for name, crs, numbers in zip(
        *(store.table[key].to_pylist() for key in ("id", "crs", "transform")), strict=True
    ):
        if not crs or numbers is None:
            found.append(None)
            continue
        try:
            found.append(Grid(read_crs(crs), Affine(*numbers), height, width))
        except (RasterError, TypeError) as error:
            raise StoreError(
                "the index holds a CRS that cannot be read",
                found=str(error),
                expected="an authority code or WKT",
                where=f"{store.path}, {name}",
                remedy="copy the store again, or delete it and pack it again",
            ) from error
    return found


def unknown_grid(store: Store, names: Sequence[str]) -> StoreError:
    """Return the error to raise where the grids of some images are needed and not known.

    Args:
        store: The store.
        names: Identifiers of those images.
    """
    why = "was written by eofm 0.1, which kept only" if store.card.version < 3 else "keeps only"
    shown = ", ".join(names[:3]) + (", ..." if names[3:] else "")
    return StoreError(
        f"the store {why} the centres of images, and their CRS and transform are needed",
        found=f"{len(names)} of {len(store)} images without: {shown}",
        where=store.path,
        remedy="recover them from the images that were packed: "
        f"eofm data upgrade {quote(str(store.path))} --images DIR --out NEW",
    )


# ------------------------------------------------------------------------ recovered from the images

_NEAR: Final = 2e-6  # degrees, a fifth of a metre: centres are stored to 1e-7
_NAMED: Final = 5


@dataclass(frozen=True)
class UpgradeReport:
    """What became of the grids.

    Args:
        store: The store with its new index.
        rows: Number of images in it.
        known: Number of images whose grid is now known.
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
        RasterError: If the folder does not exist, or an image cannot be read.
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
        raise RasterError("the folder of images does not exist", where=root)
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
    """Return possible names of the image that a file belongs to, as a band or as the whole."""
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
        StoreError: If its centre is not the one in the store.
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
