"""The official lists of BigEarthNet: which patch is in which split, and which to leave out."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eofm.datasets.bigearthnet import EXCLUDED_V1, METADATA
from eofm.datasets.bigearthnet.classes import CLASSES_19, multi_hot
from eofm.errors import DataError
from eofm.store.splits import SPLITS

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
