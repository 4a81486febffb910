"""Maps of classes: right where the truth is known, honest where it is not, files and errors."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import geopandas
import numpy as np
import pandas
import pytest
import rasterio
import shapely
from html_checker import checked
from rasterio.shutil import copy as copy_raster
from sklearn.linear_model import LogisticRegression
from vector_world import FIELD, NAMES, PLACES, chips_of, drawn, on_disk, other_model, world

from eofm.cli import main
from eofm.errors import ConfigError, DataError, LabelError, SpecError
from eofm.geo.accuracy import BlockFrom, cross_validate
from eofm.geo.class_map import LearntMap, map_classes
from eofm.geo.class_map_files import (
    markdown_of,
    page_of,
    percent,
    record_of,
    verdict,
    write_map,
)
from eofm.geo.embedding_files import write_tiff
from eofm.geo.maps_config import MapConfig, MapMethod, MapProbe, SampleDesign
from eofm.geo.results import class_colours
from eofm.geo.training import fit_probe, said
from eofm.raster.cube import grid_of_array
from eofm.report.pages import Drawings
from eofm.report.plots import Estimate

SIZE = (48, 48)
QUICK = MapMethod(MapProbe.KNN)


def truth_codes(learnt: LearntMap, truth: np.ndarray) -> np.ndarray:
    """The true class of each cell by the map's own codes."""
    own = {name: code for code, name in enumerate(learnt.classes, 1)}
    return np.array([own[name] for name in NAMES])[truth]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "probe"), [*((place, "linear") for place in PLACES), ("rotated", "knn")]
)
def test_the_map_is_the_truth_on_every_grid(place: str, probe: str) -> None:
    """On ground that is easy the map is right nearly everywhere, and so says the report."""
    patches, truth = world(place, SIZE)
    learnt = map_classes(
        patches, drawn(patches, truth, every=2), "class", MapMethod(MapProbe(probe), per_polygon=20)
    )
    right = (learnt.map.codes.reshape(SIZE) == truth_codes(learnt, truth))[:-1].mean()

    assert right > 0.97
    assert abs(learnt.assessment.overall.value - right) < 0.05
    assert (learnt.map.codes.reshape(SIZE)[-1] == 0).all()
    assert np.isnan(learnt.map.probability.reshape(SIZE)[-1]).all()
    found = learnt.map.to_xarray()
    assert SIZE == found["class"].shape
    assert patches.grid == grid_of_array(found["class"])


def test_the_accuracy_is_that_of_ground_elsewhere() -> None:
    """Vectors with a direction of each field's own fool scores of neighbours, not of squares."""
    random = np.random.default_rng(5)
    patches, truth = world(size=(96, 96), dim=24, noise=1.0)
    # what a field has of its own, which says nothing of its class
    number = np.kron(np.arange(144).reshape(12, 12), np.ones((FIELD, FIELD), int))
    own = 3 * random.normal(size=(144, 24))
    vectors = patches.stored.to_numpy() + np.moveaxis(own[number], -1, 0).astype(np.float32)
    patches = replace(patches, stored=patches.stored.copy(data=vectors))
    learnt = map_classes(patches, drawn(patches, truth, every=2), "class", MapMethod(block=1200.0))
    elsewhere = np.isin(number, np.arange(0, 144, 2))
    elsewhere[-1] = False
    right = learnt.map.codes.reshape(96, 96) == truth_codes(learnt, truth)

    training = np.zeros(96 * 96, bool)
    training[learnt.training.cells] = True
    interval = learnt.assessment.overall
    assert right.ravel()[training].mean() > right[elsewhere].mean() + 0.2
    assert interval.low - 0.05 <= right[elsewhere].mean() <= interval.high + 0.05


def test_the_read_out_is_scikit_learns() -> None:
    """Standardised logistic regression of the strength that was chosen gives the same classes."""
    patches, truth = world(size=SIZE, noise=2.0)
    learnt = map_classes(patches, drawn(patches, truth), "class")
    x = np.moveaxis(patches.array.to_numpy(), 0, -1).reshape(-1, 16)
    train, labels = x[learnt.training.cells].astype(float), learnt.training.labels
    folds = learnt.folds.of_polygon[learnt.training.polygons]
    made = fit_probe(MapProbe.LINEAR, train.astype(np.float32), labels, folds, 4)
    held = [f for f in range(learnt.folds.count) if made.strength][0:1]
    assert held
    inner = folds != int(np.argmax([len(np.unique(labels[folds != f])) for f in np.unique(folds)]))
    mean, std = train[inner].mean(0), train[inner].std(0)
    model = LogisticRegression(C=made.strength, max_iter=5000, tol=1e-10)
    model.fit((train - mean) / std, labels)
    there = np.isfinite(x).all(axis=1)
    expected = model.predict_proba((x[there] - mean) / std)

    assert np.allclose(expected, made.probability(x[there]), atol=1e-4)
    assert np.array_equal(said(made.probability(x[there])) + 1, learnt.map.codes[there])


def test_intervals_come_from_squares() -> None:
    """The interval over squares of ground is wider than one over cells would be."""
    patches, truth = world(size=SIZE, noise=2.0)
    learnt = map_classes(patches, drawn(patches, truth, every=2), "class")
    found = learnt.assessment.overall
    cells = np.sqrt(found.value * (1 - found.value) / len(learnt.training))

    assert found.low < found.value < found.high
    assert found.high - found.low > 2 * 1.96 * cells


def test_the_learning_curve_rises_to_the_whole() -> None:
    """More polygons are better, and the last point is the accuracy itself."""
    patches, truth = world(size=(64, 64), noise=2.5)
    learnt = map_classes(patches, drawn(patches, truth), "class")
    values = [point.overall.value for point in learnt.curve]

    assert len(values) >= 3
    assert values[0] < values[-1] == learnt.assessment.overall.value
    counts = [point.polygons for point in learnt.curve]
    assert sorted(counts) == counts


def test_ground_like_nothing_in_training_is_said() -> None:
    """Where vectors are like none of the training ones the novelty is above 1, and a note warns."""
    patches, truth = world(size=SIZE)
    vectors = patches.stored.to_numpy().copy()
    vectors[:, :16] += 12
    far = replace(patches, stored=patches.stored.copy(data=vectors))
    layer = drawn(patches, truth)
    south = layer[shapely.get_y(layer.geometry.centroid) < patches.grid.point(0, 17)[1]]
    calm, odd = (map_classes(one, south, "class", QUICK) for one in (patches, far))

    assert (odd.map.novelty.reshape(SIZE)[:16] > 1).all()
    assert (calm.map.novelty > 1).mean() < 0.05
    assert (odd.map.novelty.reshape(SIZE)[16:-1] > 1).mean() < 0.05
    assert "**the map extrapolates" in " ".join(odd.notes)
    assert "extrapolates" not in " ".join(calm.notes)


def sample(patches, truth: np.ndarray, count: int = 300) -> geopandas.GeoDataFrame:
    """Points drawn by chance, with their true class."""
    random = np.random.default_rng(7)
    rows, cols = random.integers(0, SIZE[0] - 1, count), random.integers(0, SIZE[1], count)
    points = [
        shapely.Point(patches.grid.point(c + 0.5, r + 0.5)) for r, c in zip(rows, cols, strict=True)
    ]
    names = np.array(NAMES)[truth[rows, cols]]
    return geopandas.GeoDataFrame(
        {"class": names}, geometry=points, crs=patches.grid.crs.to_wkt()
    ).drop_duplicates("geometry")


def test_areas_of_a_probability_sample() -> None:
    """The intervals hold the true areas; without the statement there are none."""
    patches, truth = world(size=SIZE, noise=2.0)
    points = sample(patches, truth)
    learnt = map_classes(patches, points, "class", MapMethod(design=SampleDesign.RANDOM))
    plain = map_classes(patches, points, "class", QUICK)

    assert plain.areas is None
    assert learnt.areas is not None
    true = np.bincount(truth_codes(learnt, truth)[:-1].ravel(), minlength=5)[1:]
    true = true / true.sum()
    assert (np.abs(learnt.areas.area - true) < 3 * learnt.areas.area_error).all()
    assert np.isclose(learnt.map.mapped.sum(), 47 * 48 * 140.0**2)


def test_points_that_share_a_cell_are_said() -> None:
    """Of two classes in one cell neither counts, and the sample is one of purer ground."""
    patches, truth = world(size=SIZE, noise=2.0)
    points = sample(patches, truth)
    method = replace(QUICK, design=SampleDesign.RANDOM)
    others = points.iloc[:60].copy()
    others["class"] = "water"
    shared = map_classes(patches, pandas.concat([points, others]), "class", method)
    alone = map_classes(patches, points, "class", method)

    (note,) = [note for note in shared.notes if "sample points are not counted" in note]
    lost, every = (int(word) for word in note.strip("*").split()[:3:2])
    assert (len(points) + 60 - len(shared.training), len(points) + 60) == (lost, every)
    assert not [note for note in alone.notes if "sample points" in note]


def test_areas_need_a_sample() -> None:
    """Polygons somebody drew are no sample; the remedy leaves the areas out."""
    patches, truth = world(size=SIZE)
    layer = drawn(patches, truth)
    with pytest.raises(LabelError, match="points of a probability sample") as caught:
        map_classes(patches, layer, "class", MapMethod(design=SampleDesign.RANDOM))
    design = str(caught.value.remedy).rpartition("--design ")[2]
    assert map_classes(patches, layer, "class", replace(QUICK, design=SampleDesign(design)))


@pytest.mark.slow
def test_a_class_with_two_polygons_and_one_with_one() -> None:
    """Two are enough to be scored, with a warning; one is mapped, and said not to be scored."""
    patches, truth = world(size=SIZE)
    layer = drawn(patches, truth)
    water, built = (layer.index[layer["class"] == name] for name in ("water", "built"))
    learnt = map_classes(patches, layer.drop([*water[2:], *built[1:]]), "class")
    scored = dict(zip(learnt.classes, learnt.assessment.scored.tolist(), strict=True))

    assert {"built": False, "crops": True, "trees": True, "water": True} == scored
    notes = " ".join(learnt.notes)
    assert "**built: not scored**" in notes
    assert "few squares tested: water (2)" in notes
    water = learnt.assessment.producers[learnt.classes.index("water")]
    assert water is not None
    assert water.low == water.high  # no interval over two
    assert 0 == learnt.assessment.confusion[learnt.classes.index("built")].sum()
    assert (learnt.map.codes == 1 + learnt.classes.index("built")).sum() > 100


@pytest.mark.slow
def test_every_class_with_one_polygon_is_no_test() -> None:
    """If no class has a second polygon nothing can be scored; a second one mends it."""
    patches, truth = world(size=SIZE)
    layer = drawn(patches, truth)
    one = layer.drop_duplicates("class")
    with pytest.raises(LabelError, match="no class can be tested") as caught:
        map_classes(patches, one, "class")
    assert str(caught.value.remedy).startswith("draw a second polygon of each class; ")
    two = layer.groupby("class").head(2)
    assert map_classes(patches, two, "class").assessment.overall.value > 0.9


def corners(patches, layer: geopandas.GeoDataFrame, fields: int = 3) -> geopandas.GeoDataFrame:
    """The polygons in the squares of some fields at the first and at the last corner."""
    x, y = shapely.get_x(layer.geometry.centroid), shapely.get_y(layer.geometry.centroid)
    near, grid = fields * FIELD, patches.grid
    left, top = grid.point(near, near)
    right, bottom = grid.point(grid.width - near, grid.height - near)
    kept = ((x < left) & (y > top)) | ((x > right) & (y < bottom))
    return layer[kept].reset_index(drop=True)


@pytest.mark.slow
def test_clustered_polygons_have_a_coarse_block(tmp_path: Path) -> None:
    """Two villages: no side below a cell, and the report says that the range is not known."""
    patches, truth = world(size=(96, 96))
    layer = corners(patches, drawn(patches, truth))
    layer["class"] = np.where(layer.index % 2, "crops", "water")
    learnt = map_classes(patches, layer, "class", QUICK)

    assert learnt.variogram is not None
    assert not learnt.variogram.known
    assert BlockFrom.EXTENT is learnt.folds.source
    # half of the extent, so that each village is held out whole
    assert np.isclose(learnt.variogram.range, learnt.folds.side)
    assert 2 == learnt.folds.count
    (note,) = [note for note in learnt.notes if "the range of the variogram is unknown" in note]
    write_map(learnt, tmp_path)
    for name in ("report.md", "report.html"):
        assert "the range of the variogram is unknown" in (tmp_path / name).read_text()
    record = json.loads((tmp_path / "map.json").read_text())
    assert "extent" == record["cross_validation"]["block_from"]

    assert note.endswith("--block METRES")
    smaller = map_classes(patches, layer, "class", replace(QUICK, block=1500.0))
    assert (1500.0, BlockFrom.STATED) == (smaller.folds.side, smaller.folds.source)
    assert not [note for note in smaller.notes if "variogram" in note]


def test_a_coarse_block_that_is_made_smaller_says_so() -> None:
    """Where a class lies in one village alone the squares are halved, with a bold warning."""
    patches, truth = world(size=(96, 96))
    layer = corners(patches, drawn(patches, truth))
    south = shapely.get_y(layer.geometry.centroid) < patches.grid.point(0, 48)[1]
    layer["class"] = np.where(south, "crops", np.where(layer.index % 2, "water", "trees"))
    learnt = map_classes(patches, layer, "class", QUICK)

    assert learnt.variogram is not None
    assert 140 <= learnt.folds.side < learnt.variogram.range
    assert "although the range of similarity of vectors is unknown**" in " ".join(learnt.notes)
    assert "less than half of the extent" in markdown_of(learnt)


def one_scored(patches, truth: np.ndarray) -> geopandas.GeoDataFrame:
    """Rangeland all over, and crops in two polygons of one square."""
    layer = drawn(patches, truth)
    layer["class"] = "rangeland"
    layer.loc[[0, 1], "class"] = "crops"
    return layer


def test_one_scored_class_has_no_overall_accuracy(tmp_path: Path) -> None:
    """Cells of no other class were tested: no overall and no user's accuracy, nor a curve."""
    patches, truth = world(size=SIZE)
    # four folds; crops are held out with the first square
    learnt = map_classes(patches, one_scored(patches, truth), "class", replace(QUICK, block=2240.0))
    found, crops = learnt.assessment, learnt.classes.index("crops")
    fold = learnt.folds.of_polygon
    (held,) = np.unique(fold[learnt.training.polygon_labels == crops])

    assert [False, True] == found.scored.tolist()
    assert found.overall is None
    assert (None, None) == found.users
    assert found.producers[crops] is None
    assert found.producers[1 - crops] is not None
    # those held out with crops were asked of a read-out that knew rangeland alone
    tested = int((fold != held).sum())
    assert (0, tested) == found.tested
    assert (0, 36 * tested) == found.cells
    assert () == learnt.curve
    assert verdict(learnt) == (
        "no overall accuracy: only rangeland could be scored, on held-out squares of 2240 m, "
        f"{36 * tested} cells of {tested} polygons; not scored: crops"
    )
    row = next(line for line in markdown_of(learnt).split("\n") if "crops" in line and "|" in line)
    assert ["2", "72", "–", "–", "–"] == [cell.strip() for cell in row.split("|")[2:7]]
    assert "no overall and no user's accuracy" in " ".join(learnt.notes)

    write_map(learnt, tmp_path)
    record = json.loads((tmp_path / "map.json").read_text())
    assert record["overall_accuracy"] is None
    assert record["classes"]["rangeland"]["users_accuracy"] is None
    assert 36 * tested == record["cross_validation"]["tested_cells"]
    assert "no overall accuracy" in (tmp_path / "report.html").read_text()
    frame = geopandas.read_file(tmp_path / "training.gpkg")
    assert 36 * tested == frame["tested"].sum()


def test_the_headline_counts_what_was_scored() -> None:
    """A class that is not scored is in no number of the headline, the matrix or the curve."""
    patches, truth = world(size=SIZE)
    layer = drawn(patches, truth)
    layer.loc[[0, 1], "class"] = "marsh"
    learnt = map_classes(patches, layer, "class", replace(QUICK, block=2240.0))
    found, marsh = learnt.assessment, learnt.classes.index("marsh")

    assert not found.scored[marsh]
    assert 36 * 34 == sum(found.cells) == int(found.confusion.sum())
    assert 34 == sum(found.tested)
    assert f"{36 * 34} cells of 34 polygons; not scored: marsh" in verdict(learnt)
    assert (found.users[marsh], found.producers[marsh]) == (None, None)
    right = learnt.validation.said == learnt.training.labels
    assert found.overall is not None
    assert np.isclose(right[learnt.training.labels != marsh].mean(), found.overall.value)
    assert found.overall.value == learnt.curve[-1].overall.value


def test_an_interval_of_no_width_is_none() -> None:
    """Where every resample scores alike no interval is printed, which would look like certainty."""
    assert "100 %" == percent(Estimate(1.0, 1.0, 1.0))
    assert "84 % (79 to 88)" == percent(Estimate(0.84, 0.79, 0.88))
    assert "–" == percent(None)
    # 2299 of 2304 cells were "100 % (100 to 100)"
    assert "99.8 % (99.6 to 100)" == percent(Estimate(2299 / 2304, 0.996, 1.0))
    assert "0.1 % (0 to 0.4)" == percent(Estimate(0.0001, 0.0, 0.004))


def test_the_remedy_for_one_scored_class() -> None:
    """Polygons of the other class in other squares, as the note asks, give an accuracy."""
    patches, truth = world(size=SIZE)
    layer = one_scored(patches, truth)
    (note,) = map_classes(patches, layer, "class", replace(QUICK, block=2240.0)).notes[1:2]
    assert note.endswith("draw polygons of crops in other squares")
    layer.loc[[30, 35], "class"] = "crops"

    learnt = map_classes(patches, layer, "class", replace(QUICK, block=2240.0))
    assert learnt.assessment.overall is not None


def test_areas_need_every_class_tested() -> None:
    """Points of a class that were all held out together give no area; more of them do."""
    patches, truth = world(size=SIZE)
    points = sample(patches, truth).reset_index(drop=True)
    method = MapMethod(MapProbe.KNN, block=1700.0, design=SampleDesign.RANDOM)
    some = points.index[(points["class"] == "crops")]
    one = points.drop(some[1:])
    with pytest.raises(LabelError, match="points that were tested") as caught:
        map_classes(patches, one, "class", method)
    assert "crops" in str(caught.value.found)
    assert map_classes(patches, points, "class", method).areas is not None
    design = str(caught.value.remedy).rpartition("--design ")[2]
    assert map_classes(patches, one, "class", replace(method, design=SampleDesign(design)))


def test_more_neighbours_than_training_cells() -> None:
    """They are refused with the number that is left; the remedy and that number work."""
    patches, truth = world(size=(24, 24))
    layer = drawn(patches, truth)
    with pytest.raises(ConfigError, match="fewer training cells than neighbours") as caught:
        map_classes(patches, layer, "class", replace(QUICK, neighbours=5000))
    assert map_classes(
        patches, layer, "class",
        replace(QUICK, neighbours=int(str(caught.value.remedy).rpartition("--neighbours ")[2])),
    )  # fmt: skip
    most = int(str(caught.value.expected).removeprefix("1 to "))
    learnt = map_classes(patches, layer, "class", replace(QUICK, neighbours=most))
    # fewer polygons have fewer cells than neighbours: no point of the curve votes with fewer
    assert [1] == [point.draws for point in learnt.curve]
    with pytest.raises(ConfigError, match="fewer training cells than neighbours"):
        map_classes(patches, layer, "class", replace(QUICK, neighbours=most + 1))

    few = layer.groupby("class").head(2).reset_index(drop=True)
    few.geometry = few.geometry.centroid
    with pytest.raises(ConfigError, match="fewer training cells than neighbours") as caught:
        map_classes(patches, few, "class", replace(QUICK, neighbours=9))
    fewer = int(str(caught.value.remedy).rpartition("--neighbours ")[2])
    assert map_classes(patches, few, "class", replace(QUICK, neighbours=fewer))


def test_a_class_that_no_vote_can_say_is_named() -> None:
    """A class of few cells loses each vote of many neighbours; the number named mends that."""
    patches, truth = world(size=SIZE)
    layer = drawn(patches, truth)
    water = layer.index[layer["class"] == "water"]
    layer = layer.drop(water[2:])
    layer.loc[water[:2], "geometry"] = layer.geometry[water[:2]].centroid
    learnt = map_classes(patches, layer, "class", replace(QUICK, neighbours=9))
    (note,) = [note for note in learnt.notes if "outvoted" in note]

    code = 1 + learnt.classes.index("water")
    assert note.startswith("**water: nowhere on the map**")
    assert not (learnt.map.codes == code).any()
    fewer = int(note.rpartition("--neighbours ")[2])
    mended = map_classes(patches, layer, "class", replace(QUICK, neighbours=fewer))
    assert "outvoted" not in " ".join(mended.notes)


def test_parts_of_one_feature_are_held_out_together() -> None:
    """Every pair of fields as one feature: as many polygons as features, none in two folds."""
    patches, truth = world(size=SIZE, noise=2.0)
    layer = drawn(patches, truth).sort_values("class", kind="stable").reset_index(drop=True)
    layer["pair"] = layer.index // 2
    pairs = layer.dissolve("pair", aggfunc="first").reset_index(drop=True)
    assert (pairs.geom_type == "MultiPolygon").any()
    learnt = map_classes(patches, pairs, "class", replace(QUICK, block=1120.0))
    frame = learnt.training_frame()

    assert len(pairs) == len(learnt.training.features) == sum(learnt.assessment.tested)
    assert {1} == set(frame.groupby("feature")["fold"].nunique())
    assert {1} == set(frame.groupby("feature")["polygon"].nunique())
    assert f"cells of {len(pairs)} polygons" in verdict(learnt)
    assert len(pairs) >= learnt.curve[-1].polygons
    apart = map_classes(patches, layer, "class", replace(QUICK, block=1120.0))
    assert apart.assessment.overall is not None
    assert learnt.assessment.overall is not None


def test_a_layer_dissolved_by_class_is_taken_apart_by_the_remedy() -> None:
    """A feature for each class is one polygon for each: nothing can be tested until they are."""
    patches, truth = world(size=SIZE)
    layer = drawn(patches, truth).dissolve("class").reset_index()
    with pytest.raises(LabelError, match="no class can be tested") as caught:
        map_classes(patches, layer, "class", QUICK)
    exec(str(caught.value.remedy).partition("geopandas: ")[2], {}, names := {"layer": layer})
    learnt = map_classes(patches, names["layer"], "class", QUICK)
    assert 36 == len(learnt.training.features)


def test_the_pictures_and_curves_of_the_report() -> None:
    """Grays have a bar, counts are whole, and the one draw of all polygons has no band."""
    patches, truth = world(size=SIZE, noise=2.5)
    learnt = map_classes(patches, drawn(patches, truth), "class", QUICK)
    page = page_of(learnt, class_colours(learnt.classes))
    drawings = {
        name: figure
        for section in page.sections
        for block in section.blocks
        if isinstance(block, Drawings)
        for name, figure in block.figures
    }

    bars = {
        "probability of the class": ["0 %", "25 %", "50 %", "75 %", "100 %"],
        "distance from the training vectors": ["0", "1, the limit", "2 or more"],
    }
    for name, words in bars.items():
        assert words == [text.get_text() for text in drawings[name].axes[1].get_xticklabels()]
    (curve,) = drawings["learning curve"].axes
    ticks = [text.get_text() for text in curve.get_xticklabels()]
    assert [str(point.polygons) for point in learnt.curve] == ticks
    assert [2, 2, 1] == [point.draws for point in learnt.curve]
    ends = [path.vertices[:, 0].max() for path in curve.collections[0].get_paths()]
    assert max(ends) < learnt.curve[-1].polygons
    assert ("low", None) in record_of(learnt, {})["learning_curve"][-1].items()


def test_layers_of_several_crs_are_one_training_set() -> None:
    """Polygons of two files in two CRS train together, as in one file."""
    patches, truth = world(size=SIZE)
    layer = drawn(patches, truth)
    parts = [layer.iloc[:18].to_crs(4326), layer.iloc[18:].to_crs(3857)]
    apart = map_classes(patches, parts, "class", QUICK)
    whole = map_classes(patches, layer, "class", QUICK)

    assert set(apart.training.cells) == set(whole.training.cells)
    assert apart.classes == whole.classes
    assert {0, 1} == set(apart.training_frame()["layer"])


def test_chips_give_polygons() -> None:
    """Chips have the classes of the patches they are, as a layer."""
    patches, truth = world(size=SIZE)
    layer = drawn(patches, truth)
    grid, chips = (
        map_classes(patches, layer, "class", QUICK),
        map_classes(chips_of(patches), layer, "class", QUICK),
    )
    frame = chips.map.to_frame()

    assert np.mean(grid.map.codes[grid.map.codes > 0] == frame["code"]) > 0.99
    assert set(NAMES) == set(frame["class"])
    with pytest.raises(DataError, match="chips have no grid"):
        chips.map.to_xarray()


@pytest.mark.slow
def test_the_read_out_maps_another_scene() -> None:
    """Another scene of the same ground classes is mapped right; another model's is refused."""
    patches, truth = world(size=SIZE)
    learnt = map_classes(patches, drawn(patches, truth), "class")
    other, theirs = world("degrees", (24, 32), seed=4)
    found = learnt.on(other)

    assert (found.codes.reshape(24, 32) == truth_codes(learnt, theirs))[:-1].mean() > 0.95
    with pytest.raises(SpecError, match="cannot be compared"):
        learnt.on(other_model(other))


# ------------------------------------------------------------------------------- files


@pytest.mark.slow
def test_the_verb_writes_a_map_that_others_open(tmp_path: Path, capsys) -> None:
    """COG with colours, names and nodata; styles; training data; report; one set of numbers."""
    patches, truth = world(size=SIZE)
    write_tiff(tmp_path / "patches.tif", patches)
    path = on_disk(drawn(patches, truth), tmp_path / "labels.gpkg", "EPSG:4326")
    out = tmp_path / "out"
    words = ["map", str(tmp_path), "--labels", str(path), "--field", "class", "--out", str(out)]

    assert 0 == main(words)
    said_so = capsys.readouterr().out
    record = json.loads((out / "map.json").read_text())
    with rasterio.open(out / "map.tif") as raster:
        assert "COG" == raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"]
        assert ("uint8", 0) == (raster.dtypes[0], raster.nodata)
        assert patches.grid.transform == raster.transform
        colours, codes = raster.colormap(1), raster.read(1)
        names = json.loads(raster.tags()["EOFM_CLASSES"])
    own = {int(code): name for code, name in names.items()}
    assert list(record["classes"]) == list(own.values()) == ["built", "crops", "trees", "water"]
    copy_raster(out / "map.tif", tmp_path / "map.vrt", driver="VRT")
    categories = ElementTree.parse(tmp_path / "map.vrt").getroot().iter("Category")
    assert ["no class", *own.values()] == [c.text for c in categories]
    with rasterio.open(out / "probability.tif") as raster:
        assert ("probability", "distance over limit") == raster.descriptions
        probability = raster.read(1, masked=True)
    assert probability.mask[-1].all()
    assert (codes[-1] == 0).all()
    assert 0.25 < probability.min() <= probability.max() <= 1

    entries = ElementTree.parse(out / "map.qml").getroot().iter("paletteEntry")
    styled = {int(e.get("value")): (e.get("label"), e.get("color")) for e in entries}
    assert {k: (n, "#{:02x}{:02x}{:02x}".format(*colours[k][:3])) for k, n in own.items()} == styled
    assert "ColorMapEntry" in (out / "map.sld").read_text()
    training = geopandas.read_file(out / "training.gpkg")
    assert record["cross_validation"]["cells"] == len(training)
    assert np.isclose(training["right"].mean(), record["overall_accuracy"]["value"])
    assert "overall accuracy" in said_so
    assert "overall accuracy" in (out / "report.md").read_text()
    assert checked((out / "report.html").read_text()).seen >= {"table", "svg"}


@pytest.mark.slow
def test_the_verb_maps_chips(tmp_path: Path) -> None:
    """Chips give polygons with a style in place of rasters."""
    patches, truth = world(size=SIZE)
    learnt = map_classes(chips_of(patches), drawn(patches, truth), "class")
    done = write_map(learnt, tmp_path)

    assert {"map.gpkg", "map.qml", "training.gpkg"} <= {file.name for file in done.files}
    assert not (tmp_path / "map.tif").exists()
    assert set(NAMES) == set(geopandas.read_file(tmp_path / "map.gpkg")["class"])


def test_what_cannot_be_written(tmp_path: Path) -> None:
    """A folder that is a file is one error of eofm."""
    patches, truth = world(size=(24, 24))
    learnt = map_classes(patches, drawn(patches, truth), "class", QUICK)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_map(learnt, tmp_path / "file" / "map")


@pytest.mark.slow
def test_the_printed_remedies_run(tmp_path: Path, capsys) -> None:
    """--field, --block, --purity and --neighbours as the errors print them lead to a map."""
    patches, truth = world(size=(24, 24))
    write_tiff(tmp_path / "patches.tif", patches)
    layer = drawn(patches, truth, inset=3.05)
    path = on_disk(layer, tmp_path / "labels.gpkg")
    words = ["map", str(tmp_path), "--labels", str(path), "--out", str(tmp_path / "out")]
    knn = ["--probe", "knn", "--neighbours", "5000"]
    for asked in (["--field", "crop"], ["--block", "1e6"], ["--purity", "1"], knn):
        given = [*words, *asked]
        given += [] if "--field" in asked else ["--field", "class"]
        assert 1 == main(given)
        error = capsys.readouterr().err
        remedy = re.search(
            r"(--(?:field|block|purity|neighbours)) ([\w.]+)", error.partition("remedy:")[2]
        )
        assert remedy, error
        place = given.index(remedy[1]) + 1
        given[place] = remedy[2]
        assert 0 == main(given), capsys.readouterr().err
        capsys.readouterr()


@pytest.mark.parametrize(
    "options",
    [
        {"purity": 0.5}, {"purity": 1.1}, {"folds": 1}, {"block": 0.0}, {"neighbours": 0},
        {"per_polygon": 0},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_obeyed(options) -> None:
    """Each is refused before anything is opened."""
    with pytest.raises(ConfigError, match="out of range"):
        MapConfig("emb", ["labels.gpkg"], **options)
    with pytest.raises(ConfigError, match="names no file"):
        MapConfig("emb", [])


def test_no_square_is_both_trained_and_tested() -> None:
    """What is said of a held-out square does not depend on its labels: shown by spoiling them."""
    patches, truth = world(size=SIZE)
    learnt = map_classes(patches, drawn(patches, truth), "class", replace(QUICK, block=1200.0))
    training, folds = learnt.training, learnt.folds
    x = learnt.map.cells.vectors(training.cells)

    def fit(x, labels, fold, strength):
        return fit_probe(MapProbe.KNN, x, labels, fold, 4)

    plain = cross_validate(x, training, folds, fit)
    square = folds.of_block[training.polygons]
    for number in range(int(square.max()) + 1):
        mine = square == number
        wrong = replace(training, labels=np.where(mine, (training.labels + 1) % 4, training.labels))
        spoilt = cross_validate(x, wrong, folds, fit)
        assert np.array_equal(plain.said[mine], spoilt.said[mine])
    assert not np.array_equal(plain.said, spoilt.said)
