"""A user's own labelled images: class folders below split folders, or a table of labels.

    <root>/<split>/<class>/<anything>.tif            one class per image, subfolders included
    <root>/labels.csv or labels.parquet              columns file, split, and label or labels

In a table, `label` is one class per image and `labels` several: a list in Parquet, names with `;`
between them in CSV. Files are named relative to the root, and an image is called like its path in
it: numbers that start again in each split and class are different images. Where no image is a
raster, pictures are the images (PNG, JPEG); they lie nowhere, and their GSD is stated. Splits are
train, val and test; without a val, 20 % of the places of train are held out by hash
(`eofm.datasets.images.places`).
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import ClassVar, Final, Literal

from eofm.bench.config import BenchConfig, listed
from eofm.contract.spec import ImageSpec, Sensor, Unit, canonical_bands
from eofm.datasets.base import Benchmark, Dataset, Loaded, TaskKind, own_task
from eofm.datasets.images.chips import (
    PLACES,
    PRODUCTS,
    STATED_PLACES,
    Chip,
    Chips,
    FilePixels,
    Grouping,
    products_of,
    unpacking_remedy,
)
from eofm.datasets.images.places import (
    OwnImage,
    check_place,
    divide,
    first_spec,
    names_of,
    split_folders,
    split_of,
)
from eofm.errors import DataError, LabelError, require
from eofm.formats.foreign import foreign
from eofm.store.splits import SPLITS

__all__ = ["DATASET", "TABLES", "BenchFolderConfig", "open_labelled_folder"]

TABLES: Final = ("labels.parquet", "labels.csv")


@dataclass(frozen=True)
class _Row:
    """One image before its pixels are described.

    Args:
        id: Its name, unique.
        split: `train`, `val` or `test`, as given.
        path: The file.
        labels: One class or several.
        key: What val is drawn by: its name, below its split where that is a folder.
    """

    id: str
    split: str
    path: Path
    labels: tuple[str, ...]
    key: str


def open_labelled_folder(
    root: Path | str,
    sensor: Sensor,
    unit: Unit,
    *,
    bands: Sequence[str] | None = None,
    table: Path | str | None = None,
    place: str | None = None,
    gsd: float | None = None,
) -> tuple[Chips, ImageSpec]:
    """Find the labelled images of a folder. Pixels are not read yet.

    Args:
        root: The folder.
        sensor: What the images are.
        unit: Unit of their values.
        bands: In stored order; None takes what the files say, else the order of the sensor.
        table: A table of labels. None takes `labels.parquet` or `labels.csv` of the folder, else
            its class folders.
        place: Pattern of the names that states the places (`eofm.datasets.images.places`). None
            takes images whose footprints overlap as one place.
        gsd: Metres per pixel of images that do not say where they lie.

    Returns:
        The images, and what they are. `remarks` of the images names test images that show the
        ground of training images.

    Raises:
        DataError: If the layout is another, or a file is named that is not there.
        LabelError: If a table lacks a column or an image its label, or a class is in no training
            image.
        ConfigError: If the pattern of places fits not every image.
        RasterError: If the first image cannot be read, does not say how large its pixels are and
            nobody states it, or says otherwise.
        SpecError: If a band is not one of the sensor's.
    """
    from eofm.raster.source import RasterSource

    check_place(place)
    root = Path(root)
    if not root.is_dir():
        raise DataError("there is no such folder", where=root, remedy="name it with --root")
    file = Path(table) if table else next((root / n for n in TABLES if (root / n).is_file()), None)
    with foreign(LabelError, "a table of labels cannot be read", where=file, passing=(DataError,)):
        rows, several = _from_table(root, file) if file else (_from_folders(root), False)
    named = None if bands is None else canonical_bands(bands, sensor)
    spec = first_spec(rows[0].path, sensor, unit, named, gsd)
    classes = _classes(rows, file or root)
    divided = divide([_own(row, several=several) for row in rows], "folder", place)
    products = products_of(row.id for row in rows)
    groups = products if _grouping(products, place) is PRODUCTS else divided.place
    splits: dict[str, list[Chip]] = {name: [] for name in SPLITS}
    for row in rows:
        source = RasterSource(row.id, (row.path,), sensor, unit, named, spec.gsd)
        indices = tuple(sorted(classes.index(label) for label in row.labels))
        label = indices if several else indices[0]
        chip = Chip(row.id, label, (FilePixels(source, spec, own=True),), groups[row.id])
        splits[divided.split[row.id]].append(chip)
    parts = {n: tuple(c) for n, c in splits.items()}
    return Chips(root, divided.rule, classes, parts, divided.remarks), spec


def _grouping(products: Mapping[str, str], place: str | None) -> Grouping:
    """Return which images belong together: what is stated goes before what names happen to say."""
    if place is not None:
        return STATED_PLACES
    return PRODUCTS if products else PLACES


def _own(row: _Row, *, several: bool) -> OwnImage:
    return OwnImage(row.id, row.path, row.split, row.key, row.labels, by_class=not several)


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


# -------------------------------------------------------------------------- class folders


def _check_whole(files: Sequence[Path]) -> None:
    """Check that each image of a class is one file, and not a file for each of its bands.

    Raises:
        DataError: If one is several.
    """
    from eofm.raster.folder import group_files
    from eofm.raster.geotiff import open_geotiff

    sets, _ = group_files(files)
    image = next((image for image in sets if len(image.files) > 1), None)
    if image is None:
        return
    with open_geotiff(next(iter(image.files.values()))) as dataset:
        if dataset.count > 1:  # field_b1 and field_b2 are images
            return
    bands = [quote(str(file)) for file in image.files.values()]
    out = image.folder / f"{image.beginning or image.folder.name}.tif"
    raise DataError(
        "an image of a class is a file for each band",
        found=", ".join(file.name for file in image.files.values()),
        expected="one file with all bands",
        where=image.folder,
        remedy=f"stack the bands of each image, and move the single ones away: rio stack "
        f"{' '.join(bands)} -o {quote(str(out))}; then state them: --bands {' '.join(image.files)}",
    )


def _from_folders(root: Path) -> list[_Row]:
    from eofm.raster.folder import PICTURES, SUFFIXES, class_files, is_hidden, walk_files

    splits = split_folders(root)
    # a picture beside rasters is a preview of one
    suffixes = SUFFIXES if any(walk_files(top) for top in splits.values()) else PICTURES
    if not {"train", "test"} <= splits.keys():
        found = sorted(path.name for path in root.iterdir())[:8]
        raise DataError(
            "this folder holds no labelled images",
            found=", ".join(found) or "an empty folder",
            expected=f"train/<class>/*.tif and test/<class>/*.tif, or {' or '.join(TABLES)}",
            where=root,
            remedy=unpacking_remedy(root)
            or "put the folders of the classes into a folder train and a folder test",
        )
    rows = []
    for split, top in splits.items():
        loose = class_files(top, suffixes)
        if loose:
            raise DataError(
                "images lie beside the class folders of a split, and have no class",
                found=", ".join(file.name for file in loose[:5]) + ", ..." * (len(loose) > 5),
                expected="<split>/<class>/<anything>.tif",
                where=top,
                remedy="move each into the folder of its class, or out of the split",
            )
        for folder in sorted(top.iterdir()):
            if folder.is_dir() and not is_hidden(folder.name):
                files = walk_files(folder, suffixes)
                _check_whole(files)
                names = names_of(files, top)
                rows += [
                    _Row(f"{top.name}/{name}", split, path, (folder.name,), name)
                    for path, name in names.items()
                ]
    if not rows:
        raise DataError(
            "there is no image in the class folders",
            expected="<split>/<class>/<anything>.tif, or .jp2, .png, .jpg",
            where=root,
        )
    return rows


# -------------------------------------------------------------------------------- tables


def _from_table(root: Path, file: Path) -> tuple[list[_Row], bool]:
    """Return the rows of a table, and whether an image may have several classes."""
    read = _read_parquet(file) if file.suffix == ".parquet" else _read_csv(file)
    columns = {name.strip().casefold(): values for name, values in read.items()}
    several = "labels" in columns
    missing = [n for n in ("file", "split") if n not in columns]
    if missing or several == ("label" in columns):
        raise LabelError(
            "a table of labels has other columns",
            found=", ".join(columns) or "nothing",
            expected="file, split, and either label or labels",
            where=file,
            remedy="rename its columns; or leave the table out, with train/<class>/ and "
            "test/<class>/",
        )
    values = columns["labels" if several else "label"]
    rows = []
    for name, split, label in zip(columns["file"], columns["split"], values, strict=True):
        rows.append(_row(root, file, str(name), str(split), _names(label, several=several)))
    if not rows:
        raise LabelError("a table of labels is empty", where=file)
    twice = [path for path, count in Counter(row.path for row in rows).items() if count > 1]
    if twice:
        raise LabelError(
            "a table of labels names an image more than once",
            found=", ".join(str(path.relative_to(root)) for path in twice[:5]),
            expected="one row per image" + ("" if several else "; several classes in `labels`"),
            where=file,
            remedy="keep one of its rows",
        )
    names = names_of([row.path for row in rows], root)
    return [replace(row, id=names[row.path], key=names[row.path]) for row in rows], several


def _names(label: object, *, several: bool) -> tuple[str, ...]:
    """Return the classes that a cell names; none where it says nothing."""
    if isinstance(label, (list, tuple)):
        every = [_names(one, several=False) for one in label]
        return tuple(name for names in every for name in names) if all(every) else ()
    if label is None or label != label:  # noqa: PLR0124 (NaN)
        return ()
    if isinstance(label, float) and label.is_integer():
        label = int(label)  # a column of numbers in which one is missing
    words = str(label).split(";") if several else [str(label)]
    return tuple(word.strip() for word in words if word.strip())


def _row(root: Path, file: Path, name: str, split: str, labels: tuple[str, ...]) -> _Row:
    path = root / name
    known = split_of(split)
    if known is None:
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
        raise DataError(
            "the table names a file that is not there",
            found=path,
            where=file,
            remedy="files are named relative to the folder, with / and with their ending",
        )
    if not path.is_relative_to(root):
        raise DataError(
            "the table names a file outside of the folder",
            found=path,
            expected=f"files in {root}",
            where=file,
            remedy="name the folder above all of them with --root, and the table with --labels",
        )
    return _Row(name, known, path, labels, name)


def _read_parquet(file: Path) -> Mapping[str, list[object]]:
    from eofm.formats.parquet import read_table

    with foreign(LabelError, "a table of labels cannot be read", where=file):
        columns: Mapping[str, list[object]] = read_table(file).to_pydict()
        return columns


def _read_csv(file: Path) -> Mapping[str, list[object]]:
    try:
        # as spreadsheets save it: with a mark in front, and with semicolons or tabs
        with file.open(newline="", encoding="utf-8-sig") as stream:
            head = stream.readline()
            stream.seek(0)
            divider = next((sign for sign in ",;\t" if sign in head), ",")
            rows = list(csv.DictReader(stream, delimiter=divider, skipinitialspace=True))
    except UnicodeDecodeError as error:
        raise LabelError(
            "a table of labels is not in UTF-8",
            found=error,
            where=file,
            remedy="save it as UTF-8, as in: iconv -f LATIN1 -t UTF-8 labels.csv > utf8.csv",
        ) from error
    except (OSError, ValueError) as error:
        raise LabelError("a table of labels cannot be read", found=error, where=file) from error
    uneven = [number for number, row in enumerate(rows, 2) if None in row or None in row.values()]
    if uneven:
        raise LabelError(
            "a row of a table has more or fewer cells than the head",
            found=f"line {uneven[0]}",
            where=file,
            remedy="put cells that hold the divider into quotes",
        )
    names = list(rows[0]) if rows else []
    return {name: [row[name] for row in rows] for name in names}


# ---------------------------------------------------------------------------------- task


@dataclass(frozen=True)
class BenchFolderConfig(BenchConfig):
    """Score encoders and controls on your own labelled images.

    Args:
        root: Folder of train/<class>/*.tif and test/<class>/*.tif (or .png, .jpg), or of images
            and a table labels.csv or labels.parquet with columns file, split, and label or labels.
        sensor: What the images are.
        unit: Unit of the values in the files.
        bands: Bands in stored order; without it as the files say, else all of
            the sensor.
        labels: A table of labels that lies elsewhere.
        gsd: Metres per pixel of images that do not say where they lie, as PNG and JPEG do not.
        place: Which part of an image's name is the place it shows, as in T32_{place}_*. Without
            it, images whose footprints overlap are one place. Val is taken from train by place.
            Intervals resample places, or products where every name holds one and no place is
            stated.
    """

    verb: ClassVar[str] = "folder"

    sensor: Literal["s2-l1c", "s2-l2a", "s1-grd", "s1-rtc", "rgb"] = "s2-l1c"
    unit: Literal["dn", "dn-offset1000", "reflectance", "uint8", "db", "power"] = "dn"
    bands: str | None = field(default=None, metadata={"list": True})
    labels: str | None = None
    gsd: float | None = None
    place: str | None = None
    out: str = "runs/bench/folder.jsonl"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.gsd is None or self.gsd > 0, "gsd", self.gsd, "metres above 0")


def _load(config: BenchFolderConfig) -> Loaded:
    chips, spec = open_labelled_folder(
        config.root,
        Sensor.parse(config.sensor),
        Unit.parse(config.unit),
        bands=listed(config.bands) if config.bands else None,
        table=config.labels,
        place=config.place,
        gsd=config.gsd,
    )
    if len(chips.classes) < 2:
        raise LabelError(
            "images of one class alone cannot be told apart",
            found=", ".join(chips.classes),
            expected="two classes or more",
            where=chips.root,
            remedy="add images of what is not that class, with a class of their own",
        )
    kind = TaskKind.SEVERAL_CLASSES if chips.multi_label else TaskKind.ONE_CLASS
    grouping = _grouping(products_of(chip.id for chip in chips.all), config.place)
    task = own_task("folder", "labelled images", chips.root, spec, chips.classes, kind, grouping)
    return Loaded(task, chips, None)


DATASET: Final = Dataset(
    name="folder",
    title="labelled images of your own",
    benchmark=Benchmark(
        "score encoders and controls on your own labelled images",
        BenchFolderConfig,
        _load,
        (
            "eofm bench folder --root DIR --sensor s2-l2a --unit dn --model my_models:encoder",
            "eofm bench folder --root PNGS --sensor rgb --unit uint8 --gsd 0.3",
            "",
            "DIR holds train/<class>/*.tif and test/<class>/*.tif, or labels.csv:",
            "  file,split,labels",
            "  images/1.tif,train,water;forest",
        ),
    ),
)
