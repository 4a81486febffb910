"""Time and memory of a step of each term, alone and with SoftCon, beside dense MoCo-v3.

    python benchmarks/speed/terms.py [--architecture vits14] [--batch 8] [--rounds 5] [--terms mim]

All objectives take turns in one process, on the same network and random numbers as views, with the
default settings of every term and optimiser and moving average included. MoCo-v3 is the hard term
of SoftCon with no token dropped. Memory is what a step keeps for its way back (activations, counted
on any device), and on a GPU also the most that was allocated. What is printed are medians and their
ratios; with `--out` they become a table in Markdown.

Version 0.1 has SoftCon alone, which `versions.py` compares.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from timing import DEVICE, command, conditions, run, step_parser
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import AdamW

from eofm.contract.imagery import Labels
from eofm.method import CombinedTerms, LabelFacts, SoftConConfig, update_teacher
from eofm.method.terms import term_names
from eofm.method.terms.seam import TeacherKind, ViewKind, find_term
from eofm.networks.joint import share_trunk
from eofm.networks.vit import ARCHITECTURES, build_vit
from eofm.train.optimizer import parameter_groups

OPTICAL, RADAR, CLASSES = 13, 2, 9
DENSE: Final = "MoCo-v3, dense"
_MIB: Final = 2**20


class FrozenTrunk(nn.Module):
    """A frozen teacher as large as the student, with random weights: it costs as much."""

    def __init__(self, architecture: str, bands: int, size: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.trunk = build_vit(architecture, bands, (size, size), generator).requires_grad_(False)
        self.dim = self.trunk.dim

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the vectors, (B, D)."""
        vectors: Tensor = self.trunk(pixels)
        return vectors


def settings_of(name: str, hidden: int) -> SoftConConfig:
    """Return the method of a line: dense MoCo-v3, or the terms whose names a plus joins.

    Args:
        name: Of the line.
        hidden: Hidden width of SoftCon's heads.
    """
    if name == DENSE:
        return SoftConConfig(objective="moco", mask_ratio=0.0, hidden=hidden)
    chosen: dict[str, object] = {}
    for term in name.split(" + "):
        frozen = find_term(term).needs.teacher is TeacherKind.FROZEN
        chosen[term] = {"weight": 1, "teacher": "random"} if frozen else 1
    return SoftConConfig(terms=chosen, hidden=hidden)


@dataclass(frozen=True)
class Step:
    """A step of an objective.

    Args:
        method: The objective with its networks.
        optimizer: Of its trained parameters.
        views: Two views, (B, C, S, S) each.
    """

    method: CombinedTerms
    optimizer: AdamW
    views: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, name: str, given: argparse.Namespace) -> Step:
        """Make the networks of a line."""
        size, generator = (given.size, given.size), torch.Generator().manual_seed(0)
        config = settings_of(name, given.hidden)
        names = [choice.name for choice in config.chosen]
        sensors = any(find_term(each).needs.views is ViewKind.SENSORS for each in names)
        trunk = build_vit(given.architecture, OPTICAL, size, generator)
        bands = (OPTICAL, RADAR) if sensors else (OPTICAL, OPTICAL)
        whole = trunk
        if sensors:
            other = build_vit(given.architecture, RADAR, size, generator)
            whole = share_trunk({"optical": trunk, "radar": other})

        def frozen(_: str) -> FrozenTrunk:
            return FrozenTrunk(given.architecture, OPTICAL, given.size)

        made = CombinedTerms(whole, config, generator, LabelFacts(CLASSES), frozen=frozen)
        made.to(DEVICE).train()
        optimizer = AdamW(parameter_groups(made.named_parameters(), 0.1), 1e-4, fused=True)
        views = [torch.rand(given.batch, c, *size, generator=generator).to(DEVICE) for c in bands]
        return cls(made, optimizer, (views[0], views[1]))

    def take(self, labels: Labels, masks: torch.Generator) -> None:
        """Take it."""
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            loss = self.method(self.views, labels, masks).loss
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.method.teacher is not None:
            update_teacher(self.method.teacher, self.method.student, 0.99)


def kept_by(step: Step, labels: Labels) -> int:
    """Return the bytes that a step keeps for its way back, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in step.method.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(count, lambda tensor: tensor):
        step.take(labels, torch.Generator().manual_seed(0))
    return sum(kept.values())


def timed(step: Step, labels: Labels, masks: torch.Generator) -> float:
    """Return the seconds of a step, once the device has caught up.

    Of one thread of a CPU they are processor time, which other programs lengthen less.
    """
    clock = time.process_time if _of_processor() else time.perf_counter
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    began = clock()
    step.take(labels, masks)
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return clock() - began


def _of_processor() -> bool:
    """Return whether times are processor time: of one thread, and nothing on a GPU."""
    return DEVICE == "cpu" and torch.get_num_threads() == 1


def measure(given: argparse.Namespace) -> list[dict[str, object]]:
    """Time all objectives in turn; return a row for each."""
    names = [DENSE, "softcon"]
    for term in given.terms:
        names += [term] if term == "softcon" else [term, f"softcon + {term}"]
    generator = torch.Generator().manual_seed(1)
    hot = (torch.rand(given.batch, CLASSES, generator=generator) < 0.4).float()
    hot[:, 0] = 1
    known, places = torch.ones(given.batch, dtype=torch.bool), torch.arange(given.batch)
    labels = Labels(hot.to(DEVICE), known.to(DEVICE), places=places.to(DEVICE))
    steps = {name: Step.of(name, given) for name in dict.fromkeys(names)}
    kept, peaks = {}, {}
    for name, step in steps.items():  # the first steps warm up as well
        if DEVICE == "cuda":
            torch.cuda.reset_peak_memory_stats()
        kept[name] = kept_by(step, labels)
        peaks[name] = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else None
    times: dict[str, list[float]] = {name: [] for name in steps}
    masks = torch.Generator().manual_seed(2)
    for _ in range(given.rounds):
        for name, step in steps.items():
            times[name].append(timed(step, labels, masks))
    return [
        {
            "objective": name,
            "step_s": float(np.median(times[name])),
            "times_dense": float(np.median(times[name]) / np.median(times[DENSE])),
            "kept_mib": kept[name] / _MIB,
            "kept_times_dense": kept[name] / kept[DENSE],
            "peak_mib": None if peaks[name] is None else peaks[name] / _MIB,
        }
        for name in steps
    ]


def _words() -> str:
    return ", processor time" if _of_processor() else ""


def table(rows: list[dict[str, object]], given: argparse.Namespace) -> str:
    """Return the Markdown."""
    lines = [
        "# Time and memory of each term",
        "",
        f"{conditions(given, OPTICAL)}; default settings, heads {given.hidden} wide; "
        f"medians of {given.rounds} rounds in turn{_words()}; random numbers in memory. All "
        "networks lie in memory at once, so the most that was allocated is to be compared, not "
        "read by itself.",
        "",
        "| objective | step, s | x dense MoCo-v3 | kept for the way back, MiB | x dense MoCo-v3 "
        "| most allocated, MiB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        lines.append(
            f"| {row['objective']} | {row['step_s']:.3f} | {row['times_dense']:.2f} "
            f"| {row['kept_mib']:.0f} | {row['kept_times_dense']:.2f} | {peak} |"
        )
    return "\n".join([*lines, "", command(), ""])


def main() -> None:
    """Measure and print."""
    parser = step_parser(__doc__, ARCHITECTURES)
    parser.add_argument("--hidden", type=int, default=4096, help="width of the contrastive heads")
    parser.add_argument("--terms", nargs="+", default=list(term_names()), choices=term_names())
    run(parser.parse_args(), measure, table)


if __name__ == "__main__":
    main()
