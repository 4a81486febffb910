"""Time of a whole step: tokens dropped against dense, SoftCon against MoCo-v3 of lightly's parts.

    pip install --no-deps lightly lightly_utils
    python benchmarks/speed/step.py [--architecture vits14] [--batch 8] [--rounds 5]

Three things take turns in one process, at each share of dropped tokens: forward and backward of
the student's network alone; a whole SoftCon step (two views, both directions, teacher, both terms,
optimiser, moving average); and the same step of MoCo-v3 (arXiv 2104.02057), which has no soft
term, written with the parts that lightly offers for it. Both have the same network (timm's ViT),
widths of heads, number of kept tokens and optimiser; views are random numbers in memory. What is
printed are medians and ratios of medians; with `--out` they become a table in Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Final

import numpy as np
import timm
import torch
from lightly.models.modules import MaskedVisionTransformerTIMM
from lightly.models.modules.heads import ProjectionHead
from lightly.models.utils import deactivate_requires_grad, random_token_mask, update_momentum
from timing import DEVICE, command, conditions, now, run, step_parser
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW

from eofm import method as softcon
from eofm.contract.imagery import Labels
from eofm.networks.vit import build_vit
from eofm.train.optimizer import parameter_groups

RATIOS: Final = (0.0, 0.25, 0.5, 0.75)
BANDS: Final = 13
HIDDEN: Final = 4096
DIM: Final = 256
TAU: Final = 0.2
TIMM: Final = {"vits14": "vit_small_patch14_dinov2", "vitb14": "vit_base_patch14_dinov2"}

Views = tuple[Tensor, Tensor]


class SoftConStep:
    """eofm's step, with both terms."""

    def __init__(self, architecture: str, size: int, ratio: float) -> None:
        generator = torch.Generator().manual_seed(0)
        trunk = build_vit(architecture, BANDS, (size, size), generator)
        settings = softcon.SoftConConfig(mask_ratio=ratio, hidden=HIDDEN, dim=DIM, tau=TAU)
        self.method = softcon.SoftCon(trunk, settings, generator).to(DEVICE).train()
        groups = parameter_groups(self.method.named_parameters(), 0.1)
        self.optimizer = AdamW(groups, 1e-4, fused=True)
        self.masks = torch.Generator().manual_seed(0)
        self.ratio = ratio

    def whole(self, views: Views, labels: Labels) -> None:
        """Take one step."""
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            loss = self.method(views, labels, self.masks).loss
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        softcon.update_teacher(self.method.teacher, self.method.student, 0.99)

    def student(self, views: Views) -> None:
        """Forward and backward of the student's network alone, of one view."""
        trunk = self.method.student.trunk
        keep = softcon.keep_tokens(len(views[0]), trunk.tokens, self.ratio, self.masks)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            out = trunk(views[0], None if keep is None else keep.to(DEVICE))
        out.float().square().mean().backward()


class LightlyStep:
    """MoCo-v3 as lightly's documentation composes such methods, in both directions."""

    def __init__(self, architecture: str, size: int, ratio: float) -> None:
        self.student, self.teacher = (self._branch(architecture, size) for _ in range(2))
        self.teacher.load_state_dict(self.student.state_dict())
        deactivate_requires_grad(self.teacher)
        self.predictor = ProjectionHead(
            [
                (DIM, HIDDEN, nn.BatchNorm1d(HIDDEN), nn.ReLU()),
                (HIDDEN, DIM, nn.BatchNorm1d(DIM, affine=False), None),
            ]
        ).to(DEVICE)
        self.student.train()
        self.teacher.train()
        parameters = [*self.student.parameters(), *self.predictor.parameters()]
        self.optimizer = AdamW(parameters, 1e-4, weight_decay=0.1, fused=True)
        self.ratio = ratio

    def _branch(self, architecture: str, size: int) -> nn.ModuleDict:
        vit = timm.create_model(TIMM[architecture], in_chans=BANDS, img_size=size, num_classes=0)
        width = vit.embed_dim
        head = ProjectionHead(
            [
                (width, HIDDEN, nn.BatchNorm1d(HIDDEN), nn.ReLU()),
                (HIDDEN, HIDDEN, nn.BatchNorm1d(HIDDEN), nn.ReLU()),
                (HIDDEN, DIM, nn.BatchNorm1d(DIM, affine=False), None),
            ]
        )
        network = MaskedVisionTransformerTIMM(vit, pos_embed_initialization="skip")
        return nn.ModuleDict({"network": network, "head": head}).to(DEVICE)

    def _query(self, view: Tensor) -> Tensor:
        network = self.student["network"]
        keep = None
        if self.ratio:
            size = (len(view), network.sequence_length)
            keep, _ = random_token_mask(size, self.ratio, device=view.device)
        out: Tensor = self.predictor(self.student["head"](network(view, idx_keep=keep)))
        return functional.normalize(out.float(), dim=1)

    def _key(self, view: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = self.teacher["head"](self.teacher["network"](view))
        return functional.normalize(out.float(), dim=1)

    def whole(self, views: Views, labels: Labels) -> None:
        """Take one step; the labels are not used."""
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            pairs = [(self._query(views[0]), self._key(views[1]))]
            pairs.append((self._query(views[1]), self._key(views[0])))
        own = torch.arange(len(views[0]), device=views[0].device)
        losses = [2 * TAU * functional.cross_entropy(q @ k.T / TAU, own) for q, k in pairs]
        loss = losses[0] + losses[1]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        update_momentum(self.student, self.teacher, 0.99)


def timed(call: Callable[[], None]) -> float:
    """Return the seconds of a call."""
    began = now()
    call()
    return now() - began


def measure(given: argparse.Namespace) -> list[dict[str, float]]:
    """Time everything in turn; return a row per share of dropped tokens."""
    generator = torch.Generator().manual_seed(1)
    shape = (given.batch, BANDS, given.size, given.size)
    views = tuple(torch.rand(shape, generator=generator).to(DEVICE) for _ in range(2))
    hot = (torch.rand(given.batch, 9, generator=generator) < 0.4).float()
    hot[:, 0] = 1
    labels = Labels(hot.to(DEVICE), torch.ones(given.batch, dtype=torch.bool, device=DEVICE))
    ours = {r: SoftConStep(given.architecture, given.size, r) for r in RATIOS}
    peers = {r: LightlyStep(given.architecture, given.size, r) for r in RATIOS}
    times: dict[tuple[str, float], list[float]] = {}
    for turn in range(given.rounds + 1):
        for ratio in RATIOS:
            for name, call in (
                ("student", lambda r=ratio: ours[r].student(views)),
                ("softcon", lambda r=ratio: ours[r].whole(views, labels)),
                ("lightly", lambda r=ratio: peers[r].whole(views, labels)),
            ):
                seconds = timed(call)
                if turn:  # the first turn warms up
                    times.setdefault((name, ratio), []).append(seconds)
    median = {key: float(np.median(values)) for key, values in times.items()}
    return [
        {
            "dropped": ratio,
            "student_s": median["student", ratio],
            "student_times_dense": median["student", 0.0] / median["student", ratio],
            "step_s": median["softcon", ratio],
            "step_times_dense": median["softcon", 0.0] / median["softcon", ratio],
            "lightly_over_softcon": median["lightly", ratio] / median["softcon", ratio],
        }
        for ratio in RATIOS
    ]


def table(rows: list[dict[str, float]], given: argparse.Namespace) -> str:
    """Return the Markdown."""
    lines = [
        "# Time of a step",
        "",
        f"{conditions(given, BANDS)}; medians of "
        f"{given.rounds} rounds in turn; random numbers in memory.",
        "",
        "| tokens dropped | student alone, s | x dense | SoftCon step, s | x dense "
        "| MoCo-v3 step of lightly's parts / SoftCon step |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| {row['dropped']:.0%} | {row['student_s']:.3f} | {row['student_times_dense']:.2f} "
            f"| {row['step_s']:.3f} | {row['step_times_dense']:.2f} "
            f"| {row['lightly_over_softcon']:.2f} |"
        )
    return "\n".join([*lines, "", command(), ""])


def main() -> None:
    """Measure and print."""
    parser = step_parser(__doc__, TIMM)
    run(parser.parse_args(), measure, table)


if __name__ == "__main__":
    main()
