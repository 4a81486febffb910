"""Killed, out of disk, resumed, on a cluster: the table is the one of an undisturbed run."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from no_locks import refuse

from eofm.errors import ConfigError, LabelError
from eofm.landcover import jobs
from eofm.landcover.config import LabelsConfig
from eofm.landcover.run import LabelReport, write_labels

WINDOWS = {"window": 8, "stride": 4, "batch": 49}


def label(path: Path, out: Path, **options) -> LabelReport:
    """Label the windows of a map in many batches."""
    given = {**WINDOWS, **options}
    return write_labels(LabelsConfig([str(path)], "dynamic-world", str(out), **given))


@pytest.fixture
def path(tmp_path: Path, write_tif) -> Path:
    """A map with about 2,400 windows."""
    codes = np.random.default_rng(0).integers(0, 9, (200, 200)).astype(np.uint8)
    return write_tif(tmp_path / "m.tif", codes)


# Each batch takes a little longer than it needs, so that a kill falls somewhere in the middle.
_SLOW = """
import sys, time
from eofm.cli import main
from eofm.landcover import (jobs, run)
run.save_figure = lambda _: None
whole = jobs.WindowJob.run
def slowly(job):
    time.sleep(0.02)
    return whole(job)
jobs.WindowJob.run = slowly
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_killed(path: Path, tmp_path: Path) -> None:
    """Killed at random points, run after run, it ends in the bytes of an undisturbed run."""
    label(path, tmp_path / "calm.parquet")
    out, chance = tmp_path / "l.parquet", random.Random(7)
    words = ["labels", str(path), "--scheme", "dynamic-world", "--out", str(out), "--resume"]
    words += [word for key, value in WINDOWS.items() for word in (f"--{key}", str(value))]
    parts = out.with_name(out.name + ".parts")
    kept = [0]
    for _ in range(4):
        run = subprocess.Popen([sys.executable, "-c", _SLOW, *words], stdout=subprocess.PIPE)
        wanted = kept[-1] + chance.randint(1, 6)
        while run.poll() is None and len(list(parts.glob("*.parquet"))) < wanted:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.03)
        run.kill()
        run.communicate()
        assert not out.exists()
        kept.append(len(list(parts.glob("*.parquet"))))

    report = label(path, out, resume=True)

    assert sorted(set(kept)) == kept  # every run went on where the last one was killed
    assert 0 < report.done < report.rows
    assert (tmp_path / "calm.parquet").read_bytes() == out.read_bytes()
    assert not parts.exists()


@pytest.mark.slow
def test_workers_end_with_their_parent(path: Path, tmp_path: Path) -> None:
    """When the command is killed, its worker processes do not live on."""
    script = _SLOW.replace(
        "jobs.WindowJob.run = slowly",
        "jobs.WindowJob.run = slowly\nif __name__ != '__main__': pass",
    )
    file = tmp_path / "slow.py"
    file.write_text(script.replace("sys.exit(", "if __name__ == '__main__': sys.exit("))
    words = ["labels", str(path), "--scheme", "dynamic-world", "--out", str(tmp_path / "l.parquet")]
    words += ["--window", "8", "--stride", "1", "--batch", "50", "--workers", "2"]
    run = subprocess.Popen([sys.executable, str(file), *words])
    parts = tmp_path / "l.parquet.parts"
    while run.poll() is None and not list(parts.glob("*.parquet")):
        time.sleep(0.01)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    workers = children.read_text().split() if children.exists() else []
    run.kill()
    run.wait()

    for _ in range(500):
        alive = [w for w in workers if Path(f"/proc/{w}/cmdline").exists()
                 and b"spawn_main" in Path(f"/proc/{w}/cmdline").read_bytes()]  # fmt: skip
        if not alive:
            break
        time.sleep(0.02)
    assert [] == alive


def test_nothing_is_overwritten(path: Path, tmp_path: Path) -> None:
    """A table that is there is kept; --resume finds it complete; other settings are refused."""
    out = tmp_path / "l.parquet"
    label(path, out)
    before = out.read_bytes()

    with pytest.raises(ConfigError, match="something already"):
        label(path, out)
    again = label(path, out, resume=True)
    with pytest.raises(ConfigError, match="another one") as caught:
        label(path, out, resume=True, threshold=0.1)

    assert "nothing was counted" in again.describe()
    assert "settings" in str(caught.value.found)
    assert before == out.read_bytes()


def test_parts_of_another_run(path: Path, tmp_path: Path, monkeypatch) -> None:
    """Parts of other settings, or of a map that has changed since, are not gone on with."""
    out = tmp_path / "l.parquet"
    _break_after(3, monkeypatch)
    with pytest.raises(LabelError, match="made up"):
        label(path, out)
    monkeypatch.undo()
    monkeypatch.setattr("eofm.landcover.run.save_figure", lambda _: None)

    with pytest.raises(ConfigError, match="something already"):
        label(path, out)
    with pytest.raises(ConfigError, match="another one"):
        label(path, out, resume=True, batch=500)
    path.touch()
    with pytest.raises(ConfigError, match="another one") as caught:
        label(path, out, resume=True)

    assert "maps" in str(caught.value.found)
    assert json.loads((tmp_path / "l.parquet.parts/run.json").read_text())


def _break_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, done = jobs.WindowJob.run, []

    def run(job: jobs.WindowJob) -> object:
        done.append(job)
        if len(done) > batches:
            raise LabelError("made up")
        return whole(job)

    monkeypatch.setattr(jobs.WindowJob, "run", run)


def test_two_at_once(path: Path, tmp_path: Path, monkeypatch) -> None:
    """A second process cannot write the same table."""
    out, whole = tmp_path / "l.parquet", jobs.WindowJob.run

    def run(job: jobs.WindowJob) -> object:
        with pytest.raises(LabelError, match="another process"):
            label(path, out, resume=True)
        return whole(job)

    monkeypatch.setattr(jobs.WindowJob, "run", run)
    label(path, out, batch=10_000)

    assert out.exists()


_SMALL_DISK = """
import resource, signal, sys
from eofm.cli import main
from eofm.landcover import (run)
run.save_figure = lambda _: None
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, resource.RLIM_INFINITY))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_full_disk(path: Path, tmp_path: Path) -> None:
    """When nothing more can be written, that is said, and a re-run finishes the same table."""
    label(path, tmp_path / "calm.parquet")
    out = tmp_path / "l.parquet"
    words = ["labels", str(path), "--scheme", "dynamic-world", "--out", str(out)]
    words += ["--window", "8", "--stride", "4", "--batch", "50"]

    run = subprocess.run(
        [sys.executable, "-c", _SMALL_DISK, *words], capture_output=True, text=True, check=False
    )
    assert 1 == run.returncode
    assert "could not be written" in run.stderr
    assert "--resume" in run.stderr
    assert not out.exists()

    label(path, out, resume=True, batch=50)

    assert (tmp_path / "calm.parquet").read_bytes() == out.read_bytes()


def test_on_a_dask_cluster(path: Path, tmp_path: Path) -> None:
    """On a Dask cluster the table has the same bytes; without a scheduler there is one error."""
    distributed = pytest.importorskip("distributed")
    label(path, tmp_path / "calm.parquet")
    options = {
        "n_workers": 1,
        "threads_per_worker": 2,
        "processes": False,
        "dashboard_address": None,
    }
    with distributed.LocalCluster(**options, protocol="tcp") as cluster:
        label(path, tmp_path / "dask.parquet", dask=cluster.scheduler_address)

    assert (tmp_path / "calm.parquet").read_bytes() == (tmp_path / "dask.parquet").read_bytes()


def test_no_dask(path: Path, tmp_path: Path, monkeypatch) -> None:
    """Without Dask the error says what to install."""
    monkeypatch.setitem(sys.modules, "distributed", None)

    with pytest.raises(ConfigError) as caught:
        label(path, tmp_path / "l.parquet", dask="tcp://127.0.0.1:1")

    assert "eofm[dask]" in str(caught.value.remedy)
    assert not (tmp_path / "l.parquet.parts").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="has no such locks")
def test_on_a_disk_without_locks(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on some network disks, where a second run would not be noticed."""
    calm = label(path, tmp_path / "calm.parquet")
    monkeypatch.setattr("fcntl.flock", refuse)
    assert calm.rows == label(path, tmp_path / "l.parquet").rows
    assert (tmp_path / "calm.parquet").read_bytes() == (tmp_path / "l.parquet").read_bytes()
