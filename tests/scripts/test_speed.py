"""The timing scripts take steps of today's trainer, and report where they are told to."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from eofm.train.config import DataConfig, ModelConfig, OptimConfig, PretrainConfig, SoftConConfig

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    """The script, found as it finds the others."""
    monkeypatch.syspath_prepend(str(SPEED))
    return importlib.import_module(request.param)


@pytest.mark.parametrize("script", ["pretrain_step"], indirect=True)
def test_a_step_is_timed_from_memory_and_from_the_store(script: ModuleType, tmp_path: Path) -> None:
    """The step calls what the trainer calls; its views take a part of its time."""
    store = script.write_store(tmp_path / "store", 4, 36)
    config = PretrainConfig(
        data=DataConfig(store=str(store.path), holdout=0.0),
        model=ModelConfig(architecture="vit-tiny-14", size=28),
        method=SoftConConfig(hidden=16, dim=8),
        optim=OptimConfig(batch=2),
    )
    stepper = script.Stepper(store, config)

    for batch in (stepper.fixed, stepper.load()):
        whole, views = stepper.step(batch)
        assert 0 < views < whole
    stepper.data.close()


@pytest.mark.parametrize("script", ["timing"], indirect=True)
def test_a_report_is_appended_or_written_anew(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--table` is appended to and left out of the printed command; `--out` is replaced."""
    words = ["--rounds", "2", "--table", str(tmp_path / "t.md")]
    monkeypatch.setattr(sys, "argv", ["anywhere/feeding.py", *words])
    appended = script.speed_parser("About.\n\nMore.", 5, append=True).parse_args(words)
    written = script.speed_parser("About.", 5).parse_args(["--out", str(tmp_path / "o.md")])
    for given in (appended, written, argparse.Namespace()):
        for _ in range(2):
            script.report("text", given)

    assert "`python benchmarks/speed/feeding.py --rounds 2`" == script.command()
    assert "text\ntext\n" == (tmp_path / "t.md").read_text()
    assert "text" == (tmp_path / "o.md").read_text()
