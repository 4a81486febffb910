"""From records to tables, figures, pages and comparisons, through the command line."""

from __future__ import annotations

import csv
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from html_checker import checked

from eofm.bench.config import CompareConfig, RecordsExportConfig, TableConfig
from eofm.bench.predictions import load_predictions
from eofm.bench.records import append_results, read_results, records_file
from eofm.bench.reports.classes import estimates_of, iou_draws
from eofm.bench.reports.compare import compare_models
from eofm.bench.reports.export import export, plot, print_table
from eofm.bench.run import bench
from eofm.cli import main
from eofm.datasets.eurosat import BenchEurosatConfig
from eofm.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def records(eurosat: Path, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of one run: an encoder and band statistics, kNN and nearest mean."""
    folder = tmp_path_factory.mktemp("records")
    bench(
        BenchEurosatConfig(
            str(eurosat),
            model=f"mine={encoder_folder},imagestats",
            probe="knn,nmc",
            controls=False,
            out=str(folder / "results.jsonl"),
            cache=str(folder / "cache"),
            bootstrap=50,
        )
    )
    return folder / "results.jsonl"


def test_every_record_has_its_predictions(records: Path) -> None:
    """Beside the file, with ids and classes, one file per model and probe."""
    found = read_results(records)

    files = {r.predictions for r in found}
    assert 4 == len(files)
    one = load_predictions(records.parent / found[0].predictions)
    assert found[0].sample.n_test == len(one.ids) == len(set(one.ids))
    assert 10 == len(one.classes)


def test_a_table_of_what_is_asked_for(records: Path) -> None:
    """One probe alone; unknown tasks are an error, and a file that is not there too."""
    text = print_table(TableConfig(str(records), probe="nmc")).describe()

    assert "| nearest class mean [1] |" in text
    assert "[1] exact protocol: `nmc[none]`" in text
    assert "kNN" not in text
    with pytest.raises(ConfigError, match="no record matches"):
        print_table(TableConfig(str(records), task="sat6"))
    with pytest.raises(DataError, match="no file of records"):
        print_table(TableConfig(str(records) + "x"))


def test_nonstandard_rows_are_left_out_and_counted(records: Path, tmp_path: Path) -> None:
    """Unless asked for."""
    rows = read_results(records)
    odd = replace(rows[0], flags=("nonstandard: size 32",), seed=9)
    append_results(tmp_path / "r.jsonl", [*rows, odd])

    without = print_table(TableConfig(str(tmp_path / "r.jsonl"))).describe()
    shown = print_table(TableConfig(str(tmp_path / "r.jsonl"), nonstandard=True)).describe()

    assert "left out: 1 nonstandard" in without
    assert "size 32" not in without
    assert "size 32" in shown


def test_figures_and_page_are_written(records: Path, tmp_path: Path) -> None:
    """A PNG per figure; a page that shows them and names each metric; a CSV line per record."""
    config = RecordsExportConfig(str(records), out=str(tmp_path / "deep" / "out"), bootstrap=20)

    drawn = [Path(line) for line in plot(config).describe().splitlines()]
    written = [Path(line) for line in export(config).describe().splitlines()]

    assert 4 == len(drawn)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
    assert ["results.md", "results.csv", "index.html"] == [path.name for path in written]
    page = written[2].read_text()
    assert 4 == page.count("<svg")
    checked(page)
    assert "overall accuracy" in page
    assert "A <strong>subset</strong>" in page
    rows = list(csv.DictReader(written[1].read_text().splitlines()))
    assert [r.value for r in read_results(records)] == [float(row["value"]) for row in rows]


def test_the_page_shows_what_the_table_says(records: Path, tmp_path: Path) -> None:
    """Every cell of the Markdown stands on the page, controls marked; each note stands once."""
    export(RecordsExportConfig(str(records), out=str(tmp_path), bootstrap=20))

    text = (tmp_path / "results.md").read_text()
    shown = " ".join("".join(checked((tmp_path / "index.html").read_text()).text).split())
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| model"):
            for cell in line.strip("|").split("|"):
                assert cell.strip(" *") in shown
    assert 1 == shown.count("percentile bootstrap")
    assert 1 == shown.count("knn[k=5,l2,uniform,none]")


def test_records_without_their_predictions_have_tables_and_a_remark(
    records: Path, tmp_path: Path
) -> None:
    """A file copied alone is exported; where there is nothing to draw, `plot` says what helps."""
    alone = tmp_path / "alone.jsonl"
    alone.write_bytes(records.read_bytes())

    said = export(RecordsExportConfig(str(alone), out=str(tmp_path / "out"))).describe()

    assert "not drawn by class: 4 models and probes" in said
    page = (tmp_path / "out" / "index.html").read_text()
    assert "not drawn by class: 4" in page
    assert "<svg" not in page
    with pytest.raises(DataError, match="records cannot be drawn") as caught:
        plot(RecordsExportConfig(str(alone), out=str(tmp_path)))
    assert "`eofm bench table` needs the records alone" in str(caught.value)
    assert 0 == main(["bench", "table", str(alone)])


@pytest.mark.parametrize("name", ["<script>x</script>", "_a|b", "$x$ \u2028\u202e", "long " * 90])
def test_any_name_of_a_model_is_text(records: Path, tmp_path: Path, name: str) -> None:
    """In table, figures and page: it neither breaks a row nor becomes an element or a formula."""
    rows = [replace(r, model=replace(r.model, name=name)) for r in read_results(records)[:1]]
    (tmp_path / "predictions").symlink_to(records.parent / "predictions")
    append_results(tmp_path / "r.jsonl", rows)

    export(RecordsExportConfig(str(tmp_path / "r.jsonl"), out=str(tmp_path / "out"), bootstrap=5))

    checked((tmp_path / "out" / "index.html").read_text())
    lines = [x for x in (tmp_path / "out/results.md").read_text().splitlines() if x[:2] == "| "]
    assert 2 == len(lines)
    assert 1 == len({line.replace(r"\|", "").count("|") for line in lines})


def test_classes_of_a_segmentation_have_their_overlap() -> None:
    """Intersection over union of all pixels, by a plain loop; an absent class has none."""
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randint(0, 20, (30, 3, 3), generator=generator)
    matrices[:, 2] = 0

    first, second, absent = estimates_of(*iou_draws(matrices, 50, 0, None))

    total = matrices.sum(dim=0).tolist()
    for k, point in enumerate((first, second)):
        union = sum(total[k]) + sum(row[k] for row in total) - total[k][k]
        assert point is not None
        assert point.value == pytest.approx(total[k][k] / union)
        assert point.low < point.value < point.high
    assert absent is None


def test_a_comparison_is_that_of_the_predictions(records: Path) -> None:
    """Difference and interval by a plain paired bootstrap; the plans are told apart."""
    config = CompareConfig("mine", "imagestats", str(records), probe="knn", bootstrap=400)

    outcome = compare_models(config)

    (oa,) = [d for d in outcome.differences if d.one.metric == "oa"]
    one, other = (load_predictions(records.parent / r.predictions) for r in (oa.one, oa.other))
    right = [(p.scores.argmax(dim=1) == p.target).double() for p in (one, other)]
    gap = right[0] - right[1]
    index = torch.randint(len(gap), (4000, len(gap)), generator=torch.Generator().manual_seed(5))
    low, high = torch.quantile(gap[index].mean(dim=1), torch.tensor([0.025, 0.975]).double())
    assert float(gap.mean()) == pytest.approx(oa.one.value - oa.other.value)
    assert float(low) == pytest.approx(oa.interval.low, abs=0.06)
    assert float(high) == pytest.approx(oa.interval.high, abs=0.06)
    text = outcome.describe()
    assert "only in the plan of mine" in text
    assert "paired interval" in text


def test_models_without_common_records_are_not_compared(records: Path, tmp_path: Path) -> None:
    """Unknown names, and other samples, are errors that say what there is."""
    with pytest.raises(ConfigError, match="no record is of this model") as caught:
        compare_models(CompareConfig("mine", "yours", str(records)))
    assert "imagestats" in str(caught.value)
    rows = read_results(records)
    moved = [
        replace(r, sample=replace(r.sample, ids_sha256="x")) if r.model.control else r for r in rows
    ]
    append_results(tmp_path / "r.jsonl", moved)
    with pytest.raises(ConfigError, match="no record of the same task"):
        compare_models(CompareConfig("mine", "imagestats", str(tmp_path / "r.jsonl")))


def test_the_command_line(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The four verbs take the file and end with 0; nonsense ends with 1."""
    assert 0 == main(["bench", "table", str(records)])
    assert "| model " in capsys.readouterr().out
    words = ["mine", "imagestats", "--results", str(records), "--bootstrap", "20"]
    assert 0 == main(["bench", "compare", *words])
    assert 0 == main(["bench", "export", str(records), "--out", str(tmp_path), "--bootstrap", "9"])
    assert (tmp_path / "index.html").is_file()
    assert 1 == main(["bench", "compare", "mine", "mine"])
    assert 1 == main(["bench", "plot", str(records), "--bootstrap", "0"])


@pytest.mark.slow
def test_a_name_without_an_ending_is_a_folder(
    eurosat: Path, encoder_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for other verbs: records and predictions are in it, and every verb reads the folder."""
    out = tmp_path / "b1"
    words = ["eurosat", "--root", str(eurosat), "--model", f"mine={encoder_folder},imagestats"]
    words += ["--probe", "nmc", "--controls", "false", "--bootstrap", "9", "--cache", ""]

    for _ in range(2):  # the second run finds the records of the first
        assert 0 == main(["bench", *words, "--out", str(out)])
    assert "0 new records in" in capsys.readouterr().out

    assert {"results.jsonl", "predictions"} == {p.name for p in out.iterdir() if p.name[0] != "."}
    assert read_results(out / "results.jsonl")
    for verb in ("table", "plot", "export", "validate"):
        assert 0 == main(["bench", verb, str(out)]), verb
    assert (out / "results" / "index.html").is_file()
    compared = ["mine", "imagestats", "--results", str(out), "--bootstrap", "9"]
    assert 0 == main(["bench", "compare", *compared])
    capsys.readouterr()


def test_what_a_name_of_records_means(tmp_path: Path) -> None:
    """A file is a file, with an ending or, of earlier versions, without; all else is a folder."""
    (tmp_path / "old").touch()
    (tmp_path / "v1.2").mkdir()

    assert tmp_path / "old" == records_file(str(tmp_path / "old"))
    assert tmp_path / "new.jsonl" == records_file(str(tmp_path / "new.jsonl"))
    assert tmp_path / "new/results.jsonl" == records_file(str(tmp_path / "new"))
    assert tmp_path / "v1.2/results.jsonl" == records_file(str(tmp_path / "v1.2"))
    assert tmp_path / "v1.3/results.jsonl" == records_file(f"{tmp_path / 'v1.3'}/")


@pytest.mark.slow
def test_a_file_without_an_ending_is_still_read(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Versions before wrote `--out b` as a file: it has a page, beside it and not inside it."""
    old = tmp_path / "b 1"
    old.write_bytes(records.read_bytes())
    (tmp_path / "predictions").symlink_to(records.parent / "predictions")

    assert 0 == main(["bench", "export", str(old), "--bootstrap", "9"])
    assert 0 == main(["bench", "plot", str(old), "--bootstrap", "9"])
    assert (tmp_path / "b 1-report" / "index.html").is_file()
    capsys.readouterr()

    words = ["bench", "export", str(old), "--bootstrap", "9"]
    assert 1 == main([*words, "--out", str(old)])
    said = capsys.readouterr().err
    assert "go into a folder, and this is a file" in said
    remedy = re.search(r"name a folder: (--out .*)", said)
    assert remedy is not None
    assert 0 == main([*words, *shlex.split(remedy[1])])
