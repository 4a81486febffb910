"""The measurement of training beside busy processes, at a small size: it is run by hand."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "speed" / "busy.py"


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with one way to wait, on a machine of one core."""
    spec = importlib.util.spec_from_file_location("busy", SCRIPT)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    monkeypatch.setattr(module, "POLICIES", {"passive": {"OMP_WAIT_POLICY": "PASSIVE"}})
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    return module


@pytest.mark.slow
def test_busy_prints_steps_per_second_of_every_way_to_wait(
    busy: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Alone and beside a busy process, which has ended when it is done."""
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *words: object, **options: object) -> None:
            super().__init__(*words, **options)  # type: ignore[arg-type]
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)

    busy.main(["--seconds", "0.05", "--rounds", "1"])

    head, _, row = capsys.readouterr().out.splitlines()
    assert "| how threads wait | alone | beside 1 busy processes |" == head
    name, alone, beside = (cell.strip() for cell in row.strip("|").split("|"))
    assert "passive" == name
    assert float(alone.split()[0]) > 0 < float(beside.split()[0])
    assert 3 == len(started)
    assert all(one.poll() is not None for one in started)


def test_what_is_measured_is_not_what_this_process_was_told(
    busy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy that is set here is not inherited, and that of the row is."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen: list[dict[str, str]] = []

    def run(words: list[str], env: dict[str, str], **options: object) -> object:
        seen.append(env)
        return subprocess.CompletedProcess(words, 0, stdout="2.5\n")

    monkeypatch.setattr(busy.subprocess, "run", run)

    assert 2.5 == busy.rate({}, 1.0, busy=0) == busy.rate({"GOMP_SPINCOUNT": "1"}, 1.0, busy=0)
    assert not {"OMP_WAIT_POLICY", "OMP_NUM_THREADS"} & set(seen[0])
    assert "1" == seen[1]["GOMP_SPINCOUNT"]
