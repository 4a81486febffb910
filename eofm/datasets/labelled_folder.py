"""A user's own labelled images: class folders below split folders, or a table of labels.

    <root>/<split>/<class>/<anything>.tif            one class per image
    <root>/labels.csv or labels.parquet              columns file, split, and label or labels

In a table, `label` is one class per image and `labels` several: a list in Parquet, names with `;`
between them in CSV. Files are named relative to the root. Splits are train, val and test; without
a val, 20 % of train are held out by hash.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from eofm.contract.sensors import canonical_bands
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets.chips import Chip, Chips, FilePixels, unpacking_remedy
from eofm.errors import DataError, LabelError
from eofm.raster.source import RasterSource
from eofm.store.splits import SPLITS, hold_out

TABLES: Final = ("labels.parquet", "labels.csv")
_SUFFIXES: Final = (".tif", ".tiff")
_SPLIT_NAMES: Final = {"train": "train", "val": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class _Row:
    """One image before its pixels are described: `labels` of one class or several."""

    id: str
    split: str
    path: Path
    labels: tuple[str, ...]


def open_labelled_folder(
    root: Path | str,
    sensor: Sensor,
    unit: Unit,
    *,
    bands: Sequence[str] | None = None,
    table: Path | str | None = None,
) -> tuple[Chips, ImageSpec]:
    """Find the labelled images of a folder. Of the pixels, only the first image is opened.

    Args:
        root: The folder.
        sensor: What the images are.
        unit: Unit of their values.
        bands: In stored order; None takes what the files say, else the order of the sensor.
        table: A table of labels. None takes `labels.parquet` or `labels.csv` of the folder, else
            its class folders.

    Returns:
        The images, and what they are.

    Raises:
        DataError: If the layout is another, or a file is named that is not there.
        LabelError: If a table lacks a column or an image its label, or a class is in no training
            image.
        RasterError: If the first image cannot be read.
        SpecError: If a band is not one of the sensor's.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError("there is no such folder", where=root, remedy="name it with --root")
    file = Path(table) if table else next((root / n for n in TABLES if (root / n).is_file()), None)
    rows, several = _from_table(root, file) if file else (_from_folders(root), False)
    named = None if bands is None else canonical_bands(bands, sensor)
    spec = _spec_of(rows[0].path, sensor, unit, named)
    classes = _classes(rows, file or root)
    rows, rule = _with_val(rows, several=several)
    splits: dict[str, list[Chip]] = {name: [] for name in SPLITS}
    for row in rows:
        source = RasterSource(row.id, (row.path,), sensor, unit, named, spec.gsd)
        indices = tuple(sorted(classes.index(label) for label in row.labels))
        label = indices if several else indices[0]
        splits[row.split].append(Chip(row.id, label, (FilePixels(source, spec),)))
    return Chips(root, rule, classes, {n: tuple(c) for n, c in splits.items()}), spec


def _spec_of(path: Path, sensor: Sensor, unit: Unit, bands: tuple[str, ...] | None) -> ImageSpec:
    with RasterSource(path.stem, (path,), sensor, unit, bands).open() as raster:
        return raster.spec()


def _classes(rows: Sequence[_Row], where: Path) -> tuple[str, ...]:
    """Return the class names in the order of the alphabet; each must be in a training image."""
    names = {label for row in rows for label in row.labels}
    unlearnt = sorted(
        names - {label for row in rows if row.split == "train" for label in row.labels}
    )
    if unlearnt:
        raise LabelError(
            "label names of the splits do not match: no training image has these classes",
            found=", ".join(unlearnt),
            expected=", ".join(sorted(names - set(unlearnt))) or "classes in train",
            where=where,
            remedy="correct the spelling, or put images of these classes into train",
        )
    return tuple(sorted(names))


def _with_val(rows: Sequence[_Row], *, several: bool) -> tuple[list[_Row], str]:
    if any(row.split == "val" for row in rows):
        return list(rows), "given"
    groups: dict[str, list[str]] = {}
    for row in rows:
        if row.split == "train":
            groups.setdefault("" if several else row.labels[0], []).append(row.id)
    _, taken = hold_out(groups, "folder")
    kept = set(taken)
    return [
        _Row(r.id, "val" if r.id in kept else r.split, r.path, r.labels) for r in rows
    ], "given, val held out"


# -------------------------------------------------------------------------- class folders


def _from_folders(root: Path) -> list[_Row]:
    splits = {
        _SPLIT_NAMES[path.name]: path
        for path in sorted(root.iterdir())
        if path.is_dir() and path.name in _SPLIT_NAMES
    }
    if not {"train", "test"} <= splits.keys():
        found = sorted(path.name for path in root.iterdir())[:8]
        raise DataError(
            "this folder holds no labelled images",
            found=", ".join(found) or "an empty folder",
            expected=f"train/<class>/*.tif and test/<class>/*.tif, or {' or '.join(TABLES)}",
            where=root,
            remedy=unpacking_remedy(root),
        )
    rows = [
        _Row(f"{folder.name}/{path.stem}", split, path, (folder.name,))
        for split, top in splits.items()
        for folder in sorted(top.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    ]
    if not rows:
        raise DataError(
            "there is no GeoTIFF in the class folders",
            expected="<split>/<class>/<anything>.tif",
            where=root,
        )
    return rows


# -------------------------------------------------------------------------------- tables


def _from_table(root: Path, file: Path) -> tuple[list[_Row], bool]:
    """Return the rows of a table, and whether an image may have several classes."""
    columns = _read_parquet(file) if file.suffix == ".parquet" else _read_csv(file)
    several = "labels" in columns
    missing = [n for n in ("file", "split") if n not in columns]
    if missing or several == ("label" in columns):
        raise LabelError(
            "a table of labels has other columns",
            found=", ".join(columns),
            expected="file, split, and either label or labels",
            where=file,
        )
    values = columns["labels" if several else "label"]
    rows = []
    for name, split, label in zip(columns["file"], columns["split"], values, strict=True):
        rows.append(_row(root, file, str(name), str(split), _names(label, several=several)))
    if not rows:
        raise LabelError("a table of labels is empty", where=file)
    return rows, several


def _names(label: object, *, several: bool) -> tuple[str, ...]:
    if isinstance(label, (list, tuple)):
        return tuple(str(one).strip() for one in label)
    words = str(label).split(";") if several else [str(label)]
    return tuple(word.strip() for word in words if word.strip())


def _row(root: Path, file: Path, name: str, split: str, labels: tuple[str, ...]) -> _Row:
    path = root / name
    if split not in _SPLIT_NAMES:
        raise LabelError(
            "there is no such split",
            found=split,
            expected="train, val or test",
            where=f"{file}: {name}",
        )
    if not labels:
        raise LabelError(
            "an image has no label",
            where=f"{file}: {name}",
            remedy="leave unlabelled images out: no label is not the same as no class",
        )
    if not path.is_file():
        raise DataError("the table names a file that is not there", found=path, where=file)
    return _Row(Path(name).with_suffix("").as_posix(), _SPLIT_NAMES[split], path, labels)


def _read_parquet(file: Path) -> Mapping[str, list[object]]:
    try:
        columns: Mapping[str, list[object]] = pq.read_table(file).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise LabelError("a table of labels cannot be read", found=error, where=file) from error
    return columns


def _read_csv(file: Path) -> Mapping[str, list[object]]:
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, ValueError) as error:
        raise LabelError("a table of labels cannot be read", found=error, where=file) from error
    names = list(rows[0]) if rows else []
    return {name: [row[name] for row in rows] for name in names}
