"""Recognise the layout of a folder, for `eofm data check`; folders of images and of maps.

Other folders of GeoTIFFs than those of known data sets need sensor and unit from the user.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from eofm.contract.spec import Sensor, Unit
from eofm.datasets.check_sets import (
    bigearthnet_set,
    eurosat_set,
    is_bigearthnet,
    is_eurosat,
    is_ssl4eo,
    ssl4eo_set,
)
from eofm.datasets.check_twins import compare_twins
from eofm.datasets.check_types import CheckGroup, DataSet, Finding, Fixed, Subject, spread
from eofm.datasets.places import find_places, grid_of_file
from eofm.datasets.sets_config import CheckConfig
from eofm.datasets.stated_units import state_units
from eofm.errors import ConfigError, DataError, EofmError
from eofm.landcover.multilabel import class_fractions
from eofm.landcover.schemes import SCHEMES
from eofm.progress import track
from eofm.raster.folder import list_sources
from eofm.raster.geotiff import open_geotiff, read_valid
from eofm.raster.grid import Window
from eofm.raster.source import RasterSource


def describe_set(config: CheckConfig) -> DataSet:
    """Recognise the layout of a folder.

    Raises:
        DataError: If it is none that eofm knows, or its lists contradict themselves.
        ConfigError: If it holds GeoTIFFs of which sensor and unit have to be stated.
    """
    root = Path(config.path)
    if not root.is_dir():
        raise DataError(
            "this is no folder" if root.exists() else "there is no such folder",
            where=root,
            remedy=f"name the folder it lies in, {root.parent}" if root.exists() else None,
        )
    if config.sensor is None:
        for fits, describe in _LAYOUTS:
            if fits(root):
                try:
                    return describe(root, config)
                except DataError as error:
                    finding = Finding(error.problem, str(error.where or root), str(error.found))
                    return DataSet("a data set that cannot be listed", {}, (), (finding,))
        return _maps(root, config)
    return _tiles(root, config)


# ---------------------------------------------------------------- TerraMesh and S2-100K

TERRAMESH: Final[Mapping[str, tuple[Sensor, Unit]]] = {
    "S2L1C": (Sensor.S2_L1C, Unit.DN),
    "S2L2A": (Sensor.S2_L2A, Unit.DN),
    "S1GRD": (Sensor.S1_GRD, Unit.DB),
    "S1RTC": (Sensor.S1_RTC, Unit.DB),
}


def _is_terramesh(root: Path) -> bool:
    return any((root / name).is_dir() and any((root / name).glob("*.tif")) for name in TERRAMESH)


def _terramesh(root: Path, config: CheckConfig) -> DataSet:
    groups = []
    listed: dict[str, list[RasterSource]] = {}
    keys = {
        folder.name: {file.stem for file in folder.glob("*.tif")}
        for folder in sorted(root.iterdir())
        if folder.name in {*TERRAMESH, "LULC", "DEM", "NDVI"}
    }
    for name, (sensor, unit) in TERRAMESH.items():
        if keys.get(name):
            listed[name] = list_sources(root / name, sensor, unit)
            subjects = [Subject(source.name, Fixed(source)) for source in listed[name]]
            groups.append(CheckGroup(name, subjects, prefix=f"{name}/"))
    every = set().union(*keys.values())
    findings = [
        Finding("a site lacks a modality", key, f"not in {name}")
        for name, there in keys.items()
        for key in sorted(every - there)
    ]
    findings += compare_twins(listed.get("S2L1C", ()), listed.get("S2L2A", ()), config.limit)
    counts = {f"{name} files": len(there) for name, there in keys.items()}
    if "LULC" not in keys:
        return DataSet("TerraMesh", counts, groups, findings)
    maps, classes = _count_maps(sorted((root / "LULC").glob("*.tif")), "terramesh", config.limit)
    return DataSet("TerraMesh", counts, groups, [*findings, *maps], len(keys["LULC"]), classes)


def _is_s2_100k(root: Path) -> bool:
    return (root / "index.csv").is_file() and any((root / "images").glob("patch_*.tif"))


def _s2_100k(root: Path, config: CheckConfig) -> DataSet:
    sources = list_sources(root / "images", Sensor.S2_L2A, Unit.DN)
    here = {source.files[0].name for source in sources}
    with (root / "index.csv").open(encoding="utf-8", newline="") as stream:
        rows = Counter(row.get("fn", "") for row in csv.DictReader(stream))
    findings = [
        *(
            Finding("the index names an image twice", n, f"{c} rows")
            for n, c in rows.items()
            if c > 1
        ),
        *(
            Finding("the index does not name an image", n, "no row")
            for n in sorted(here - set(rows))
        ),
        *(
            Finding("an image of the index is not there", n, "no file")
            for n in sorted(set(rows) - here)
        ),
    ]
    groups = [CheckGroup("images", [Subject(s.name, Fixed(s)) for s in sources])]
    counts = {"images": len(here), "rows of the index": sum(rows.values())}
    return DataSet("S2-100K", counts, groups, findings, notes=["without labels"])


# --------------------------------------------------------------------- maps and others


def _maps(root: Path, config: CheckConfig) -> DataSet:
    """Describe a folder of ESA WorldCover tiles, or say what has to be stated."""
    files = sorted(root.glob("ESA_WorldCover_10m_*_Map.tif"))
    if files:
        findings, classes = _count_maps(files, "worldcover", config.limit)
        note = f"looked at in windows of {_MAP_WINDOW} pixels, spread evenly"
        return DataSet(
            "ESA WorldCover", {"maps": len(files)}, (), findings, len(files), classes, [note]
        )
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
        expected="a packed store; SSL4EO-S12, BigEarthNet, EuroSAT, TerraMesh, S2-100K; "
        "ESA WorldCover; or a folder of GeoTIFFs",
        where=root,
    )


_MAP_WINDOW: Final = 1024


def _count_maps(
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
            for row in range(0, height, _MAP_WINDOW)
            for col in range(0, width, _MAP_WINDOW)
        ]
        for i in spread(len(corners), limit):
            row, col = corners[i]
            window = Window(row, col, min(_MAP_WINDOW, height - row), min(_MAP_WINDOW, width - col))
            codes, _ = read_valid(dataset, (1,), window)
            cover = class_fractions(codes[0], table, file)
            present |= {n for n, s in zip(table.names, cover.fractions, strict=True) if s > 0}
        return present, dataset.crs is not None


def _tiles(root: Path, config: CheckConfig) -> DataSet:
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
    return DataSet(
        f"GeoTIFFs of {config.sensor} in {' and '.join(units)}",
        {"images": len(sources), "places": len(set(places.of.values()))},
        [CheckGroup("images", [Subject(s.name, Fixed(s)) for s in sources], any_size=True)],
        notes=places.remarks,
    )


_Layout = tuple[Callable[[Path], bool], Callable[[Path, CheckConfig], DataSet]]
_LAYOUTS: Final[tuple[_Layout, ...]] = (
    (is_bigearthnet, bigearthnet_set),
    (is_ssl4eo, ssl4eo_set),
    (is_eurosat, eurosat_set),
    (_is_terramesh, _terramesh),
    (_is_s2_100k, _s2_100k),
)
