"""The known ways to get a wrong number out of a benchmark: each is refused, or recorded.

One test or more per pitfall, by its number. The last test takes each guard out of the code, one
after the other, and proves that the pitfall's test then fails: see `tests/miniatures/guards.py`.

Two guards reach less far than one would wish. 14: the plan states how many metres a pixel of the
input is, and another GSD is another record, but no network here is told its GSD. 30: a corpus that
is stated to hold a task's images is flagged, and so is one that is not stated; places are not
intersected.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from guards import GUARDS, Guard
from levels import levels
from torch import Tensor, nn

from eofm.bench.controls import ImageStatistics
from eofm.bench.features import key_of
from eofm.bench.predictions import write_predictions
from eofm.bench.probes import Scored, Splits, compare, run_probe
from eofm.bench.records import Made, Result, Sample, executed_parameters
from eofm.bench.reports.compare import _alike
from eofm.bench.sources import EncoderSource, Identity, NetworkSource, contamination_flags
from eofm.contract.imagery import Imagery
from eofm.contract.preprocess import Preprocess, normalize, plan
from eofm.contract.recipe import (
    FORCEABLE,
    AcceptPixels,
    AcceptSize,
    FillBand,
    Kernel,
    Pooling,
    Recipe,
    ResizeRule,
    default_recipe,
    waivers_for,
)
from eofm.contract.spec import STATISTICS, Normalization, Sensor, Unit
from eofm.contract.validity import check_plausible
from eofm.datasets.bigearthnet import CLASSES_19, Version
from eofm.datasets.bigearthnet import SPECS as BIGEARTHNET
from eofm.datasets.bigearthnet.chips import GOLDEN, GOLDEN_CLASSES, BigEarthNetChoice, _check_golden
from eofm.datasets.eurosat import EUROSAT, EUROSAT_MS, EUROSAT_RGB
from eofm.datasets.images.chips import Chip, Chips
from eofm.datasets.images.class_folders import open_class_folders
from eofm.datasets.registry import TASKS
from eofm.datasets.so2sat import BenchSo2SatConfig
from eofm.errors import DataError, PixelError, SpecError, SpecMismatch, WeightsError
from eofm.networks.foundation import DOFA_MICROMETRES, _of_bands
from eofm.probes.bootstrap import Interval, resampled_accuracy
from eofm.probes.features import Labelled, ProbeResult, Scaling
from eofm.probes.knn import knn_scores
from eofm.probes.metrics import Metric, average_precision
from eofm.store.splits import by_value, hash_order
from eofm.weights.encoder import Encoder, random_encoder

SPEC = EUROSAT.spec


def recipe_of(sensor: Sensor) -> Recipe:
    """The recipe of a small encoder."""
    table = STATISTICS["ssl4eo-s12-l1c" if sensor is Sensor.S2_L1C else "ssl4eo-s12-grd"]
    rule = Normalization.two_sigma(table.mean, table.std, table.source)
    unit = Unit.DN if sensor is Sensor.S2_L1C else Unit.DB
    return Recipe(sensor, table.bands, unit, (28, 28), rule)


def images(count: int = 3, change: Callable[[Tensor], Tensor] = lambda x: x) -> Imagery:
    """Noise around the band means of EuroSAT."""
    generator = torch.Generator().manual_seed(1)
    pixels = levels(SPEC.bands) * (
        0.7 + 0.6 * torch.rand(count, len(SPEC.bands), 64, 64, generator=generator)
    )
    return Imagery(change(pixels), SPEC, torch.ones(count, 64, 64, dtype=torch.bool))


def record(task: str) -> Result:
    """A score of one model on one task."""
    return Result(
        task=task,
        version="1",
        sample=Sample("set", "official", "ids", "data", 3, 2, 2, True, 0),
        model=Identity("m", False, "a vit", "w", "r", "p", (), ()),
        probe="knn[]",
        strength=None,
        gradient_norm=None,
        metric="ap_micro",
        value=0.5,
        interval=Interval(0.4, 0.6, 0.95, 10),
        seed=0,
        flags=(),
        made=Made("eofm", "2026", {"eofm": "1"}, "", "cpu", 0.0, 0.0, None),
    )


@pytest.fixture
def splits(generator: torch.Generator) -> Splits:
    """Four overlapping clouds."""
    centres = 1.5 * torch.randn(4, 8, generator=generator)

    def draw(count: int) -> Labelled:
        y = torch.arange(count) % 4
        return Labelled(centres[y] + torch.randn(count, 8, generator=generator), y, 4)

    test = draw(40)
    return Splits(draw(60), draw(40), test.x, test.y, torch.arange(60))


def test_01_size() -> None:
    """The plan resizes to the recipe's size; another size is a waiver with a reason, recorded."""
    recipe = recipe_of(Sensor.S2_L1C)
    own, odd = plan(SPEC, recipe), plan(SPEC, recipe, [AcceptSize((56, 56), "to see")])

    assert (3, 13, 28, 28) == tuple(Preprocess(own)(images()).pixels.shape)
    assert own.hash != odd.hash
    assert "to see" in str(odd.waivers)


def test_02_normalization_is_part_of_the_weights(encoder: Encoder) -> None:
    """No recipe without constants, no constants without a source; others are another record."""
    with pytest.raises(SpecError, match="source"):
        Normalization.zscore([0.0], [1.0], source=" ")
    other = replace(encoder.recipe, normalization=Normalization.divide(1e4, 13, "a test"))

    assert plan(SPEC, encoder.recipe).hash != plan(SPEC, other).hash


def test_03_double_normalization() -> None:
    """What has been normalised cannot be again."""
    step = Preprocess(plan(SPEC, recipe_of(Sensor.S2_L1C)))

    with pytest.raises(SpecMismatch):
        step(step(images()))


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (4, lambda x: x / 10_000),
        (4, lambda x: x / 256),
        (5, lambda x: x + 1000),
        (6, lambda x: x[:, [*range(8), 9, 10, 11, 12, 8]]),
        (7, lambda x: torch.where(torch.arange(13).view(-1, 1, 1) == 8, 0, x)),
    ],
)
def test_04_05_06_07_pixels_that_contradict_the_declaration(
    number: int, change: Callable[[Tensor], Tensor]
) -> None:
    """Reflectance or bytes as DN, an undeclared offset, B8A last, a padded band: refused."""
    check_plausible(images(64))

    with pytest.raises(PixelError):
        check_plausible(images(64, change))
    assert number in {4, 5, 6, 7}


def test_06_bands_go_by_name(encoder: Encoder) -> None:
    """Images whose bands are stored in another order give the same features."""
    order = torch.randperm(13, generator=torch.Generator().manual_seed(3)).tolist()
    plain = images()
    spec = replace(SPEC, bands=tuple(SPEC.bands[i] for i in order))
    stored = Imagery(plain.pixels[:, order], spec, plain.valid)

    assert torch.equal(encoder.embed(plain), encoder.embed(stored))
    swapped = Imagery(plain.pixels[:, order], SPEC, plain.valid)
    with pytest.raises(PixelError):
        encoder.embed(swapped)
    taken = encoder.embed(swapped, [AcceptPixels("a test")])
    assert not torch.allclose(encoder.embed(plain), taken)


def test_07_missing_bands_are_an_error_or_a_recorded_policy() -> None:
    """A data set without B10 does not fit, unless a waiver says what is fed instead and why."""
    lacking = replace(SPEC, bands=tuple(b for b in SPEC.bands if b != "B10"))
    recipe = recipe_of(Sensor.S2_L1C)

    with pytest.raises(SpecMismatch, match="B10"):
        plan(lacking, recipe)
    filled = plan(lacking, recipe, [FillBand("B10", 0.0, "no cirrus band")])
    assert "no cirrus band" in str(filled.waivers)


def test_08_rgb_weights_are_not_tiled() -> None:
    """Three bands of a photograph are no bands of Sentinel-2, not even by force."""
    recipe = default_recipe(EUROSAT_RGB.spec, (64, 64), Pooling.CLS)

    with pytest.raises(SpecMismatch, match="another sensor"):
        plan(SPEC, recipe)
    assert () == waivers_for(SPEC, recipe, forced=FORCEABLE)


def test_09_an_unknown_wavelength_is_an_error() -> None:
    """A network that is made from wavelengths gets none that stands for another."""
    known = _of_bands(DOFA_MICROMETRES, recipe_of(Sensor.S2_L1C), "DOFA")
    assert [0.44, 0.49] == known[:2]
    stranger = default_recipe(EUROSAT_RGB.spec, (64, 64), Pooling.CLS)

    with pytest.raises(SpecError, match="has never seen bands"):
        _of_bands(DOFA_MICROMETRES, stranger, "DOFA")


def test_10_invalid_pixels_and_features(encoder: Encoder, tmp_path: Path) -> None:
    """A NaN that calls itself valid stops the run; so do images without a valid pixel."""
    broken = images()
    broken.pixels[1, 0, 5, 5] = torch.nan

    with pytest.raises(PixelError):
        encoder.embed(broken)
    empty = Imagery(images().pixels, SPEC, torch.zeros(3, 64, 64, dtype=torch.bool))
    with pytest.raises(PixelError):
        encoder.embed(empty)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: 10 ** (x / 10),
        lambda x: x.flip(1),
        torch.round,
    ],
)
def test_11_radar_in_another_unit_or_order(change: Callable[[Tensor], Tensor]) -> None:
    """Power for decibels, VH for VV, whole numbers for fractions: refused."""
    noise = torch.randn(4, 2, 30, 30, generator=torch.Generator().manual_seed(2))
    pixels = torch.tensor([-12.6, -19.3]).view(1, 2, 1, 1) + 2 * noise
    valid = torch.ones(4, 30, 30, dtype=torch.bool)
    spec = BIGEARTHNET[Sensor.S1_GRD]
    check_plausible(Imagery(pixels, replace(spec, size=(30, 30)), valid))

    with pytest.raises(PixelError):
        check_plausible(Imagery(change(pixels), replace(spec, size=(30, 30)), valid))


def test_12_interpolation_is_part_of_the_plan() -> None:
    """Another kernel, or antialiasing, is another plan and another record."""
    recipe = recipe_of(Sensor.S2_L1C)
    rules = [ResizeRule(kernel, antialias=False) for kernel in Kernel]
    rules.append(ResizeRule(Kernel.BILINEAR, antialias=True))

    assert len(rules) == len({plan(SPEC, replace(recipe, resize=rule)).hash for rule in rules})


def test_13_nothing_is_cropped() -> None:
    """A mark in any corner of an image reaches the network: labels are never cut off."""
    step = Preprocess(plan(SPEC, recipe_of(Sensor.S2_L1C)))
    plain = step(images(1)).pixels
    for row in 0, -8:
        for column in 0, -8:
            marked = images(1)
            rows = slice(row, row + 8 or None)
            marked.pixels[:, :, rows, slice(column, column + 8 or None)] *= 3
            assert not torch.allclose(plain, step(marked).pixels)


def test_14_the_plan_says_how_many_metres_a_pixel_is() -> None:
    """An enlarged image is finer than it was: that stands in the record, and another is another."""
    recipe = recipe_of(Sensor.S2_L1C)
    own, coarse = plan(SPEC, recipe), plan(replace(SPEC, gsd=20.0), recipe)

    assert 10.0 * 64 / 28 == own.target.gsd
    assert "28 x 28 px at 22.8571 m" in own.describe()
    assert own.hash != coarse.hash
    with pytest.raises(SpecMismatch, match="ground size of the pixels"):
        plan(replace(SPEC, gsd=30.0), recipe)


def test_15_bytes_are_clipped_before_they_are_cast() -> None:
    """A bright value becomes white; a cast alone would wrap it to something dark."""
    rule = Normalization.two_sigma([1000.0], [250.0], "a test")

    found = normalize(torch.tensor([714.0, 1500.0, 1502.0, 9000.0]).view(1, 1, 1, 4), rule)

    assert [1.0, 1.0, 1.0] == found.flatten()[1:].tolist()
    assert 0 < float(found.flatten()[0]) < 0.3


@pytest.mark.slow
def test_16_the_test_split_has_no_say(splits: Splits) -> None:
    """Other test labels or images change neither C nor the scaler."""
    other = replace(splits, test_x=splits.test_x[:7] * 100, test_y=splits.test_y[:7].flip(0))

    one, two = (run_probe("linear", s, Scaling.STANDARD, 5).probe for s in (splits, other))

    assert (one.strength, one.validation) == (two.strength, two.validation)


def test_17_neighbours_are_kept_apart(eurosat: Path, tmp_path: Path) -> None:
    """Without a word said, EuroSAT is divided by longitude and So2Sat by city."""
    for path in eurosat.rglob("*.tif"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).symlink_to(path)

    assert "spatial" == open_class_folders(EUROSAT_MS, tmp_path).rule
    parts = by_value({name: -float(place) for place, name in enumerate("abcdefghij")})
    assert (("j", "i", "h", "g", "f", "e"), ("b", "a")) == (parts["train"], parts["test"])
    assert "v3-culture-10" == BenchSo2SatConfig("x").version
    for rule in "random", "block":
        assert TASKS[f"so2sat-v3-{rule}-s2"].notes


def test_18_metrics_say_which_average(generator: torch.Generator) -> None:
    """Micro, macro and weighted differ, and no id leaves open which is meant."""
    scores = torch.rand(80, 3, generator=generator)
    targets = (torch.rand(80, 3, generator=generator) < torch.tensor([0.05, 0.3, 0.8])).long()
    ap = average_precision(scores, targets)

    assert 3 == len({round(v, 6) for v in (ap.micro, ap.macro, ap.weighted)})
    averages = [metric.partition("_")[2] for metric in Metric if metric.startswith(("ap", "f1"))]
    assert all(word.startswith(("micro", "macro", "weighted")) for word in averages)


def test_19_every_test_sample_counts_once(splits: Splits, tmp_path: Path) -> None:
    """A dropped last batch or a sampler's padding is an error; batches are never averaged."""
    scored = run_probe("knn", splits, Scaling.NONE, 5)
    ids = [f"i{n}" for n in range(40)]

    for wrong in (ids[:32], [*ids, *ids[:8]], [*ids[:-1], ids[0]]):
        with pytest.raises(DataError, match="do not match"):
            write_predictions(tmp_path, "x", scored, splits.test_y, wrong, list("abcd"))


def test_20_absent_classes_are_counted() -> None:
    """A class without positives is out of the macro average, and the number scored says so."""
    ap = average_precision(torch.rand(6, 3), torch.tensor([[1, 0, 0], [0, 1, 0]] * 3))

    assert 2 == ap.classes_scored
    assert ap.per_class[2] is None


def test_21_ties_do_not_depend_on_the_order_of_files(splits: Splits) -> None:
    """Equal distances go by the ranks of ids; the probe's id names k, distance and weights."""
    x = torch.ones(60, 8)
    tied = replace(splits, train=Labelled(x, splits.train.y, 4))
    back = torch.arange(59, -1, -1)
    turned = replace(tied, train=Labelled(x, splits.train.y[back], 4), order=splits.order[back])

    one, two = (run_probe("knn", s, Scaling.NONE, 5).probe for s in (tied, turned))

    assert torch.equal(one.scores, two.scores)
    assert "knn[k=5,l2,uniform,none]" == one.probe


def test_22_subsets_are_without_replacement_and_without_order() -> None:
    """The first tenth by hash: distinct, nested, the same for any order of the list."""
    ids = [f"patch-{number}" for number in range(1000)]
    tenth = hash_order(ids, "set")[:100]

    assert 100 == len(set(tenth))
    assert tenth == hash_order(reversed(ids), "set")[:100]
    assert set(hash_order(ids, "set")[:10]) <= set(tenth)


def test_23_a_frozen_network_stays_frozen(encoder: Encoder) -> None:
    """It is put into evaluation mode, and a buffer that moves is found out."""
    twin = random_encoder(encoder.card.architecture, encoder.recipe, seed=8).train()
    source = EncoderSource("twin", twin)

    assert not any(module.training for module in twin.modules())
    source.check_frozen()
    next(twin.parameters()).data.add_(1)
    with pytest.raises(WeightsError, match="changed"):
        source.check_frozen()


def test_24_distances_far_from_the_origin_are_exact(generator: torch.Generator) -> None:
    """In float32 the expanded form finds neighbours at random here; the precision is in the key."""
    train = 1e-2 * torch.randn(50, 20, generator=generator).double()
    train[:25] += 1e4  # two clouds: taking off the mean brings neither to the origin
    test = train + 1e-4

    scores = knn_scores(train, torch.arange(50), test, k=1)

    assert torch.equal(torch.eye(50).double(), scores)
    source = EncoderSource("m", random_encoder("vit-tiny-14-2blocks", recipe_of(Sensor.S2_L1C), 0))
    assert "float32" == key_of(source, SPEC, "d").content.get("dtype")


def test_25_fits_that_cannot_be_trusted_are_flagged() -> None:
    """Not converged, or C at the end of its grid."""
    outcome = ProbeResult("linear[]", torch.zeros(1, 2), on_edge=True, gradient_norm=0.1)

    faults = Scored("linear", outcome, {}, 1, 0.0).faults()

    assert ("C at the edge of the grid", "not converged") == faults


@pytest.mark.slow
def test_26_a_refit_stands_in_the_id(splits: Splits) -> None:
    """Half a point to a point is not to be had in silence."""
    plain, refit = (
        run_probe(kind, splits, Scaling.NONE, 5).probe.probe for kind in ("linear", "linear-refit")
    )

    assert ",norefit," in plain
    assert ",refit," in refit


def test_27_pooling_is_part_of_the_recipe(encoder: Encoder) -> None:
    """A network that pools otherwise than its card says is refused."""
    other = next(p for p in Pooling if p is not encoder.recipe.pooling)
    card = replace(encoder.card, recipe=replace(encoder.recipe, pooling=other))

    with pytest.raises(SpecError, match="pooling"):
        Encoder(encoder.trunk, card)


def test_28_a_patch_of_known_labels_has_them() -> None:
    """Names and indices that are mixed up give {10, 17} for {8, 11, 13}: refused."""

    def chips(label: tuple[int, ...]) -> Chips:
        golden, other = Chip(GOLDEN[Version.V1], label, ()), Chip("other", (0,), ())
        return Chips(
            Path(), "official", CLASSES_19, {"train": (other,), "val": (), "test": (golden,)}
        )

    choice = BigEarthNetChoice(Version.V1, (Sensor.S2_L2A,))
    _check_golden(chips(GOLDEN_CLASSES), choice)
    with pytest.raises(DataError, match="mixed up"):
        _check_golden(chips((10, 17)), choice)


def test_29_versions_of_a_data_set_are_tasks_of_their_own() -> None:
    """Nothing of v1 and v2, nor of 19 and 43 classes, shares a key or a comparison."""
    first = record("bigearthnet-v1-s2")
    others = [record(name) for name in ("bigearthnet-v2-s2", "bigearthnet-v1-s2-43")]
    assert {first.task, *(other.task for other in others)} <= set(TASKS)

    assert 3 == len({first.key, *(other.key for other in others)})
    assert _alike(first, record("bigearthnet-v1-s2"))
    assert not any(_alike(first, other) for other in others)


def test_30_training_data_that_hold_the_test_images_are_flagged() -> None:
    """Whatever the version; so are training data that nobody states. A control saw nothing."""
    model = Identity("m", False, "a vit", "w", "r", "p", (), ())
    seen = replace(model, trained_on="RS5M: 5 million images with captions")

    assert ("contaminated? trained on RS5M",) == contamination_flags(seen, "bigearthnet-v1-s2")
    assert () == contamination_flags(seen, "eurosat")
    assert ("training data not declared",) == contamination_flags(model, "eurosat")
    assert () == contamination_flags(replace(model, control=True), "eurosat")


def test_32_only_parameters_that_take_part_are_counted(encoder: Encoder) -> None:
    """A tower of the other sensor, or a head, is no cost of an embedding."""

    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(13, 4), nn.Linear(13, 1000)

        def forward(self, pixels: Tensor) -> Tensor:
            vectors: Tensor = self.used(pixels.mean(dim=(2, 3)))
            return vectors

    source = NetworkSource("towers", Towers().eval(), encoder.recipe, "a test")

    assert 13 * 4 + 4 == executed_parameters(source, images(1))
    whole = sum(p.numel() for p in encoder.parameters())
    assert whole == executed_parameters(EncoderSource("m", encoder), images(1))
    assert 0 == executed_parameters(ImageStatistics(), images(1))


def test_31_degenerate_features_and_models_below_a_control_are_flagged(splits: Splits) -> None:
    """Two directions in eight, or a score below band statistics."""
    flat = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))

    def squash(labelled: Labelled) -> Labelled:
        return Labelled(labelled.x[:, :2] @ flat, labelled.y, 4)

    assert splits.val is not None
    bad = replace(
        splits,
        train=squash(splits.train),
        val=squash(splits.val),
        test_x=splits.test_x[:, :2] @ flat,
    )
    assert any("effective rank" in text for text in run_probe("knn", bad, Scaling.NONE, 5).faults())

    def right(count: int) -> Scored:
        target = torch.zeros(100, dtype=torch.long)
        metric = resampled_accuracy((torch.arange(100) >= count).long(), target)
        return Scored("knn", ProbeResult("knn[]", torch.zeros(1)), {Metric.OA: metric}, 100, 0.0)

    assert ("below stats",) == compare(right(40), right(80), "stats", Metric.OA, 200, seed=0)


# ------------------------------------------------------------------- tests of these tests


@pytest.mark.slow
@pytest.mark.parametrize("guard", GUARDS, ids=str)
def test_a_pitfall_is_met_when_its_guard_is_removed(
    guard: Guard, request: pytest.FixtureRequest
) -> None:
    """The test of each pitfall fails, by a broken promise and not by a crash."""
    function = globals()[guard.test]
    words = cases_of(function)[guard.case]
    for name in inspect.signature(function).parameters:
        words.setdefault(name, request.getfixturevalue(name) if name not in words else None)

    with guard.removed(), pytest.raises((AssertionError, pytest.fail.Exception)):
        function(**words)


def cases_of(function: Callable[..., None]) -> list[dict[str, object]]:
    """The arguments with which pytest calls a test, but for fixtures."""
    marks = [m for m in getattr(function, "pytestmark", []) if m.name == "parametrize"]
    if not marks:
        return [{}]
    names, values = marks[0].args
    names = [names] if isinstance(names, str) else names
    return [dict(zip(names, value if len(names) > 1 else [value], strict=True)) for value in values]


def test_every_pitfall_has_a_test_and_every_test_a_guard() -> None:
    """All 32, and no guard is left out of the removals."""
    tests = {name for name in globals() if name.startswith("test_") and name[5].isdigit()}
    numbers = {int(word) for name in tests for word in name.split("_") if word.isdigit()}

    assert set(range(1, 33)) <= numbers
    assert {guard.test for guard in GUARDS} == tests
