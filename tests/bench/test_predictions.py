"""Predictions beside the records: whole, checked against the score, and enough to go on from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eofm.bench.predictions import (
    Archive,
    load_predictions,
    predictions_of,
    request_sha256,
    write_predictions,
)
from eofm.bench.probes import MULTI_LABEL, Scored, Splits, run_probe
from eofm.bench.records import Made, Result, Sample
from eofm.bench.sources import Identity
from eofm.errors import DataError
from eofm.probes import linear, logistic
from eofm.probes.bootstrap import Interval
from eofm.probes.features import Labelled, Scaling
from eofm.probes.metrics import Metric

MODEL = Identity("mine", False, "vit", "a" * 64, "b" * 64, "c" * 64, ("step",), ())
SAMPLE = Sample("set", "given", "ids", "data", 40, 20, 20, True, 0)
IDS = [f"tile-{number}" for number in range(20)]
CLASSES = ("water", "wood", "wheat")


@pytest.fixture
def splits(generator: torch.Generator) -> Splits:
    """Three noisy labels."""

    def draw(count: int) -> Labelled:
        x = torch.randn(count, 5, generator=generator)
        y = (x[:, :3] + torch.randn(count, 3, generator=generator) > 0).long()
        return Labelled(x, y, 3)

    test = draw(20)
    return Splits(draw(40), draw(20), test.x, test.y, torch.arange(40))


def record(scored: Scored, name: str, sha256: str) -> Result:
    """A record of the macro average precision."""
    return Result(
        task="set",
        version="1",
        sample=SAMPLE,
        model=MODEL,
        probe=scored.probe.probe,
        strength=scored.probe.strength,
        gradient_norm=scored.probe.gradient_norm,
        metric=Metric.AP_MACRO,
        value=scored.value(Metric.AP_MACRO),
        interval=Interval(0, 1, 0.95, 10),
        seed=0,
        flags=(),
        made=Made("eofm", "2026", {"eofm": "0"}, "", "cpu", 0, 0, None),
        predictions=name,
        predictions_sha256=sha256,
    )


@pytest.mark.parametrize("kind", ["knn", "nmc", "linear"])
def test_predictions_give_the_same_scores_again(splits: Splits, tmp_path: Path, kind: str) -> None:
    """Every metric, bit for bit, and all that the probe says of itself."""
    scored = run_probe(kind, splits, Scaling.NONE, k=5)
    sha256 = write_predictions(tmp_path / "p", "abc", scored, splits.test_y, IDS, CLASSES)

    found = predictions_of(record(scored, "p/abc.npz", sha256), tmp_path / "r.jsonl")
    again = found.scored(MULTI_LABEL)

    assert tuple(IDS) == found.ids
    assert CLASSES == found.classes
    assert list(scored.metrics) == list(again.metrics)
    assert all(scored.value(m) == again.value(m) for m in scored.metrics)
    for name in ("probe", "strength", "on_edge", "gradient_norm", "validation"):
        assert vars(scored.probe)[name] == vars(again.probe)[name]
    assert scored.spectrum == again.spectrum
    assert (scored.kind, scored.faults()) == (again.kind, again.faults())


def test_the_same_predictions_are_the_same_bytes(splits: Splits, tmp_path: Path) -> None:
    """No time of day in the file: a record's checksum holds for a repeated run."""
    runs = [run_probe("knn", splits, Scaling.NONE, k=5) for _ in range(2)]

    shas = {
        write_predictions(tmp_path / str(i), "x", scored, splits.test_y, IDS, CLASSES)
        for i, scored in enumerate(runs)
    }

    assert 1 == len(shas)


def test_whatever_changes_predictions_changes_the_request() -> None:
    """Model, sample, probe, scaling, k, code: each has a say; the name in tables has not."""

    def of(model: Identity = MODEL, sample: Sample = SAMPLE, kind: str = "knn", k: int = 5) -> str:
        return request_sha256("set 1", sample, model, (kind, "none", k), [linear])

    others = {
        of(replace(MODEL, weights_sha256="d")),
        of(replace(MODEL, plan_sha256="d")),
        of(replace(MODEL, waivers=("w",))),
        of(sample=replace(SAMPLE, data_sha256="d")),
        of(kind="linear"),
        of(k=6),
        request_sha256("set 2", SAMPLE, MODEL, ("knn", "none", 5), [linear]),
        request_sha256("set 1", SAMPLE, MODEL, ("knn", "standard", 5), [linear]),
        request_sha256("set 1", SAMPLE, MODEL, ("knn", "none", 5), [logistic]),
    }

    assert 9 == len(others - {of()})
    assert of() == of(replace(MODEL, name="other"))


def test_predictions_that_are_not_the_records_are_refused(splits: Splits, tmp_path: Path) -> None:
    """Without any, changed, of another score, or torn: each is named."""
    scored = run_probe("knn", splits, Scaling.NONE, k=5)
    sha256 = write_predictions(tmp_path, "x", scored, splits.test_y, IDS, CLASSES)
    good, records = record(scored, "x.npz", sha256), tmp_path / "r.jsonl"
    whole = (tmp_path / "x.npz").read_bytes()

    with pytest.raises(DataError, match="without predictions"):
        predictions_of(replace(good, predictions=""), records)
    with pytest.raises(DataError, match="checksum differs"):
        predictions_of(replace(good, predictions_sha256="0"), records)
    with pytest.raises(DataError, match="another score"):
        predictions_of(replace(good, value=0.123), records)
    for torn in b"PK torn", whole[:-30], b"":
        (tmp_path / "x.npz").write_bytes(torn)
        with pytest.raises(DataError, match="can be read"):
            load_predictions(tmp_path / "x.npz")


@pytest.mark.parametrize("ids", [IDS[:-1], [*IDS[:-1], IDS[0]]])
def test_each_test_sample_is_scored_once(splits: Splits, tmp_path: Path, ids: list[str]) -> None:
    """A lost sample, or one that a loader padded with a copy, is an error."""
    scored = run_probe("knn", splits, Scaling.NONE, k=5)

    with pytest.raises(DataError, match="do not match"):
        write_predictions(tmp_path, "x", scored, splits.test_y, ids, CLASSES)


def test_a_fitted_probe_is_not_fitted_again(
    splits: Splits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the archive come the same scores without the features; damage costs a new fit."""
    metrics = (Metric.AP_MICRO, Metric.AP_MACRO)
    archive = Archive(
        tmp_path / "r.jsonl", "set 1", SAMPLE, tuple(IDS), CLASSES, splits.test_y, metrics
    )
    opened = []

    def score(which: Archive = archive) -> Scored:
        return which.score(MODEL, "linear", Scaling.NONE, 5, lambda: opened.append(1) or splits)

    first, second = score(), score()

    assert 1 == len(opened)
    assert [first.value(m) for m in metrics] == [second.value(m) for m in metrics]
    assert first.predictions == second.predictions
    assert first.predictions_sha256 == second.predictions_sha256
    assert 0 == second.seconds
    (tmp_path / first.predictions).write_bytes(b"torn")
    third = score()
    assert 2 == len(opened)
    assert "fitted again" in capsys.readouterr().err
    assert first.predictions_sha256 == third.predictions_sha256
    other = replace(archive, target=1 - splits.test_y)
    score(other)
    assert 3 == len(opened), "other labels are another task"
