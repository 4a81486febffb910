"""Make `eofm/report/coastline.npz` from Natural Earth's land, as packaged by `world-atlas`.

    npm pack world-atlas && tar xf world-atlas-*.tgz
    python docs/images/coastline.py package/land-50m.json

The npm package (ISC) holds Natural Earth's 1:50 million land as TopoJSON; Natural Earth is in the
public domain (naturalearthdata.com/about/terms-of-use). Rings are thinned to 0.05 degrees, islands
smaller than that are left out, and coordinates are rounded to 0.01 degrees.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import LineString

TOLERANCE = 0.05  # degrees
UNIT = 0.01
OUT = Path(__file__).parents[2] / "eofm" / "report" / "coastline.npz"


def arcs_of(topology: dict[str, Any]) -> list[NDArray[np.float64]]:
    """Return the lines of a TopoJSON, in degrees: they are stored as steps of whole numbers."""
    scale, shift = topology["transform"]["scale"], topology["transform"]["translate"]
    return [np.cumsum(arc, axis=0) * np.array(scale) + np.array(shift) for arc in topology["arcs"]]


def coasts(arc: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return the parts of a line that are coast: the seam at 180 degrees and the pole are none."""
    seam = (np.abs(arc[:, 0]) > 179.99) | (arc[:, 1] < -89.9)
    # steps along the edge of the map, and from one edge to the other
    edge = (seam[:-1] & seam[1:]) | (np.abs(np.diff(arc[:, 0])) > 180)
    parts = np.split(arc, np.flatnonzero(edge) + 1)
    return [part for part in parts if len(part) > 1]


def main(source: Path) -> None:
    """Write the file."""
    topology = json.loads(source.read_text("utf-8"))
    thinned = []
    for arc in arcs_of(topology):
        for part in coasts(arc):
            line = LineString(part).simplify(TOLERANCE, preserve_topology=False)
            points = np.rint(np.array(line.coords) / UNIT).astype(np.int16)
            if np.ptp(points, axis=0).max() * UNIT >= TOLERANCE:
                thinned.append(points)
    lengths = [len(points) for points in thinned]
    starts = np.cumsum([0, *lengths[:-1]]).astype(np.int32)
    np.savez_compressed(OUT, points=np.concatenate(thinned), starts=starts)
    print(f"{OUT}: {len(thinned)} lines, {sum(lengths)} points, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
