"""The figures at the end of a run show its numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrain_settings import with_groups
from sklearn.decomposition import PCA

from eofm.cli import main
from eofm.probes.bootstrap import Interval
from eofm.train.config import PretrainConfig
from eofm.train.evaluate import ProbeOutputs, ProbeScore, ScoreIntervals, intervals, own_starts
from eofm.train.result import principal_plane, verdict_of
from eofm.train.run import pretrain


def test_the_principal_plane_is_scikit_learns(generator: torch.Generator) -> None:
    """Up to sign, the coordinates are those of PCA on the L2-normalised embeddings."""
    x = torch.randn(40, 12, generator=generator) * torch.arange(1, 13)

    ours = principal_plane(x)

    unit = torch.nn.functional.normalize(x.double(), dim=1).numpy()
    theirs = PCA(2).fit_transform(unit)
    assert np.allclose(np.abs(ours), np.abs(theirs), atol=1e-9)
    assert (ours[np.abs(ours).argmax(axis=0), [0, 1]] > 0).all()


def scored(name: str, linear: float, knn: float) -> ProbeScore:
    """Return the scores of an encoder."""
    return ProbeScore(name, linear, linear, knn, knn, (linear,), 8)


def sure(linear: tuple[float, float] | None, knn: tuple[float, float] | None) -> ScoreIntervals:
    """Return intervals of which only those of the gains matter."""
    gains = [None if each is None else Interval(*each, 0.95, 1000) for each in (linear, knn)]
    return ScoreIntervals(Interval(0, 1, 0.95, 1000), Interval(0, 1, 0.95, 1000), *gains)


@pytest.mark.parametrize(
    ("linear", "knn", "words"),
    [
        ((0.01, 0.05), (0.01, 0.03), "is better than its start: linear probe +3.0 [+1.0, +5.0]"),
        (
            (0.01, 0.05),
            (-0.01, 0.03),
            "is, compared with its start, better by linear probe and not shown to differ by "
            "nearest neighbours: linear probe +3.0 [+1.0, +5.0]",
        ),
        ((-0.01, 0.05), (0.00, 0.03), "is not shown to be better than its start"),
        ((-0.05, -0.01), (-0.03, -0.01), "is worse than its start"),
        ((-0.05, -0.01), (-0.01, 0.03), "worse by linear probe and not shown to differ by nearest"),
        ((-0.05, -0.01), (0.01, 0.03), "worse by linear probe and better by nearest neighbours"),
    ],
)
def test_the_verdict_says_what_the_intervals_allow(
    linear: tuple[float, float], knn: tuple[float, float], words: str
) -> None:
    """A gain is one only where its interval leaves out zero."""
    scores = [scored("initialisation", 0.60, 0.50), scored("student", 0.63, 0.51)]

    assert words in verdict_of(scores, [sure(None, None), sure(linear, knn)])


def test_each_student_is_compared_with_its_own_start() -> None:
    """Of two sensors the second student's gain is over the second initialisation."""
    names = ("initialisation", "student", "initialisation s1-grd", "student s1-grd")
    scores = [scored(n, v, v) for n, v in zip(names, (0.6, 0.7, 0.3, 0.35), strict=True)]
    gains = [sure(None, None), sure((0, 1), (0, 1))] * 2
    target = torch.tensor([[1, 0], [0, 1]] * 20)
    noise = torch.randn(40, 2, generator=torch.Generator().manual_seed(1))
    good = target + 0.1 * noise
    votes = [
        ProbeOutputs(n, v, v, 2) for n, v in zip(names, (good, good, noise, good), strict=True)
    ]
    made = intervals(votes, target, [str(i) for i in range(40)])

    assert "student s1-grd is not shown to be better than its start: linear probe +5.0" in (
        verdict_of(scores, gains)
    )
    assert [0, 0, 2, 2] == own_starts(names)
    assert made[2].linear_gain is None
    assert made[3].linear_gain is not None
    assert made[3].linear_gain.low > 0.1  # over noise; over the first start it would be 0
    assert made[1].linear_gain == Interval(0, 0, 0.95, 1000)


_SPAN = re.compile(r"\[[-+\d.]+, [-+\d.]+\]")


def told(out: Path) -> dict[str, str]:
    """Return what a run says in its own files and on its page."""
    assert 0 == main(["report", str(out)])
    page = (out / "report.html").read_text(encoding="utf-8")
    page = page[page.index("<h2>Result</h2>") : page.index("<h2>Training</h2>")]
    return {
        "report.md": (out / "report.md").read_text(encoding="utf-8"),
        "results.json": str(json.loads((out / "results.json").read_text())["verdict"]),
        "report.html": re.sub(r"<[^>]*>", "", page),
    }


@pytest.mark.parametrize(
    ("places", "holdout"), [(30, "0.4"), pytest.param(12, None, marks=pytest.mark.slow)]
)
def test_few_places_give_no_interval_and_no_verdict(
    places: int,
    holdout: str | None,
    config: PretrainConfig,
    make_store: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Everything that is said of three held-out places says so, and names what helps: it does."""
    out = tmp_path / "few"
    store = make_store(tmp_path / "store", locations=places)
    config = with_groups(
        config,
        data={"store": str(store), "holdout": 3 / places},
        optim={"epochs": 1},
        monitor={"every_epochs": 0},
        run={"out": str(out)},
    )

    said = {"terminal": pretrain(config).describe(), **told(out)}

    for where, text in said.items():
        assert "No verdict: the scored scenes are of" in text, where
        assert "cannot tell a gain from chance" in text, where
        assert not _SPAN.search(text), where
    assert [] == json.loads((out / "results.json").read_text())["intervals"]
    named = re.search(r"`(--data.holdout) ([\d.]+)`", said["terminal"])
    assert named is not None
    if holdout is None:
        assert "pack scenes of 24 places or more" in said["terminal"]
        store = make_store(tmp_path / "more", locations=24, unlabelled=0)
    else:
        assert holdout == named[2]
    command = ["pretrain", "--config", str(out / "config.yaml"), "--run.out", str(tmp_path / "b")]
    assert 0 == main([*command, "--data.store", str(store), *named.groups()])
    said = told(tmp_path / "b")
    for where in ("report.md", "report.html"):
        assert _SPAN.search(said[where]), where
    assert "compared with its start" in said["report.md"] or "its start: " in said["report.md"]
    capsys.readouterr()


def test_intervals_need_six_places() -> None:
    """Forty scenes of one place or of five have none; of six they have."""
    target = torch.tensor([[1, 0], [0, 1]] * 20)
    votes = [ProbeOutputs(n, target.double(), target.double(), 2) for n in ("initialisation", "s")]

    assert [] == intervals(votes, target, ["one"] * 40)
    assert [] == intervals(votes, target, [str(i % 5) for i in range(40)])
    assert 2 == len(intervals(votes, target, [str(i % 6) for i in range(40)]))
