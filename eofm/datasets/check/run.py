"""`eofm data check`: read a data set or a packed store, and say what is wrong with it.

The data sets say in their declarations how their folders are recognised. Other folders of GeoTIFFs
need sensor and unit from the user.

Every image is counted; some, spread evenly, are read whole: are the files complete, do the bands
fit together, is there a CRS, can the pixels be what is stated of them (`eofm.contract.validity`),
does every band hold measurements, do two images hold the same pixels? Each fault is reported with
its image and band, and nothing is changed. Of packed stores checksums, identifiers and labels are
compared as well.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from eofm.contract.imagery import Imagery, NativeImagery, collate
from eofm.contract.preprocess import to_grid
from eofm.contract.spec import BANDS, SENSOR_BANDS, Sensor, Unit
from eofm.contract.validity import (
    DEAD_BAND,
    ENOUGH_IMAGES,
    check_plausible,
    find_doubts,
    measured_of,
)
from eofm.datasets.check import (
    CheckConfig,
    CheckGroup,
    CheckReport,
    Described,
    Finding,
    Subject,
    counted_only,
    known_source,
    spread,
)
from eofm.datasets.images.places import find_places, grid_of_file, known_unit, state_units
from eofm.datasets.registry import DATASETS
from eofm.errors import ConfigError, DataError, EofmError, PixelError, StoreError
from eofm.landcover.multilabel import class_fractions
from eofm.landcover.schemes import SCHEMES
from eofm.raster.folder import list_sources
from eofm.raster.geotiff import open_geotiff, read_valid
from eofm.raster.grid import Window
from eofm.raster.safe import of_product
from eofm.raster.source import OpenRaster, RasterSource, find_doubt
from eofm.store.format import JOURNAL, PAIRS, SPEC
from eofm.store.paired import PairedStore
from eofm.store.reader import Store
from eofm.terminal import track

__all__ = [
    "COMPARED",
    "MAP_WINDOW",
    "check_data",
    "check_pairs",
    "check_store",
    "count_maps",
    "describe_folder",
    "is_store",
]

# ------------------------------------------------------------------------------ what a folder holds


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
    unit = None if config.unit is None else Unit(config.unit)
    listed = list_sources(root, Sensor(config.sensor), unit, config.bands)
    stated_of = state_units(listed, {p: Unit(unit) for p, unit in config.unit_of.items()})
    sources = [_with_unit(source) for source in stated_of]
    stated = config.place is not None
    places = find_places(
        {s.name: None if stated else grid_of_file(s.files[0]) for s in sources}, config.place
    )
    units = sorted({source.unit.value for source in sources if source.unit}) or ["no known unit"]
    return Described(
        f"GeoTIFFs of {config.sensor} in {' and '.join(units)}",
        {"images": len(sources), "places": len(set(places.of.values()))},
        [CheckGroup("images", [known_source(s) for s in sources], any_size=True)],
        notes=places.remarks,
    )


def _with_unit(source: RasterSource) -> RasterSource:
    """Return an image in the unit that it says; as it is where the check will name its fault."""
    try:
        return known_unit(source)
    except DataError:
        return source


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
            findings.append(Finding("the map has no georeference", str(file), "no CRS"))
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


# --------------------------------------------------------------------------------------- reading it


def check_data(config: CheckConfig) -> CheckReport:
    """Read a data set or a store and report its faults.

    Args:
        config: Where it is, what it is stated to be, and how much of it to read.

    Returns:
        What was found; its `status` is 1 if anything is wrong.

    Raises:
        DataError: If it is none of the layouts that eofm knows.
        ConfigError: If sensor and unit have to be stated, or a pattern fits no image.
        RasterError: If an image of a stated folder lacks a band.
    """
    path = Path(config.path)
    if is_store(path):
        return check_store(path, config)
    if (path / PAIRS).is_file():
        return check_pairs(path, config)
    data = describe_folder(config)
    findings = list(data.findings)
    notes = list(data.notes)
    looked_at = 0
    for group in data.groups:
        look = _check_group(group, config.limit)
        findings += look.findings
        notes += look.notes
        looked_at += look.count
    notes += counted_only(sum(len(group.subjects) for group in data.groups), looked_at)
    return CheckReport(
        path.as_posix(),
        data.kind,
        data.counts,
        looked_at,
        tuple(findings),
        data.labelled,
        data.classes,
        tuple(notes),
        config.json,
    )


# ------------------------------------------------------------------------------- images


def _check_group(group: CheckGroup, limit: int) -> _Look:
    """Read images of one kind, and compare them."""
    look = _Look(group)
    chosen = spread(len(group.subjects), limit)
    every = max(1, len(chosen) // COMPARED)
    for number, i in enumerate(track(chosen, f"checking {group.name}")):
        look.at(group.subjects[i], keep=number % every == 0)
    look.finish()
    return look


class _Look:
    """One pass over images of one kind.

    Attributes:
        findings: What is wrong.
        notes: What the user should know and is not wrong.
        count: How many images were read.

    Args:
        group: The images.
    """

    def __init__(self, group: CheckGroup) -> None:
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.count = 0
        self._group = group
        self._sizes: dict[tuple[int, int], list[str]] = {}
        self._kinds: dict[str, list[str]] = {}
        self._contents: dict[str, str] = {}
        self._varies: set[str] = set()
        self._constant: list[tuple[str, str, float]] = []
        self._kept: list[Imagery] = []

    def at(self, subject: Subject, *, keep: bool) -> None:
        """Read one image; keep it for the comparison of all, if it is sound."""
        self.count += 1
        try:
            source = of_product(subject.source())
            with source.open() as raster:
                native = self._read(subject, raster)
        except EofmError as error:
            self._find(subject.name, error)
            return
        if native is not None and keep and len(self._kept) < COMPARED:
            self._kept.append(to_grid(native))

    def _read(self, subject: Subject, raster: OpenRaster) -> NativeImagery | None:
        """Return the image, or None if something about it is wrong."""
        native, name = raster.read_native(), subject.name
        before = len(self.findings)
        if raster.grid.crs is None:
            self._say(name, "the image has no georeference", "no CRS")
        self._sizes.setdefault((raster.grid.height, raster.grid.width), []).append(name)
        # packing reads bands by name, so that their order in a file does not matter
        bands = sorted(native.spec.bands, key=SENSOR_BANDS[native.spec.sensor].index)
        kind = f"{' '.join(bands)} at {native.spec.gsd:g} m"
        self._kinds.setdefault(kind, []).append(name)
        values = _constant_bands(native)
        measured = int(native.valid[0].any(0).sum())
        constant = len(values) == len(native.spec.bands) and measured > 1  # one pixel always is
        if constant or not measured:
            self._say(name, "the image holds no measurement", "one value, or nodata only")
            return None
        self._varies |= set(native.spec.bands) - values.keys()
        for band, (value, enough) in values.items():
            if value == 0:
                self._say(name, DEAD_BAND, "0 in every pixel", band)
            elif enough:
                self._constant.append((name, band, value))
        doubt = find_doubt(raster, native)
        if doubt is not None and not (doubt.band in values and doubt.problem == DEAD_BAND):
            found = f"{doubt.found}, expected {doubt.expected}"
            self._say(name, doubt.problem, found, doubt.band or "")
        twin = self._contents.setdefault(_content(native), name)
        if twin != name:
            self._say(name, "two images hold the same pixels", f"as {twin}")
        return native if len(self.findings) == before else None

    def finish(self) -> None:
        """Compare the images with one another."""
        for name, band, value in self._constant:
            if band in self._varies:  # as it does in other images
                self._say(name, DEAD_BAND, f"{value:g} in every pixel", band)
        self._compare_sizes()
        usual = max(self._kinds, key=lambda kind: len(self._kinds[kind]), default="")
        for kind, names in self._kinds.items():
            if kind != usual:
                for name in names:
                    self._say(
                        name,
                        "an image has other bands or pixels than the others",
                        f"{kind}, expected {usual}",
                    )
        by_spec: dict[object, list[Imagery]] = {}
        for imagery in self._kept:
            by_spec.setdefault(imagery.spec, []).append(imagery)
        for batch in by_spec.values():
            try:
                check_plausible(collate(batch))
            except PixelError as error:
                self._find(f"{self._group.name}, {len(batch)} images", error)

    def _compare_sizes(self) -> None:
        usual = self._group.size
        if usual is None and self._sizes:
            usual = max(self._sizes, key=lambda size: len(self._sizes[size]))
        other = {size: names for size, names in self._sizes.items() if size != usual}
        if usual is None or not other:
            return
        if self._group.size is None and self._group.any_size:
            counts = {size: len(names) for size, names in self._sizes.items()}
            most = sorted(counts, key=lambda size: -counts[size])
            shown = ", ".join(f"{counts[size]} of {size[0]} x {size[1]}" for size in most[:4])
            more = f" and {len(most) - 4} more" if most[4:] else ""
            first = next(iter(other.values()))[0]
            self.notes.append(f"images of {len(most)} sizes: {shown}{more} pixels, as {first}")
            return
        for size, names in other.items():
            found = f"{size[0]} x {size[1]}, expected {usual[0]} x {usual[1]} pixels"
            for name in names:
                self._say(name, "an image has another size than the others", found)

    def _find(self, name: str, error: EofmError) -> None:
        found = "; ".join(str(p) for p in (error.found, error.where) if p is not None)
        self._say(name, error.problem, found)

    def _say(self, name: str, problem: str, found: str, band: str = "") -> None:
        self.findings.append(Finding(problem, f"{self._group.prefix}{name}", found, band))


# Measurements. Calm sea has one value in 114 of B09, a 60 m band that EuroSAT brings to 10 m.
_ENOUGH: Final = 1024


def _constant_bands(native: NativeImagery) -> dict[str, tuple[float, bool]]:
    """Return the bands with one value in all measured pixels -> it, and whether they are many."""
    found = {}
    for gsd, plane in native.planes.items():
        mask = measured_of(native, gsd)[0]
        whole = bool(mask.all())
        for band, stored in zip(native.bands[gsd], plane[0], strict=True):
            values = stored.numpy() if whole else stored.numpy()[mask.numpy()]
            if values.size and values.min() == values.max():
                own = values.size * min(1.0, gsd / BANDS[band].gsd) ** 2
                found[band] = float(values.flat[0]), own >= _ENOUGH
    return found


def _content(native: NativeImagery) -> str:
    digest = hashlib.sha256()
    for gsd in sorted(native.planes):
        values = native.planes[gsd].numpy()
        if values.dtype != np.uint16 and values.min() >= 0 and values.max() <= 65_535:
            whole = values.astype(np.uint16)
            values = whole if np.array_equal(whole, values) else values  # a copy of another type
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


# ----------------------------------------------------------------------------------- packed stores


COMPARED: Final = 2 * ENOUGH_IMAGES  # images whose band means are compared with one another


def is_store(path: Path) -> bool:
    """Whether a folder holds a packed store, finished or not."""
    return (path / SPEC).is_file() or (path / JOURNAL).is_file()


def check_pairs(path: Path, config: CheckConfig) -> CheckReport:
    """Check the stores of several sensors, and whether the table of rows is theirs.

    Args:
        path: The folder of the stores.
        config: How much of each to read.
    """
    names = sorted(folder.name for folder in path.iterdir() if is_store(folder))
    reports = {name: check_store(path / name, config) for name in names}
    findings = [
        Finding(f.problem, f"{name}: {f.name}", f.found)
        for name, report in reports.items()
        for f in report.findings
    ]
    counts = {
        f"{what} in {name}": count
        for name, report in reports.items()
        for what, count in report.counts.items()
    }
    if not findings:
        try:
            both = PairedStore(path)
        except StoreError as error:
            findings.append(Finding(error.problem, PAIRS, str(error.found)))
        else:
            counts[f"lines of {PAIRS}"] = len(both)
            counts["lines with an image of every sensor"] = len(both.complete())
    leader = next(iter(reports.values()), None)
    return CheckReport(
        path.as_posix(),
        f"packed stores of {len(names)} sensors",
        counts,
        sum(report.looked_at for report in reports.values()),
        tuple(findings),
        0 if leader is None else leader.labelled,
        {} if leader is None else leader.classes,
        tuple(f"{name}: {note}" for name, report in reports.items() for note in report.notes),
        config.json,
    )


def check_store(path: Path, config: CheckConfig) -> CheckReport:
    """Check files, checksums, identifiers, pixels and labels of a packed store.

    Args:
        path: The store, finished or not.
        config: How much of it to read.
    """
    kind = "packed store"
    try:
        store = Store(path)
    except StoreError as error:
        found = Finding(error.problem, str(error.where or path), str(error.found))
        return CheckReport(path.as_posix(), kind, {}, 0, (found,), as_json=config.json)
    rows = spread(len(store), config.limit)
    findings = [
        Finding("an identifier is there more than once", name, f"{count} rows")
        for name, count in Counter(store.ids.tolist()).items()
        if count > 1
    ]
    findings += [
        Finding("an image has changed since it was written", str(store.ids[i]), f"row {i}")
        for i in store.changed(rows)
    ]
    findings += _implausible(store, rows)
    labels = store.labels(range(len(store)))
    counts = labels.multi_hot.sum(dim=0).int().tolist()
    card = store.card
    notes = [f"{card.spec.sensor}, {' '.join(card.spec.bands)}, unit {card.spec.unit}"]
    if card.quarantined:
        notes.append(f"{len(card.quarantined)} images could not be read when it was packed")
    notes += counted_only(len(store), len(rows))
    return CheckReport(
        path.as_posix(),
        kind,
        {"images": len(store), "places": len(set(store.locations.tolist()))},
        len(rows),
        tuple(findings),
        int(labels.known.sum()),
        dict(zip(store.classes, counts, strict=True)),
        tuple(notes),
        config.json,
    )


def _implausible(store: Store, rows: Sequence[int]) -> list[Finding]:
    """Return what contradicts the card: image by image, and over many images."""
    findings = []
    for start in range(0, len(rows), COMPARED):
        part = rows[start : start + COMPARED]
        for doubt in find_doubts(to_grid(store.images(part))):
            name = str(store.ids[part[doubt.image]])
            findings.append(Finding(doubt.problem, name, doubt.found, doubt.band or ""))
    some = [rows[i] for i in spread(len(rows), COMPARED)]
    if not findings and some:
        try:
            check_plausible(to_grid(store.images(some)))
        except PixelError as error:
            findings.append(Finding(error.problem, f"{len(some)} images", str(error.found)))
    return findings
