"""Every settings file we ship is complete, strict, and says what it costs."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import pytest
import yaml

from eofm.cli import parse
from eofm.train.config import DEMO, PretrainConfig

ROOT = Path(__file__).parent.parent / "configs"
FILES = sorted(ROOT.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_settings_file_parses_and_is_complete(path: Path) -> None:
    """Nothing is inherited: every key of every group stands in the file, and no other."""
    content = yaml.safe_load(path.read_text())

    made = parse("pretrain", ["--config", str(path)])

    assert isinstance(made, PretrainConfig)
    for group in fields(PretrainConfig):
        assert set(asdict(PretrainConfig())[group.name]) == set(content[group.name]), group.name


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_settings_file_says_what_it_costs(path: Path) -> None:
    """The head comment names expected result and cost, and admits what was not measured."""
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]

    text = " ".join(head).lower()
    assert "expected result" in text
    assert "cost" in text


def test_the_default_file_is_the_default() -> None:
    """`eofm pretrain` and `eofm pretrain --config configs/pretrain/default.yaml` are one run.

    It is the demo: the defaults of Python with small heads, small images and more epochs.
    """
    made = parse("pretrain", ["--config", str(ROOT / "pretrain" / "default.yaml")])

    assert parse("pretrain", []) == made
    assert DEMO == made
