"""BigEarthNet as benchmark tasks: official splits, label fractions, one sensor or both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from eofm.contract.spec import Sensor
from eofm.datasets.bigearthnet import SPECS, Version
from eofm.datasets.bigearthnet.classes import CLASSES_19
from eofm.datasets.bigearthnet.patches import BigEarthNet, open_bigearthnet
from eofm.datasets.images.chips import Chip, Chips, FilePixels, unpacking_remedy
from eofm.datasets.images.groups import product_in
from eofm.errors import ConfigError, DataError
from eofm.store.splits import SPLITS, hash_order

_DTYPES: Final = {Sensor.S2_L2A: frozenset({"uint16"}), Sensor.S1_GRD: frozenset({"float32"})}
# One patch with known labels: a wrong mapping of names to indices once gave {10, 17}.
GOLDEN: Final = {
    Version.V1: "S2B_MSIL2A_20180502T093039_42_25",
    Version.V2: "S2B_MSIL2A_20180502T093039_N9999_R136_T34TEP_42_25",
}
GOLDEN_CLASSES: Final = (8, 11, 13)


@dataclass(frozen=True)
class BigEarthNetChoice:
    """Which BigEarthNet.

    Args:
        version: v1 or v2.
        sensors: One, or both of a pair.
        classes: 19, or the 43 of version 1.
        excluded: Keep patches under snow, cloud and cloud shadow (version 2).
        percent: How many of the training patches, in percent.
    """

    version: Version
    sensors: tuple[Sensor, ...]
    classes: int = 19
    excluded: bool = False
    percent: int = 100

    @property
    def rule(self) -> str:
        """How the patches are divided, in words."""
        words = ["official"]
        if self.excluded:
            words.append("with snow and cloud")
        if self.percent != 100:
            words.append(f"{self.percent} % of train")
        return ", ".join(words)


def first_share(ids: Sequence[str], dataset: str, percent: int, seed: int = 0) -> list[str]:
    """Return the first `percent` % of ids, rounded up, in the order of `splits.hash_order`.

    Nested: the first 1 % lie within the first 10 %.
    """
    return hash_order(ids, dataset, seed)[: math.ceil(Fraction(percent, 100) * len(ids))]


def open_bigearthnet_chips(
    root: Path | str, choice: BigEarthNetChoice, metadata: Path | str | None = None
) -> tuple[Chips, int]:
    """Find the patches of the official splits. Pixels are not read yet.

    A label fraction is taken of the official list, not of what is on disk, so a part of the data
    set never changes which patches it holds.

    Args:
        root: Folder of BigEarthNet v1 or v2.
        choice: Which BigEarthNet.
        metadata: Folder of the official lists; None looks in `root`.

    Returns:
        The patches on disk, and how many the lists name.

    Raises:
        DataError: If the folder is not that version, or the lists are not there.
        ConfigError: If the version has no such classes or patches.
        LabelError: If a label is not one of the classes.
        RasterError: If a patch lacks a band.
    """
    try:
        data = open_bigearthnet(root, metadata)
    except DataError as error:
        error.remedy = unpacking_remedy(Path(root)) or error.remedy
        raise
    _check(data, choice)
    assert data.listing is not None  # noqa: S101 (_check has raised otherwise)
    wanted = {name: data.listing.patches(name, excluded=choice.excluded) for name in SPLITS}
    if choice.percent != 100:
        wanted["train"] = first_share(
            wanted["train"], f"bigearthnet-{data.version}", choice.percent
        )
    splits = {}
    for name in SPLITS:
        kept = frozenset(wanted[name])
        splits[name] = tuple(c for c in _split(data, choice, name) if c.id in kept)
    count = sum(map(len, wanted.values()))
    there = sum(map(len, splits.values()))
    remarks = () if there == count else (f"{count - there} of {count} patches are not on disk",)
    chips = Chips(data.root, choice.rule, data.names_of(choice.classes), splits, remarks)
    _check_golden(chips, choice)
    return chips, count


def _check(data: BigEarthNet, choice: BigEarthNetChoice) -> None:
    if data.version is not choice.version:
        raise DataError(
            "this is another version of BigEarthNet",
            found=data.version,
            expected=choice.version,
            where=data.root,
            remedy=f"say --version {data.version}: half of the test patches of v2 were training "
            "patches of v1, so their scores are never compared",
        )
    if choice.excluded and data.version is Version.V1:
        raise ConfigError(
            "the official splits of version 1 hold no patch under snow or cloud",
            found="excluded=true",
            remedy="leave --excluded out, or use version 2",
        )
    if data.listing is None:
        data.samples("train")  # raises, and says which lists are missing


def _split(data: BigEarthNet, choice: BigEarthNetChoice, split: str) -> list[Chip]:
    """Return the patches that every sensor has and that have a label."""
    per_sensor = [
        {s.id: s for s in data.samples(split, choice.classes, sensor, excluded=choice.excluded)}
        for sensor in choice.sensors
    ]
    countries = {} if data.listing is None else data.listing.countries
    chips = []
    for name, sample in per_sensor[0].items():
        hot = data.multi_hot(sample, choice.classes)
        if hot is None or not all(name in samples for samples in per_sensor):
            continue
        pixels = tuple(
            FilePixels(samples[name].source, SPECS[sensor], _DTYPES[sensor])
            for sensor, samples in zip(choice.sensors, per_sensor, strict=True)
        )
        label = tuple(k for k, one in enumerate(hot) if one)
        group, country = product_in(name) or "", countries.get(name, "")
        chips.append(Chip(name, label, pixels, group, country))
    return chips


def _check_golden(chips: Chips, choice: BigEarthNetChoice) -> None:
    golden = next((c for c in chips.all if c.id == GOLDEN[choice.version]), None)
    if choice.classes == len(CLASSES_19) and golden and golden.label != GOLDEN_CLASSES:
        raise DataError(
            "a patch of known labels has others: names and indices are mixed up",
            found=golden.label,
            expected=GOLDEN_CLASSES,
            where=golden.id,
        )
