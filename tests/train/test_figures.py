"""The figures draw what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from eofm.train.figures import (
    draw_mask,
    embedding_map,
    loss_curves,
    principal_plane,
    read_metrics,
    save,
    smooth,
    view_sheet,
)


def test_the_principal_plane_is_scikit_learns(generator: torch.Generator) -> None:
    """Up to sign, the coordinates are those of PCA on the L2-normalised embeddings."""
    x = torch.randn(40, 12, generator=generator) * torch.arange(1, 13)

    ours = principal_plane(x)

    unit = torch.nn.functional.normalize(x.double(), dim=1).numpy()
    theirs = PCA(2).fit_transform(unit)
    assert np.allclose(np.abs(ours), np.abs(theirs), atol=1e-9)
    assert (ours[np.abs(ours).argmax(axis=0), [0, 1]] > 0).all()


def test_a_mask_fades_exactly_the_dropped_patches() -> None:
    """Kept patches are untouched, dropped ones are dark, row by row."""
    rgb = torch.full((4, 6, 3), 0.8)

    drawn = draw_mask(rgb, torch.tensor([0, 5]), 2)

    assert torch.equal(rgb[:2, :2], drawn[:2, :2])
    assert torch.equal(rgb[2:, 4:], drawn[2:, 4:])
    assert 16 == int((drawn[..., 0] < 0.2).sum())
    assert draw_mask(rgb, None, 2) is rgb


def test_metrics_come_back_by_name(tmp_path: Path) -> None:
    """Each metric has its own steps; a metric that is missing in a line leaves a gap."""
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": 1, "epoch": 0, "loss": 2.0}, {"step": 2, "epoch": 0, "loss": 1.0, "lr": 0.1}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    metrics = read_metrics(path)

    assert {"loss", "lr"} == set(metrics)
    assert ([1, 2], [2, 1]) == tuple(part.tolist() for part in metrics["loss"])
    assert [2] == metrics["lr"][0].tolist()


def test_smoothing_keeps_lines_and_short_runs() -> None:
    """A straight line stays itself, and a run of a few steps is drawn as it is."""
    steps = np.arange(400.0)

    x, y = smooth(steps, 3 * steps + 1)

    assert np.allclose(3 * x + 1, y)
    assert [0.0, 1.0, 5.0] == smooth(np.arange(3.0), np.array([0.0, 1.0, 5.0]))[1].tolist()


def test_figures_are_written(tmp_path: Path, generator: torch.Generator) -> None:
    """Curves, map and sheet have their panels, legends and labels."""
    steps = np.arange(5.0)
    curves = loss_curves({"loss": (steps, steps), "momentum": (steps, steps / 5)}, "title")
    scatter = embedding_map(
        {"a": torch.randn(6, 4, generator=generator), "b": torch.randn(6, 4, generator=generator)},
        [0, 0, 1, 1, 2, 2],
        ["water", "trees", "something else"],
        "title",
    )
    picture = torch.rand(8, 8, 3, generator=generator)
    sheet = view_sheet({"one": [picture], "two": [picture]}, ["trees"], "title")

    assert "loss" == curves.axes[0].get_ylabel()
    assert ["water (2)", "trees (2)", "something else (2)"] == [
        text.get_text() for text in scatter.legends[0].get_texts()
    ]
    assert (
        pytest.approx([0x41 / 255, 0x9B / 255, 0xDF / 255])
        == scatter.axes[0].collections[0].get_facecolor()[0][:3].tolist()
    )
    assert 2 == len(sheet.axes)
    assert save(sheet, tmp_path / "new" / "sheet.png").stat().st_size > 1000
