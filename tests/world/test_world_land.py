"""The embedded world without its files: places, shapes, growth, light, clouds, speckle."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eofm.world.landscape import (
    Landscape,
    borders,
    coarsen,
    draw_landscape,
    fractal,
    parcels,
    smooth,
    winding,
)
from eofm.world.places import BIOMES, Visit, draw_visit, place_at, sun_position
from eofm.world.season import (
    LOOKS,
    _slope_light,
    draw_clouds,
    draw_ground,
    draw_optical,
    draw_radar,
    draw_scene,
    map_cover,
)
from eofm.world.spectra import (
    _MATERIALS,
    BANDS,
    CURVES,
    NO_COVER,
    PATH,
    SURFACE_INDEX,
    SURFACES,
    TRANSMITTANCE,
    GroundCover,
    SpectralCurve,
    material,
)

SIZE = 96
PARIS = place_at(2.35, 48.85)


def rng(seed: int = 0) -> np.random.Generator:
    """A seeded source of randomness."""
    return np.random.default_rng(seed)


def visit(**changes: object) -> Visit:
    """A visit of Paris in late June with the sun in the south east."""
    drawn = draw_visit(rng(), PARIS, 1, 0)
    return replace(drawn, **({"sun_zenith": 30.0, "sun_azimuth": 135.0} | changes))


def plain(surface: str, size: int = SIZE) -> Landscape:
    """A flat scene of one surface without any texture or tint."""
    one = np.ones(1, np.float32)
    flat = np.zeros((size, size), np.float32)
    return Landscape(
        unit=np.zeros((size, size), np.int32),
        surface=np.array([SURFACE_INDEX[surface]], np.int32),
        delay=0 * one,
        vigour=one,
        tone=one,
        tint=np.zeros((len(SURFACES), 2), np.float32),
        texture=np.zeros((3, size, size), np.float32),
        facets=flat,
        height=flat,
        base_height=100.0,
    )


def ground_of(land: Landscape, day: float, *, biome: str = "mixed farmland", **where: float):
    """Return the ground of a landscape on a day of a normal year."""
    place = place_at(where.get("longitude", 2.35), where.get("latitude", 48.85))
    still = np.zeros_like(land.height)
    return draw_ground(land, BIOMES[biome], place, day, 0.0, still)


# --- places -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("longitude", "latitude", "epsg", "tile"),
    [
        (2.35, 48.85, 32631, "T31UDQ"),  # Paris
        (11.58, 48.14, 32632, "T32UPU"),  # Munich
        (-74.0, 40.71, 32618, "T18TWL"),  # New York
        (151.21, -33.87, 32756, "T56HLH"),  # Sydney
        (-46.63, -23.55, 32723, "T23KLP"),  # São Paulo
    ],
)
def test_tiles_are_those_of_the_products(longitude, latitude, epsg, tile):
    """UTM zones and MGRS squares are the ones Sentinel-2 products of these cities carry."""
    place = place_at(longitude, latitude)

    assert (epsg, tile) == (place.epsg, place.tile)


def test_the_sun_stands_where_a_product_says():
    """Metadata of a scene of Flanders, 4 August 2017 10:53 UTC, give a zenith of 35.87°."""
    solar_hour = 10 + 53 / 60 + 28 / 3600 + 3.02 / 15 - 6 / 60  # longitude, equation of time

    zenith, azimuth = sun_position(216, 50.82, solar_hour)

    assert zenith == pytest.approx(35.87, abs=1)
    assert 140 < azimuth < 180


# --- shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
def test_fractal_fields_have_the_slope_they_were_asked_for(beta):
    """The radial power spectrum falls as 1/f^beta; mean 0, variance 1."""
    size = 128
    fields = fractal(rng(), size, (beta,) * 8)
    window = np.outer(np.hanning(size), np.hanning(size))
    power = (np.abs(np.fft.fft2(fields * window)) ** 2).mean(0)
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    rings = [(f >= lo) & (f < 1.3 * lo) for lo in np.geomspace(0.04, 0.3, 10)]
    slope = np.polyfit(
        [np.log(f[r].mean()) for r in rings], [np.log(power[r].mean()) for r in rings], 1
    )

    assert -slope[0] == pytest.approx(beta, abs=0.25)
    assert fields.mean((1, 2)) == pytest.approx(np.zeros(8), abs=1e-4)
    assert fields.std((1, 2)) == pytest.approx(np.ones(8), abs=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.floats(2, 40), st.floats(2, 40))
def test_parcels_part_the_scene(seed, districts, width, length):
    """Every pixel lies in one parcel, numbers have no gaps, borders lie where numbers change."""
    number = parcels(rng(seed), 48, width, length, districts, np.zeros((2, 48, 48), np.float32))
    edge = borders(number)

    assert set(range(1, number.max() + 1)) == set(number.ravel().tolist())
    for y, x in ((0, 0), (10, 20), (47, 47), (30, 47), (47, 5)):
        right = x < 47 and number[y, x] != number[y, x + 1]
        below = y < 47 and number[y, x] != number[y + 1, x]
        assert (right or below) == edge[y, x]


def test_parcels_have_about_the_size_they_were_asked_for():
    """Mean area is width times length within a factor of two."""
    still = np.zeros((2, 240, 240), np.float32)
    areas = [240**2 / parcels(rng(s), 240, 10, 20, 1, still).max() for s in range(10)]

    assert 100 < np.mean(areas) < 400


def test_smoothing_and_coarsening_agree_with_loops():
    """A kernel of 3 x 3 with repeated edges and block means, against the slow form."""
    field = rng().standard_normal((1, 12, 12)).astype(np.float32)
    padded = np.pad(field[0], 1, mode="edge")
    kernel = np.outer([0.2, 0.6, 0.2], [0.2, 0.6, 0.2])
    slow = [[(padded[y : y + 3, x : x + 3] * kernel).sum() for x in range(12)] for y in range(12)]
    blocks = [
        [field[0, y : y + 3, x : x + 3].mean() for x in range(0, 12, 3)] for y in (0, 3, 6, 9)
    ]

    assert smooth(field, 0.2)[0] == pytest.approx(np.array(slow), abs=1e-6)
    assert coarsen(field, 3)[0] == pytest.approx(np.array(blocks), abs=1e-6)


def test_a_straight_line_is_straight():
    """Without bend, the distance to a line changes by one pixel per pixel across it."""
    distance = winding(rng(3), 64, 0.0)
    down, right = np.gradient(distance)
    steep = np.hypot(down, right)[distance > 2]

    assert steep == pytest.approx(np.ones_like(steep), abs=0.01)


# --- tables -------------------------------------------------------------------------------------


def test_biomes_name_surfaces_that_exist_and_places_that_exist():
    """Names resolve, boxes run from west to east and south to north, shares are shares."""
    for name, biome in BIOMES.items():
        assert {*biome.nature, *biome.crops} <= set(SURFACES), name
        assert sum(biome.nature.values()) == pytest.approx(1, abs=0.011), name
        assert sum(biome.crops.values()) == pytest.approx(1, abs=0.011), name
        for west, south, east, north in biome.boxes:
            assert -180 <= west < east <= 180, name
            assert -60 <= south < north <= 70, name


def test_every_class_has_a_surface_and_every_surface_a_home():
    """The nine classes can occur, and no surface is a dead row."""
    painted = {s for b in BIOMES.values() for s in (*b.nature, *b.crops)}
    built = {"street", "houses", "detached", "halls", "towers", "garden"}
    water = {"deep water", "clear water", "turbid water"}

    assert set(GroundCover) == {s.cover for s in SURFACES.values()}
    assert set(SURFACES) == painted | built | water
    assert set(_MATERIALS) == {m for s in SURFACES.values() for m in (s.green, s.dormant)} | {
        "ripe crop"
    }
    assert set(CURVES) == {s.curve for s in SURFACES.values()}


def derivation() -> ModuleType:
    """Import the script that derives the tables."""
    path = Path(__file__).parents[2] / "benchmarks/derive_world_spectra.py"
    spec = importlib.util.spec_from_file_location("derive_world_spectra", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_the_tables_are_what_the_real_data_say(real_data: Path):
    """Every material is the script's row, rounded to 5; so are path radiance and transmittance."""
    script = derivation()
    derived = script.materials(real_data)

    assert set(derived) == set(_MATERIALS)
    for name, row in derived.items():
        assert np.maximum(row, 5) == pytest.approx(np.array(_MATERIALS[name]), abs=3), name
    assert script.path_radiance(real_data) == pytest.approx(PATH, abs=3)
    seen = np.array([b != "B10" for b in BANDS])
    assert script.transmittance(real_data)[seen] == pytest.approx(TRANSMITTANCE[seen], abs=0.006)


def test_forest_under_this_air_is_the_forest_of_eurosat(real_data: Path):
    """Ground and air together give back the L1C mean of real forest tiles."""
    script = derivation()
    measured = script.eurosat(real_data, "Forest").mean((0, 2, 3))

    made = PATH + TRANSMITTANCE * material("leafy")

    near = [BANDS.index(b) for b in BANDS if b not in ("B09", "B10")]
    assert made[near] == pytest.approx(measured[near], rel=0.02)
    assert made[BANDS.index("B09")] == pytest.approx(measured[BANDS.index("B09")], rel=0.1)


# --- growth and weather -------------------------------------------------------------------------


def test_a_curve_is_half_up_on_its_day():
    """One growth: base before, base + amplitude within, half of it on the days given."""
    curve = SpectralCurve(0.1, ((100, 200, 5, 0.8),))
    days = np.array([20, 100, 150, 200, 300], np.float32)

    assert curve(days, 47.0) == pytest.approx([0.1, 0.5, 0.9, 0.5, 0.1], abs=0.001)
    assert curve(days + 365, 47.0) == pytest.approx(curve(days, 47.0), abs=0.01)


def test_maize_follows_the_site_in_flanders():
    """Bare in May, full in July and August, bare in October, as the NDVI of that site."""
    green = [float(ground_of(plain("maize"), d).green[0]) for d in (135, 196, 227, 288)]

    assert green[0] < 0.15
    assert min(green[1:3]) > 0.7
    assert green[3] < 0.15


def test_seasons_turn_round_at_the_equator():
    """Leaves are out in July in the north and in January in the south."""
    wood = plain("broadleaf")
    north = [float(ground_of(wood, d).green[0]) for d in (15, 196)]
    south = [float(ground_of(wood, d, latitude=-45.0).green[0]) for d in (15, 196)]

    assert max(north[0], south[1]) < 0.1
    assert min(north[1], south[0]) > 0.9


def test_snow_lies_in_a_boreal_winter_and_nowhere_in_the_tropics():
    """Open ground is mapped as snow, forest stays forest, and warm ground stays bare."""
    winter = {"biome": "boreal forest", "latitude": 57.0, "longitude": 65.0}
    marsh, wood = plain("marsh"), plain("conifers")

    assert {GroundCover.SNOW_AND_ICE} == set(
        map_cover(marsh, ground_of(marsh, 20, **winter)).ravel()
    )
    assert {GroundCover.TREES} == set(map_cover(wood, ground_of(wood, 20, **winter)).ravel())
    tropics = {"biome": "rainforest", "latitude": 1.0}
    assert 0 == pytest.approx(ground_of(marsh, 20, **tropics).snow.max(), abs=1e-6)


def test_flooded_rice_is_mapped_as_flooded():
    """The same field is flooded vegetation at transplanting and a crop at harvest."""
    field = plain("rice")
    where = {"biome": "rice plain", "latitude": 10.0, "longitude": 105.5}

    assert {GroundCover.FLOODED_VEGETATION} == set(
        map_cover(field, ground_of(field, 35, **where)).ravel()
    )
    assert {GroundCover.CROPS} == set(map_cover(field, ground_of(field, 110, **where)).ravel())


def test_a_majority_removes_single_pixels_only():
    """One odd pixel takes its neighbours' class; a straight edge stays where it is."""
    land = plain("pasture", 12)
    unit = np.zeros((12, 12), np.int32)
    unit[:, 6:] = 1
    unit[3, 2] = 1
    two = replace(
        land,
        unit=unit,
        surface=np.array([SURFACE_INDEX["pasture"], SURFACE_INDEX["conifers"]], np.int32),
        delay=np.zeros(2, np.float32),
        vigour=np.ones(2, np.float32),
        tone=np.ones(2, np.float32),
    )

    code = map_cover(two, ground_of(two, 180))

    assert GroundCover.GRASS == code[3, 2]
    assert (code[:, :6] == GroundCover.GRASS).all()
    assert (code[:, 6:] == GroundCover.TREES).all()


# --- sensors ------------------------------------------------------------------------------------


def test_slopes_that_face_the_sun_are_bright():
    """A flat scene is lit as the tables say; a slope to the south east is brighter at ten."""
    flat = plain("rock")
    row, column = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
    falls_to_south_east = (-2.0 * (row + column)).astype(np.float32)

    assert _slope_light(flat, visit()) == pytest.approx(np.ones((SIZE, SIZE)))
    assert (_slope_light(replace(flat, height=falls_to_south_east), visit()) > 1.05).all()
    assert (_slope_light(replace(flat, height=-falls_to_south_east), visit()) < 0.95).all()


def test_a_low_sun_is_bluer():
    """More air lies in the way: blue over red rises, over the same ground."""
    ratio = []
    for zenith in (25.0, 70.0):
        land, seen = plain("open soil"), visit(sun_zenith=zenith)
        clouds = draw_clouds(rng(), replace(BIOMES["prairie"], cloudy=-1.0), seen, SIZE)
        bands = draw_optical(rng(), land, seen, ground_of(land, 170), clouds, 0 * land.height)
        ratio.append(bands["B02"].mean() / bands["B04"].mean())

    assert ratio[1] > 1.1 * ratio[0]


def test_clouds_hide_the_map_and_shadows_fall_away_from_the_sun():
    """With the sun in the south east, shadow lies to the north west of its cloud."""
    overcast = replace(BIOMES["prairie"], cloudy=2.0)
    drawn = [draw_clouds(rng(s), overcast, visit(), SIZE) for s in range(40)]
    towards, away = 0.0, 0.0
    for clouds in drawn:
        for step in (6, 12, 18, 24):
            cloud = clouds.water[24:-24, 24:-24]
            north_west = clouds.shadow[24 - step : SIZE - 24 - step, 24 - step : SIZE - 24 - step]
            south_east = clouds.shadow[24 + step : SIZE - 24 + step, 24 + step : SIZE - 24 + step]
            away += float((cloud * north_west).sum())
            towards += float((cloud * south_east).sum())

    assert away > 1.5 * towards
    assert any(clouds.ice.any() for clouds in drawn)
    for clouds in drawn:
        assert clouds.hidden[clouds.water > 0.5].all()


def test_a_scene_has_no_map_where_it_is_clouded():
    """`clouded` is the share of pixels whose class is unknown."""
    biome = replace(BIOMES["prairie"], cloudy=2.0)
    land = draw_landscape(rng(), biome, SIZE)
    scenes = [draw_scene(rng(s), land, biome, PARIS, visit()) for s in range(8)]

    assert any(scene.clouded > 0 for scene in scenes)
    for scene in scenes:
        assert scene.clouded == pytest.approx((scene.cover == NO_COVER).mean())


def test_speckle_has_the_looks_and_the_grain_of_a_product():
    """On even ground: 4.4 looks, neighbours correlated 0.67, next ones 0.17, mean kept."""
    land = plain("conifers", 384)
    power = 10 ** (draw_radar(rng(), land, visit(), ground_of(land, 180))["VV"] / 10)
    means = [
        (10 ** (draw_radar(rng(s), land, visit(), ground_of(land, 180))["VV"] / 10)).mean()
        for s in range(6)
    ]
    detail = power / power.mean() - 1

    assert 1 / detail.var() == pytest.approx(LOOKS, rel=0.05)
    for lag, expected in ((1, 2 / 3), (2, 1 / 6), (3, 0)):
        for one, other in ((detail[lag:], detail[:-lag]), (detail[:, lag:], detail[:, :-lag])):
            assert (one * other).mean() / detail.var() == pytest.approx(expected, abs=0.03)
    assert 10 * np.log10(np.mean(means)) == pytest.approx(-10, abs=1.5)


def test_slopes_that_face_the_radar_are_bright():
    """Ascending passes look east: ground that rises to the east faces them; others do not."""
    land = plain("conifers", 192)
    rises_east = np.tile(np.arange(192, dtype=np.float32) * 2, (192, 1))
    hill = replace(land, height=rises_east)
    ground = ground_of(land, 180)
    up = draw_radar(rng(), hill, visit(ascending=True), ground)["VV"].mean()
    down = draw_radar(rng(), hill, visit(ascending=False), ground)["VV"].mean()

    assert up > down + 2


def test_dormant_and_green_ground_scatter_as_the_table_says():
    """VH of a green maize field stands well above that of the bare field."""
    field = plain("maize", 192)
    bare, green = (
        replace(ground_of(field, 180), green=np.array([g], np.float32)) for g in (0.0, 1.0)
    )
    vh = [draw_radar(rng(), field, visit(), g)["VH"].mean() for g in (bare, green)]

    assert vh[1] - vh[0] > 1.5
