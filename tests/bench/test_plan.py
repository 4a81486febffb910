"""`eofm bench plan`, the waivers a task grants, and what can be forced."""

from __future__ import annotations

from pathlib import Path

import pytest

from eofm.bench.candidates import bench_plan
from eofm.bench.config import PlanConfig
from eofm.bench.run import bench
from eofm.bench.sources import forced_flags
from eofm.cli import main
from eofm.contract.preprocess import plan
from eofm.contract.recipe import FORCED_WHY, AcceptSensor, FillBand, Recipe, waivers_for
from eofm.contract.spec import SENSOR_BANDS, STATISTICS, Normalization, Sensor, Unit
from eofm.datasets.eurosat import BenchEurosatConfig
from eofm.datasets.registry import TASKS
from eofm.errors import ConfigError, MismatchKind
from eofm.weights.cards import WEIGHTS, find
from eofm.weights.encoder import random_encoder, save_encoder


def test_level_1c_weights_on_bigearthnet() -> None:
    """Two declared exceptions, printed with their reasons, and the steps in order."""
    report = bench_plan(PlanConfig("bigearthnet-v2-s2", "softcon_vits14_s2"))

    text = report.describe()
    assert 0 == report.status
    assert text.index("select bands") < text.index("resize") < text.index("insert B10 = 0")
    assert 2 == text.count("waiver: ")
    assert "BigEarthNet is Level-2A" in text


@pytest.mark.parametrize(
    ("task", "model", "says"),
    [
        ("bigearthnet-v2-s2", "softcon_vits14_s1", "another sensor"),
        ("bigearthnet-v2-s2", "dinov2_vits14", "another sensor"),
        ("eurosat", "croma_base_s2", "another sensor"),
        ("bigearthnet-v2-s1", "softcon_vits14_s2", "another sensor"),
    ],
)
def test_what_does_not_fit_is_refused(task: str, model: str, says: str) -> None:
    """Radar for optics, photographs for reflectance, Level-2A weights on Level-1C."""
    report = bench_plan(PlanConfig(task, model))

    assert 1 == report.status
    assert "refused" in report.describe()
    assert says in report.describe()


def test_only_named_mismatches_can_be_forced() -> None:
    """A product level can; radar for optics and a wrong unit cannot."""
    forced = bench_plan(PlanConfig("eurosat", "croma_base_s2", force="sensor"))

    assert 0 == forced.status
    assert FORCED_WHY in forced.describe()
    assert 1 == bench_plan(PlanConfig("eurosat", "dinov2_vits14", force="sensor")).status
    for word in ("unit", "normalization", "size", "all"):
        with pytest.raises(ConfigError, match="cannot be forced"):
            PlanConfig("eurosat", "croma_base_s2", force=word)


@pytest.mark.parametrize("card", sorted(WEIGHTS))
def test_every_card_has_a_plan_or_a_refusal(card: str) -> None:
    """No waiver is offered that is not used, for any published weights on any task."""
    _, recipe = find(card)
    for task in TASKS.values():
        for spec in task.specs:
            waivers = waivers_for(spec, recipe, task.waivers)
            shares = bool(set(spec.bands) & set(recipe.bands))
            if not shares:
                assert () == waivers
            else:
                granted = {type(w) for w in waivers}
                fits = spec.sensor is recipe.sensor or AcceptSensor in granted
                fits &= all(
                    b in spec.bands or any(isinstance(w, FillBand) and w.band == b for w in waivers)
                    for b in recipe.bands
                )
                if fits:
                    assert waivers == plan(spec, recipe, waivers).waivers


def test_forced_waivers_come_after_granted_ones() -> None:
    """What the task grants keeps its reason; only the rest is marked as forced."""
    task = TASKS["bigearthnet-v2-s2"]
    _, recipe = find("softcon_vits14_s2")
    both = (MismatchKind.SENSOR, MismatchKind.BANDS)

    granted = waivers_for(task.spec, recipe, task.waivers, both)
    forced = waivers_for(task.spec, recipe, (), both)

    assert set(task.waivers) == set(granted)
    assert {FORCED_WHY} == {w.why for w in forced}
    assert () == forced_flags([str(w) for w in granted])
    assert ("forced: AcceptSensor, FillBand",) == forced_flags([str(w) for w in forced])


@pytest.fixture
def level2_folder(tmp_path: Path) -> Path:
    """An untrained encoder of Level-2A images on disk."""
    statistics = STATISTICS["ssl4eo-s12-l2a"]
    norm = Normalization.zscore(statistics.mean, statistics.std, statistics.source)
    bands = SENSOR_BANDS[Sensor.S2_L2A]
    recipe = Recipe(Sensor.S2_L2A, bands, Unit.DN, (28, 28), norm)
    save_encoder(random_encoder("vit-tiny-14-2blocks", recipe, seed=5), tmp_path / "level2")
    return tmp_path / "level2"


def test_forced_rows_are_marked_and_left_out(
    eurosat: Path, level2_folder: Path, tmp_path: Path
) -> None:
    """A Level-2A encoder on Level-1C tiles: refused, or forced, marked, and outside the table."""
    options = {"probe": "knn", "controls": False, "bootstrap": 20, "cache": ""}
    files = {"out": str(tmp_path / "out.jsonl"), "model": f"imagestats,{level2_folder}"}

    report = bench(BenchEurosatConfig(str(eurosat), force="sensor", **options, **files))  # type: ignore[arg-type]

    forced = [r for r in report.results if r.model.name == "level2"]
    assert all("forced: AcceptSensor" in r.flags for r in forced)
    text = report.describe()
    assert "left out of the table, forced: AcceptSensor: level2" in text
    assert "| level2 |" not in text
    assert "| *imagestats* |" in text


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Status 0 with a plan, 1 with a refusal or an unknown name."""
    assert 0 == main(["bench", "plan", "bigearthnet-v2-s2", "softcon_vits14_s2"])
    assert "select bands" in capsys.readouterr().out
    assert 1 == main(["bench", "plan", "bigearthnet-v2-s2", "softcon_vits14_s1"])
    assert "refused" in capsys.readouterr().out
    assert 1 == main(["bench", "plan", "bigearthnett", "softcon_vits14_s2"])
    assert "did you mean bigearthnet" in capsys.readouterr().err


def test_controls_and_untrained_networks_have_plans() -> None:
    """Statistics take images as they are; random convolutions and networks by z-scores."""
    assert "no plan" in bench_plan(PlanConfig("eurosat", "imagestats")).describe()
    assert "normalise" in bench_plan(PlanConfig("eurosat", "rcf")).describe()
    assert "224 x 224" in bench_plan(PlanConfig("eurosat", "random:resnet18")).describe()
    torchgeo = "torchgeo:ResNet50_Weights.SENTINEL2_ALL_MOCO"
    assert "select bands" in bench_plan(PlanConfig("eurosat", torchgeo)).describe()
