"""What another size or normalisation costs: the own row is the plain run, others are marked."""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eofm.bench.ablate import Ablation, bench_ablate
from eofm.bench.ablate_config import AblateConfig, AblateSo2SatConfig
from eofm.bench.ablate_recipes import recipes, statistics, suitable
from eofm.bench.config import BenchEurosatConfig
from eofm.bench.export import print_table
from eofm.bench.report_config import TableConfig
from eofm.bench.run import bench
from eofm.bench.task import TASKS
from eofm.bench.tasks import load
from eofm.bench.waive import waivers_for
from eofm.cli import VERBS, main
from eofm.contract.imagery import Imagery, collate
from eofm.contract.preprocess import Preprocess, plan
from eofm.datasets.so2sat import H5Pixels
from eofm.errors import ConfigError
from eofm.weights.encoder import Encoder


def settings(root: Path, folder: Path, model: Path, **options: object) -> AblateConfig:
    """Settings whose files lie in `folder`."""
    given = {
        "out": str(folder / "a.jsonl"),
        "cache": str(folder / "cache"),
        "figure": str(folder / "a.png"),
        "bootstrap": 30,
        "size": "own,50",
        "normalization": "own,zscore,two-sigma,divide10000",
    }
    return AblateConfig(str(root), model=f"mine={model}", **{**given, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def ablation(
    eurosat: Path, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Ablation:
    """Two sizes, four normalisations."""
    return bench_ablate(settings(eurosat, tmp_path_factory.mktemp("ablation"), encoder_folder))


def test_only_the_own_input_is_standard(ablation: Ablation) -> None:
    """Every other row says what was changed, as a waiver and in its flag."""
    by_name = {r.model.name: r for r in ablation.report.results}

    assert 8 == len(by_name)
    assert not by_name["mine 28 px own"].model.waivers
    odd = by_name["mine 56 px zscore"]
    assert "nonstandard: size 56 for 28, normalization zscore for the recipe's" == odd.flags[0]
    marked = [name for name, r in by_name.items() if r.flags and "nonstandard" in r.flags[0]]
    assert 7 == len(marked)
    assert 8 == len({r.model.plan_sha256 for r in by_name.values()})


def test_the_own_row_is_that_of_a_plain_run(
    ablation: Ablation, eurosat: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    """The ablation measures the same thing as the benchmark."""
    files = {"out": str(tmp_path / "r.jsonl"), "cache": str(tmp_path / "c")}
    config = BenchEurosatConfig(
        str(eurosat), model=f"mine={encoder_folder}", controls=False, probe="knn", **files
    )

    plain = {r.metric: r.value for r in bench(config).results}

    own = {r.metric: r.value for r in ablation.report.results if r.model.name == "mine 28 px own"}
    assert plain == own


def test_the_constants_are_those_of_the_training_split(ablation: Ablation) -> None:
    """The plan of a z-scored row divides by the deviation of each training band."""
    (row,) = {r.model.plan for r in ablation.report.results if r.model.name == "mine 28 px zscore"}

    assert any("training split, 40 images" in step for step in row)


def test_the_table_and_the_figure_say_so(ablation: Ablation) -> None:
    """Sizes down, normalisations across, the own input in bold; the subset is called one."""
    text = ablation.describe()

    assert "| mine | 28 | **" in text
    assert "| model | px | own | zscore | two-sigma | divide10000 |" in text
    assert "**subset**" in text
    assert "eofm bench ablate --root" in text
    assert Path(ablation.figure).read_bytes().startswith(b"\x89PNG")


def test_tables_of_results_leave_ablations_out(ablation: Ablation) -> None:
    """Of eight rows one is standard."""
    out = str(ablation.report.out)

    assert 1 == print_table(TableConfig(out)).describe().count("| mine ")
    assert 8 == print_table(TableConfig(out, nonstandard=True)).describe().count("| mine ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "big"}, "a size is a number"),
        ({"size": ""}, "there is no size"),
        ({"normalization": "magic"}, "no such normalisation"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, options: dict[str, str], message: str) -> None:
    """Before anything is read."""
    with pytest.raises(ConfigError, match=message):
        settings(tmp_path, tmp_path, tmp_path, **options)


def test_an_encoder_of_another_sensor_is_refused(
    eurosat: Path, radar_folder: Path, tmp_path: Path
) -> None:
    """Nothing else may differ than what is ablated."""
    with pytest.raises(ConfigError, match="changes one thing"):
        bench_ablate(settings(eurosat, tmp_path, radar_folder))


def test_the_command_line_takes_the_same_words(
    eurosat: Path, encoder_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`eofm bench ablate` prints the table."""
    words = ["--root", str(eurosat), "--model", f"mine={encoder_folder}", "--size", "own"]
    words += ["--normalization", "own", "--figure", "", "--out", str(tmp_path / "x.jsonl")]

    assert 0 == main(["bench", "ablate", *words, "--cache", "", "--bootstrap", "9"])
    assert "**" in capsys.readouterr().out


# --------------------------------------------------------------------------- other tasks


@pytest.fixture(scope="module")
def so2sat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So2Sat version 2 with a few images, in reflectance."""
    h5py = pytest.importorskip("h5py", reason="h5py is an extra")
    root, rng = tmp_path_factory.mktemp("so2sat"), np.random.default_rng(0)
    for split, count in (("training", 34), ("validation", 17), ("testing", 17)):
        labels = np.arange(count) % 17
        noise = rng.uniform(0.9, 1.1, (count, 32, 32, 1)) * (1 + labels[:, None, None, None] / 8)
        with h5py.File(root / f"{split}.h5", "w") as file:
            file["sen1"] = np.array([-0.02, 0.03, -0.05, 0.06, 0.012, 0.055, 0.004, -0.003]) * noise
            file["sen2"] = np.linspace(0.1, 0.2, 10) * noise
            file["label"] = np.eye(17)[labels]
    return root


def test_a_task_with_waivers_of_its_own(
    so2sat: Path, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bands that So2Sat lacks are filled in every cell; each image is decoded once for all."""
    read = H5Pixels.read
    seen: Counter[tuple[str, int]] = Counter()

    def counted(self: H5Pixels) -> Imagery:
        seen[str(self.file), self.row] += 1
        return read(self)

    monkeypatch.setattr(H5Pixels, "read", counted)
    files = {"out": str(tmp_path / "a.jsonl"), "cache": str(tmp_path / "c"), "figure": ""}
    config = AblateSo2SatConfig(
        str(so2sat), model=f"mine={encoder_folder}", version="v2", size="own,56", k=1, **files
    )

    ablation = bench_ablate(config)

    rules = ["own", "zscore", "two-sigma", "minmax", "divide10000"]
    assert [f"mine {s} px {r}" for s in (28, 56) for r in rules] == [
        s.name for s in ablation.settings
    ]
    assert 68 == len(seen)
    assert {1} == set(seen.values()) - {2}  # the first tells how much room all of them need
    for result in ablation.report.results:
        assert 3 == sum("FillBand" in waiver for waiver in result.model.waivers)
    own, odd = (
        next(r for r in ablation.report.results if r.model.name == f"mine 28 px {rule}")
        for rule in ("own", "minmax")
    )
    assert not any(flag.startswith("nonstandard") for flag in own.flags)
    assert "nonstandard: normalization minmax for the recipe's" in odd.flags
    assert any("insert B01 = 0" in step for step in odd.model.plan)
    assert "eofm bench ablate so2sat --root" in ablation.describe()


def test_constants_of_the_training_split(so2sat: Path) -> None:
    """Mean, deviation, least and largest value of every band: those of NumPy over all pixels."""
    chips = load(AblateSo2SatConfig(str(so2sat), version="v2")).chips
    train = chips.splits["train"]

    found = statistics(train)

    pixels = np.stack([chip.pixels[0].read().pixels[0].numpy() for chip in train]).astype(float)
    for name, expected in (
        ("mean", pixels.mean((0, 2, 3))),
        ("std", pixels.std((0, 2, 3))),
        ("low", pixels.min((0, 2, 3))),
        ("high", pixels.max((0, 2, 3))),
    ):
        assert expected.tolist() == pytest.approx(vars(found)[name].tolist(), rel=1e-6)


def test_minmax_maps_the_training_split_to_unit_range(so2sat: Path, encoder: Encoder) -> None:
    """Its smallest value becomes 0, its largest 1, in every band that is there."""
    loaded = load(AblateSo2SatConfig(str(so2sat), version="v2"))
    train = loaded.chips.splits["train"]
    ((_, recipe),) = recipes(
        ["own"], ["minmax"], "mine", encoder, loaded.task.spec, statistics(train)
    )
    waivers = waivers_for(loaded.task.spec, recipe, loaded.task.waivers)
    step = Preprocess(plan(loaded.task.spec, replace(recipe, size=(32, 32)), waivers))

    pixels = step(collate([chip.pixels[0].read() for chip in train])).pixels

    low, high = pixels.amin((0, 2, 3)), pixels.amax((0, 2, 3))
    there = [band in loaded.task.spec.bands for band in recipe.bands]
    assert [0.0] * 10 == pytest.approx(low[there].tolist(), abs=1e-5)
    assert [1.0] * 10 == pytest.approx(high[there].tolist(), abs=1e-5)


def test_divisions_suit_units() -> None:
    """Decibels are divided by nothing, 8 bits by 255, reflectance as digital numbers."""
    specs = {name: TASKS[name].spec for name in ("eurosat-sar", "ucmerced", "so2sat-v2-s2")}

    assert ("own", "zscore", "two-sigma", "minmax") == suitable(["auto"], specs["eurosat-sar"])
    assert "divide255" in suitable(["auto"], specs["ucmerced"])
    assert "divide10000" in suitable(["auto"], specs["so2sat-v2-s2"])
    for rule, name in (("divide10000", "ucmerced"), ("divide255", "eurosat-sar")):
        with pytest.raises(ConfigError, match="does not suit"):
            suitable(["own", rule], specs[name])


def test_two_sensors_are_not_ablated_at_once(so2sat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of them would have been changed?"""
    loaded = load(AblateSo2SatConfig(str(so2sat), version="v2"))
    both = replace(loaded, task=TASKS["bigearthnet-v2-both"])
    monkeypatch.setattr("eofm.bench.ablate.load", lambda config: both)

    with pytest.raises(ConfigError, match="one sensor"):
        bench_ablate(AblateSo2SatConfig(str(so2sat)))


def test_every_task_of_whole_images_can_be_ablated() -> None:
    """`bench ablate TASK` for each verb that scores images, with all of its options."""
    scoring = {n: v for n, v in VERBS.items() if v.action == "eofm.bench.run:bench"}

    for name, verb in scoring.items():
        task = name.split()[1]
        ablated = VERBS[f"bench ablate {task}"]
        module, _, settings = ablated.settings.partition(":")
        found = vars(importlib.import_module(module))[settings]
        plain_module, _, plain = verb.settings.partition(":")
        base = vars(importlib.import_module(plain_module))[plain]
        assert issubclass(found, base)
        config = found("somewhere")
        assert ("knn", False) == (config.probe, config.controls)
        assert config.out.endswith("ablation.jsonl")
        assert config.command() == f"eofm bench ablate {task} --root somewhere"
