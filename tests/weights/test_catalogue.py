"""`eofm models list | info | download | verify`, from the command line."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from eofm.cli import main
from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.spec import Normalization, Sensor, Unit
from eofm.weights.cards import WEIGHTS
from eofm.weights.encoder import random_encoder, save_encoder

BODY = b"weights " * 1000
NAME = "softcon_vits14_s1"
FILE = WEIGHTS[NAME].filename


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of one command."""
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def published(host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A host that serves one card's file, and an empty folder of downloads."""
    url = host.put(FILE, BODY)
    card = replace(WEIGHTS[NAME], url=url, sha256=hashlib.sha256(BODY).hexdigest())
    monkeypatch.setitem(WEIGHTS, NAME, card)
    monkeypatch.setenv("EOFM_WEIGHTS", str(tmp_path / "cache"))
    return tmp_path


def test_list(capsys: pytest.CaptureFixture[str], published: Path) -> None:
    """One row per card, for one sensor or all; JSON is the whole cards."""
    code, out, _ = run(capsys, "models", "list")
    assert 0 == code
    assert all(name in out for name in WEIGHTS)

    _, out, _ = run(capsys, "models", "list", "--sensor", "s1-grd", "--json")
    cards = json.loads(out)
    assert {c.name for c in WEIGHTS.values() if c.recipe.sensor == "s1-grd"} == {
        card["name"] for card in cards
    }
    mine = next(card for card in cards if card["name"] == NAME)
    assert WEIGHTS[NAME].recipe == Recipe.from_dict(mine["recipe"])
    assert ["torchgeo-zscore"] == list(mine["alternatives"])
    assert None is mine["file"]


def test_info(capsys: pytest.CaptureFixture[str], published: Path) -> None:
    """Recipe in words, sources, licence, scores as published; an alternative shows its own."""
    code, out, _ = run(capsys, "models", "info", NAME)

    assert 0 == code
    for part in ("CC-BY-4.0", "2405.20462", "as published", "80.3", "clipped to 0..1", "not here"):
        assert part in out
    assert WEIGHTS[NAME].sha256 in out
    _, other, _ = run(capsys, "models", "info", f"{NAME}@torchgeo-zscore")
    assert "clipped" not in other.partition("what it expects")[2].partition("constants")[0]
    code, _, err = run(capsys, "models", "info", "softcon_vits15_s1")
    assert 1 == code
    assert f"did you mean {NAME}" in err


def test_download_then_offline(
    capsys: pytest.CaptureFixture[str],
    published: Path,
    host,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file fetched into a folder is found there without network, and `info` says where."""
    folder = published / "stick"
    code, out, _ = run(capsys, "models", "download", NAME, "--to", str(folder))
    assert 0 == code
    assert out.startswith(str(folder / FILE))
    assert "as published" in out

    monkeypatch.setenv("EOFM_OFFLINE", "1")
    monkeypatch.setenv("EOFM_WEIGHTS", str(folder))
    assert 0 == run(capsys, "models", "download", NAME)[0]
    assert str(folder / FILE) in run(capsys, "models", "info", NAME)[1]
    row = next(line for line in run(capsys, "models", "list")[1].splitlines() if NAME in line)
    assert row.endswith("yes")
    assert 1 == len(host.asked)
    assert 1 == run(capsys, "models", "download", "softcon_vits14_s2")[0]


def test_verify_downloads(capsys: pytest.CaptureFixture[str], published: Path, host) -> None:
    """Good files are listed; a changed one, record or not, is status 1 and named."""
    folder = published / "stick"
    run(capsys, "models", "download", NAME, "--to", str(folder))
    trusted = WEIGHTS["dino_rn50"].filename
    (folder / "notes.txt").write_text("mine")
    code, out, _ = run(capsys, "models", "verify", str(folder))
    assert (0, f"{FILE}: ok\n") == (code, out)

    (folder / trusted).write_bytes(BODY)  # no hash published, none recorded
    code, _, err = run(capsys, "models", "verify", str(folder))
    assert 1 == code
    assert f"{trusted}: no hash" in err
    assert f"{FILE}: ok" in err

    (folder / trusted).unlink()
    (folder / FILE).write_bytes(BODY[::-1])
    code, _, err = run(capsys, "models", "verify", str(folder))
    assert 1 == code
    assert "1 of 1 files" in err
    assert f"{FILE}: the file is not the published one" in err


def test_verify_an_export(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Weights, card and programs of an export are compared; one flipped bit is status 1."""
    bands = ("VV", "VH")
    norm = Normalization.divide(1.0, 2, "test")
    recipe = Recipe(Sensor.S1_GRD, bands, Unit.DB, (28, 28), norm, pooling=Pooling.CLS)
    save_encoder(random_encoder("vit-tiny-14", recipe, 0), tmp_path)
    program = tmp_path / "encoder.pt2"
    program.write_bytes(b"program")
    digest = hashlib.sha256(b"program").hexdigest()
    (tmp_path / "preprocess.json").write_text(
        json.dumps({"programs": {"encoder.pt2": {"sha256": digest}}})
    )
    code, out, _ = run(capsys, "models", "verify", str(tmp_path))
    assert (0, 2) == (code, out.count(": ok"))

    program.write_bytes(b"another")
    code, _, err = run(capsys, "models", "verify", str(tmp_path))
    assert 1 == code
    assert "encoder.pt2: the file is not" in err

    weights = tmp_path / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    code, _, err = run(capsys, "models", "verify", str(tmp_path))
    assert 1 == code
    assert "the weights are not those the card describes" in err


@pytest.mark.parametrize("content", [None, "notes.txt"])
def test_verify_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str | None
) -> None:
    """A folder in which nothing can be compared has not been verified."""
    if content:
        (tmp_path / content).write_text("mine")

    code, _, err = run(capsys, "models", "verify", str(tmp_path if content else tmp_path / "none"))

    assert 1 == code
    assert "expected" in err or "no such folder" in err
