"""DFC2020: Sentinel-1 and Sentinel-2 of 256 x 256 pixels with land cover at 10 m.

IEEE GRSS Data Fusion Contest 2020 (doi 10.21227/rha7-m332), in the layout of SEN12MS or as
Copernicus-Bench (arXiv 2503.11849) divides it:

    <root>/ROIs0000_test/{s1_0,s2_0,dfc_0}/ROIs0000_test_{s1,s2,dfc}_0_p<n>.tif
    <root>/ROIs0000_validation/{s1,s2,dfc}_validation/ROIs0000_validation_{s1,s2,dfc}_0_p<n>.tif
    <root>/{s1,s2,dfc}/ROIs0000_..._p<n>.tif and dfc-{train,val,test}-new.csv

The masks are coded 1..10 in the contest's scheme, a simplified IGBP, and 0 where nothing is
known. Savanna and snow/ice, 3 and 8, do not occur in these maps and are not scored, as in
Copernicus-Bench: eight classes are left.

Faults that are met with: the folder `lc` beside it holds the MODIS map of 500 m in IGBP codes up
to 17, four bands to a file, and repackaged sets pass it off as the target; the lists of
Copernicus-Bench number patches otherwise than the contest does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

from eofm.contract.sensors import SENSOR_BANDS
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets.chips import FilePixels, unpacking_remedy
from eofm.datasets.dense_chips import Coding, DenseChip, DenseChips, Mask
from eofm.errors import DataError
from eofm.raster.source import RasterSource
from eofm.store.splits import hold_out

CLASSES: Final = (
    *("Forest", "Shrubland", "Grassland", "Wetland"),
    *("Cropland", "Urban/Built-up", "Barren", "Water"),
)
CODING: Final = Coding(
    codes={1: 0, 2: 1, 4: 2, 5: 3, 6: 4, 7: 5, 9: 6, 10: 7},
    void=frozenset({0, 3, 8}),
    hint="codes above 10 are IGBP's: take the folders dfc, not the MODIS maps of the folders lc",
)
SIZE: Final = (256, 256)
SPECS: Final[Mapping[Sensor, ImageSpec]] = {
    Sensor.S2_L1C: ImageSpec(Sensor.S2_L1C, SENSOR_BANDS[Sensor.S2_L1C], Unit.DN, SIZE, 10.0),
    Sensor.S1_GRD: ImageSpec(Sensor.S1_GRD, ("VV", "VH"), Unit.DB, SIZE, 10.0),
}
COUNTS: Final = {"train": 5_128, "test": 986}
COUNTS_LISTS: Final = {"train": 3_156, "val": 986, "test": 986}
LISTS: Final = {split: f"dfc-{split}-new.csv" for split in COUNTS_LISTS}
_FOLDERS: Final = {"train": "ROIs0000_test", "test": "ROIs0000_validation"}
_WORDS: Final = {Sensor.S2_L1C: "s2", Sensor.S1_GRD: "s1"}
_DTYPES: Final = {
    Sensor.S2_L1C: frozenset({"uint16"}),
    Sensor.S1_GRD: frozenset({"float32", "float64"}),
}


def open_dfc2020(root: Path | str, sensors: Sequence[Sensor]) -> tuple[DenseChips, int]:
    """Find the images and their masks. Pixels are not read yet.

    With the lists of Copernicus-Bench these divide. Else the contest's test patches train, a
    tenth of them by hash held out as val, and its validation patches test, as SSL4EO-S12 does.

    Args:
        root: Folder of the unpacked archive.
        sensors: One or both.

    Returns:
        The images on disk, and how many there are to be.

    Raises:
        DataError: If the layout is another, or an image lacks its mask or a sensor.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError("there is no such folder", where=root, remedy="name it with --root")
    for folder in (root, root / "dfc2020_s1s2"):
        if any((folder / name).is_file() for name in LISTS.values()):
            return _by_lists(folder, sensors)
    return _by_contest(root, sensors)


def _by_lists(root: Path, sensors: Sequence[Sensor]) -> tuple[DenseChips, int]:
    splits: dict[str, tuple[DenseChip, ...]] = {}
    named = 0
    for split, name in LISTS.items():
        try:
            lines = (root / name).read_text("utf-8").split()
        except OSError as error:
            raise DataError(
                "a list of Copernicus-Bench is not there", found=error, where=root
            ) from error
        masks = [root / "dfc" / line for line in lines]
        named += len(masks)
        splits[split] = tuple(_chip(m, sensors) for m in masks if m.is_file())
    absent = named - sum(map(len, splits.values()))
    remarks = (f"{absent} of {named} masks of the lists are not on disk",) if absent else ()
    return DenseChips(root, "copernicus-bench", CLASSES, splits, remarks), named


def _by_contest(root: Path, sensors: Sequence[Sensor]) -> tuple[DenseChips, int]:
    found: dict[str, list[DenseChip]] = {}
    for split, name in _FOLDERS.items():
        masks = sorted((root / name).glob("dfc_*/*_dfc_*.tif"))
        if not masks:
            there = sorted(path.name for path in root.iterdir())[:8]
            raise DataError(
                "this is no folder of DFC2020",
                found=", ".join(there) or "an empty folder",
                expected=f"{_FOLDERS['train']}/dfc_0 and {_FOLDERS['test']}/dfc_validation with "
                f"*.tif, or {LISTS['train']} with dfc, s1 and s2",
                where=root / name if (root / name).is_dir() else root,
                remedy=unpacking_remedy(root),
            )
        found[split] = [_chip(mask, sensors) for mask in masks]
    stay, taken = hold_out({"": [c.id for c in found["train"]]}, "dfc2020", Fraction(1, 10))
    splits = {
        "train": tuple(c for c in found["train"] if c.id in set(stay)),
        "val": tuple(c for c in found["train"] if c.id in set(taken)),
        "test": tuple(found["test"]),
    }
    return DenseChips(root, "contest, val held out", CLASSES, splits), sum(COUNTS.values())


def _chip(mask: Path, sensors: Sequence[Sensor]) -> DenseChip:
    pixels = []
    for sensor in sensors:
        word, spec = _WORDS[sensor], SPECS[sensor]
        folder = mask.parent.with_name(mask.parent.name.replace("dfc", word))
        file = folder / mask.name.replace("_dfc_", f"_{word}_")
        if not file.is_file():
            raise DataError(
                "an image is missing beside its mask",
                found=f"no {file.name}",
                where=folder,
                remedy=unpacking_remedy(mask.parent.parent) or "complete the download",
            )
        source = RasterSource(file.stem, (file,), sensor, spec.unit, spec.bands, spec.gsd)
        pixels.append(FilePixels(source, spec, _DTYPES[sensor]))
    name = mask.stem.replace("_dfc_", "_")
    return DenseChip(name, name, tuple(pixels), Mask(mask, CODING, SIZE))
