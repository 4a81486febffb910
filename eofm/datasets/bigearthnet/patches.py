"""The folders of BigEarthNet: its official lists, its patches, their packing and their check.

Version 1 (Sumbul et al. 2019, 2021), below ROOT:

    BigEarthNet-v1.0/<p>/<p>_B02.tif ... <p>_labels_metadata.json          12 bands, no B10
    BigEarthNet-S1-v1.0/<s>/<s>_VV.tif <s>_VH.tif <s>_labels_metadata.json

    and the official lists: train.csv, val.csv, test.csv, patches_with_seasonal_snow.csv,
    patches_with_cloud_and_shadow.csv, patches_with_no_19_class_targets.csv (plain, .gz or .bz2)

Version 2, "reBEN" (Clasen et al. 2024, arXiv 2407.03653):

    BigEarthNet-S2/<p less its last two parts>/<p>/<p>_B02.tif
    BigEarthNet-S1/<s less its last three parts>/<s>/<s>_VV.tif

    and metadata.parquet, with metadata_for_patches_with_snow_cloud_or_shadow.parquet beside it

Digital numbers carry no offset in either.
"""

from __future__ import annotations

import bz2
import gzip
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eofm.contract.spec import SENSOR_BANDS, Sensor
from eofm.datasets.base import split_sensors
from eofm.datasets.bigearthnet import (
    CLASSES_19,
    CLASSES_43,
    COUNTS_V1,
    COUNTS_V2,
    EXCLUDED_V1,
    FOLDERS,
    METADATA,
    SENSOR_NAMES,
    SIZE,
    UNITS,
    PackBigEarthNetConfig,
    Version,
    multi_hot,
    to_19,
)
from eofm.datasets.check import CheckConfig, CheckGroup, Described, Finding, Subject
from eofm.datasets.images.packing import SensorsReport, pack_sensors
from eofm.datasets.ssl4eo.folders import season_date
from eofm.errors import ConfigError, DataError, LabelError, RasterError
from eofm.raster.source import OpenRaster, RasterSource
from eofm.store.format import Entry, LabelRule
from eofm.store.packing import Item, ItemsReport, listed, make_card, pack_items
from eofm.store.paired import match_ids
from eofm.store.splits import SPLITS

__all__ = [
    "SNOW_CLOUD",
    "BigEarthNet",
    "Listing",
    "PatchSample",
    "describe",
    "open_bigearthnet",
    "pack_bigearthnet",
    "read_lists",
    "read_tables",
]

# -------------------------------------------- which patch is in which split, and which to leave out

SNOW_CLOUD: Final = "metadata_for_patches_with_snow_cloud_or_shadow.parquet"

_SPLIT_NAMES: Final = {"train": "train", "validation": "val", "test": "test"}
_ENDINGS: Final = (".csv", ".csv.gz", ".csv.bz2")


@dataclass(frozen=True)
class Listing:
    """What the lists say.

    Args:
        splits: Name of a patch -> `train`, `val` or `test`.
        excluded: Patches that the authors recommend to leave out.
        labels: Name -> its 19-class labels (version 2; in version 1 every patch has its own file).
        optical_of: Name of a Sentinel-1 patch -> its Sentinel-2 patch, as far as the lists say.
        first_names: Name -> the name it had in version 1 (version 2).
        countries: Name -> country (version 2).
    """

    splits: Mapping[str, str]
    excluded: frozenset[str]
    labels: Mapping[str, frozenset[str]] = field(default_factory=dict)
    optical_of: Mapping[str, str] = field(default_factory=dict)
    first_names: Mapping[str, str] = field(default_factory=dict)
    countries: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def known(self) -> frozenset[str]:
        """Every patch that a list names."""
        return frozenset(self.splits) | self.excluded

    def patches(self, split: str, *, excluded: bool) -> list[str]:
        """Return the patches of a split, or of `all`."""
        if split == "all":
            names = list(self.known)
        else:
            names = [name for name, in_split in self.splits.items() if in_split == split]
        return sorted(n for n in names if excluded or n not in self.excluded)


def read_lists(folder: Path) -> Listing:
    """Read the lists of version 1: one patch a line, alone or followed by its Sentinel-1 patch.

    Raises:
        DataError: If a list is missing or damaged, or a patch is in two of them.
    """
    splits: dict[str, str] = {}
    optical_of: dict[str, str] = {}
    for split in SPLITS:
        file = _find(folder, split)
        if file is None:
            raise DataError(
                "a list of BigEarthNet is missing",
                found="no such file",
                expected=f"{split}.csv, or .csv.gz, .csv.bz2",
                where=folder,
            )
        for line in _lines(file):
            name, _, radar = line.partition(",")
            if name in splits:
                raise DataError(
                    "a patch is in two splits, or twice in one",
                    found=f"{name} in {splits[name]} and {split}",
                    where=file,
                )
            splits[name] = split
            if radar:
                optical_of[radar] = name
    excluded: set[str] = set()
    for name in EXCLUDED_V1:
        file = _find(folder, name)
        excluded |= set() if file is None else {line.partition(",")[0] for line in _lines(file)}
    both = sorted(excluded & splits.keys())
    if both:
        raise DataError(
            "patches are in a split and in a list of those to leave out",
            found=f"{len(both)}: {', '.join(both[:5])}",
            where=folder,
            remedy="use the lists of one publication",
        )
    return Listing(splits, frozenset(excluded), optical_of=optical_of)


def _find(folder: Path, name: str) -> Path | None:
    return next((f for e in _ENDINGS if (f := folder / f"{name}{e}").is_file()), None)


def _lines(file: Path) -> list[str]:
    try:
        data = file.read_bytes()
        if file.suffix == ".bz2":
            data = bz2.decompress(data)
        elif file.suffix == ".gz":
            data = gzip.decompress(data)
        lines = data.decode().split()
    except (OSError, EOFError, ValueError) as error:
        raise DataError("a list cannot be read", found=error, where=file) from error
    strange = [line for line in lines if not line.startswith(("S2A_", "S2B_"))]
    if strange or not lines:
        raise DataError(
            "this is no list of BigEarthNet patches",
            found=", ".join(strange[:3]) or "an empty file",
            expected="one name such as S2A_MSIL2A_20170613T101031_0_45 per line",
            where=file,
        )
    return lines


def read_tables(folder: Path) -> Listing:
    """Read the tables of version 2; that of the patches to leave out may be missing.

    Raises:
        DataError: If a table is missing, damaged or has other columns, or a patch is there twice.
        LabelError: If a label is not one of the 19.
    """
    main = _table(folder / METADATA)
    tables = [main]
    excluded: frozenset[str] = frozenset()
    if (folder / SNOW_CLOUD).is_file():
        tables.append(_table(folder / SNOW_CLOUD))
        excluded = frozenset(tables[1]["patch_id"].to_pylist())
    names = [name for table in tables for name in table["patch_id"].to_pylist()]
    if len(set(names)) != len(names):
        raise DataError("a patch is there twice in the tables of BigEarthNet", where=folder)
    columns = {
        column: [value for table in tables for value in table[column].to_pylist()]
        for column in _COLUMNS
        if column != "labels"
    }
    labels = [names for table in tables for names in _label_sets(table["labels"], folder)]
    strange = sorted(set(columns["split"]) - _SPLIT_NAMES.keys())
    if strange:
        raise DataError(
            "there is no such split", found=strange, expected=list(_SPLIT_NAMES), where=folder
        )
    return Listing(
        {n: _SPLIT_NAMES[s] for n, s in zip(names, columns["split"], strict=True)},
        excluded,
        dict(zip(names, labels, strict=True)),
        dict(zip(columns["s1_name"], names, strict=True)),
        dict(zip(names, columns["s2v1_name"], strict=True)),
        dict(zip(names, columns["country"], strict=True)),
    )


_COLUMNS: Final = ("labels", "split", "s1_name", "s2v1_name", "country")


def _label_sets(column: pa.ChunkedArray, folder: Path) -> list[frozenset[str]]:
    """Return the labels of every patch: a few thousand sets, shared by half a million patches."""
    lists = column.combine_chunks()
    coded = lists.flatten().dictionary_encode()
    names = coded.dictionary.to_pylist()
    multi_hot(names, CLASSES_19, folder)
    bits = np.left_shift(1, coded.indices.to_numpy().astype(np.int64))
    ends = np.concatenate([[0], np.cumsum(bits)])  # sums wrap around, their differences do not
    offsets = lists.offsets.to_numpy()
    masks = (ends[offsets[1:]] - ends[offsets[:-1]]).tolist()
    sets = {
        mask: frozenset(name for k, name in enumerate(names) if mask >> k & 1)
        for mask in set(masks)
    }
    return [sets[mask] for mask in masks]


def _table(file: Path) -> pa.Table:
    try:
        return pq.read_table(file, columns=["patch_id", *_COLUMNS])
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            "a table of BigEarthNet v2 cannot be read",
            found=error,
            expected=f"Parquet with columns patch_id, {', '.join(_COLUMNS)}",
            where=file,
            remedy="download it again",
        ) from error


# ------------------------------------------------------------------------------------------ patches

_STRAY: Final = "no Sentinel-2 patch for "
# of a Sentinel-2 scene ..._T33UUP_..., of a Sentinel-1 patch ..._33UUP_87_48
_TILE: Final = re.compile(r"_T?(\d{2}[A-Z]{3})_")


@dataclass(frozen=True)
class _Layout:
    """Folders of a version, and how many parts of a patch's name its folder goes without."""

    optical: str
    radar: str
    optical_drop: int
    radar_drop: int


_LAYOUTS: Final = {
    Version.V1: _Layout("BigEarthNet-v1.0", "BigEarthNet-S1-v1.0", 0, 0),
    Version.V2: _Layout("BigEarthNet-S2", "BigEarthNet-S1", 2, 3),
}


@dataclass(frozen=True)
class PatchSample:
    """One patch as one sensor sees it, with its labels.

    Args:
        id: Name of the Sentinel-2 patch, whichever the sensor.
        place: Tile and position in it: patches of one place show the same ground.
        split: `train`, `val`, `test`, or empty where the lists do not say.
        date: When this sensor took it, `YYYY-MM-DDTHH:MM:SS`, or empty.
        labels: Class names; None where none of the classes applies.
        source: Where the pixels are.
    """

    id: str
    place: str
    split: str
    date: str
    labels: frozenset[str] | None
    source: RasterSource


@dataclass(frozen=True)
class BigEarthNet:
    """The patches of a folder.

    Args:
        root: The folder.
        version: Which BigEarthNet it is.
        listing: What the official lists say; None where they are not there.
    """

    root: Path
    version: Version
    listing: Listing | None

    @cached_property
    def optical(self) -> Mapping[str, Path]:
        """Name of a Sentinel-2 patch -> its folder, of those on disk."""
        layout = _LAYOUTS[self.version]
        return _patches(self.root / layout.optical, layout.optical_drop)

    @cached_property
    def radar(self) -> Mapping[str, Path]:
        """Name of a Sentinel-2 patch -> the folder of its Sentinel-1 patch, of those on disk."""
        layout = _LAYOUTS[self.version]
        listed = {} if self.listing is None else self.listing.optical_of
        found: dict[str, Path] = {}
        for name, path in _patches(self.root / layout.radar, layout.radar_drop).items():
            optical = listed.get(name) or (
                _optical_of(path) if self.version is Version.V1 else f"{_STRAY}{name}"
            )
            if optical in found:
                raise DataError(
                    "two Sentinel-1 patches say that they belong to one Sentinel-2 patch",
                    found=f"{found[optical].name} and {name}",
                    where=path.parent,
                )
            found[optical] = path
        return found

    def unknown(self, sensor: Sensor) -> list[str]:
        """Patches on disk that no list names."""
        if self.listing is None:
            return []
        return sorted(self._folders(sensor).keys() - self.listing.known)

    def missing(self, split: str, sensor: Sensor, *, excluded: bool = False) -> list[str]:
        """Patches that the lists name for a split and that are not on disk."""
        if self.listing is None:
            return []
        folders = self._folders(sensor)
        return [p for p in self.listing.patches(split, excluded=excluded) if p not in folders]

    def samples(
        self,
        split: str = "all",
        classes: int = 19,
        sensor: Sensor = Sensor.S2_L2A,
        *,
        excluded: bool = False,
    ) -> list[PatchSample]:
        """Return the patches of a split that are on disk, in the order of their names.

        Args:
            split: `train`, `val`, `test` or `all`.
            classes: 19, or 43 (version 1 only).
            sensor: Sentinel-2 L2A or Sentinel-1 GRD.
            excluded: Keep the patches under snow, cloud or cloud shadow, which the authors
                recommend to leave out. They belong to a split in version 2 and to none in
                version 1, so there they come with `all` alone.

        Raises:
            ConfigError: If there is no such split, class scheme or sensor.
            DataError: If the lists that tell the split or the labels are not there.
            LabelError: If a patch has a label outside the classes.
            RasterError: If a patch lacks a band.
        """
        self._check(split, classes, sensor)
        folders = self._folders(sensor)
        if self.listing is None:
            names = sorted(folders)
        else:
            wanted = set(self.listing.patches(split, excluded=excluded))
            if split == "all" and self.version is Version.V1:
                wanted |= set(self.unknown(sensor))  # not excluded, and in no split
            names = sorted(wanted & folders.keys())
        return [self._sample(name, folders[name], classes, sensor) for name in names]

    def names_of(self, classes: int) -> tuple[str, ...]:
        """Return the class names of a scheme, in the official order."""
        return CLASSES_19 if classes == len(CLASSES_19) else CLASSES_43

    def multi_hot(self, sample: PatchSample, classes: int) -> tuple[int, ...] | None:
        """Return the labels of a sample in the official order; None where it has none.

        Raises:
            LabelError: If a label is not one of the classes.
        """
        if sample.labels is None:
            return None
        return multi_hot(sample.labels, self.names_of(classes), sample.id)

    def source(self, name: str, sensor: Sensor) -> RasterSource:
        """Return where the pixels of a patch are.

        Args:
            name: Of the Sentinel-2 patch.
            sensor: Sentinel-2 L2A or Sentinel-1 GRD.

        Raises:
            RasterError: If the patch is not there, or lacks a band.
        """
        folder = self._folders(sensor).get(name)
        if folder is None:
            raise RasterError("there is no such patch", found=name, where=self.root)
        return _source(name, folder, sensor)

    def _folders(self, sensor: Sensor) -> Mapping[str, Path]:
        return self.radar if sensor is Sensor.S1_GRD else self.optical

    def _check(self, split: str, classes: int, sensor: Sensor) -> None:
        if split not in {*SPLITS, "all"}:
            raise ConfigError(
                "there is no such split", found=split, expected="train, val, test, all"
            )
        if sensor not in UNITS:
            raise ConfigError(
                "BigEarthNet has no such sensor", found=sensor, expected=" | ".join(UNITS)
            )
        if classes not in {19, 43} or (classes == 43 and self.version is Version.V2):
            raise ConfigError(
                f"BigEarthNet {self.version} has no labels of {classes} classes",
                found=classes,
                expected="19" if self.version is Version.V2 else "19 or 43",
            )
        if self.listing is None and (split != "all" or self.version is Version.V2):
            expected = {
                Version.V1: "train.csv, val.csv and test.csv (or .csv.gz, .csv.bz2)",
                Version.V2: METADATA,
            }
            raise DataError(
                "the official lists of BigEarthNet are not there",
                expected=expected[self.version],
                where=self.root,
                remedy="name the folder that holds them with --metadata",
            )

    def _sample(self, name: str, folder: Path, classes: int, sensor: Sensor) -> PatchSample:
        labels, place, taken = self._facts(name)
        if classes == 19 and self.version is Version.V1:
            labels = to_19(labels, name)
        split = "" if self.listing is None else self.listing.splits.get(name, "")
        date = season_date(folder.name)
        if date is not None:
            taken = date.isoformat(timespec="seconds")
        return PatchSample(name, place, split, taken, labels or None, _source(name, folder, sensor))

    def _facts(self, name: str) -> tuple[frozenset[str], str, str]:
        """Return the labels of a patch as published, its place, and when Sentinel-2 took it."""
        if self.version is Version.V2:
            assert self.listing is not None  # noqa: S101 (`samples` has checked it)
            return self.listing.labels[name], _place_v2(name), ""
        folder = self.optical.get(name) or self.radar[name]
        card = _read_card(folder / f"{folder.name}_labels_metadata.json")
        tile = _TILE.search(f"{card.get('tile_source', '')}_{folder.name}_")
        if tile is None:
            raise LabelError("the metadata of a patch names no tile", where=folder)
        labels = card.get("labels")
        if not isinstance(labels, list):
            raise LabelError("the metadata of a patch names no labels", where=folder)
        place = "_".join([tile.group(1), *name.rsplit("_", 2)[1:]])
        # names of version 1 write 09:41:56 as T94161
        taken = str(card.get("acquisition_date", "")).replace(" ", "T")
        return frozenset(map(str, labels)), place, taken


def open_bigearthnet(root: Path | str, metadata: Path | str | None = None) -> BigEarthNet:
    """Find the patches below `root`. Pixels are not read yet.

    Args:
        root: Folder in the layout of one of the two versions.
        metadata: Folder of the official lists, or `metadata.parquet`. Without it they are looked
            for in `root`, in `root/splits` and in `root/metadata`.

    Raises:
        DataError: If there are no patches, a patch is there twice, or a list contradicts itself.
        LabelError: If a label of version 2 is not one of the 19.
    """
    root = Path(root)
    version = _version(root)
    folder = _find_lists(root, version, metadata)
    listing = None
    if folder is not None:
        listing = read_lists(folder) if version is Version.V1 else read_tables(folder)
    return BigEarthNet(root, version, listing)


def _version(root: Path) -> Version:
    for version, layout in _LAYOUTS.items():
        if (root / layout.optical).is_dir() or (
            version is Version.V1 and (root / layout.radar).is_dir()
        ):
            return version
    if (root / _LAYOUTS[Version.V2].radar).is_dir():
        return Version.V2
    found = sorted(path.name for path in root.iterdir())[:8] if root.is_dir() else []
    raise DataError(
        "this is no BigEarthNet folder",
        found=", ".join(found) or "nothing",
        expected="BigEarthNet-v1.0 and BigEarthNet-S1-v1.0, or BigEarthNet-S2 and BigEarthNet-S1",
        where=root,
        remedy="unpack the archives and name the folder that holds these",
    )


def _find_lists(root: Path, version: Version, metadata: Path | str | None) -> Path | None:
    """Return the folder of the official lists."""
    if metadata is not None:
        folder = Path(metadata)
        return folder.parent if folder.is_file() else folder
    name = "train.csv*" if version is Version.V1 else METADATA
    places = (root, root / "splits", root / "metadata")
    return next((p for p in places if p.is_dir() and any(p.glob(name))), None)


def _patches(folder: Path, drop: int) -> dict[str, Path]:
    """Return name -> folder of every patch: at the top, or below folders of acquisitions."""
    if not folder.is_dir():
        return {}
    tops = [p for p in sorted(folder.iterdir()) if p.is_dir()]
    found: dict[str, Path] = {}
    for path in tops if not drop else [p for t in tops for p in sorted(t.iterdir()) if p.is_dir()]:
        if drop and path.name.rsplit("_", drop)[0] != path.parent.name:
            raise DataError(
                "a patch lies in the folder of another acquisition",
                found=path.name,
                expected=f"names that begin with {path.parent.name}",
                where=path.parent,
            )
        if path.name in found:
            raise DataError("a patch is there twice", found=path.name, where=path.parent)
        found[path.name] = path
    return found


def _optical_of(folder: Path) -> str:
    """Return the Sentinel-2 patch that a Sentinel-1 patch of version 1 belongs to."""
    card = _read_card(folder / f"{folder.name}_labels_metadata.json")
    optical = card.get("corresponding_s2_patch")
    if not isinstance(optical, str):
        raise DataError("a Sentinel-1 patch does not say what it belongs to", where=folder)
    return optical


def _read_card(file: Path) -> dict[str, object]:
    try:
        card = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise LabelError(
            "the metadata of a patch cannot be read", found=error, where=file
        ) from error
    if not isinstance(card, dict):
        raise LabelError("the metadata of a patch is no table", where=file)
    return card


def _place_v2(name: str) -> str:
    """Return tile, row and column: S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57."""
    *_, tile, row, column = name.split("_")
    return f"{tile[1:]}_{int(row)}_{int(column)}"


def _source(name: str, folder: Path, sensor: Sensor) -> RasterSource:
    bands = SENSOR_BANDS[sensor]
    files = tuple(folder / f"{folder.name}_{band}.tif" for band in bands)
    return RasterSource(name, files, sensor, UNITS[sensor], bands, gsd=10.0)


# -------------------------------------------------------------------------------- `eofm data check`


def describe(root: Path, config: CheckConfig) -> Described:
    """List patches, pairs, official lists and labels; without images, the tables of version 2."""
    if not any((root / folder).is_dir() for folder in FOLDERS):
        return _tables(root)
    data = open_bigearthnet(root, config.metadata)
    pairs = data.optical.keys() & data.radar.keys()
    counts = {
        "Sentinel-2 patches": len(data.optical),
        "Sentinel-1 patches": len(data.radar),
        "pairs": len(pairs),
    }
    groups, findings, notes = [], [], []
    for name, sensor, folders in (
        ("S2", Sensor.S2_L2A, data.optical),
        ("S1", Sensor.S1_GRD, data.radar),
    ):
        subjects = [Subject(patch, _Patch(data, patch, sensor)) for patch in sorted(folders)]
        groups.append(CheckGroup(name, subjects, SIZE, prefix=f"{name} "))
        findings += [
            Finding("a patch is in none of the official lists", f"{name} {patch}", "on disk only")
            for patch in data.unknown(sensor)
        ]
    alone = len(data.optical.keys() ^ data.radar.keys())
    notes += [f"{alone} patches are of one sensor only"] if alone else []
    samples = []
    if data.listing is None:
        notes.append("the official lists are not there, so there are no splits")
    else:
        findings += _counts(data.version, data.listing, root)
    if data.listing is not None or data.version is Version.V1:
        samples = data.samples(sensor=Sensor.S2_L2A, excluded=True)
        splits = Counter(sample.split or "no split" for sample in samples)
        notes.append("splits: " + ", ".join(f"{count} {s}" for s, count in sorted(splits.items())))
    labels = Counter(label for sample in samples for label in sample.labels or ())
    return Described(
        f"BigEarthNet {data.version}",
        counts,
        groups,
        findings,
        sum(sample.labels is not None for sample in samples),
        {name: labels[name] for name in CLASSES_19},
        notes,
    )


def _counts(version: Version, listing: Listing, root: Path) -> list[Finding]:
    """Compare the official lists with their published lengths."""
    published = COUNTS_V1 if version is Version.V1 else COUNTS_V2
    found = Counter(s for name, s in listing.splits.items() if name not in listing.excluded)
    return [
        Finding(
            "an official list has another length than published",
            split,
            f"{found[split]} patches, expected {count}",
        )
        for split, count in published.items()
        if found[split] != count
    ]


def _tables(root: Path) -> Described:
    """Describe the tables of version 2 without the images."""
    listing = read_tables(root)
    kept = {name: labels for name, labels in listing.labels.items() if name not in listing.excluded}
    labels = Counter(label for names in kept.values() for label in names)
    splits = Counter(split for name, split in listing.splits.items() if name in kept)
    return Described(
        "tables of BigEarthNet v2",
        {"patches": len(listing.splits), "under snow or cloud": len(listing.excluded)},
        (),
        _counts(Version.V2, listing, root),
        len(kept),
        {name: labels[name] for name in CLASSES_19},
        ["splits: " + ", ".join(f"{count} {s}" for s, count in sorted(splits.items()))],
    )


@dataclass(frozen=True)
class _Patch:
    """Finds the files of a patch."""

    data: BigEarthNet
    name: str
    sensor: Sensor

    def __call__(self) -> RasterSource:
        return self.data.source(self.name, self.sensor)


# ------------------------------------------------------------------------------------ packing


def pack_bigearthnet(config: PackBigEarthNetConfig) -> ItemsReport | SensorsReport:
    """Pack the patches of a split, each band at its native resolution.

    A run that was interrupted resumes where it stopped when it is called again.

    Args:
        config: What to pack, and how.

    Returns:
        What the store holds, and what was left out; of both sensors, that of each.

    Raises:
        DataError: If the folder or the lists are not those of BigEarthNet, there is no patch of
            the split, or one is missing where all are required.
        LabelError: If a label is not one of the classes.
        PixelError: If the pixels cannot be those of BigEarthNet.
        StoreError: If `out` holds something else, or cannot be written.
    """
    if config.sensors is None:
        return _pack_sensor(config)
    sensors = split_sensors(config.sensors, SENSOR_NAMES)
    return pack_sensors(Path(config.out), sensors, partial(_pack_one_of, config), match_ids)


def _pack_one_of(config: PackBigEarthNetConfig, sensor: str, out: Path) -> ItemsReport:
    word = SENSOR_NAMES[sensor]
    return _pack_sensor(replace(config, sensor=word, sensors=None, out=out.as_posix()))


def _pack_sensor(config: PackBigEarthNetConfig) -> ItemsReport:
    data = open_bigearthnet(config.root, config.metadata)
    sensor = Sensor(config.sensor or "s2-l2a")
    samples = data.samples(config.split, config.classes, sensor, excluded=config.excluded)
    missing = data.missing(config.split, sensor, excluded=config.excluded)
    if not samples or (missing and config.require == "all"):
        raise DataError(
            "patches are missing" if samples else "there is no patch of this split",
            found=f"{len(missing)} that the lists name, such as {', '.join(missing[:3])}"
            if missing
            else "no patch",
            where=data.root,
            remedy="download them, or leave --require out" if samples else "name another --split",
        )
    classes = data.names_of(config.classes)
    rule = LabelRule(f"bigearthnet-{config.classes}", classes, 0.0, 0.0)
    items = [_item(data, sample, sensor, rule, config.classes) for sample in samples]
    card = make_card(
        items,
        rule,
        {
            "verb": "pack bigearthnet",
            "root": data.root.as_posix(),
            "version": data.version.value,
            "classes": config.classes,
            "split": config.split,
            "excluded": config.excluded,
        },
        {"metadata": config.metadata and Path(config.metadata).as_posix()},
    )
    strict = config.require == "all"
    packed = pack_items(items, card, config.out, strict=strict, workers=config.workers)
    packed = packed.then(verify=config.verify, stats=config.stats, workers=config.workers)
    return ItemsReport(packed, tuple(_notes(data, samples, missing, sensor)))


def _item(
    data: BigEarthNet, sample: PatchSample, sensor: Sensor, rule: LabelRule, classes: int
) -> Item:
    line = _PatchLine(sample, rule, data.multi_hot(sample, classes))
    return Item(sample.id, UNITS[sensor], line.source, line.entry)


@dataclass(frozen=True)
class _PatchLine:
    """Makes the line of a patch in the index."""

    sample: PatchSample
    rule: LabelRule
    multi_hot: tuple[int, ...] | None

    def source(self) -> RasterSource:
        """Return the files of the patch."""
        return self.sample.source

    def entry(self, raster: OpenRaster) -> Entry:
        """Return the line, with what the opened files say of place and unit."""
        sample = self.sample
        longitude, latitude = raster.grid.centre()
        entry = Entry(
            id=sample.id,
            location=sample.place,
            season=sample.source.files[0].parent.name,
            longitude=longitude,
            latitude=latitude,
            date=sample.date,
            source=sample.id,
            source_unit=raster.unit.value,
            split=sample.split,
        )
        if self.multi_hot is None:
            return entry.unlabelled(self.rule)
        return listed(entry, self.multi_hot)


def _notes(
    data: BigEarthNet, samples: list[PatchSample], missing: list[str], sensor: Sensor
) -> list[str]:
    """Say what the user should know of the patches."""
    counts = {split or "no split": 0 for split in sorted({s.split for s in samples})}
    for sample in samples:
        counts[sample.split or "no split"] += 1
    said = [f"BigEarthNet {data.version}: " + ", ".join(f"{n} {s}" for s, n in counts.items())]
    if missing:
        said.append(f"{len(missing)} patches that the lists name are not there")
    unknown = data.unknown(sensor)
    if unknown:
        said.append(f"{len(unknown)} patches are in no list: {', '.join(unknown[:3])}")
    none = sum(sample.labels is None for sample in samples)
    if none:
        said.append(f"{none} patches have none of the classes and are unlabelled")
    return said
