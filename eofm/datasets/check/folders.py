"""Recognise what a folder holds, for `eofm data check`; folders of images and of class maps.

The data sets say in their declarations how their folders are recognised. Other folders of GeoTIFFs
need sensor and unit from the user.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from eofm.contract.spec import Sensor, Unit
from eofm.datasets.check.options import CheckConfig
from eofm.datasets.check.report import CheckGroup, Described, Finding, known_source, spread
from eofm.datasets.images.own_images import state_units
from eofm.datasets.images.places import find_places, grid_of_file
from eofm.datasets.registry import DATASETS
from eofm.errors import ConfigError, DataError, EofmError
from eofm.landcover.multilabel import class_fractions
from eofm.landcover.schemes import SCHEMES
from eofm.progress import track
from eofm.raster.folder import list_sources
from eofm.raster.geotiff import open_geotiff, read_valid
from eofm.raster.grid import Window


def describe_folder(config: CheckConfig) -> Described:
    """Recognise the layout of a folder, and list what is in it.

    Raises:
        DataError: If it is none that eofm knows.
        ConfigError: If it holds GeoTIFFs of which sensor and unit have to be stated.
    """
    root = Path(config.path)
    if not root.is_dir():
        raise DataError(
            "this is no folder" if root.exists() else "there is no such folder",
            where=root,
            remedy=f"name the folder it lies in, {root.parent}" if root.exists() else None,
        )
    if config.sensor is not None:
        return _stated(root, config)
    known = {one.title: one.layout for one in DATASETS.values() if one.layout is not None}
    for layout in known.values():
        if layout.fits(root):
            try:
                return layout.describe(root, config)
            except DataError as error:
                finding = Finding(error.problem, str(error.where or root), str(error.found))
                return Described("a data set that cannot be listed", {}, (), (finding,))
    if any(f.suffix.lower() in {".tif", ".tiff"} for f in root.rglob("*")):
        raise ConfigError(
            "sensor and unit of these GeoTIFFs have to be stated",
            found="a folder in none of the layouts that eofm knows",
            where=root,
            remedy="as in: eofm data check DIR --sensor s2-l1c --unit dn",
        )
    raise DataError(
        "this is no data set that eofm knows",
        found=", ".join(sorted(f.name for f in root.iterdir())[:5]) or "an empty folder",
        expected=f"a packed store; {', '.join(known)}; or a folder of GeoTIFFs",
        where=root,
    )


def _stated(root: Path, config: CheckConfig) -> Described:
    """Describe a folder of GeoTIFFs as the user states it."""
    assert config.sensor is not None  # noqa: S101 (the caller has checked it)
    assert config.unit is not None  # noqa: S101 (the settings have checked it)
    listed = list_sources(root, Sensor(config.sensor), Unit(config.unit), config.bands)
    sources = state_units(listed, {p: Unit(unit) for p, unit in config.unit_of.items()})
    stated = config.place is not None
    places = find_places(
        {s.name: None if stated else grid_of_file(s.files[0]) for s in sources}, config.place
    )
    units = sorted({str(source.unit) for source in sources})
    return Described(
        f"GeoTIFFs of {config.sensor} in {' and '.join(units)}",
        {"images": len(sources), "places": len(set(places.of.values()))},
        [CheckGroup("images", [known_source(s) for s in sources], any_size=True)],
        notes=places.remarks,
    )


# ---------------------------------------------------------------------------- class maps

MAP_WINDOW: Final = 1024


def count_maps(
    files: Sequence[Path], scheme: str, limit: int
) -> tuple[list[Finding], dict[str, int]]:
    """Read windows of class maps, spread evenly.

    Returns:
        What is wrong with them, and class -> maps in whose windows it is present.
    """
    table = SCHEMES[scheme]
    counts: Counter[str] = Counter()
    findings = []
    for file in track(files, "checking maps"):
        try:
            present, georeferenced = _classes_of(file, scheme, limit // len(files) or limit)
        except EofmError as error:
            findings.append(Finding(error.problem, str(file), str(error.found)))
            continue
        if not georeferenced:
            findings.append(
                Finding("the map says nothing about where it lies", str(file), "no CRS")
            )
        counts.update(present)
    return findings, {name: counts[name] for name in table.names}


def _classes_of(file: Path, scheme: str, limit: int) -> tuple[set[str], bool]:
    """Return the classes present in windows of a map, and whether it has a CRS."""
    table = SCHEMES[scheme]
    present: set[str] = set()
    with open_geotiff(file) as dataset:
        height, width = dataset.height, dataset.width
        corners = [
            (row, col)
            for row in range(0, height, MAP_WINDOW)
            for col in range(0, width, MAP_WINDOW)
        ]
        for i in spread(len(corners), limit):
            row, col = corners[i]
            window = Window(row, col, min(MAP_WINDOW, height - row), min(MAP_WINDOW, width - col))
            codes, _ = read_valid(dataset, (1,), window)
            cover = class_fractions(codes[0], table, file)
            present |= {n for n, s in zip(table.names, cover.fractions, strict=True) if s > 0}
        return present, dataset.crs is not None
