"""The files of a search.

ranked.gpkg, ranked.parquet   the best cells: rank, score, longitude, latitude
score.tif, score.qml          of a patch grid: the score of every patch
sheet.png                     with the scene: pictures of the examples and of the best
search.json                   settings, provenance, what a score is
config.yaml                   the settings: `eofm search --config config.yaml` does it again
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from eofm.geo.cells import GridCells
from eofm.geo.cog import plane, write_cog
from eofm.geo.maps_config import SearchConfig
from eofm.geo.pictures import cell_pictures
from eofm.geo.results import CONFIG, ResultFiles, write_frame, write_record, write_settings
from eofm.geo.search import SearchResult, search
from eofm.geo.styles import score_qml
from eofm.geo.vectors.files import open_embeddings
from eofm.raster.opening import open_scene
from eofm.report import output
from eofm.report.output import write_file
from eofm.report.sheets import contact_sheet

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

_LISTED: Final = 10
_SHOWN: Final = 7  # pictures of the best on a sheet, beside an example
_NO_SCORE: Final = -2.0  # below any cosine and any probability


def run_search(config: SearchConfig) -> ResultFiles:
    """Search and write all files.

    Args:
        config: The settings, as on the command line.

    Raises:
        DataError: If embeddings or polygons cannot be used, or files cannot be written.
        SpecError: If sensor or unit of the scene are neither stated nor known.
    """
    scene = (
        open_scene(config.scene, sensor=config.sensor, unit=config.unit) if config.scene else None
    )
    found = search(
        open_embeddings(config.embeddings),
        at=config.place,
        like=config.like,
        unlike=config.unlike,
    )
    folder, ranked = Path(config.out), found.ranked(config.top)
    files = [write_frame(ranked, folder / f"ranked.{end}") for end in ("gpkg", "parquet")]
    files += _raster(found, folder)
    if scene is not None and len(ranked):
        shown = np.concatenate([found.examples[:1], ranked["cell"].to_numpy()[:_SHOWN]])
        pictures, stretch = cell_pictures(scene, found.cells, np.asarray(shown, np.int64))
        numbered = enumerate(ranked["score"].tolist()[:_SHOWN], 1)
        heads = ["an example", *(f"{number}: {score:.3f}" for number, score in numbered)]
        columns = {head: [one] for head, one in zip(heads, pictures, strict=True)}
        caption = f"{found.kind}; three sides of a cell are shown" + (
            f"; {stretch}" * bool(stretch)
        )
        figure = contact_sheet(columns, [caption], f"the best of {scene.name}")
        files.append(output.save(figure, folder / "sheet.png"))
    record = {
        "settings": asdict(config),
        "provenance": json.loads(found.cells.made.to_json()),
        "score": found.kind,
        "examples": len(found.examples),
        "counterexamples": len(found.counterexamples),
    }
    files.append(write_record(folder / "search.json", record))
    files.append(write_settings(config, folder / CONFIG))
    return ResultFiles(folder, _listing(found, ranked), tuple(files))


def _raster(found: SearchResult, folder: Path) -> list[Path]:
    if not isinstance(found.cells, GridCells):
        return []
    grid = found.cells.patches.grid
    known = found.scores[np.isfinite(found.scores)]
    low, high = (float(np.quantile(known, q)) for q in (0.02, 0.999))
    return [
        write_cog(
            folder / "score.tif",
            np.nan_to_num(plane(found.scores, grid), nan=_NO_SCORE)[None],
            grid,
            ["score"],
            nodata=_NO_SCORE,
            tags={"EOFM_SCORE": found.kind, "EOFM_PROVENANCE": found.cells.made.to_json()},
        ),
        write_file(folder / "score.qml", score_qml(low, max(high, low + 1e-6), "")),
    ]


def _listing(found: SearchResult, ranked: GeoDataFrame) -> str:
    lines = [f"{found.kind}: the best {min(_LISTED, len(ranked))} of {len(found.scores)} cells"]
    rows = zip(
        ranked["rank"], ranked["score"], ranked["longitude"], ranked["latitude"], strict=True
    )
    lines += [
        f"  {rank:4d}  {score:7.4f}  {lon:11.6f} {lat:11.6f}"
        for rank, score, lon, lat in list(rows)[:_LISTED]
    ]
    return "\n".join(lines)
