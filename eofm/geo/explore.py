"""Write one HTML file that shows similar cells on a click.

    import eofm

    eofm.explore(embeddings, "explore.html", scene=eofm.open_scene("T32UPU.SAFE"))

The page contains the unit vectors projected on their first principal directions as int8 (without
centring, which would change cosines); the recall of the ten most similar cells is measured and
stated.

Shapes: N cells, D dimensions, d of them kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.warp import transform as warp_points

from eofm.errors import DataError
from eofm.geo.cells import Cells, Doubles, Embeddings, Floats, Index, Lattice, cells_of, lattice_of
from eofm.geo.embedding_files import open_embeddings
from eofm.geo.maps_config import ExploreConfig
from eofm.geo.results import exclusive, named_scene, scene_picture, write_settings
from eofm.io import write_file
from eofm.raster.grid import Grid, crs_text, read_crs
from eofm.report.pages import Explorer, render_explorer
from eofm.report.tables import shorten

if TYPE_CHECKING:
    from eofm.raster.scene import Scene

__all__ = ["ExplorePage", "explore", "run_explore"]

_PICTURE: Final = 1024  # approximate pixels of the longer side of the image
_PARTS: Final = 8  # of a cell, in images of rows that are shifted
_MESH: Final = 9  # points per side with known longitude and latitude
_SAMPLE: Final = 20_000  # vectors from which the directions are computed
_QUERIES: Final = 50
_BEST: Final = 10


@dataclass(frozen=True)
class ExplorePage:
    """The output of `eofm explore`.

    Args:
        file: The page.
        cells: Number of cells in it.
        recall: Mean share of the ten most similar cells that it finds.
        energy: Share of the vectors' squared length that is kept.
        notes: Notes shown on the page.
    """

    file: Path
    cells: int
    recall: float
    energy: float
    notes: tuple[str, ...]

    def describe(self) -> str:
        """Return the location and contents of the page."""
        size = self.file.stat().st_size / 1e6
        return f"{self.file}: {self.cells} cells, {size:.1f} MB\n  " + "\n  ".join(self.notes)


def run_explore(config: ExploreConfig) -> ExplorePage:
    """Write the page and, next to it, its settings: NAME.html.yaml.

    Args:
        config: The settings, as on the command line.

    Raises:
        ConfigError: If another process writes the same page.
        DataError: If embeddings or scene cannot be read, chips are not on a lattice, or the page
            cannot be written.
        SpecError: If sensor or unit of the scene are neither stated nor known.
    """
    out = Path(config.out)
    with exclusive(out.parent, f"{out.name}.lock"):
        return _run(config)


def _run(config: ExploreConfig) -> ExplorePage:
    scene = named_scene(config)
    page = explore(
        open_embeddings(config.embeddings),
        config.out,
        scene=scene,
        dimensions=config.dimensions,
        most=config.cells,
    )
    # a folder may have several pages: settings are named after theirs
    write_settings(config, page.file.with_name(f"{page.file.name}.yaml"))
    return page


def explore(
    embeddings: Embeddings,
    out: Path | str,
    *,
    scene: Scene | None = None,
    dimensions: int = 32,
    most: int = 250_000,
) -> ExplorePage:
    """Write one HTML file that shows similar cells on a click.

    Args:
        embeddings: A patch grid, or chips at equal steps.
        out: The file.
        scene: For the image under the cells; without it, the first directions of the vectors.
        dimensions: Number of principal directions to keep.
        most: Maximum number of cells; if exceeded, cells are thinned to every second, third, ... in
        each direction.

    Raises:
        DataError: If chips are not at equal steps, no cell has a vector, or the file cannot be
            written.
        RasterError: If the scene has no georeference, or is damaged.
    """
    if Path(out).is_dir():
        raise DataError(
            "the page is one file", found="a folder", where=out, remedy="name one: explore.html"
        )
    cells = cells_of(embeddings)
    lattice = lattice_of(cells)
    numbers, grid, shifts, step = _thinned(lattice, most)
    there = numbers >= 0
    if not there.any():
        raise DataError("no cell has a vector", found=f"{numbers.size} cells without one")
    units = _units(cells.vectors(numbers[there]))
    basis = _directions(units)[:, :dimensions]
    kept = units @ basis
    scale = np.maximum(np.abs(kept).max(axis=0) / 127, 1e-12).astype(np.float32)
    codes = np.zeros((*numbers.shape, kept.shape[1]), np.int8)
    codes[there] = np.rint(kept / scale)
    energy = float((kept**2).sum() / max(float((units**2).sum()), 1e-12))
    recall = _recall(units, codes[there].astype(np.float32) * scale)
    picture, stretch = _picture(scene, grid, kept, there, shifts)
    notes = _notes(cells, scene, kept.shape[1], energy, recall, step)
    if stretch:
        notes = (*notes, f"the sensor's stretch leaves the scene blank: {stretch}")
    name = scene.name if scene is not None else "vectors"
    page = Explorer(
        title=f"Similar cells in {shorten(name, 60)}",
        codes=codes,
        scale=scale,
        shifts=shifts,
        picture=picture,
        transform=_six(grid),
        crs=_crs_name(grid),
        lonlat=_mesh(grid),
        notes=notes,
    )
    file = write_file(Path(out), render_explorer(page).encode())
    return ExplorePage(file, int(there.sum()), recall, energy, notes)


def _thinned(lattice: Lattice, most: int) -> tuple[Index, Grid, Doubles, int]:
    """Return cells with north up, at most `most`, their grid, row shifts and thinning step."""
    numbers, grid, shifts = lattice.cells, lattice.grid, lattice.shifts
    t = grid.transform
    if t.e > 0:
        numbers, shifts = numbers[::-1], shifts[::-1]
        t = Affine(t.a, -t.b, t.c + t.b * grid.height, t.d, -t.e, t.f + t.e * grid.height)
    if t.a < 0:
        numbers = numbers[:, ::-1]
        t = Affine(-t.a, t.b, t.c + t.a * grid.width, -t.d, t.e, t.f + t.d * grid.width)
    step = 1
    while numbers[::step, ::step].size > most:
        step += 1
    more = grid.width - numbers.shape[1]  # one column, into which shifted rows extend
    numbers = np.ascontiguousarray(numbers[::step, ::step])
    wider = Affine(t.a * step, t.b * step, t.c, t.d * step, t.e * step, t.f)
    rows, columns = numbers.shape
    return numbers, Grid(grid.crs, wider, rows, columns + more), shifts[::step] / step, step


def _units(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def _directions(units: Floats) -> Floats:
    """Return directions sorted by decreasing energy, (D, D)."""
    some = units[:: max(1, len(units) // _SAMPLE)].astype(np.float64)
    _, found = np.linalg.eigh(some.T @ some)
    return np.ascontiguousarray(found[:, ::-1], np.float32)


def _recall(units: Floats, kept: Floats) -> float:
    """Return the mean share of the ten most similar cells found with the kept vectors."""
    queries = np.linspace(0, len(units) - 1, min(_QUERIES, len(units))).astype(int)
    short, count = _units(kept), min(_BEST, len(units) - 1)
    if count < 1:
        return 1.0
    found = []
    for query in queries:
        exact, rough = units @ units[query], short @ short[query]
        exact[query] = rough[query] = -np.inf
        # ties with the tenth count as found
        least = np.partition(exact, -count)[-count] - 1e-6
        found.append(float((exact[np.argpartition(-rough, count - 1)[:count]] >= least).mean()))
    return float(np.mean(found))


def _notes(
    cells: Cells, scene: Scene | None, kept: int, energy: float, recall: float, step: int
) -> tuple[str, ...]:
    made = cells.made
    dates = ", ".join(made.dates)
    notes = [
        f"vectors of {made.model or 'an unknown model'}, {cells.dim} dimensions"
        + (f", taken {dates}" if dates else ""),
        f"the page keeps {kept} directions as int8, {energy:.1%} of the vectors' squared length; "
        f"it finds {recall:.0%} of the ten most similar cells, on average",
        "a score is a cosine; colours run from the 2nd percentile of the scores to the highest, so "
        "**a light colour means most similar here, not necessarily similar**",
    ]
    if step > 1:
        notes.append(f"**one cell of {step} x {step} is shown**; `eofm search` uses all")
    if scene is None:
        notes.append("no scene was given: the image shows the vectors' first directions")
    return tuple(notes)


def _picture(
    scene: Scene | None, grid: Grid, kept: Floats, there: NDArray[np.bool_], shifts: Doubles
) -> tuple[NDArray[np.float32], str]:
    """Return the image under the cells, and a description of its stretch if not the sensor's."""
    if scene is not None:
        fine = max(1, _PICTURE // max(there.shape))
        t = grid.transform
        finer = Affine(t.a / fine, t.b / fine, t.c, t.d / fine, t.e / fine, t.f)
        shown = scene_picture(scene, Grid(grid.crs, finer, grid.height * fine, grid.width * fine))
        return shown.pixels, shown.stretch
    # the first direction is the mean, nearly constant over the scene
    colours = kept[:, 1:4] if kept.shape[1] > 3 else np.repeat(kept[:, :1], 3, axis=1)
    low, high = np.percentile(colours, [2, 98], axis=0)
    picture = np.full((*there.shape, 3), 0.5, np.float32)
    picture[there] = ((colours - low) / np.maximum(high - low, 1e-9)).clip(0, 1)
    return _shifted(picture, shifts) if shifts.any() else picture, ""


def _shifted(picture: Floats, shifts: Doubles) -> Floats:
    """Return an image of cells with each row where it is, (8 rows, 8 (columns + 1), 3)."""
    rows, columns = picture.shape[:2]
    places = (np.arange((columns + 1) * _PARTS) + 0.5) / _PARTS - shifts[:, None]
    wider = np.pad(picture, ((0, 0), (1, 1), (0, 0)), constant_values=0.5)
    column = np.floor(places).astype(np.int64).clip(-1, columns) + 1
    return np.repeat(wider[np.arange(rows)[:, None], column], _PARTS, axis=0)


def _six(grid: Grid) -> tuple[float, float, float, float, float, float]:
    t = grid.transform
    return t.a, t.b, t.c, t.d, t.e, t.f


def _crs_name(grid: Grid) -> str:
    """Return the name of the CRS; empty for a projection that was made for this page alone."""
    text = crs_text(grid.require_crs())
    name = text if len(text) < 20 else text.split('"')[1]
    return "" if name == "unknown" else name


def _mesh(grid: Grid) -> NDArray[np.float64]:
    rows, cols = (np.linspace(0, length, _MESH) for length in (grid.height, grid.width))
    places = [grid.point(float(col), float(row)) for row in rows for col in cols]
    xs, ys = zip(*places, strict=True)
    lon, lat = warp_points(grid.require_crs(), read_crs("EPSG:4326"), list(xs), list(ys))
    # the browser interpolates: across the antimeridian longitudes have to continue
    beyond = lon[0] + (np.asarray(lon) - lon[0] + 180) % 360 - 180
    return np.stack([beyond, np.asarray(lat)], axis=1).reshape(_MESH, _MESH, 2)
