"""The files of numbers: a record that survives kills, and a view of it for spreadsheets."""

from __future__ import annotations

import csv
from collections import deque
from pathlib import Path

import pytest
from rich.console import Console

from eofm.errors import ConfigError
from eofm.train.config import MonitorConfig
from eofm.train.distributed import Stopped
from eofm.train.monitor.run_log import FAILURE, RowFile, RunLog, make_writers, read_rows
from eofm.train.monitor.throughput import Bar, Lines, ThroughputReading, _Mark, remember

READING = ThroughputReading(1, 8, 30, 360, 2.5, 48.0, 0.01, 220.0)


def table(path: Path) -> list[dict[str, str]]:
    """The CSV beside a file of rows."""
    with path.with_suffix(".csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_csv_says_what_the_record_says(tmp_path: Path) -> None:
    """A name that appears later is a new column, empty before; nothing is lost."""
    path = tmp_path / "metrics.jsonl"
    file = RowFile(path)
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5, "lr": 0.1}, {"step": 3, "lr": 0.2}]

    for row in rows:
        file.write(row)

    assert rows == read_rows(path)
    assert ["", "0.1", "0.2"] == [row["lr"] for row in table(path)]
    assert ["2.0", "1.5", ""] == [row["loss"] for row in table(path)]


def test_a_resumed_run_takes_its_steps_once(tmp_path: Path) -> None:
    """Rows after the checkpoint and half a line go; from step 0 all rows go."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 3, "lo')
    file = RowFile(path)

    file.begin(1)
    file.write({"step": 2, "loss": 2.5})

    assert [(1, 3.0), (2, 2.5)] == [(row["step"], row["loss"]) for row in read_rows(path)]
    assert ["3.0", "2.5"] == [row["loss"] for row in table(path)]
    file.begin(0)
    assert [] == read_rows(path)


def test_a_damaged_row_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A changed digit was a value like any other; rows of version 0.1 have no checksum."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3.0}\n')
    file = RowFile(path)
    rows = [{"step": step, "loss": 0.5 * step} for step in (2, 3, 4)]
    for row in rows:
        file.write(row)
    for place in range(path.read_bytes().index(b"1.5"), path.read_bytes().index(b"1.5") + 3):
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        other = tmp_path / f"changed-{place}.jsonl"
        other.write_bytes(data)

        assert [1, 2, 4] == [row["step"] for row in read_rows(other)]
        assert f"{other}: damaged and left out: line 3" in capsys.readouterr().err
    assert [1, 2, 3, 4] == [row["step"] for row in read_rows(path)]
    other.write_bytes(path.read_bytes() + path.read_bytes()[-60:])  # of a copy gone wrong
    assert [1, 2, 3, 4] == [row["step"] for row in read_rows(other)]
    assert "left out: line" in capsys.readouterr().err
    assert set(rows[0]) == set(read_rows(path)[1])
    path.write_bytes(path.read_bytes()[:-9])  # a killed run
    assert [1, 2, 3] == [row["step"] for row in read_rows(path)]
    assert not capsys.readouterr().err


def test_a_failure_is_written_down_and_forgotten_when_the_run_goes_on(tmp_path: Path) -> None:
    """What ended the run is a file; SIGTERM is named; the next start removes it."""
    journal = RunLog(tmp_path)
    journal.fail(ConfigError("no", found="this"), 7)
    error = (tmp_path / FAILURE).read_text()
    journal.fail(Stopped(15, 8), 8)
    stopped = (tmp_path / FAILURE).read_text()
    journal.begin(8)

    assert '"problem": "no"' in error
    assert "found:    this" in error
    assert "stopped by SIGTERM" in stopped
    assert not (tmp_path / FAILURE).exists()


def test_lines_wait_until_they_are_due(capsys: pytest.CaptureFixture[str]) -> None:
    """A log gets a line now and then: scenes per second, waiting, time left."""
    Lines().show(READING, due=False)
    assert "" == capsys.readouterr().err
    Lines().show(READING, due=True)

    shown = capsys.readouterr()
    text = shown.err
    assert "" == shown.out  # stdout is for results
    assert "48 scenes/s, 1% waiting for data, 3:40 left" in text


def test_the_bar_shows_the_same(tmp_path: Path) -> None:
    """On a terminal a bar has loss, rate, waiting, time left; and it can be closed twice."""
    with (tmp_path / "terminal").open("w") as file:
        bar = Bar(Console(file=file, force_terminal=True, width=140))
        bar.show(READING, due=False)
        bar.close()
        bar.close()

    text = (tmp_path / "terminal").read_text()
    for words in ("1/8", "30/360", "loss 2.500", "48 scenes/s", "1% waiting for data", "3:40 left"):
        assert words in text


def test_the_time_left_follows_the_rate_of_the_last_minute() -> None:
    """100 steps of a second, then steps of ten: after a minute of them the window has no other."""
    begin = _Mark(0.0, 0, 0, 0.0, 0.0)
    recent, time, found = deque([begin]), 0.0, []
    for step in range(1, 121):
        time += 1.0 if step <= 100 else 10.0
        first = remember(recent, _Mark(time, step, 8 * step, 0.0, 0.0))
        found.append((time - first.time) / (step - first.step))

    assert [1.0] * 100 == found[:100]
    assert all(1.0 < rate < 10.0 for rate in found[100:105])
    assert [10.0] * 14 == found[106:]
    assert len(recent) <= 61


def test_loggers_are_named_and_known() -> None:
    """An unknown logger is refused when the settings are read."""
    assert ("tensorboard", "wandb") == MonitorConfig(loggers="tensorboard, wandb").writers
    assert () == MonitorConfig().writers
    with pytest.raises(ConfigError, match=r"monitor\.loggers"):
        MonitorConfig(loggers="mlflow")


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_logger_that_is_not_installed_is_one_clear_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the extra to install, and says that the CSV is there anyway."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(ConfigError, match=f"{name} is not installed") as caught:
        make_writers((name,), tmp_path, {})
    assert f"eofm[{name}]" in str(caught.value)
    assert "metrics.csv" in str(caught.value)


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    """Every value of a row is a scalar of its step, in event files of the run."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (writer,) = make_writers(("tensorboard",), tmp_path, {})
    writer.begin(0)
    writer.write({"step": 3, "epoch": 0, "loss": 1.5, "monitor/knn": 0.25})
    writer.sync()
    writer.close()

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"loss", "monitor/knn"} == set(events.Tags()["scalars"])
    assert [(3, 1.5)] == [(e.step, e.value) for e in events.Scalars("loss")]


def test_wandb_works_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, rows go into the run's own folder; a run that goes on has the same identity."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")

    for step in (0, 1):
        (writer,) = make_writers(("wandb",), tmp_path, {"optim": {"lr": 0.1}})
        writer.begin(step)
        writer.write({"step": step + 1, "epoch": 0, "loss": 1.5})
        writer.close()

    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    assert 1 == len({run.name.rsplit("-", 1)[1] for run in runs})
