"""The pictures at the end of a run: loss curves, embeddings, and a sheet of views with masks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

_INK, _PAPER = "#222222", "#bbbbbb"

# The published palette of Dynamic World (doi 10.1038/s41597-022-01307-4), so that a class has the
# colour a user knows; other schemes take matplotlib's.
_COLOURS: Final[Mapping[str, str]] = {
    "water": "#419BDF",
    "trees": "#397D49",
    "grass": "#88B053",
    "flooded vegetation": "#7A87C6",
    "crops": "#E49635",
    "shrub and scrub": "#DFC35A",
    "built": "#C4281B",
    "bare": "#A59B8F",
    "snow and ice": "#B39FE1",
}


def _new(width: float, height: float, rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, axes


def read_metrics(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return each metric of a run's metrics.jsonl as (steps, values)."""
    columns: dict[str, list[tuple[float, float]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for name, value in row.items():
            if name not in {"step", "epoch"}:
                columns.setdefault(name, []).append((float(row["step"]), float(value)))
    return {name: tuple(np.array(points).T) for name, points in columns.items()}


def loss_curves(metrics: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> Figure:
    """Draw loss terms, embedding spread and schedules over steps; bold: moving averages."""
    figure, axes = _new(11, 6.4, 2, 2)
    if "momentum" in metrics:
        steps, momentum = metrics["momentum"]
        metrics = {**metrics, "1 - momentum": (steps, 1 - momentum)}
    panels = (
        ("Loss", ("loss", "hard", "soft"), "loss"),
        ("Soft term above its floor (the entropy of the targets)", ("soft_excess",), "loss"),
        ("Spread of the embedding (0 is collapse)", ("embedding_std",), "std × √dim"),
        ("Schedules", ("lr", "1 - momentum"), "fraction of the largest value"),
    )
    for axis, (name, keys, label) in zip(axes.flat, panels, strict=True):
        for key in keys:
            if key not in metrics:
                continue
            steps, values = metrics[key]
            scale = np.abs(values).max() if name == "Schedules" else 1.0
            values = values / (scale or 1.0)
            (line,) = axis.plot(*smooth(steps, values), lw=1.5, label=key)
            axis.plot(steps, values, lw=0.6, alpha=0.25, color=line.get_color())
        axis.set_title(name, loc="left", fontsize=10)
        if key == "embedding_std":
            axis.set_ylim(0, 1.2)
        axis.set_xlabel("step")
        axis.set_ylabel(label)
        axis.grid(color=_PAPER, lw=0.4)
        axis.spines[["top", "right"]].set_visible(False)
        if axis.lines:
            axis.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


def smooth(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a moving average over a fortieth of the run, centred on its window."""
    window = max(1, len(values) // 40)
    kernel = np.full(window, 1 / window)
    return np.convolve(steps, kernel, "valid"), np.convolve(values, kernel, "valid")


def principal_plane(embedding: Tensor) -> np.ndarray:
    """Return (N, 2): L2-normalised embeddings on their first two principal components.

    Signs are fixed (the largest coordinate of each axis is positive), so a figure is repeatable.
    """
    x = torch.nn.functional.normalize(embedding.double(), dim=1)
    x = x - x.mean(dim=0)
    left, values, _ = torch.linalg.svd(x, full_matrices=False)
    plane = (left * values)[:, :2]
    if plane.shape[1] < 2:
        plane = torch.nn.functional.pad(plane, (0, 2 - plane.shape[1]))
    sign = torch.sign(plane.gather(0, plane.abs().argmax(dim=0, keepdim=True)))
    signed: np.ndarray = (plane * torch.where(sign == 0, torch.ones_like(sign), sign)).numpy()
    return signed


def embedding_map(
    embeddings: Mapping[str, Tensor], dominant: Sequence[int], classes: Sequence[str], title: str
) -> Figure:
    """Draw held-out scenes on their two principal components, before and after training.

    Args:
        embeddings: Name of the panel -> (N, D).
        dominant: For each scene, the class that covers most of it.
        classes: Class names.
        title: Above the figure.
    """
    figure, axes = _new(5.4 * len(embeddings) + 1.4, 5.2, 1, len(embeddings))
    spare = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
    colours = [_COLOURS.get(name, spare[i % len(spare)]) for i, name in enumerate(classes)]
    owner = np.asarray(dominant)
    for axis, (name, embedding) in zip(axes.flat, embeddings.items(), strict=True):
        points = principal_plane(embedding)
        for index, label in enumerate(classes):
            mine = points[owner == index]
            if len(mine):
                axis.scatter(
                    mine[:, 0], mine[:, 1], s=22, alpha=0.85, lw=0.3, edgecolor="white",
                    color=colours[index], label=f"{label} ({len(mine)})",
                )  # fmt: skip
        axis.set_title(name, loc="left", fontsize=10)
        axis.set_xlabel("first principal component")
        axis.set_ylabel("second principal component")
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.flat[-1].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside right upper", frameon=False, fontsize=8,
        title="largest class", title_fontsize=8,
    )  # fmt: skip
    figure.suptitle(title, fontsize=11)
    return figure


def draw_mask(rgb: Tensor, kept: Tensor | None, patch: int) -> Tensor:
    """Return (H, W, 3) with the tokens the student does not see faded to a dark gray.

    Args:
        rgb: (H, W, 3).
        kept: Indices of the kept patches, row by row, or None where all are.
        patch: Side of a patch in pixels; at a border that cuts through some, their rest is one.
    """
    if kept is None:
        return rgb
    height, width = rgb.shape[:2]
    rows, columns = -(-height // patch), -(-width // patch)
    seen = torch.zeros(rows * columns, dtype=torch.bool)
    seen[kept] = True
    cells = seen.view(rows, columns).repeat_interleave(patch, 0).repeat_interleave(patch, 1)
    return torch.where(cells[:height, :width, None], rgb, 0.12 * rgb + 0.05)


def view_sheet(
    columns: Mapping[str, Sequence[Tensor]], captions: Sequence[str], title: str
) -> Figure:
    """Draw one row per scene: the scene, its two views, and the view the student sees.

    Args:
        columns: Heading -> one (H, W, 3) image per scene.
        captions: One line per scene: its labels.
        title: Above the figure.
    """
    count = len(captions)
    figure, axes = _new(2.3 * len(columns) + 0.4, 2.5 * count + 0.6, count, len(columns))
    for column, (heading, images) in enumerate(columns.items()):
        for row, image in enumerate(images):
            axis = axes[row, column]
            axis.imshow(image.numpy(), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set_visible(False)
            if row == 0:
                axis.set_title(heading, fontsize=9, color=_INK)
            if column == 0:
                axis.set_xlabel(captions[row], fontsize=7, loc="left", color=_INK)
    figure.suptitle(title, fontsize=10)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path
