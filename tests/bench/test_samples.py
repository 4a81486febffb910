"""Contents of images, remembered by their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from eofm.bench.samples import values_of
from eofm.contract.imagery import Imagery
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets.images.chips import Chip, StoredAt

SPEC = ImageSpec(Sensor.RGB, ("R", "G", "B"), Unit.UINT8, (4, 4), 1.0)


class Made:
    """Pixels of one level that count how often they are read."""

    place = StoredAt(())

    def __init__(self, level: float) -> None:
        self.level, self.reads = level, 0

    def read(self) -> Imagery:
        """Return the image."""
        self.reads += 1
        pixels = torch.from_numpy(np.full((1, 3, 4, 4), self.level, np.float32))
        return Imagery(pixels, SPEC, torch.ones(1, 4, 4, dtype=torch.bool))

    def digest(self) -> str:
        """Return what stands for the files."""
        return f"file of {self.level}"


def test_values_are_remembered_by_files_and_by_what_is_read(tmp_path: Path) -> None:
    """Nothing is decoded twice for one task; other bands of the same files are."""
    made = [Made(level) for level in (1, 2, 2)]
    chips = [Chip(str(i), 0, (pixels,)) for i, pixels in enumerate(made)]
    digests = {"0": "x", "1": "y", "2": "z"}
    first = values_of(chips, digests, [SPEC], tmp_path)

    assert first["1"] == first["2"] != first["0"]
    assert first == values_of(chips, digests, [SPEC], tmp_path)
    assert [1, 1, 1] == [pixels.reads for pixels in made]
    assert first == values_of(chips, {**digests, "1": "new"}, [SPEC], tmp_path)
    assert [1, 2, 1] == [pixels.reads for pixels in made]
    other = ImageSpec(Sensor.RGB, ("B", "G", "R"), Unit.UINT8, (4, 4), 1.0)
    values_of(chips, digests, [other], tmp_path)
    assert [2, 3, 2] == [pixels.reads for pixels in made]


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_a_torn_memory_is_made_anew(tmp_path: Path, text: str) -> None:
    """A file that is not whole is no error."""
    (tmp_path / "values.json").write_text(text)
    chip = Chip("0", 0, (Made(1),))

    assert values_of([chip], {"0": "x"}, [SPEC], tmp_path) == values_of(
        [chip], {"0": "x"}, [SPEC], None
    )
