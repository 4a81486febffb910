"""`check_scale`: which values are of the size of their unit, at every limit and for every pixel."""

from __future__ import annotations

import pytest
import torch

from eofm.contract import validity
from eofm.contract.imagery import Imagery
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.contract.validity import _above, check_scale
from eofm.errors import PixelError

DIGITAL = [Unit.DN, Unit.DN_OFFSET1000]


def image(
    values: torch.Tensor, unit: Unit, valid: torch.Tensor | None = None, names: tuple[str, ...] = ()
) -> Imagery:
    """A batch (B, 1, H, W) of a band, all of it valid unless stated."""
    sensor, band = (
        (Sensor.S1_GRD, "VV") if unit in {Unit.POWER, Unit.DB} else (Sensor.S2_L2A, "B02")
    )
    spec = ImageSpec(sensor, (band,), unit, tuple(values.shape[2:]), 10.0)
    valid = torch.ones_like(values[:, 0], dtype=torch.bool) if valid is None else valid
    return Imagery(values, spec, valid, names=names)


def row(*values: float) -> torch.Tensor:
    """One image of one row."""
    return torch.tensor(values).view(1, 1, 1, -1)


def refused(imagery: Imagery) -> bool:
    """Whether it is refused; otherwise it has to come back itself."""
    try:
        return check_scale(imagery) is not imagery
    except PixelError:
        return True


@pytest.mark.parametrize("unit", DIGITAL)
@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ((0.5, 29.9), True),
        ((0.5, 30.0), False),  # that large
        ((-30.0, 0.5), False),
        ((-29.0, 0.5), True),
        ((5.0, 29.0), False),  # whole
        ((5.0, 29.5), True),
    ],
)
def test_digital_numbers_are_whole_or_reach_30(
    values: tuple[float, ...], wrong: bool, unit: Unit
) -> None:
    """The size counts whatever the sign."""
    assert wrong == refused(image(row(*values), unit))


def test_thirty_is_enough_in_any_row() -> None:
    """Also below the first one, which is looked at before the others."""
    for most, wrong in ((29.5, True), (30.0, False)):
        pixels = torch.tensor([0.5, 0.25, 0.5, most]).view(1, 1, 2, 2)
        assert wrong == refused(image(pixels, Unit.DN))


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ((0.0, 3.0), False),
        ((0.0, 4.0), True),
        ((0.0, -4.0), True),
        ((0.5, 4.0), False),  # a glint
    ],
)
def test_reflectance_is_a_fraction_or_ends_at_3(values: tuple[float, ...], wrong: bool) -> None:
    """Whole numbers above it are digital numbers."""
    assert wrong == refused(image(row(*values), Unit.REFLECTANCE))


@pytest.mark.parametrize("unit", [Unit.POWER, Unit.DB])
def test_radar_is_not_asked(unit: Unit) -> None:
    """Its values tell nothing by their size alone."""
    for values in ((0.5, 0.25), (-12.0, 700.0)):
        assert not refused(image(row(*values), unit))


def test_no_image_and_no_valid_pixel_are_no_fault() -> None:
    """There is nothing to look at."""
    assert not refused(image(torch.zeros(0, 1, 2, 2), Unit.DN))
    nothing = torch.zeros(1, 2, 2, dtype=torch.bool)
    assert not refused(image(torch.full((1, 1, 2, 2), 0.5), Unit.DN, nothing))


def test_every_valid_pixel_is_looked_at_and_no_other() -> None:
    """One value of digital numbers makes it an image of them, wherever it is; a masked one not."""
    for place in range(6):
        pixels = torch.full((2, 1, 1, 3), 0.5)
        pixels.view(-1)[place] = 700.0
        assert not refused(image(pixels, Unit.DN))
        valid = torch.ones(6, dtype=torch.bool)
        valid[place] = False
        assert refused(image(pixels, Unit.DN, valid.view(2, 1, 3)))
        whole = torch.zeros(2, 1, 1, 3)
        whole.view(-1)[place] = 700.0
        assert refused(image(whole, Unit.REFLECTANCE))


@pytest.mark.parametrize("hole", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_left_to_another_check(hole: float) -> None:
    """The other values are judged."""
    assert refused(image(row(0.5, hole, 0.25), Unit.DN))
    assert not refused(image(row(0.5, hole, 700.0), Unit.DN))
    assert not refused(image(row(hole, hole), Unit.DN))
    assert refused(image(row(500.0, hole, 700.0), Unit.REFLECTANCE))


@pytest.mark.parametrize(("seen", "wrong"), [(0.5, True), (700.0, False)])
def test_of_a_large_image_every_nth_row_and_column_tells(
    seen: float, wrong: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 pixels of which 4 are looked at: every fourth in both directions, the first among them."""
    monkeypatch.setattr(validity, "_LOOKED_AT", 4)
    pixels = torch.full((1, 1, 8, 8), 700.0 if wrong else 0.5)
    pixels[..., ::4, ::4] = 0.5
    pixels[..., 4, 4] = seen

    assert wrong == refused(image(pixels, Unit.DN))


def test_of_a_small_image_every_pixel_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the number that is looked at."""
    monkeypatch.setattr(validity, "_LOOKED_AT", 64)
    pixels = torch.full((1, 1, 8, 8), 0.5)
    pixels[..., 5, 7] = 700.0

    assert not refused(image(pixels, Unit.DN))


def test_the_refusal_says_what_is_there_and_what_to_do() -> None:
    """Fractions are reflectance; whole numbers are digital numbers, or of 8 bits a preview."""
    for unit in DIGITAL:
        with pytest.raises(PixelError, match=f"not in the range of unit {unit}") as caught:
            check_scale(image(row(0.25, 0.5), unit, names=("a.tif",)))
        said = caught.value
        assert ("fractions up to 0.5", "a.tif") == (said.found, said.where)
        assert 'state the unit the values are in, as in: unit="reflectance"' == said.remedy
        check_scale(image(row(0.25, 0.5), Unit.REFLECTANCE))  # the remedy
    for most, preview in ((255.0, True), (256.0, False)):
        with pytest.raises(PixelError) as caught:
            check_scale(image(row(0.0, most), Unit.REFLECTANCE))
        said = caught.value
        assert (f"whole numbers up to {most:g}", None) == (said.found, said.where)
        assert preview == str(said.remedy).startswith(
            "if this is an 8-bit preview, use the original"
        )
        assert str(said.remedy).endswith('as in: unit="dn"')
        check_scale(image(row(0.0, most), Unit.DN))


def test_one_decibel_is_not_more_than_one() -> None:
    """In both units."""
    assert not _above(-10.0, -11.0, Unit.DB)
    assert _above(-9.9, -11.0, Unit.DB)
    assert not _above(0.5 * 10**0.1, 0.5, Unit.POWER)
    assert _above(0.63, 0.5, Unit.POWER)
