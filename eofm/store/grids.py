"""Where the images of a store lie: the CRS and transform that its index keeps.

The index holds them as text and six numbers, so that a store is read without a raster library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from affine import Affine

from eofm.errors import RasterError, StoreError
from eofm.raster.grid import Grid, crs_text, read_crs
from eofm.store.metadata import Entry
from eofm.store.reader import Store


def located(entry: Entry, grid: Grid) -> Entry:
    """Return an entry that keeps where its image lies.

    Args:
        entry: Of an image.
        grid: Its finest grid.
    """
    crs, numbers = coefficients(grid)
    return replace(entry, crs=crs, transform=numbers)


def coefficients(grid: Grid) -> tuple[str, tuple[float, ...]]:
    """Return a grid as the index keeps it: its CRS as text, and a, b, c, d, e, f."""
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
        f"eofm data upgrade {store.path} --images DIR --out NEW",
    )
