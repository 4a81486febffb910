"""Records: written once, read back whole, never contradicted; and the tables made of them."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from no_locks import refuse

from eofm.bench.records import Made, Result, Sample, append_results, read_results
from eofm.bench.reports.tables import table
from eofm.bench.sources import Identity
from eofm.errors import DataError
from eofm.probes.bootstrap import Interval

MODEL = Identity("mine", False, "vit, epoch 3", "a" * 64, "b" * 64, "c" * 64, ("step",), ())
RESULT = Result(
    task="eurosat",
    version="1",
    sample=Sample("EuroSAT MS", "given", "ids", "data", 171, 45, 54, False, 0),
    model=MODEL,
    probe="knn[k=5,l2,uniform,none]",
    strength=None,
    gradient_norm=None,
    metric="oa",
    value=0.8125,
    interval=Interval(0.7, 0.9, 0.95, 1000),
    seed=0,
    flags=(),
    made=Made("eofm bench eurosat", "2026-01-01", {"eofm": "0.1.0"}, "", "cpu", 1.5, 0.5, None),
)


def test_a_record_survives_the_file(tmp_path: Path) -> None:
    """What is read is what was written, field by field."""
    rich = replace(
        RESULT,
        strength=0.1,
        gradient_norm=1e-9,
        flags=("below imagestats",),
        model=replace(MODEL, waivers=("AcceptSize(...)",)),
    )

    append_results(tmp_path / "deep" / "results.jsonl", [RESULT, rich])

    assert [RESULT, rich] == read_results(tmp_path / "deep" / "results.jsonl")


def test_the_same_score_is_written_once(tmp_path: Path) -> None:
    """A repeated run adds nothing, whenever and wherever it ran."""
    path = tmp_path / "results.jsonl"
    later = replace(RESULT, made=replace(RESULT.made, utc="2027-01-01", probe_seconds=9.0))

    assert 1 == append_results(path, [RESULT])
    assert 0 == append_results(path, [later])
    assert [RESULT] == read_results(path)


@pytest.mark.parametrize(
    "other",
    [
        replace(RESULT, metric="aa"),
        replace(RESULT, probe="knn[k=5,l2,uniform,standard]"),
        replace(RESULT, seed=1),
        replace(RESULT, version="2"),
        replace(RESULT, sample=replace(RESULT.sample, ids_sha256="others")),
        replace(RESULT, sample=replace(RESULT.sample, data_sha256="other bytes")),
        replace(RESULT, model=replace(MODEL, weights_sha256="d" * 64)),
        replace(RESULT, model=replace(MODEL, plan_sha256="e" * 64)),
        replace(RESULT, model=replace(MODEL, waivers=("FillBand(...)",))),
    ],
)
def test_what_determines_a_score_is_in_its_key(other: Result) -> None:
    """Another task version, sample, model, plan, waiver, probe or seed is another record."""
    assert RESULT.key != other.key


def test_a_contradiction_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    """The same thing cannot have two scores; the new ones beside it are not written either."""
    path = tmp_path / "results.jsonl"
    append_results(path, [RESULT])
    before = path.read_bytes()

    with pytest.raises(DataError, match="conflicting duplicate") as caught:
        append_results(path, [replace(RESULT, seed=7), replace(RESULT, value=0.83)])

    assert before == path.read_bytes()
    assert "0.812500" in str(caught.value)
    assert "0.830000" in str(caught.value)


def test_an_edited_record_is_noticed(tmp_path: Path) -> None:
    """Whoever changes what was scored, and keeps the key, is found out."""
    path = tmp_path / "results.jsonl"
    append_results(path, [RESULT])
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))

    with pytest.raises(DataError, match="was edited") as caught:
        read_results(path)

    assert "line 1" in str(caught.value)


@pytest.mark.parametrize("tail", ['{"key": "x", "task"', "[]", "{}", "5"])
def test_a_torn_or_foreign_line_is_named(tmp_path: Path, tail: str) -> None:
    """A crash in the middle of a line loses no other line, and is not read as a score."""
    path = tmp_path / "results.jsonl"
    append_results(path, [RESULT])
    with path.open("a") as file:
        file.write(tail)

    with pytest.raises(DataError, match="no result") as caught:
        append_results(path, [replace(RESULT, seed=1)])

    assert "line 2" in str(caught.value)
    assert path.read_text().endswith(tail)


def test_many_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    """Eight runs that append at once leave eight whole records and no duplicate."""
    path = tmp_path / "results.jsonl"
    runs = [[replace(RESULT, seed=seed), RESULT] for seed in range(8)]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda run: append_results(path, run), runs))

    assert list(range(8)) == sorted(result.seed for result in read_results(path))


def test_results_that_cannot_be_written_say_so(tmp_path: Path) -> None:
    """A folder in place of the file ends in one clear error."""
    with pytest.raises(DataError, match="cannot be written"):
        append_results(tmp_path, [RESULT])


def test_lines_are_plain_json(tmp_path: Path) -> None:
    """Any tool reads them; the key is beside its content."""
    append_results(tmp_path / "r.jsonl", [RESULT])

    line = json.loads((tmp_path / "r.jsonl").read_text())

    assert RESULT.key == line["key"]
    assert 0.8125 == line["value"]
    assert "mine" == line["model"]["name"]


# ------------------------------------------------------------------------------- tables


def rows_of(text: str) -> list[list[str]]:
    """The cells of a Markdown table."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_has_a_row_per_model_and_probe() -> None:
    """Metrics stand side by side with their intervals, controls in italics."""
    control = replace(MODEL, name="imagestats", control=True, weights_sha256="")
    linear = replace(RESULT, probe="linear[...]", strength=0.01)
    results = [
        RESULT,
        replace(RESULT, metric="aa", value=0.5, interval=Interval(0.4, 0.6, 0.95, 1000)),
        linear,
        replace(RESULT, model=control),
    ]

    rows = rows_of(table(results))

    assert [
        "model",
        "probe",
        "overall accuracy, %",
        "95 % interval",
        "average accuracy, %",
        "95 % interval",
        "strength C",
        "notes",
    ] == rows[0]
    assert ["mine", "kNN (k = 5, Euclidean) [1]", "81.2", "70.0 – 90.0"] == rows[2][:4]
    assert ["50.0", "40.0 – 60.0", "", ""] == rows[2][4:]
    assert ["mine", "linear probe [2]", "81.2", "70.0 – 90.0", "", "", "0.01", ""] == rows[3]
    assert "*imagestats*" == rows[4][0]
    assert 5 == len(rows)
    assert {8} == {len(row) for row in rows}


def test_the_table_says_what_a_reader_must_know() -> None:
    """Subset, copies, command, origin of the weights, waivers with reasons, flags explained."""
    marked = replace(
        RESULT,
        sample=replace(RESULT.sample, copies=2),
        model=replace(MODEL, waivers=("AcceptSize: native size",)),
        flags=("below imagestats",),
    )

    text = table([marked, replace(marked, metric="aa", flags=())])

    assert "**subset** of 270 images" in text
    assert "2 test samples are copies" in text
    assert "`eofm bench eurosat`" in text
    assert "mine: vit, epoch 3; weights sha256 aaaaaaaaaaaa" in text
    assert "below imagestats (overall accuracy); [2]" in text
    assert "[2] waiver: AcceptSize: native size" in text
    assert "[1] exact protocol: `knn[k=5,l2,uniform,none]`" in text
    assert "**overall accuracy** (`oa`): share of samples whose class is right" in text
    assert "interval of the difference" in text


def test_a_whole_data_set_is_not_called_a_subset() -> None:
    """And what needs no remark gets none."""
    whole = replace(RESULT, sample=replace(RESULT.sample, complete=True))

    text = table([whole])

    assert "subset" not in text
    assert "copies" not in text
    assert "below" not in text


def test_one_test_sample_has_no_interval() -> None:
    """A point is no interval; the table says why there is none."""
    lonely = replace(RESULT, sample=replace(RESULT.sample, n_test=1))

    text = table([lonely])

    assert "none" == rows_of(text)[2][3]
    assert "With one there is no interval" in text
    assert "One test sample" not in table([RESULT])


def test_samples_are_never_mixed_in_one_table() -> None:
    """Another split or another subset gets a table of its own."""
    other = replace(RESULT, sample=replace(RESULT.sample, split="spatial", ids_sha256="more"))

    text = table([RESULT, other])

    assert 2 == text.count("| model |")
    assert "split `spatial`" in text


@pytest.mark.skipif(sys.platform == "win32", reason="locks files otherwise")
def test_records_are_appended_on_a_disk_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on some network disks: the benchmark has run for hours, and its records are kept."""
    monkeypatch.setattr("fcntl.flock", refuse)
    assert 1 == append_results(tmp_path / "r.jsonl", [RESULT])
    assert [RESULT] == read_results(tmp_path / "r.jsonl")
