"""Ten strengths by eofm's solver against one scikit-learn fit, on the same synthetic features.

Features and labels are synthetic (ill-conditioned, as those of networks are; noisy linear labels):
the script compares solvers, not encoders. In every round eofm sweeps ten strengths from strong to
weak penalty, then scikit-learn fits one of them, class by class. Rounds alternate the two; medians
and their ratio are printed and written as Markdown.

    python benchmarks/speed/linear_probe.py [--rounds 3] [--out benchmarks/results/...]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from timing import command, report, speed_parser
from torch import Tensor

from eofm.probes.logistic import Eigenbasis, Loss, Solution, fit_logistic
from eofm.probes.metrics import average_precision

STRENGTHS = tuple(10 ** (-3 + i * 5 / 9) for i in range(10))
COMPARED = 6  # index of the strength that scikit-learn fits: C = 2.15


def features(samples: int, dims: int, generator: torch.Generator) -> Tensor:
    """Ill-conditioned features: deviations fall from 3 to 0.03 over rotated directions."""
    turn, _ = torch.linalg.qr(torch.randn(dims, dims, generator=generator))
    x = torch.randn(samples, dims, generator=generator) * torch.logspace(0.5, -1.5, dims)
    return x @ turn + 1


def labels(x: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """Noisy linear labels, from frequent to rare."""
    logit = (x - x.mean(dim=0)) @ torch.randn(x.shape[1], classes, generator=generator)
    logit = 2 * logit / logit.std(dim=0) - torch.linspace(0.5, 4, classes)
    return (torch.rand(logit.shape, generator=generator) < logit.sigmoid()).long()


def sweep(x: Tensor, y: Tensor) -> list[Solution]:
    """Fit all strengths, each started from the last two, as `linear_probe` does."""
    basis, path = Eigenbasis.of(x), list[Solution]()
    for strength in STRENGTHS:
        start = None if not path else path[-1].theta
        if len(path) > 1:
            start = 2 * path[-1].theta - path[-2].theta
        path.append(fit_logistic(basis, y, Loss.BINARY, strength, start=start, tolerance=1e-5))
    return path


def objective(weight: Tensor, bias: Tensor, x: Tensor, y: Tensor, strength: float) -> float:
    """Return the sum over classes of the objective that both minimise, float64."""
    logits = x.double() @ weight + bias
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, y.double(), reduction="none"
    )
    return float(loss.mean(dim=0).sum() + weight.square().sum() / (2 * strength * len(x)))


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Return wall seconds and what `work` returned."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def main() -> None:
    """Run the rounds and print the table."""
    parser = speed_parser(__doc__, 3)
    parser.add_argument("--samples", type=int, default=31_000)
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--test", type=int, default=12_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    generator = torch.Generator().manual_seed(0)
    everything = features(given.samples + given.test, given.dims, generator)
    target = labels(everything, given.classes, generator)
    x, test = everything[: given.samples], everything[given.samples :]
    y, test_y = target[: given.samples], target[given.samples :]
    strength = STRENGTHS[COMPARED]
    plain_x, plain_y = x.double().numpy(), y.numpy()

    ours_s, theirs_s = [], []
    for _ in range(given.rounds):
        seconds, path = timed(lambda: sweep(x, y))
        ours_s.append(seconds)
        model = OneVsRestClassifier(LogisticRegression(C=strength, max_iter=3000))
        seconds, _ = timed(lambda model=model: model.fit(plain_x, plain_y))  # type: ignore[misc]
        theirs_s.append(seconds)
    mine = path[COMPARED]  # type: ignore[index]
    coefficients = np.stack([one.coef_[0] for one in model.estimators_], axis=1)
    intercepts = np.array([one.intercept_[0] for one in model.estimators_])
    weight, bias = torch.from_numpy(coefficients), torch.from_numpy(intercepts)
    ours_f = objective(mine.weight, mine.bias, x, y, strength)
    theirs_f = objective(weight, bias, x, y, strength)
    ours_ap = average_precision(mine.scores(test), test_y)
    theirs_ap = average_precision(test.double() @ weight + bias, test_y)

    ours, theirs = statistics.median(ours_s), statistics.median(theirs_s)
    lines = [
        f"# Linear probe: {given.samples} x {given.dims} synthetic features, "
        f"{given.classes} labels",
        "",
        f"{command()}, {given.threads} threads, median of {given.rounds} interleaved rounds.",
        "",
        "| | seconds | objective at C = 2.15 | ap_macro | ap_micro |",
        "|---|---:|---:|---:|---:|",
        f"| eofm, ten strengths | {ours:.2f} | {ours_f:.9f} | {ours_ap.macro:.6f} | "
        f"{ours_ap.micro:.6f} |",
        f"| scikit-learn OneVsRest(LogisticRegression), one strength | {theirs:.2f} | "
        f"{theirs_f:.9f} | {theirs_ap.macro:.6f} | {theirs_ap.micro:.6f} |",
        "",
        f"One fit over ten: {theirs / ours:.2f} times as long. Objective minus theirs: "
        f"{ours_f - theirs_f:+.1e}. |difference| of ap_macro "
        f"{abs(ours_ap.macro - theirs_ap.macro):.1e}, "
        f"of ap_micro {abs(ours_ap.micro - theirs_ap.micro):.1e}.",
        "",
    ]
    report("\n".join(lines), given)


if __name__ == "__main__":
    main()
