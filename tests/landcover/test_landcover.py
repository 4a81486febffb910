"""Class codes, covered fractions, multi-labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eofm.errors import LabelError
from eofm.landcover.multilabel import Cover, class_fractions, multi_label
from eofm.landcover.schemes import SCHEMES, Scheme

TERRAMESH = SCHEMES["terramesh"]


def maps(scheme: Scheme) -> st.SearchStrategy[np.ndarray]:
    """Draw small class maps of a scheme."""
    codes = [*scheme.classes, *scheme.nodata, *scheme.cloud]
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)
    return hnp.arrays(np.int32, shapes, elements=st.sampled_from(codes))


# ----------------------------------------------------------------------------- schemes


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=str)
def test_scheme_does_not_contradict_itself(scheme: Scheme) -> None:
    """No code means two things, no two classes share a name, and codes fit a map."""
    codes = [*scheme.classes, *scheme.nodata, *scheme.cloud]

    assert len(codes) == len(set(codes))
    assert len(scheme.names) == len(set(scheme.names))
    assert min(codes) >= 0
    assert scheme.nodata
    assert scheme.source


def test_number_of_classes() -> None:
    """The published legends have this many classes; clouds and nodata are none of them."""
    counts = {name: len(scheme.names) for name, scheme in SCHEMES.items()}

    assert {
        "dynamic-world": 9,
        "worldcover": 11,
        "esri": 8,
        "terramesh": 8,
        "corine": 44,
        "corine-grid": 44,
    } == counts


def test_corine_twice() -> None:
    """Raster value k of CORINE is the k-th level-3 code: 1 is 111, 12 is 211, 44 is 523."""
    grid, level3 = SCHEMES["corine-grid"], SCHEMES["corine"]

    assert grid.names == level3.names
    assert list(range(1, 45)) == list(grid.classes)
    for value, code in ((1, 111), (12, 211), (23, 311), (40, 511), (44, 523)):
        assert grid.classes[value] == level3.classes[code]


# ----------------------------------------------------------------------------- fractions


@pytest.mark.parametrize("name", ["dynamic-world", "worldcover", "esri", "corine"])
@given(data=st.data())
def test_fractions_are_counted(name: str, data: st.DataObject) -> None:
    """Fractions and shares are those of a loop over the pixels."""
    scheme = SCHEMES[name]
    class_map = data.draw(maps(scheme))
    pixels = class_map.ravel().tolist()
    valid = [p for p in pixels if p in scheme.classes]

    cover = class_fractions(class_map, scheme)

    expected = [valid.count(code) / len(valid) if valid else 0.0 for code in scheme.classes]
    np.testing.assert_allclose(cover.fractions, expected, rtol=1e-6)
    assert np.float32 == cover.fractions.dtype
    assert len(valid) / len(pixels) == cover.valid_share
    assert sum(p in scheme.cloud for p in pixels) / len(pixels) == cover.cloud_share


def test_cloud_does_not_dilute() -> None:
    """One pixel of water among two valid ones is one half, whatever clouds are beside it."""
    cover = class_fractions(np.array([[1, 2], [8, 8]]), TERRAMESH)

    assert [0.5, 0.5] == cover.fractions[:2].tolist()
    assert (0.5, 0.5) == (cover.valid_share, cover.cloud_share)


@pytest.mark.parametrize("code", [10, 255, 70_000, -1])
def test_unknown_code(code: int) -> None:
    """A code that is neither class nor nodata is an error which lists and counts it alone."""
    with pytest.raises(LabelError, match="does not know") as caught:
        class_fractions(np.array([[1, 2], [code, 9]]), TERRAMESH, where="tile 7")

    assert f"{code} (1 pixel)" == caught.value.found
    assert "tile 7" == caught.value.where
    assert "worldcover" in str(caught.value.remedy)


def test_map_of_bytes() -> None:
    """uint8 maps are counted as they are: 255 does not overflow."""
    cover = class_fractions(np.full((300, 300), 255, np.uint8), SCHEMES["dynamic-world"])

    assert 0.0 == cover.valid_share


def test_empty_map() -> None:
    """No pixels are no map."""
    with pytest.raises(LabelError, match="without pixels"):
        class_fractions(np.zeros((0, 3), np.int32), TERRAMESH)


# -------------------------------------------------------------------------------- labels


def cover(*fractions: float, valid: float = 1.0) -> Cover:
    """Make a count."""
    return Cover(np.array(fractions, np.float32), valid, 0.0)


@pytest.mark.parametrize(
    ("count", "threshold", "labels", "known"),
    [
        (cover(0.999, 1e-5, 0), 0.0, [1, 1, 0], True),  # any pixel
        (cover(0.9, 0.1, 0), 0.1, [1, 1, 0], True),  # the threshold itself counts
        (cover(0.91, 0.09, 0), 0.1, [1, 0, 0], True),
        (cover(0.4, 0.3, 0.3), 0.5, [0, 0, 0], False),  # no class reaches it
        (cover(0.5, 0.5, 0, valid=0.25), 0.0, [1, 1, 0], True),
        (cover(0.5, 0.5, 0, valid=0.24), 0.0, [0, 0, 0], False),  # too little of the map
        (cover(0, 0, 0, valid=0.0), 0.0, [0, 0, 0], False),
        (cover(1, 0, 0), 1.0, [1, 0, 0], True),
    ],
)
def test_labels(count: Cover, threshold: float, labels: list[int], known: bool) -> None:
    """Classes at or above the threshold; unknown with too few valid pixels or no class."""
    found, is_known = multi_label(count, threshold)

    assert (labels, known) == (found.tolist(), is_known)


@given(maps(TERRAMESH), st.floats(0, 1), st.floats(0, 1))
def test_higher_threshold_adds_nothing(class_map: np.ndarray, a: float, b: float) -> None:
    """Raising the threshold never adds a label, nor makes an unknown image known."""
    count = class_fractions(class_map, TERRAMESH)
    low, low_known = multi_label(count, min(a, b))
    high, high_known = multi_label(count, max(a, b))

    assert (high <= low).all()
    assert high_known <= low_known


@given(maps(TERRAMESH), st.floats(0, 1), st.floats(0, 1))
def test_unknown_is_no_empty_set(class_map: np.ndarray, threshold: float, least: float) -> None:
    """Labels are known if and only if there is one."""
    labels, known = multi_label(class_fractions(class_map, TERRAMESH), threshold, least)

    assert known == bool(labels.any())
