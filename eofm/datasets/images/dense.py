"""Images with a class per pixel, divided into train, val and test: what dense tasks read.

A mask is a file of codes; a `Coding` says which code is which class and which codes say nothing.
Any other code is an error: it is how a map of another scheme gives itself away.

Shapes: H by W pixels.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from eofm.datasets.images.chips import FilePixels, Pixels, StoredAt, check_unique, unpacking_remedy
from eofm.errors import DataError, LabelError, RasterError
from eofm.store.splits import SPLITS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from eofm.contract.imagery import Imagery
    from eofm.raster.grid import Window

__all__ = ["VOID", "Coding", "DenseChip", "DenseChips", "Mask", "WindowPixels", "read_dense"]

# What a mask says of a pixel of which nothing is known.
VOID: Final = -1


@dataclass(frozen=True)
class Coding:
    """What the codes of a mask mean.

    Args:
        codes: Code -> class index.
        void: Codes that say nothing of a pixel.
        hint: What to do about any other code.

    Raises:
        LabelError: If a code is a class and void.
    """

    codes: Mapping[int, int]
    void: frozenset[int] = frozenset()
    hint: str | None = None

    def __post_init__(self) -> None:
        both = sorted(self.void & set(self.codes))
        if both:
            raise LabelError("a code is a class and void", found=", ".join(map(str, both)))

    def classes_of(self, stored: NDArray[np.integer], where: object) -> Tensor:
        """Return class indices, int16 (H, W), `VOID` where nothing is known.

        Args:
            stored: The codes.
            where: For messages.

        Raises:
            LabelError: If a code is neither a class nor void.
        """
        import numpy as np
        import torch

        found = np.full(stored.shape, VOID, np.int16)
        known = np.isin(stored, list(self.void)) if self.void else np.zeros(stored.shape, np.bool_)
        for code, index in self.codes.items():
            here = stored == code
            found[here] = index
            known |= here
        if not known.all():
            strange = np.unique(stored[~known])[:8].tolist()
            raise LabelError(
                "a mask holds codes that are no class",
                found=", ".join(map(str, strange)),
                expected=f"{_runs(self.codes)}; void: {_runs(self.void) or 'none'}",
                where=where,
                remedy=self.hint or "add the codes to the classes, or declare them void",
            )
        return torch.from_numpy(found)


def _runs(codes: Iterable[int]) -> str:
    return ", ".join(str(code) for code in sorted(codes))


@dataclass(frozen=True)
class Mask:
    """The classes of one image's pixels.

    Args:
        file: A raster of one band of whole numbers.
        coding: What its codes mean.
        size: Height and width of the whole file.
        window: The part that belongs to the image; None is all of it.
    """

    file: Path
    coding: Coding
    size: tuple[int, int]
    window: Window | None = None

    def read(self) -> Tensor:
        """Return class indices, int16 (H, W), `VOID` where nothing is known.

        Raises:
            RasterError: If the file is damaged.
            LabelError: If it is not of the image's size, no raster of codes, or holds a code that
                is neither a class nor void.
        """
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning, RasterioError

        driver = "PNG" if self.file.suffix.lower() == ".png" else "GTiff"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with rasterio.open(self.file, driver=driver) as file:
                    shape, kind = (file.count, file.height, file.width), file.dtypes[0]
                    stored = file.read(1)
        except (OSError, RasterioError) as error:
            raise RasterError(
                "a mask cannot be read",
                found=error,
                where=self.file,
                remedy="download or unpack it again",
            ) from error
        if shape != (1, *self.size) or stored.dtype.kind not in "iu":
            raise LabelError(
                "a mask does not fit its image",
                found=f"{shape[0]} bands, {shape[1]} x {shape[2]} pixels of {kind}",
                expected=f"1 band, {self.size[0]} x {self.size[1]} pixels of whole numbers",
                where=self.file,
                remedy="a mask has the pixels of its image, one code each",
            )
        part = self.window
        if part is not None:
            stored = stored[part.row : part.row + part.height, part.col : part.col + part.width]
        return self.coding.classes_of(stored, self.file)

    @property
    def place(self) -> StoredAt:
        """The file; its codes and a window say what is meant."""
        return StoredAt((self.file,), f"{self.window} {sorted(self.coding.codes.items())}")

    def digest(self) -> str:
        """Return the sha256 of the file, and of which part of it is meant.

        Raises:
            RasterError: If it cannot be read.
        """
        try:
            digest = hashlib.sha256(self.file.read_bytes())
        except OSError as error:
            raise RasterError("a mask cannot be read", found=error, where=self.file) from error
        digest.update(self.place.part.encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class WindowPixels:
    """A part of an image.

    Args:
        whole: The image, with what it must be.
        window: Which part.
    """

    whole: FilePixels
    window: Window

    def read(self) -> Imagery:
        """Return the part, (1, C, h, w).

        Raises:
            RasterError: If a file is damaged, or the image is not of the stated kind.
        """
        return self.whole.read(self.window)

    @property
    def place(self) -> StoredAt:
        """A part of the files of the whole image."""
        return StoredAt(self.whole.place.files, str(self.window))

    def digest(self) -> str:
        """Return the sha256 of the files, and of which part of them is meant.

        Raises:
            RasterError: If one cannot be read.
        """
        text = f"{self.whole.digest()} {self.window}"
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class DenseChip:
    """One image with its mask.

    Args:
        id: Its name, unique in the data set.
        scene: What counts as one sample: the image of which it is a window, or all images of a
            place.
        pixels: One entry per sensor of the task.
        mask: Its classes.
        group: As of `Chip`: of the scene.
    """

    id: str
    scene: str
    pixels: tuple[Pixels, ...]
    mask: Mask
    group: str = ""


@dataclass(frozen=True)
class DenseChips:
    """The images of a dense task, divided.

    Args:
        root: The folder as the user named it.
        rule: How they were divided.
        classes: Class names in the order of the indices.
        splits: `train`, `val` and `test`, each in the order of ids.
        remarks: What a reader of the scores should know of these images.

    Raises:
        DataError: If an id occurs twice, a scene is in two splits, or a split is empty.
    """

    root: Path
    rule: str
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[DenseChip, ...]]
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ordered = {n: tuple(sorted(self.splits[n], key=lambda c: c.id)) for n in SPLITS}
        object.__setattr__(self, "splits", ordered)
        check_unique(ordered, self.root)
        _check_scenes(ordered, self.root)
        if not all(ordered.values()):
            raise DataError(
                "a split has no image",
                found=", ".join(f"{len(ordered[name])} {name}" for name in SPLITS),
                expected="images in train, val and test",
                where=self.root,
                remedy=unpacking_remedy(self.root)
                or "the folder holds a part of the data set only: complete the download",
            )

    @property
    def all(self) -> tuple[DenseChip, ...]:
        """The images of train, val and test, in this order."""
        return tuple(chip for name in SPLITS for chip in self.splits[name])

    def keeping(self, kept: Mapping[str, frozenset[str]]) -> DenseChips:
        """Return the images whose ids are kept, split by split."""
        splits = {n: tuple(c for c in self.splits[n] if c.id in kept[n]) for n in SPLITS}
        return replace(self, splits=splits)


def _check_scenes(splits: Mapping[str, Sequence[DenseChip]], root: Path) -> None:
    seen: dict[str, str] = {}
    for name, chips in splits.items():
        for chip in chips:
            if seen.setdefault(chip.scene, name) != name:
                raise DataError(
                    "parts of one image lie in two splits",
                    found=f"{chip.scene} in {seen[chip.scene]} and in {name}",
                    where=root,
                    remedy="divide whole images: a neighbour in train is a leak",
                )


def read_dense(
    chips: Sequence[DenseChip], size: int, sensor: int = 0
) -> Iterator[tuple[Imagery, Tensor]]:
    """Yield images with their masks, int16 (B, H, W), in batches of at most `size`, in order.

    Raises:
        RasterError: If a file is damaged.
        LabelError: If a mask does not fit its image or holds an unknown code.
        SpecError: If an image is of another kind than its neighbours.
    """
    import torch

    from eofm.contract.imagery import collate

    for start in range(0, len(chips), size):
        part = chips[start : start + size]
        imagery = collate([chip.pixels[sensor].read() for chip in part])
        yield imagery, torch.stack([chip.mask.read() for chip in part])
