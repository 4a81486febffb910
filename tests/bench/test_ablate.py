"""What another size or normalisation costs: the own row is the plain run, others are marked."""

from __future__ import annotations

from pathlib import Path

import pytest

from eofm.bench.ablate import Ablation, bench_ablate
from eofm.bench.config import BenchEurosatConfig
from eofm.bench.export import print_table
from eofm.bench.report_config import AblateConfig, TableConfig
from eofm.bench.run import bench
from eofm.cli import main
from eofm.errors import ConfigError


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
        ({"size": ""}, "a size is a number"),
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
