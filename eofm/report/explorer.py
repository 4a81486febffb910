"""A page in which a click on a picture shows what looks alike: one HTML file, no server.

The vectors are in the page, as int8 of a few components; the browser multiplies them. Nothing is
fetched: the page's own policy forbids it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from eofm.report.pages import Picture, environment


@dataclass(frozen=True, eq=False)
class Explorer:
    """What the page shows.

    Args:
        title: Its name.
        codes: int8 (rows, columns, components); all 0 where there is no vector.
        scale: Of each component, (components,).
        picture: Under the cells, (H, W, 3) in [0, 1], H and W multiples of rows and columns.
        transform: From (column, row) of a cell's corner to coordinates: a, b, c, d, e, f.
        crs: Of the coordinates, by name.
        lonlat: Longitude and latitude at evenly spaced rows and columns, ends included,
            (n, n, 2); the browser interpolates.
        notes: Below the picture; words between backticks are code, between double asterisks bold.
    """

    title: str
    codes: NDArray[np.int8]
    scale: NDArray[np.float32]
    picture: NDArray[np.float32]
    transform: tuple[float, float, float, float, float, float]
    crs: str
    lonlat: NDArray[np.float64]
    notes: tuple[str, ...]

    @property
    def facts(self) -> dict[str, object]:
        """What the script reads beside the vectors."""
        rows, columns, components = self.codes.shape
        return {
            "rows": rows,
            "columns": columns,
            "components": components,
            "scale": [float(value) for value in self.scale],
            "transform": list(self.transform),
            "crs": self.crs,
            "lonlat": np.round(self.lonlat, 6).tolist(),
        }

    @property
    def vectors(self) -> Markup:
        """All codes, row by row, in base64."""
        return Markup(base64.b64encode(np.ascontiguousarray(self.codes).tobytes()).decode())

    @property
    def background(self) -> Markup:
        """The picture, as PNG inside an address."""
        return Markup(Picture(self.picture, "").address)


def render_explorer(explorer: Explorer) -> str:
    """Return the page as one HTML document.

    Args:
        explorer: What it shows.
    """
    return environment().get_template("explore.html.j2").render(page=explorer)
