"""What another size or normalisation costs: the own row is the plain run, others are marked."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eofm.bench.candidates import normalized, statistics, suitable
from eofm.bench.config import BenchConfig, RecordsExportConfig, TableConfig, ValidateConfig
from eofm.bench.reports.export import plot, print_table
from eofm.bench.reports.tables import size_curves
from eofm.bench.reports.validate import validate
from eofm.bench.run import BenchReport, bench
from eofm.bench.samples import limited, load
from eofm.cli import main
from eofm.contract.imagery import Imagery, collate
from eofm.contract.preprocess import Preprocess, plan
from eofm.contract.recipe import waivers_for
from eofm.datasets.base import Loaded
from eofm.datasets.eurosat import BenchEurosatConfig
from eofm.datasets.images.chips import Chip, read_batches
from eofm.datasets.registry import FAMILIES, TASKS
from eofm.datasets.so2sat import BenchSo2SatConfig, H5Pixels
from eofm.errors import ConfigError, SpecMismatch
from eofm.weights.encoder import Encoder


def settings(root: Path, folder: Path, model: Path, **options: object) -> BenchEurosatConfig:
    """Settings whose files lie in `folder`."""
    given = {
        "out": str(folder / "a.jsonl"),
        "cache": str(folder / "cache"),
        "bootstrap": 30,
        "probe": "knn",
        "controls": False,
        "size": "own,50",
        "normalization": "own,zscore,two-sigma,divide10000",
    }
    return BenchEurosatConfig(str(root), model=f"mine={model}", **{**given, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cells(
    eurosat: Path, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> BenchReport:
    """Two sizes, four normalisations."""
    return bench(settings(eurosat, tmp_path_factory.mktemp("inputs"), encoder_folder))


def test_only_the_own_input_is_standard(cells: BenchReport) -> None:
    """Every other row says what was changed, as a waiver and in its flag, and of which model."""
    by_name = {r.model.name: r for r in cells.results}

    assert 8 == len(by_name)
    assert not by_name["mine"].model.waivers
    odd = by_name["mine 56 px zscore"]
    size = "AcceptSize(size=(56, 56))"
    assert f"nonstandard: {size}, normalization zscore for the recipe's" == odd.flags[0]
    assert ("mine", "zscore") == (odd.of, odd.normalization)
    marked = [name for name, r in by_name.items() if r.flags and "nonstandard" in r.flags[0]]
    assert 7 == len(marked)
    assert 8 == len({r.model.plan_sha256 for r in by_name.values()})


def test_the_own_row_is_that_of_a_plain_run(
    cells: BenchReport, eurosat: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    """Other inputs beside it change nothing of what a model reaches by its own."""
    config = settings(eurosat, tmp_path, encoder_folder, size="", normalization="")

    plain = {r.metric: r.value for r in bench(config).results}

    assert plain == {r.metric: r.value for r in cells.results if r.model.name == "mine"}


def test_the_constants_are_those_of_the_training_split(cells: BenchReport) -> None:
    """The plan of a z-scored row divides by the deviation of each training band."""
    (row,) = {r.model.plan for r in cells.results if r.model.name == "mine 28 px zscore"}

    assert any("training split, 40 images" in step for step in row)


def test_the_table_has_a_cell_for_each_input(cells: BenchReport) -> None:
    """Normalisations down, sizes across, the own input in bold; the subset is called one."""
    text = cells.describe()

    assert "| model | 28 px | 56 px |" in text
    assert "| mine | **" in text
    for rule in ("zscore", "two-sigma", "divide10000"):
        assert f"| mine, {rule} | " in text
    assert "**subset**" in text
    oa, aa = size_curves(cells.results)
    assert ("oa", "aa") == (oa.metric, aa.metric)
    assert {"mine": 28} == oa.own


def test_records_of_other_inputs_can_be_plotted_and_validated(
    cells: BenchReport, tmp_path: Path
) -> None:
    """By the verbs of all other records."""
    figures = plot(RecordsExportConfig(str(cells.out), out=str(tmp_path)))

    assert "-size.png" in figures.describe()
    checked = validate(ValidateConfig(str(cells.out)))
    assert not checked.status, checked.describe()


def test_tables_of_results_leave_other_inputs_out(cells: BenchReport) -> None:
    """Of eight rows one is standard."""
    out = str(cells.out)

    assert 1 == print_table(TableConfig(out)).describe().count("| mine")
    shown = print_table(TableConfig(out, nonstandard=True)).describe()
    assert 2 == shown.count("| mine, zscore | ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "big"}, "a size is a number"),
        ({"normalization": "magic"}, "no such normalisation"),
        ({"shares": "10"}, "the labels or the input"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, options: dict[str, str], message: str) -> None:
    """Before anything is read."""
    with pytest.raises(ConfigError, match=message):
        settings(tmp_path, tmp_path, tmp_path, **options)


def test_an_encoder_of_another_sensor_is_refused(
    eurosat: Path, radar_folder: Path, tmp_path: Path
) -> None:
    """Nothing else may differ than what is changed on purpose."""
    with pytest.raises(SpecMismatch, match="another sensor"):
        bench(settings(eurosat, tmp_path, radar_folder))


def test_the_verb_of_old_names_the_new_options(capsys: pytest.CaptureFixture[str]) -> None:
    """`eofm bench ablate [TASK]` is refused in one message, with the verb of now."""
    assert 2 == main(["bench", "ablate", "so2sat", "--root", "x"])
    assert "eofm bench so2sat --root DIR" in capsys.readouterr().err
    assert 2 == main(["bench", "ablate"])
    refused = capsys.readouterr().err
    assert 2 == refused.count("remedy:")
    assert "eofm bench eurosat --config FILE" in refused


@pytest.mark.slow
def test_the_commands_that_the_verb_of_old_prints_run(
    eurosat: Path, encoder_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command of the message runs as it is printed."""
    assert 2 == main(["bench", "ablate"])
    remedy, of_a_file = capsys.readouterr().err.split("remedy:")[1:]
    filled = {"DIR": str(eurosat), "MODEL": f"mine={encoder_folder}", "32,64,128": "own"}
    words = [filled.get(word, word) for word in remedy.split()[1:]]
    files = ["--out", str(tmp_path / "x.jsonl"), "--cache", "", "--bootstrap", "9"]
    files += ["--limit", "20"]

    assert 0 == main([*words, *files, "--controls", "false"])
    assert "| mine, zscore | " in re.sub(" +", " ", capsys.readouterr().out)
    (tmp_path / "old.yaml").write_text(
        f"root: {eurosat}\nmodel: mine={encoder_folder}\nsize: own\nnormalization: auto\n"
        "probe: knn\ncontrols: false\n"
    )
    assert "eofm bench eurosat --config FILE" in of_a_file
    assert 0 == main(["bench", "eurosat", "--config", str(tmp_path / "old.yaml"), *files])
    assert "0 new records" in capsys.readouterr().out
    shown = ["bench", "plot", str(tmp_path / "x.jsonl"), "--nonstandard", "true"]
    assert " ".join(["eofm", *shown]).replace(shown[2], "RESULTS") in of_a_file
    assert 0 == main(shown)


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
    config = BenchSo2SatConfig(
        str(so2sat),
        model=f"mine={encoder_folder}",
        version="v2",
        size="own,56",
        normalization="auto",
        probe="knn",
        k=1,
        controls=False,
        out=str(tmp_path / "a.jsonl"),
        cache=str(tmp_path / "c"),
    )

    results = bench(config).results

    rules = ["zscore", "two-sigma", "minmax", "divide10000"]
    expected = ["mine", *(f"mine 28 px {r}" for r in rules), "mine 56 px"]
    expected += [f"mine 56 px {r}" for r in rules]
    assert expected == list(dict.fromkeys(r.model.name for r in results))
    assert 68 == len(seen)
    assert {1} == set(seen.values()) - {2}  # the first tells how much room all of them need
    for result in results:
        assert 3 == sum("FillBand" in waiver for waiver in result.model.waivers)
    own, odd = (
        next(r for r in results if r.model.name == name) for name in ("mine", "mine 28 px minmax")
    )
    assert not any(flag.startswith("nonstandard") for flag in own.flags)
    assert "nonstandard: normalization minmax for the recipe's" in odd.flags
    assert any("insert B01 = 0" in step for step in odd.model.plan)


def train_of(so2sat: Path) -> tuple[Loaded, tuple[Chip, ...]]:
    """The task, and its training images."""
    loaded = load(BenchSo2SatConfig(str(so2sat), version="v2"))
    chips = limited(loaded, None).splits["train"]
    return loaded, tuple(chip for chip in chips if isinstance(chip, Chip))


def test_constants_of_the_training_split(so2sat: Path) -> None:
    """Mean, deviation, least and largest value of every band: those of NumPy over all pixels."""
    _, train = train_of(so2sat)

    found = statistics(read_batches(train, 7), len(train))

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
    loaded, train = train_of(so2sat)
    spec = loaded.task.spec
    constants = statistics(read_batches(train, 64), len(train))
    recipe = normalized(encoder.recipe, "minmax", spec, lambda: constants)
    waivers = waivers_for(spec, recipe, loaded.task.waivers)
    step = Preprocess(plan(spec, replace(recipe, size=(32, 32)), waivers))

    pixels = step(collate([chip.pixels[0].read() for chip in train])).pixels

    low, high = pixels.amin((0, 2, 3)), pixels.amax((0, 2, 3))
    there = [band in spec.bands for band in recipe.bands]
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


def test_every_task_of_whole_images_takes_other_inputs() -> None:
    """`--size` and `--normalization` are options of each, and repeat themselves."""
    for family, benchmark in FAMILIES.items():
        if issubclass(benchmark.settings, BenchConfig):
            config = benchmark.settings("somewhere", size="32", normalization="auto")
            said = "--root somewhere --size 32 --normalization auto"
            own = " --sensor s2-l1c --unit dn" * benchmark.own
            assert config.command() == f"eofm bench {family} {said}{own}"
