"""Labelled images of benchmark tasks: dividing, labels, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from eofm.data.chips import Chip, Chips, class_counts, read_batches, targets_of, unpacking_remedy
from eofm.errors import DataError, LabelError
from eofm.imagery import Imagery
from eofm.spec import ImageSpec, Sensor, Unit

SPEC = ImageSpec(Sensor.RGB, ("R", "G", "B"), Unit.UINT8, (2, 2), 1.0)


@dataclass(frozen=True)
class Fixed:
    """Pixels of one value."""

    value: float

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
