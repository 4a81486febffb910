"""Imagery knows where it lies, and says what it is."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from eofm.contract.imagery import Georeference, Imagery, collate
from eofm.contract.spec import STATISTICS, ImageSpec, Normalization, Sensor, Unit, spec_key
from eofm.errors import SpecError

SPEC = ImageSpec(Sensor.S2_L2A, ("B04", "B03", "B02"), Unit.DN, (4, 6), 10.0)
UTM = Georeference("EPSG:32632", (10.0, 0.0, 5e5, 0.0, -10.0, 5.4e6))
TURNED = Georeference(None, (8.0, 3.0, 100.0, 2.0, -9.0, 200.0))


def batch(*grids: Georeference | None) -> Imagery:
    """Make a batch with a grid for each image; image number i is i everywhere."""
    count = len(grids)
    pixels = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(count, 3, 4, 6)
    return Imagery(pixels.clone(), SPEC, torch.ones(count, 4, 6, dtype=torch.bool), grids)


def test_a_georeference_says_where_a_pixel_lies() -> None:
    """Corners are the six numbers applied, by hand, also where rows are not parallel to an axis."""
    assert (500_000 + 30, 5_400_000 - 20) == UTM.point(3, 2)
    assert (100 + 8 * 3 + 3 * 2, 200 + 2 * 3 - 9 * 2) == TURNED.point(3, 2)
    assert TURNED.point(3, 2) == TURNED.at(2, 3).point(0, 0)
    assert TURNED.point(5, 7) == TURNED.at(2, 3).point(2, 5)


@pytest.mark.parametrize(
    ("transform", "problem"),
    [
        ((1, 2, 3), "six finite"),
        ((1, 0, 0, 0, float("nan"), 0), "six finite"),
        ((1, 2, 0, 2, 4, 0), "cover an area"),
    ],
)
def test_a_transform_that_is_none_is_refused(transform: tuple, problem: str) -> None:
    """Too few numbers, NaN, and pixels without an area are said at once."""
    with pytest.raises(SpecError, match=problem):
        Georeference(None, transform)


def test_a_batch_carries_a_grid_for_each_image() -> None:
    """Indexing, collating, moving and pickling keep image and grid together."""
    whole = collate([batch(UTM, None), batch(TURNED)])

    assert (UTM, None, TURNED) == whole.grids
    assert (UTM, None, TURNED) == pickle.loads(pickle.dumps(whole)).grids
    assert (UTM, None, TURNED) == whole.to("cpu").grids
    assert TURNED == whole[2].grid == whole[-1].grid
    assert (None, TURNED) == whole[1:].grids
    assert (TURNED, UTM) == whole[torch.tensor([2, 0])].grids
    assert (UTM, TURNED) == whole[torch.tensor([True, False, True])].grids
    assert [0.0, 0.0] == whole[torch.tensor([2, 0])].pixels[:, 0, 0, 0].tolist()


def test_batches_without_places_stay_without() -> None:
    """None is filled in only where another image of the batch has a place."""
    bare = Imagery(batch(None).pixels, SPEC, batch(None).valid)

    assert collate([bare, bare]).grids is None
    assert (None, UTM) == collate([bare, batch(UTM)]).grids
    assert bare.grid is None
    assert bare[0].grids is None


def test_wrong_numbers_of_grids_and_images() -> None:
    """A grid too many, an image that is not there, and the grid of two images are errors."""
    one = batch(UTM)
    with pytest.raises(SpecError, match="one georeference") as caught:
        Imagery(one.pixels, SPEC, one.valid, (UTM, UTM))
    assert "2 for 1 images" == caught.value.found
    with pytest.raises(SpecError, match="one name") as caught:
        Imagery(one.pixels, SPEC, one.valid, names=("a", "b"))
    assert "2 for 1 images" == caught.value.found
    assert torch.equal(one.pixels, one[-1].pixels)
    with pytest.raises(SpecError, match="no such image"):
        one[1]
    two = collate([one, one])
    with pytest.raises(SpecError, match="several grids"):
        _ = two.grid
    assert UTM == two[0].grid  # the remedy it prints


def test_bands_are_selected_with_their_normalization() -> None:
    """Pixels, names and constants are taken in the order asked for."""
    rule = Normalization((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), "made up")
    spec = ImageSpec(Sensor.S2_L2A, SPEC.bands, Unit.MODEL, SPEC.size, 10.0, rule)
    pixels = torch.arange(3.0).view(1, 3, 1, 1).expand(1, 3, 4, 6).clone()
    some = Imagery(pixels, spec, batch(UTM).valid, (UTM,)).select(["B02", "B04"])

    assert [2.0, 0.0] == some.pixels[0, :, 0, 0].tolist()
    assert ((3.0, 1.0), (6.0, 4.0)) == (
        some.spec.normalization.shift,
        some.spec.normalization.scale,
    )
    assert UTM == some.grid
    with pytest.raises(SpecError, match="lacks B08"):
        some.select(["B08"])


def test_imagery_says_what_it_is_in_one_line() -> None:
    """Sensor, bands, unit, size, GSD, valid share and CRS stand in `repr`, and no pixel."""
    image = batch(UTM)
    image.valid[0, 0, :3] = False
    text = repr(image)

    for part in ("s2-l2a", "B04 B03 B02", "unit dn", "4 x 6", "10 m", "87.5%", "EPSG:32632"):
        assert part in text
    assert "\n" not in text
    assert len(text) < 200
    assert "valid 100%" in repr(batch(UTM))
    assert "crs unknown" in repr(Imagery(image.pixels, SPEC, image.valid))
    wkt = 'LOCAL_CS["somewhere",UNIT["metre",1]]'
    assert "crs somewhere" in repr(batch(Georeference(wkt, UTM.transform)))
    assert "s2-l2a, B04 B03 B02, dn, 4 x 6 px at 10 m" == str(SPEC)


def test_the_key_of_a_spec_is_whole() -> None:
    """Caches are keyed by it: specs that differ in one constant have two keys, as in 0.1."""
    stats = STATISTICS["imagenet"]
    one, other = (
        ImageSpec(Sensor.RGB, stats.bands, Unit.MODEL, None, 10.0, rule)
        for rule in (
            Normalization.zscore(stats.mean, stats.std, "a"),
            Normalization.zscore(stats.mean, (58.0, *stats.std[1:]), "a"),
        )
    )

    assert spec_key(one) != spec_key(other)
    assert repr(one) == repr(other)
    assert (
        "ImageSpec(sensor=<Sensor.S2_L2A: 's2-l2a'>, bands=('B04', 'B03', 'B02'), "
        "unit=<Unit.DN: 'dn'>, size=(4, 6), gsd=10.0, normalization=None)" == spec_key(SPEC)
    )
    assert "normalization=Normalization(shift=(" in spec_key(one)
    assert "source='a', clip=None, levels=None))" in spec_key(one)


def test_names_go_with_the_images() -> None:
    """Indexing and collating keep what images are called; one without a name leaves all without."""
    named = replace(batch(UTM, TURNED, None), names=("a", "b", "c"))

    assert ("c", "a") == named[torch.tensor([2, 0])].names
    assert ("b",) == named[1].names
    assert ("b", "a", "b", "c") == collate([named[1], named]).names
    assert () == collate([named, batch(UTM)]).names
    with pytest.raises(SpecError, match="one name per image"):
        replace(named, names=("a",))


def test_a_batch_is_iterated_image_by_image() -> None:
    """A loop ends after the last image, each with its own grid; numbers may be a list."""
    images = batch(UTM, TURNED)

    assert [UTM, TURNED] == [image.grid for image in images]
    assert [0.0, 1.0] == [float(image.pixels.mean()) for image in images]
    assert TURNED == images[[1]].grid
    assert TURNED == images[np.int64(1)].grid
    assert 1 == len(images[np.array([True, False])])
    with pytest.raises(SpecError, match="indexed by number") as wrong:
        images["B04"]  # type: ignore[index]
    assert 'select(["B04"])' in str(wrong.value.remedy)


def test_bands_are_selected_in_any_spelling() -> None:
    """One text is one band, `red` is B04, and a word that is none is said."""
    images = batch(UTM)

    assert ("B04",) == images.select("red").spec.bands
    assert ("B02", "B04") == images.select(["b2", "B04"]).spec.bands
    with pytest.raises(SpecError, match="lacks B08"):
        images.select(["nir"])
    with pytest.raises(SpecError, match="there is no band"):
        images.select(["NDVI"])
