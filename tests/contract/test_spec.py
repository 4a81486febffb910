"""Specs, sensors, recipes and imagery refuse what contradicts itself."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eofm.contract.imagery import Imagery, Labels, NativeImagery, collate
from eofm.contract.recipe import (
    FORCEABLE,
    FORCED_WHY,
    AcceptSensor,
    AcceptSize,
    FillBand,
    Kernel,
    Pooling,
    Recipe,
    ResizeOrder,
    ResizeRule,
    default_recipe,
    waivers_for,
)
from eofm.contract.spec import (
    BANDS,
    DEFAULT_STATISTICS,
    SENSOR_BANDS,
    STATISTICS,
    UNITS,
    ImageSpec,
    Normalization,
    Sensor,
    Unit,
    are_numbers,
    band_candidates,
    canonical_band,
    canonical_bands,
    is_uncalibrated,
    resolution_groups,
    without_image_number,
)
from eofm.errors import EofmError, MismatchKind, SpecError

S2 = SENSOR_BANDS[Sensor.S2_L1C]


def spec(**changes: object) -> ImageSpec:
    """A valid spec with some fields changed."""
    fields = {"sensor": Sensor.S2_L1C, "bands": S2, "unit": Unit.DN, "size": (8, 8), "gsd": 10.0}
    return ImageSpec(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"bands": ()},
        {"bands": ("B02", "B02")},
        {"unit": Unit.DB},
        {"unit": Unit.MODEL},
        {"size": (0, 4)},
        {"gsd": 0.0},
        {"gsd": math.nan},
        {"normalization": Normalization.divide(1e4, 13, "test")},
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    """Empty or repeated bands, foreign units, impossible sizes and half-normalised pixels fail."""
    with pytest.raises(SpecError):
        spec(**changes)


def test_errors_say_found_expected_and_remedy() -> None:
    """The message of an error carries all of its parts, on lines of their own."""
    with pytest.raises(SpecError) as caught:
        spec(unit=Unit.DB)

    lines = str(caught.value).splitlines()
    assert "s2-l1c is never in unit db" == lines[0]
    assert ["found:", "expected:", "remedy:"] == [line.split()[0] for line in lines[1:]]
    assert isinstance(caught.value, EofmError)


@pytest.mark.parametrize(
    "arguments",
    [
        {"shift": (1.0,), "scale": (1.0, 2.0), "source": "x"},
        {"shift": (1.0,), "scale": (0.0,), "source": "x"},
        {"shift": (math.inf,), "scale": (1.0,), "source": "x"},
        {"shift": (1.0,), "scale": (1.0,), "source": " "},
        {"shift": (1.0,), "scale": (1.0,), "source": "x", "levels": 255},
        {"shift": (), "scale": (), "source": "x"},
    ],
)
def test_a_normalization_without_sense_or_source_is_refused(arguments: dict) -> None:
    """Lengths, positivity, a stated source and the domain of 8-bit rounding are checked."""
    with pytest.raises(SpecError):
        Normalization(**arguments)


def test_two_sigma_bounds_are_the_published_ones() -> None:
    """SoftCon's ranges: VV -23.11..-2.07 dB, VH -32.08..-8.44 dB (full SSL4EO-S12 statistics)."""
    stats = STATISTICS["ssl4eo-s12-grd"]

    rule = Normalization.two_sigma(stats.mean, stats.std, stats.source)

    low, high = rule.shift, [a + b for a, b in zip(rule.shift, rule.scale, strict=True)]
    assert pytest.approx([-23.11, -32.08]) == low
    assert pytest.approx([-2.07, -8.44]) == high
    assert (0.0, 1.0) == rule.clip
    assert 255 == rule.levels


def test_band_tables_hold_the_sensors_facts() -> None:
    """13 bands of L1C with B8A at index 8 and B10 at 10; L2A lacks B10; groups are 4, 6 and 3."""
    assert 13 == len(S2)
    assert (8, 10) == (S2.index("B8A"), S2.index("B10"))
    assert {"B10"} == set(S2) - set(SENSOR_BANDS[Sensor.S2_L2A])
    groups = resolution_groups(S2)
    assert {10: ("B02", "B03", "B04", "B08"), 60: ("B01", "B09", "B10")} == {
        g: groups[g] for g in (10, 60)
    }
    assert [10, 20, 60] == list(groups)


def test_spellings_of_a_band_meet_in_one_name() -> None:
    """B1 and B01, B8a and B8A are one band; an unknown name gets a suggestion."""
    assert ("B01", "B8A", "VV") == tuple(map(canonical_band, ("B1", "B8a", "vv")))
    with pytest.raises(SpecError, match="did you mean"):
        canonical_band("B013")
    with pytest.raises(SpecError, match="not bands of s1-grd"):
        canonical_bands(["VV", "B02"], Sensor.S1_GRD)
    with pytest.raises(SpecError, match="each once"):
        canonical_bands(["B1", "B01"], Sensor.S2_L1C)


@pytest.mark.parametrize("sensor", list(Sensor))
def test_every_spelling_leads_back(sensor: Sensor) -> None:
    """Whatever products write around the name of a band, it stays that band, in any case."""
    for band in SENSOR_BANDS[sensor]:
        words = [w for w in BANDS[band].words if len(band_candidates(w, sensor)) == 1]
        waves = f"({round(BANDS[band].wavelength_nm)} nm)"
        for name in (band, *words):
            for spelt in (f"S2_{name}", f"{name}_10m", f"{name} {waves}", f"{name}_median"):
                for case in (str.upper, str.lower, str.title):
                    assert (band,) == band_candidates(case(spelt), sensor), spelt


@pytest.mark.parametrize("sensor", [Sensor.S2_L1C, Sensor.S2_L2A])
def test_a_wavelength_names_its_band(sensor: Sensor) -> None:
    """Nominal centres and those of Sentinel-2A, in nm and um, alone, by a count or by the name."""
    centres = (443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1375, 1610, 2190)
    nominal = dict(zip(S2, centres, strict=True))
    for band in SENSOR_BANDS[sensor]:
        for nm in (nominal[band], BANDS[band].wavelength_nm):
            for wave in (f"{nm} nm", f"{nm} Nanometers", f"{nm / 1000} Micrometers", f"{nm}nm"):
                for spelt in (wave, f"Band 3 ({wave})", f"{band} ({wave})", f"Wavelength: {wave}"):
                    assert (band,) == band_candidates(spelt, sensor), spelt


@pytest.mark.parametrize("name", ["B02 (665 nm)", "red (492.4 Nanometers)", "B8A 0.8328 um"])
def test_a_name_and_another_wavelength_contradict_each_other(name: str) -> None:
    """Neither is taken."""
    assert () == band_candidates(name, Sensor.S2_L2A)


@pytest.mark.parametrize("nm", [482, 531, 554, 610, 654.6, 850, 1240, 1600, 2210])
def test_wavelengths_of_other_sensors_name_no_band(nm: float) -> None:
    """Landsat's blue and red, those between the bands of Sentinel-2, and nothing near."""
    assert () == band_candidates(f"{nm} nm", Sensor.S2_L1C)
    assert () == band_candidates(f"{nm} nm", Sensor.NAIP)


@given(st.text(max_size=12))
def test_a_name_is_of_the_sensor_or_of_none(name: str) -> None:
    """No text breaks the parser, and what it finds are bands of the sensor, each once."""
    for sensor in Sensor:
        found = band_candidates(name, sensor)
        assert list(found) == [b for b in SENSOR_BANDS[sensor] if b in found]


def test_a_word_of_several_bands_is_refused() -> None:
    """`rededge` and `swir` name none of their bands, `red` one of each sensor."""
    for word, bands in (("rededge", "B05, B06, B07"), ("swir", "B11, B12"), ("red", "B04, R")):
        with pytest.raises(SpecError, match="several bands") as caught:
            canonical_band(word)
        assert bands == caught.value.expected
        assert canonical_band(str(caught.value.remedy).split("'")[1]) in bands
    assert "B04" == canonical_band("red", Sensor.S2_L2A)
    assert "R" == canonical_band("red", Sensor.NAIP)


@pytest.mark.parametrize("name", ["B013", "B8B", "nirr", "swir66", "rededg1", "costal", "cirus"])
def test_what_is_offered_for_a_band_is_one(name: str) -> None:
    """The nearest name is itself understood."""
    with pytest.raises(SpecError, match="did you mean") as caught:
        canonical_band(name, Sensor.S2_L1C)

    assert canonical_band(str(caught.value.remedy).split("'")[1], Sensor.S2_L1C)


@pytest.mark.parametrize(
    ("kind", "text", "right"),
    [
        (Sensor, "s2l1c", Sensor.S2_L1C),
        (Sensor, "S2-L2A", Sensor.S2_L2A),
        (Sensor, "S1_GRDH", Sensor.S1_GRD),
        (Unit, "DN", Unit.DN),
        (Unit, "dn+1000", Unit.DN_OFFSET1000),
        (Unit, "reflectances", Unit.REFLECTANCE),
        (Unit, "uint16", Unit.DN),
        (Unit, "decibel", Unit.DB),
        (Unit, "linear", Unit.POWER),
        (Sensor, "sentinel-2-l2a", Sensor.S2_L2A),
        (Sensor, "Sentinel-1 RTC", Sensor.S1_RTC),
        (Sensor, "COPERNICUS/S2_SR_HARMONIZED", Sensor.S2_L2A),
    ],
)
def test_a_misspelt_word_gets_the_nearest(kind, text: str, right: Sensor | Unit) -> None:
    """What is no sensor or unit is an error of eofm, whose offer is accepted."""
    with pytest.raises(SpecError, match="there is no") as caught:
        kind.parse(text)
    _, offer, rest = str(caught.value.remedy).split("'")

    assert right is kind.parse(offer)
    assert "?" == rest


@pytest.mark.parametrize(("text", "offer"), [("S2", "'s2-l1c' or 's2-l2a'"), ("S", None)])
def test_a_word_of_several_offers_all(text: str, offer: str | None) -> None:
    """Both levels of Sentinel-2 are named; one letter names nothing."""
    with pytest.raises(SpecError) as caught:
        Sensor.parse(text)

    assert (offer and f"did you mean {offer}?") == caught.value.remedy


def test_stated_words_are_taken_as_they_are() -> None:
    """Members and their texts are the same, and what is like nothing gets no offer."""
    assert Sensor.NAIP is Sensor.parse("naip") is Sensor.parse(Sensor.NAIP)
    with pytest.raises(SpecError) as caught:
        Unit.parse("kelvin")
    assert caught.value.remedy is None


def test_published_constants_stay_what_they_are() -> None:
    """Wavelengths, resolutions, means and deviations change on purpose or not at all: a digest."""
    facts = (
        [[band.name, band.wavelength_nm, band.gsd] for band in BANDS.values()],
        [[table.name, table.mean, table.std] for table in STATISTICS.values()],
    )

    assert "84ed2715f65a812c" == hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    assert 5.55e7 == BANDS["VV"].wavelength_nm
    assert (60, 10, 20) == tuple(BANDS[band].gsd for band in ("B10", "B08", "B8A"))


def test_every_sensor_has_statistics_with_a_source() -> None:
    """Default statistics exist per sensor, cover its bands, and say where they are from."""
    for sensor, name in DEFAULT_STATISTICS.items():
        stats = STATISTICS[name]
        assert (sensor, SENSOR_BANDS[sensor]) == (stats.sensor, stats.bands)
        assert stats.source
        assert stats.unit in UNITS[sensor]


def test_statistics_are_selected_by_name() -> None:
    """A reordered selection reorders mean and std; a missing band is an error."""
    stats = STATISTICS["ssl4eo-s12-l1c"].select(["B12", "B8A"])

    assert ((1537.4, 2581.0), (1142.9, 1345.9)) == (stats.mean, stats.std)
    with pytest.raises(SpecError, match="leave out B10"):
        STATISTICS["ssl4eo-s12-l2a"].select(["B02", "B10"])


recipes = st.builds(
    lambda n, size, clip, kernel, order, pooling: Recipe(
        Sensor.S2_L1C,
        S2[:n],
        Unit.DN,
        (size, size),
        Normalization((0.5,) * n, (3.0,) * n, "test", (0.0, 1.0) if clip else None),
        ResizeRule(kernel, kernel is not Kernel.NEAREST, order),
        pooling,
    ),
    st.integers(1, 13),
    st.integers(1, 512),
    st.booleans(),
    st.sampled_from(Kernel),
    st.sampled_from(ResizeOrder),
    st.sampled_from(Pooling),
)


@given(recipes)
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    """What a card stores is what comes back."""
    assert recipe == Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))


def test_a_foreign_recipe_is_refused() -> None:
    """A missing key, an unknown key and a wrong value each raise, none is ignored."""
    stats = STATISTICS["ssl4eo-s12-grd"]
    good = Recipe(
        Sensor.S1_GRD,
        ("VV", "VH"),
        Unit.DB,
        (8, 8),
        Normalization.zscore(stats.mean, stats.std, stats.source),
    ).to_dict()

    for bad in (
        {k: v for k, v in good.items() if k != "unit"},
        good | {"colour": "blue"},
        good | {"sensor": "s3"},
        good | {"normalization": {}},
        good | {"bands": ["VV"]},
    ):
        with pytest.raises(SpecError):
            Recipe.from_dict(bad)


def imagery(**changes: object) -> Imagery:
    """Two random images."""
    fields = {
        "pixels": torch.zeros(2, 13, 8, 8),
        "spec": spec(),
        "valid": torch.ones(2, 8, 8, dtype=torch.bool),
    }
    return Imagery(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"pixels": torch.zeros(2, 13, 8, 8, dtype=torch.float64)},
        {"pixels": torch.zeros(13, 8, 8)},
        {"pixels": torch.zeros(2, 12, 8, 8)},
        {"pixels": torch.zeros(2, 13, 9, 9)},
        {"valid": torch.ones(2, 8, 8)},
        {"valid": torch.ones(1, 8, 8, dtype=torch.bool)},
    ],
)
def test_imagery_that_contradicts_its_spec_is_refused(changes: dict[str, object]) -> None:
    """Band count, size, dtype and mask must agree with the spec."""
    with pytest.raises(SpecError):
        imagery(**changes)


def test_collate_keeps_kinds_of_pixel_apart() -> None:
    """Equal specs stack; unequal ones are an error, as is nothing at all."""
    one, other = imagery(), imagery(spec=spec(unit=Unit.DN_OFFSET1000))

    assert 4 == len(collate([one, one]))
    with pytest.raises(SpecError, match="different specs"):
        collate([one, other])
    with pytest.raises(SpecError, match="nothing"):
        collate([])


def test_batches_move_between_devices_as_lightning_demands() -> None:
    """`.to` exists on every batch type and returns an equal batch."""
    native = NativeImagery(
        {10: torch.zeros(1, 2, 8, 8)},
        {10: ("VV", "VH")},
        ImageSpec(Sensor.S1_GRD, ("VV", "VH"), Unit.DB, (8, 8), 10),
        torch.ones(1, 8, 8, dtype=torch.bool),
    )
    labels = Labels(torch.zeros(3, 9), torch.tensor([True, False, True]))

    assert native.spec == native.to("cpu").spec
    assert labels.known.equal(labels.to("cpu").known)
    assert imagery().pixels.equal(imagery().to("cpu").pixels)
    with pytest.raises(SpecError):
        Labels(torch.zeros(3, 9), torch.zeros(2, dtype=torch.bool))


def test_words_are_what_they_name() -> None:
    """A spec or recipe of words and lists is that of enumerations and tuples, and can be a key."""
    spec = ImageSpec("s2-l2a", ["B02", "B03"], "dn", [64, 64], 10)  # type: ignore[arg-type]
    made = ImageSpec(Sensor.S2_L2A, ("B02", "B03"), Unit.DN, (64, 64), 10.0)
    rule = Normalization([0.0, 0.0], [1e4, 1e4], "a test")  # type: ignore[arg-type]
    recipe = Recipe("s2-l2a", ["B02"], "dn", [28, 28], rule.select([0]), pooling="mean")  # type: ignore[arg-type]

    assert made == spec
    assert hash(made) == hash(spec)
    assert Sensor.S2_L2A is spec.sensor
    assert Unit.DN is spec.unit
    assert (Sensor.S2_L2A, Unit.DN, ("B02",), (28, 28), Pooling.MEAN) == (
        recipe.sensor,
        recipe.unit,
        recipe.bands,
        recipe.size,
        recipe.pooling,
    )
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert Kernel.NEAREST is ResizeRule("nearest", antialias=False).kernel  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sensor": "s2l2a"}, "there is no sensor 's2l2a'"),
        ({"unit": "DN"}, "there is no unit 'DN'"),
        ({"bands": {"B02", "B03"}}, "bands have an order"),
        ({"bands": (2, 3)}, "stated by name"),
        ({"bands": 3}, "stated by name"),
        ({"size": 64}, "height and width"),
        ({"size": "64x64"}, "height and width"),
        ({"gsd": None}, "gsd must be positive"),
        ({"gsd": "10"}, "gsd must be positive"),
        ({"gsd": math.inf}, "gsd must be positive"),
    ],
)
def test_statements_that_mean_nothing(changes: dict[str, object], problem: str) -> None:
    """A wrong word or type in a spec is an error of the package, where it is stated."""
    right = {"sensor": "s2-l2a", "bands": ("B02",), "unit": "dn", "size": None, "gsd": 10.0}

    with pytest.raises(SpecError, match=problem):
        ImageSpec(**(right | changes))  # type: ignore[arg-type]


def test_one_text_of_several_bands() -> None:
    """As on the command line, commas divide names; a set has no order and is no list of bands."""
    assert ("B02", "B8A") == canonical_bands("b2, nir08", Sensor.S2_L2A)
    with pytest.raises(SpecError, match="bands have an order"):
        canonical_bands({"B02", "B03"}, Sensor.S2_L2A)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="no pooling 'max'"):
        Recipe(
            "s2-l2a", ("B02",), "dn", (28, 28), Normalization((0.0,), (1.0,), "x"), pooling="max"
        )  # type: ignore[arg-type]


# ------------------------------------------------------------------------------ waivers of a task


def _ten_bands(sensor: Sensor = Sensor.S2_L2A) -> ImageSpec:
    """Images without B10, B11 and B12."""
    return spec(sensor=sensor, bands=S2[:-3])


def _all_bands() -> Recipe:
    """A recipe of all bands of Level-1C."""
    return default_recipe(spec(), (8, 8), Pooling.CLS)


def test_a_task_grants_what_a_plan_needs_and_no_more() -> None:
    """Of its own sensor and of the missing bands, one waiver each, in the words of the task."""
    images = _ten_bands()
    missing = tuple(band for band in S2 if band not in images.bands)
    asked = AcceptSensor(Sensor.S2_L2A, "the task says so")
    granted = (
        AcceptSensor(Sensor.S1_GRD, "of another"),
        asked,
        AcceptSensor(Sensor.S2_L2A, "a second time"),
        FillBand(S2[0], 1.0, "not missing"),
        *(FillBand(band, 7.0, f"no {band}") for band in missing),
        AcceptSize((9, 9), "not asked"),
    )

    found = waivers_for(images, _all_bands(), granted)

    assert (asked, *(FillBand(band, 7.0, f"no {band}") for band in missing)) == found
    assert () == waivers_for(spec(), _all_bands(), granted)


@pytest.mark.parametrize(
    ("forced", "kinds"),
    [
        ((), []),
        ((MismatchKind.SENSOR,), [AcceptSensor]),
        ((MismatchKind.BANDS,), [FillBand] * 3),
        (FORCEABLE, [AcceptSensor, FillBand, FillBand, FillBand]),
    ],
)
def test_the_user_forces_only_what_is_named(
    forced: tuple[MismatchKind, ...], kinds: list[type]
) -> None:
    """Bands that are not there hold 0, and each waiver says that it was forced."""
    found = waivers_for(_ten_bands(), _all_bands(), (), forced)

    assert kinds == [type(each) for each in found]
    assert {FORCED_WHY} >= {each.why for each in found}
    assert {0.0} >= {each.value for each in found if isinstance(each, FillBand)}
    assert {Sensor.S2_L2A} >= {each.sensor for each in found if isinstance(each, AcceptSensor)}


def test_nothing_makes_radar_of_optical_bands() -> None:
    """Without one band in common there is no waiver, whoever asks for it."""
    radar = ImageSpec(Sensor.S1_GRD, SENSOR_BANDS[Sensor.S1_GRD], Unit.DB, (8, 8), 10.0)

    assert () == waivers_for(radar, _all_bands(), (), FORCEABLE)


def test_all_words_of_a_name_have_to_agree() -> None:
    """A code and a word for the same band name it; two bands in one name do not."""
    assert "B02" == canonical_band("B02 blue") == canonical_band("blue-B02")
    assert () == band_candidates("B02 red", Sensor.S2_L2A)


def test_labels_say_how_many_are_known() -> None:
    """A number of images, not a share."""
    labels = Labels(torch.ones(3, 4), torch.tensor([True, True, False]))

    assert "2 of them labelled" in repr(labels)


@pytest.mark.parametrize(
    ("names", "counted"),
    [
        (["Band 1", "Band 2", "Band 3"], True),
        (["band_1", "band_2"], True),
        (["b1", "b2"], True),
        (["B1", "B2"], True),
        (["1", "2"], True),
        (["b1"], True),
        (["B1"], False),
        (["B01", "B02"], False),
        (["b01", "b02"], False),
        (["B2", "B3", "B4"], False),
        (["Band 12", "Band 8A"], False),
        (["VV", "VH"], False),
        ([], False),
    ],
)
def test_names_that_only_count(names: list[str], counted: bool) -> None:
    """Numbers from 1 on are no names; codes with a leading zero, or of one band, are."""
    assert counted == are_numbers(names)


@pytest.mark.parametrize("name", ["B1_1", "B1 1", "B1-0", "0_B1_1", "B2_1", "VV_1", "B1_1_2"])
def test_the_number_of_an_image_is_no_part_of_a_band(name: str) -> None:
    """Earth Engine's `B1_1` was B11; no message offers it either."""
    assert () == band_candidates(name)
    band = {"B1": "B01", "B2": "B02", "VV": "VV"}[name.removeprefix("0_")[:2]]
    assert band == without_image_number(name)
    with pytest.raises(SpecError, match="one of several images") as refused:
        canonical_band(name)
    assert "B11" not in str(refused.value)
    assert band == canonical_band(band)


@pytest.mark.parametrize("name", ["i_VV", "Amplitude_VH", "Beta0_VV"])
def test_no_name_is_offered_for_what_is_not_calibrated(name: str) -> None:
    """`VV` was offered for `i_VV`, one half of a complex number."""
    assert is_uncalibrated(name)
    assert not is_uncalibrated(f"Sigma0_{name[-2:]}_db")
    with pytest.raises(SpecError, match="not calibrated backscatter") as refused:
        canonical_band(name, Sensor.S1_GRD)
    assert "calibrate" in str(refused.value.remedy)
