"""Golden numbers and limits of plans: conversions, scale, sizes, words, and what is filled."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from eofm.contract.imagery import Imagery
from eofm.contract.preprocess import (
    ConvertUnit,
    FillInvalid,
    InsertBands,
    Normalize,
    Preprocess,
    Resize,
    SelectBands,
    convert_unit,
    normalize,
    plan,
)
from eofm.contract.recipe import (
    AcceptPixels,
    AcceptScale,
    AcceptSensor,
    AcceptSize,
    FillBand,
    Kernel,
    Recipe,
    ResizeOrder,
    ResizeRule,
)
from eofm.contract.spec import ImageSpec, Normalization, Sensor, Unit
from eofm.errors import MismatchKind, PixelError, SpecMismatch

BANDS = ("B02", "B04", "B8A")
SPEC = ImageSpec(Sensor.S2_L1C, BANDS, Unit.DN, (8, 8), 10.0)
NORM = Normalization((1.0, 2.0, 3.0), (10.0, 20.0, 40.0), "a test")
RECIPE = Recipe(Sensor.S2_L1C, BANDS, Unit.DN, (8, 8), NORM)


def image(pixels: torch.Tensor, spec: ImageSpec) -> Imagery:
    """A batch of which all is valid."""
    valid = torch.ones(len(pixels), *pixels.shape[2:], dtype=torch.bool)
    return Imagery(pixels, replace(spec, size=tuple(pixels.shape[2:])), valid)


@pytest.mark.parametrize(
    ("source", "target", "before", "after"),
    [
        (Unit.DN, Unit.REFLECTANCE, [0.0, 2500.0, 10_000.0], [0.0, 0.25, 1.0]),
        (Unit.REFLECTANCE, Unit.DN, [0.0, 0.25, 1.0], [0.0, 2500.0, 10_000.0]),
        (Unit.DN_OFFSET1000, Unit.DN, [900.0, 1000.0, 3500.0], [0.0, 0.0, 2500.0]),
        (Unit.DN_OFFSET1000, Unit.REFLECTANCE, [900.0, 1000.0, 3500.0], [0.0, 0.0, 0.25]),
        (Unit.POWER, Unit.DB, [0.01, 1.0, 10.0], [-20.0, 0.0, 10.0]),
        (Unit.DB, Unit.POWER, [-20.0, 0.0, 10.0], [0.01, 1.0, 10.0]),
        (Unit.UINT8, Unit.UINT8, [0.0, 7.0, 255.0], [0.0, 7.0, 255.0]),
    ],
)
def test_golden_conversions(
    source: Unit, target: Unit, before: list[float], after: list[float]
) -> None:
    """Every conversion by numbers worked out by hand."""
    found = convert_unit(torch.tensor(before), source, target)

    assert pytest.approx(after, rel=1e-6) == found.tolist()


def test_conversions_that_are_not_known_name_those_that_are() -> None:
    """The units that lead to the one wanted are listed."""
    with pytest.raises(SpecMismatch, match="from uint8 to dn") as caught:
        convert_unit(torch.ones(1), Unit.UINT8, Unit.DN)

    assert MismatchKind.UNIT is caught.value.kind
    assert "dn | dn-offset1000 | reflectance" == caught.value.expected
    with pytest.raises(PixelError, match="must be positive") as refused:
        convert_unit(torch.tensor([0.1, -0.5]), Unit.POWER, Unit.DB)
    assert "minimum -0.5" == refused.value.found


# --------------------------------------------------------------------------------- scale


@pytest.mark.parametrize(
    ("gsd", "fits"), [(2.0, True), (1.99, False), (25.0, True), (25.01, False), (10.0, True)]
)
def test_the_size_of_pixels_on_the_ground(gsd: float, fits: bool) -> None:
    """From a fifth to two and a half times the sensor's own; beyond that with a reason."""
    spec, waiver = replace(SPEC, gsd=gsd), AcceptScale("a test")
    if fits:
        assert gsd == plan(spec, RECIPE).target.gsd
        with pytest.raises(SpecMismatch, match="not needed"):
            plan(spec, RECIPE, [waiver])
        return
    with pytest.raises(SpecMismatch, match="ground size of the pixels") as caught:
        plan(spec, RECIPE)
    assert MismatchKind.SCALE is caught.value.kind
    assert f"{gsd:g} m" == caught.value.found
    assert "2 to 25 m, as the bands B02 B04 B8A of s2-l1c have 10 m" == caught.value.expected
    assert (waiver,) == plan(spec, RECIPE, [waiver]).waivers


def test_bands_of_20_m_have_pixels_of_20_m() -> None:
    """The finest of the image's own bands decides; more than three are not listed."""
    bands = ("B05", "B06", "B07", "B8A")
    norm = Normalization.divide(1, 4, "a test")
    recipe = Recipe(Sensor.S2_L1C, bands, Unit.DN, (8, 8), norm)
    spec = replace(SPEC, bands=bands, gsd=50.0)

    plan(spec, recipe)
    with pytest.raises(SpecMismatch) as caught:
        plan(replace(spec, gsd=51.0), recipe)
    assert "4 to 50 m, as the bands B05 B06 B07 ... of s2-l1c have 20 m" == caught.value.expected


@pytest.mark.parametrize(("side", "fits"), [(40, True), (41, False)])
def test_a_scene_is_not_shrunk_into_one_input(side: int, fits: bool) -> None:
    """Five times is a window, more a scene; aerial and colour images are not measured by it."""
    spec, waiver = replace(SPEC, size=(side, side)), AcceptScale("a test")
    if fits:
        assert side / 8 * 10 == plan(spec, RECIPE).target.gsd
        return
    with pytest.raises(SpecMismatch, match="downsampled to a single network input") as caught:
        plan(spec, RECIPE)
    assert "41 x 41 px at 10 m, as 8 x 8 px at 51.25 m" == caught.value.found
    assert "windows of at most 40 px" == caught.value.expected
    assert (waiver,) == plan(spec, RECIPE, [waiver]).waivers
    colour = ImageSpec(Sensor.RGB, ("R",), Unit.UINT8, (400, 400), 0.3)
    norm = Normalization.divide(255, 1, "a test")
    assert () == plan(colour, Recipe(Sensor.RGB, ("R",), Unit.UINT8, (8, 8), norm)).waivers


# ----------------------------------------------------------------------------------- sizes


def test_sizes_that_are_accepted() -> None:
    """One other size, and no two; a plan keeps height and width apart."""
    tall = replace(SPEC, size=(16, 8))
    with pytest.raises(SpecMismatch, match="distort") as caught:
        plan(tall, RECIPE)
    assert ("16 x 8", "the aspect ratio of 8 x 8") == (caught.value.found, caught.value.expected)
    recipe = replace(RECIPE, size=(4, 2))
    made = plan(tall, recipe)
    assert (4, 2) == made.target.size
    assert 40.0 == made.target.gsd
    two = [AcceptSize((16, 16), "one"), AcceptSize((24, 24), "two")]
    with pytest.raises(SpecMismatch, match="only one size"):
        plan(SPEC, RECIPE, two)
    assert (24, 24) == plan(SPEC, RECIPE, two[1:]).target.size


def test_pixels_that_are_accepted_need_no_doubt() -> None:
    """The waiver speaks of values, which a plan does not know: it is never unused."""
    assert plan(SPEC, RECIPE).steps == plan(SPEC, RECIPE, [AcceptPixels("a test")]).steps


def test_missing_bands_are_listed() -> None:
    """All that lack; with every band missing no waiver helps; only the sensor waived is taken."""
    with pytest.raises(SpecMismatch, match="lacks: B04, B8A") as caught:
        plan(replace(SPEC, bands=("B02",)), RECIPE, [FillBand("B04", 0.0, "a test")])
    assert ("B02", "B02, B04, B8A") == (caught.value.found, caught.value.expected)
    fills = [FillBand(band, 0.0, "a test") for band in BANDS]
    with pytest.raises(SpecMismatch, match="lacks: B02, B04, B8A"):
        plan(replace(SPEC, bands=("B03",)), RECIPE, fills)
    level = replace(SPEC, sensor=Sensor.S2_L2A)
    with pytest.raises(SpecMismatch, match="another sensor"):
        plan(level, RECIPE, [AcceptSensor(Sensor.S1_GRD, "a test")])


# ----------------------------------------------------------------------------------- steps


def test_steps_and_words_of_a_plan() -> None:
    """Every step in its place, with its number and its words."""
    spec = ImageSpec(Sensor.S2_L2A, ("B04", "B02"), Unit.DN_OFFSET1000, (16, 12), 10.0)
    norm = replace(NORM, clip=(0.0, 1.0), levels=255)
    rule = ResizeRule(Kernel.BICUBIC, False, ResizeOrder.AFTER_NORMALIZATION)
    recipe = Recipe(Sensor.S2_L1C, BANDS, Unit.DN, (8, 6), norm, rule)
    waivers = (AcceptSensor(Sensor.S2_L2A, "one"), FillBand("B8A", 0.5, "two"))

    made = plan(spec, recipe, waivers)

    assert (
        SelectBands(("B02", "B04"), (1, 0)),
        FillInvalid(),
        ConvertUnit(Unit.DN_OFFSET1000, Unit.DN),
        Normalize(norm.select((0, 1))),
        Resize((8, 6), Kernel.BICUBIC, False),
        InsertBands(BANDS, (("B8A", 0.5),)),
    ) == made.steps
    assert [
        "from  s2-l2a, 2 bands, dn-offset1000, 16 x 12 px at 10 m",
        "  1. select bands B02 B04",
        "  2. fill invalid pixels with the band mean of the valid ones of the same image",
        "  3. convert dn-offset1000 -> dn: max(x - 1000, 0)",
        "  4. normalise (x - shift) / scale, clip to [0.0, 1.0], truncate to 255 levels; "
        "constants: a test",
        "  5. resize to 8 x 6, bicubic, antialias=False",
        "  6. insert B8A = 0.5 (normalised)",
        "to    s2-l1c, 3 bands, model, 8 x 6 px at 20 m",
        f"waiver: {waivers[0]}",
        f"waiver: {waivers[1]}",
        f"plan  {made.hash[:16]}",
    ] == made.describe().splitlines()
    # stored vectors and records carry it: one plan has one hash, of every version
    assert "4428ed357ab8038d" == made.hash[:16]


def test_what_is_invalid_takes_the_mean_of_its_own_image() -> None:
    """Band by band over valid pixels; an image that has none is named by its number."""
    pixels = torch.arange(2 * 3 * 4, dtype=torch.float32).view(2, 3, 2, 2)
    batch = image(pixels, SPEC)
    batch.valid[1, 0, 0] = batch.valid[1, 1, 1] = False
    step = Preprocess(plan(batch.spec, replace(RECIPE, size=(2, 2))))

    out = step(batch)

    filled = pixels.clone()
    for band in range(3):
        mean = (pixels[1, band, 0, 1] + pixels[1, band, 1, 0]) / 2
        filled[1, band, 0, 0] = filled[1, band, 1, 1] = mean
    scale = torch.tensor(NORM.scale).view(1, 3, 1, 1)
    torch.testing.assert_close(
        (filled - torch.tensor(NORM.shift).view(1, 3, 1, 1)) / scale, out.pixels
    )
    assert torch.equal(batch.valid, out.valid)
    batch.valid[1] = False
    with pytest.raises(PixelError, match="no valid pixel") as caught:
        step(batch)
    assert ((1,), "images [1] of the batch") == (caught.value.images, caught.value.where)


def test_clipping_and_levels_by_hand() -> None:
    """Clip first, then truncate; without them values pass."""
    values = torch.tensor([-5.0, 0.0, 2.4, 2.6, 10.0, 15.0]).view(1, 1, 1, 6)
    norm = Normalization((0.0,), (10.0,), "a test", clip=(0.0, 1.0), levels=4)

    assert [0.0, 0.0, 0.0, 0.25, 1.0, 1.0] == normalize(values, norm).flatten().tolist()
    plain = normalize(values, replace(norm, levels=None))
    assert pytest.approx([0.0, 0.0, 0.24, 0.26, 1.0, 1.0]) == plain.flatten().tolist()
    free = normalize(values, replace(norm, levels=None, clip=None))
    assert pytest.approx([-0.5, 0.0, 0.24, 0.26, 1.0, 1.5]) == free.flatten().tolist()


def test_the_mask_takes_the_pixel_under_the_centre() -> None:
    """Shrinking by two keeps what lies under the centre of a pixel."""
    batch = image(torch.ones(1, 3, 4, 4), SPEC)
    batch.valid[0, 1, 1] = False
    step = Preprocess(plan(batch.spec, replace(RECIPE, size=(2, 2))))

    assert [[False, True], [True, True]] == step(batch).valid[0].tolist()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"sensor": Sensor.S2_L2A}, MismatchKind.SENSOR),
        ({"bands": ("B02", "B04", "B08")}, MismatchKind.BANDS),
        ({"unit": Unit.REFLECTANCE}, MismatchKind.UNIT),
        ({"gsd": 11.0}, MismatchKind.SIZE),
    ],
)
def test_a_batch_of_another_kind_is_told_in_what(
    changes: dict[str, object], kind: MismatchKind
) -> None:
    """Sensor before bands, bands before unit, and then the size."""
    step = Preprocess(plan(SPEC, RECIPE))
    other = replace(SPEC, **changes)  # type: ignore[arg-type]

    with pytest.raises(SpecMismatch, match="spec of this batch") as caught:
        step(image(torch.ones(1, 3, 8, 8), other))

    assert kind is caught.value.kind
