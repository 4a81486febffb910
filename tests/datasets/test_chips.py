"""Labelled images of benchmark tasks: dividing, labels, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from eofm.contract.imagery import Imagery
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets.images.chips import (
    Chip,
    Chips,
    KeptPixels,
    StoredAt,
    class_counts,
    keeping_pixels,
    read_batches,
    targets_of,
    unpacking_remedy,
)
from eofm.errors import DataError, LabelError

SPEC = ImageSpec(Sensor.RGB, ("R", "G", "B"), Unit.UINT8, (2, 2), 1.0)


@dataclass(frozen=True)
class Fixed:
    """Pixels of one value."""

    value: float
    place = StoredAt(())

    def read(self) -> Imagery:
        pixels = torch.full((1, 3, 2, 2), self.value)
        return Imagery(pixels, SPEC, torch.ones(1, 2, 2, dtype=torch.bool))

    def digest(self) -> str:
        return str(self.value)


def chip(name: str, label: int | tuple[int, ...] = 0, value: float = 1.0) -> Chip:
    """One image."""
    return Chip(name, label, (Fixed(value),))


def divided(**splits: tuple[Chip, ...]) -> Chips:
    """Images of three classes."""
    parts = {"train": (), "val": (), "test": (), **splits}
    return Chips(Path("here"), "given", ("a", "b", "c"), parts)


def test_images_stand_in_the_order_of_their_ids() -> None:
    """Whatever the order of the files."""
    chips = divided(train=(chip("b"), chip("a")), test=(chip("c"),))

    assert ["a", "b", "c"] == [c.id for c in chips.all]
    assert not chips.multi_label


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: divided(train=(chip("a"),), test=(chip("a"),)), DataError, "the same name"),
        (lambda: divided(train=(chip("a"), chip("a")), test=(chip("b"),)), DataError, "same name"),
        (lambda: divided(train=(chip("a"),)), DataError, "a split has no image"),
        (lambda: divided(test=(chip("a"),)), DataError, "a split has no image"),
        (lambda: divided(train=(chip("a", 3),), test=(chip("b"),)), LabelError, "none of the"),
        (lambda: divided(train=(chip("a", (0, 5)),), test=(chip("b", ()),)), LabelError, "none of"),
        (lambda: divided(train=(chip("a"),), test=(chip("b", (0,)),)), LabelError, "a set of"),
    ],
)
def test_contradictions_are_named(
    make: Callable[[], Chips], error: type[Exception], message: str
) -> None:
    """The same id in train and test, an empty split, labels out of range or of two kinds."""
    with pytest.raises(error, match=message):
        make()


def test_a_leak_names_both_places() -> None:
    """The message says which id is where."""
    with pytest.raises(DataError) as caught:
        divided(train=(chip("a"),), test=(chip("a"),))

    assert "a in train and in test" in str(caught.value)


def test_labels_as_tensors() -> None:
    """One class is an index, several are multi-hot; none at all is a row of zeros."""
    assert [2, 0] == targets_of([chip("a", 2), chip("b", 0)], 3).tolist()
    several = [chip("a", (0, 2)), chip("b", ())]
    assert [[1, 0, 1], [0, 0, 0]] == targets_of(several, 3).tolist()
    assert {"a": 1, "b": 0, "c": 1} == class_counts(several, ("a", "b", "c"))


def test_batches_hold_all_images_in_order() -> None:
    """The last one is smaller, none is lost."""
    chips = [chip(str(i), value=float(i)) for i in range(5)]

    batches = list(read_batches(chips, 2))

    assert [2, 2, 1] == [len(b) for b in batches]
    assert [0.0, 1.0, 2.0, 3.0, 4.0] == torch.cat([b.pixels[:, 0, 0, 0] for b in batches]).tolist()


def test_some_ids_can_be_kept() -> None:
    """Of the splits that are named; the others stay whole."""
    chips = divided(train=(chip("a"), chip("b")), test=(chip("c"), chip("d")))

    kept = chips.keeping({"train": frozenset({"b"})})

    assert ["b", "c", "d"] == [c.id for c in kept.all]


def test_archives_and_unfinished_downloads_are_noticed(tmp_path: Path) -> None:
    """The unfinished one is named first; a folder of images needs no remedy."""
    assert unpacking_remedy(tmp_path) is None
    assert unpacking_remedy(tmp_path / "nowhere") is None
    (tmp_path / "set.zip").touch()
    assert "unpack set.zip" in str(unpacking_remedy(tmp_path))
    (tmp_path / "set.zip.crdownload").touch()
    assert "not ended" in str(unpacking_remedy(tmp_path))


@dataclass(frozen=True)
class Scene:
    """Pixels of four bands that may be fractions or partly invalid."""

    pixels: torch.Tensor
    valid: torch.Tensor
    unit: Unit
    place = StoredAt(())

    def read(self) -> Imagery:
        spec = ImageSpec(Sensor.S2_L2A, ("B02", "B03", "B04", "B08"), self.unit, (3, 5), 10.0)
        return Imagery(self.pixels.clone(), spec, self.valid.clone())

    def digest(self) -> str:
        return "x"


@pytest.mark.parametrize("unit", [Unit.DN, Unit.REFLECTANCE])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("clear", [True, False])
def test_kept_pixels_are_those_that_were_read(
    unit: Unit, whole: bool, clear: bool, generator: torch.Generator
) -> None:
    """To the bit, however compactly they are kept; fractions and masks included."""
    pixels = torch.rand(1, 4, 3, 5, generator=generator) * 60_000
    pixels = pixels.round() if whole else pixels
    valid = torch.ones(1, 3, 5, dtype=torch.bool)
    valid[0, 1, 1] = clear
    scene = Scene(pixels, valid, unit)
    kept = KeptPixels(scene)

    for _ in range(3):
        found = kept.read()
        assert torch.equal(pixels, found.pixels)
        assert torch.equal(valid, found.valid)
        assert scene.read().spec == found.spec
    found.pixels.zero_()
    assert torch.equal(pixels, kept.read().pixels)
    stored = kept.kept[0][0]
    assert (stored.itemsize == 2) == (whole and unit is Unit.DN)


def test_pixels_are_kept_only_where_there_is_room() -> None:
    """Too many of them are read again each time, as without."""
    chips = divided(train=(chip("a"), chip("b")), test=(chip("c"),))
    each = 3 * 2 * 2  # bytes of 8-bit pixels

    roomy, narrow = keeping_pixels(chips, 3 * each), keeping_pixels(chips, 3 * each - 1)

    assert all(isinstance(c.pixels[0], KeptPixels) for c in roomy.all)
    assert chips.all == narrow.all
    assert [c.id for c in chips.all] == [c.id for c in roomy.all]
