"""The figures at the end of a run show its numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from eofm.probes.bootstrap import Interval
from eofm.train.evaluate import ProbeOutputs, ProbeScore, ScoreIntervals, intervals, own_starts
from eofm.train.report.result import principal_plane, verdict_of


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
