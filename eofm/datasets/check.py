"""`eofm data check`: look at a data set or a packed store, and say what is wrong with it.

Every image is counted; some, spread evenly, are read whole: are the files complete, do the bands
fit together, is there a CRS, can the pixels be what the data set states of them, do two images
hold the same pixels? What is found is reported and nothing is changed.
`eofm.datasets.check_folders` recognises the layouts, and `eofm.datasets.check_stores` checks packed
stores.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from eofm.contract.imagery import Imagery, NativeImagery
from eofm.contract.preprocess import to_grid
from eofm.contract.validity import check_plausible
from eofm.datasets.check_folders import describe_set
from eofm.datasets.check_stores import check_pairs, check_store, is_store
from eofm.datasets.check_types import (
    CANARIES,
    CheckReport,
    DataSet,
    Finding,
    Group,
    Subject,
    spread,
)
from eofm.datasets.sets_config import CheckConfig
from eofm.errors import EofmError, PixelError
from eofm.progress import track
from eofm.raster.quality import find_doubt
from eofm.raster.source import OpenRaster
from eofm.store.format import PAIRS


def check_data(config: CheckConfig) -> CheckReport:
    """Look at a data set or a store.

    Args:
        config: Where it is, and how much of it to look into.

    Returns:
        What was found; its `status` is 1 if anything is wrong.

    Raises:
        DataError: If it is none of the layouts that eofm knows.
        ConfigError: If sensor and unit have to be stated.
    """
    path = Path(config.path)
    if is_store(path):
        return check_store(path, config)
    if (path / PAIRS).is_file():
        return check_pairs(path, config)
    data = describe_set(config)
    findings = list(data.findings)
    looked_at = 0
    for group in data.groups:
        found, count = _check_group(group, config.limit)
        findings += found
        looked_at += count
    return CheckReport(
        path.as_posix(),
        data.kind,
        data.counts,
        looked_at,
        tuple(findings),
        data.labelled,
        data.classes,
        _notes(data, looked_at),
        config.json,
    )


def _notes(data: DataSet, looked_at: int) -> tuple[str, ...]:
    images = sum(len(group.subjects) for group in data.groups)
    part = (
        [f"{images - looked_at} images were counted only; --limit 0 reads all"]
        if looked_at < images
        else []
    )
    return (*data.notes, *part)


# ------------------------------------------------------------------------------- images


def _check_group(group: Group, limit: int) -> tuple[list[Finding], int]:
    """Return what is wrong with images of one kind, and how many were looked at."""
    look = _Look(group)
    chosen = spread(len(group.subjects), limit)
    every = max(1, len(chosen) // CANARIES)
    for number, i in enumerate(track(chosen, f"checking {group.name}")):
        look.at(group.subjects[i], keep=number % every == 0)
    look.finish()
    return look.findings, len(chosen)


class _Look:
    """One walk over images of one kind.

    Attributes:
        findings: What is wrong.

    Args:
        group: The images.
    """

    def __init__(self, group: Group) -> None:
        self.findings: list[Finding] = []
        self._group = group
        self._sizes: dict[tuple[int, int], list[str]] = {}
        self._sums: dict[int, str] = {}
        self._kept: list[Imagery] = []

    def at(self, subject: Subject, *, keep: bool) -> None:
        """Read one image; keep it for the signature of all, if it is sound."""
        try:
            with subject.source().open() as raster:
                native = self._read(subject, raster)
        except EofmError as error:
            self._find(subject.name, error)
            return
        if native is not None and keep and len(self._kept) < CANARIES:
            self._kept.append(to_grid(native))

    def _read(self, subject: Subject, raster: OpenRaster) -> NativeImagery | None:
        """Return the image, or None if something about it is wrong."""
        native = raster.read_native()
        before = len(self.findings)
        if raster.grid.crs is None:
            self._say(subject.name, "the image says nothing about where it lies", "no CRS")
        self._sizes.setdefault((raster.grid.height, raster.grid.width), []).append(subject.name)
        if not bool(native.valid.any()) or _is_blank(native):
            self._say(subject.name, "the image holds no measurement", "one value, or nodata only")
            return None
        doubt = find_doubt(raster)
        if doubt is not None:
            self._say(subject.name, doubt.problem, f"{doubt.found}, expected {doubt.expected}")
        total = _checksum(native)
        twin = self._sums.setdefault(total, subject.name)
        if twin != subject.name:
            self._say(subject.name, "two images hold the same pixels", f"as {twin}")
        return native if len(self.findings) == before else None

    def finish(self) -> None:
        """Compare the images with one another."""
        usual = self._group.size
        if usual is None and self._sizes:
            usual = max(self._sizes, key=lambda size: len(self._sizes[size]))
        for size, names in self._sizes.items():
            if size != usual and not (self._group.size is None and self._group.any_size):
                for name in names:
                    self._say(
                        name,
                        "an image has another size than the others",
                        f"{size[0]} x {size[1]}, expected {usual and usual[0]} x "
                        f"{usual and usual[1]} pixels",
                    )
        by_spec: dict[object, list[Imagery]] = {}
        for imagery in self._kept:
            by_spec.setdefault(imagery.spec, []).append(imagery)
        for batch in by_spec.values():
            self._signature(batch)

    def _signature(self, images: Sequence[Imagery]) -> None:
        batch = Imagery(
            torch.cat([image.pixels for image in images]),
            images[0].spec,
            torch.cat([image.valid for image in images]),
        )
        try:
            check_plausible(batch)
        except PixelError as error:
            self._find(f"{self._group.name}, {len(images)} images", error)

    def _find(self, name: str, error: EofmError) -> None:
        found = "; ".join(str(p) for p in (error.found, error.where) if p is not None)
        self._say(name, error.problem, found)

    def _say(self, name: str, problem: str, found: str) -> None:
        self.findings.append(Finding(problem, f"{self._group.prefix}{name}", found))


def _is_blank(native: NativeImagery) -> bool:
    return all(bool((plane == plane.flatten()[0]).all()) for plane in native.planes.values())


def _checksum(native: NativeImagery) -> int:
    total = 0
    for gsd in sorted(native.planes):
        total = zlib.crc32(np.ascontiguousarray(native.planes[gsd].numpy()).data, total)
    return total
