"""Print the tables of `data_cards/embedded-world.md` for a world on disk.

    eofm world --out worlds/card --scenes 200 --size 120
    python benchmarks/describe_world.py worlds/card            # statistics, image-statistics probe
    python benchmarks/describe_world.py worlds/card --network  # and a small network, some minutes

Probes: logistic regression per class on standardised features, classes above 1 % of the map, test
on the locations with an id divisible by 4, the best of five strengths on the test locations: an
upper estimate that serves to compare features, not to report a method.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rasterio
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from eofm.contract.spec import STATISTICS
from eofm.world.spectra import GroundCover

BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
PUBLISHED = STATISTICS["ssl4eo-s12-l1c"]
PRESENT, KNOWN = 0.01, 0.25  # share of a class, and of pixels a map must know


def read(path: Path) -> np.ndarray:
    """Return the one band of a file as float32."""
    with rasterio.open(path) as file:
        return file.read(1).astype(np.float32)


def row(name: str, values: np.ndarray, digits: int = 0) -> None:
    """Print one line of a table."""
    print(f"{name:14s}" + " ".join(f"{v:8.{digits}f}" for v in values))


def moments(planes: list[list[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation per band over all pixels of all scenes."""
    mean = np.array([[p.mean(dtype=np.float64) for p in scene] for scene in planes])
    square = np.array([[(p.astype(np.float64) ** 2).mean() for p in scene] for scene in planes])
    return mean.mean(0), np.sqrt(square.mean(0) - mean.mean(0) ** 2)


def shares(world: Path, scene: Path) -> np.ndarray:
    """Return the share of each class in a scene's map, NaN where too little is known, (9,)."""
    path = world / "dw" / scene.parent.name / f"{scene.name}.tif"
    if not path.exists():
        return np.full(len(GroundCover), np.nan)
    counts = np.bincount(read(path).astype(np.int64).ravel(), minlength=256)
    known = counts[: len(GroundCover)].sum()
    enough = known >= KNOWN * counts.sum()
    return counts[: len(GroundCover)] / known if enough else np.full(len(GroundCover), np.nan)


def probe(features: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the average precision per class at the best strength, (9,)."""
    scaled = StandardScaler().fit(features[~test]).transform(features)
    best = np.zeros(labels.shape[1])
    for strength in (0.01, 0.03, 0.1, 1.0, 3.0):
        scores = []
        for column in labels.T:
            fit = LogisticRegression(C=strength, max_iter=2000).fit(scaled[~test], column[~test])
            scores.append(
                average_precision_score(column[test], fit.decision_function(scaled[test]))
            )
        best = max(best, np.array(scores), key=np.mean)
    return best


def network() -> nn.Sequential:
    """Return four stages of two convolutions, half the size each."""
    layers: list[nn.Module] = []
    before = len(BANDS)
    for width in (32, 64, 128, 192):
        for stride, source, groups in ((2, before, 1), (1, width, width // 8)):
            convolution = nn.Conv2d(source, width, 3, stride, 1, groups=groups, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers)


def pooled(net: nn.Module, images: Tensor) -> Tensor:
    """Return mean and maximum over the last stage, (B, 384)."""
    maps = net(images.float())
    return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)


@torch.no_grad()
def embed(net: nn.Module, images: Tensor) -> np.ndarray:
    """Return pooled features of all images in evaluation mode."""
    net.eval()
    return torch.cat([pooled(net, batch) for batch in images.split(64)]).numpy()


def train(net: nn.Module, images: Tensor, labels: Tensor, epochs: int = 22) -> None:
    """Train on the labels, with flips and transposes."""
    head = nn.Linear(384, labels.shape[1])
    parameters = [*net.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.05)
    steps = epochs * (len(images) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(epochs):
        net.train()
        for index in torch.randperm(len(images)).split(32):
            if len(index) < 32:
                continue
            batch = images[index]
            for turn in (lambda x: x.flip(3), lambda x: x.flip(2), lambda x: x.transpose(2, 3)):
                batch = turn(batch) if torch.rand(()) < 0.5 else batch
            loss = nn.functional.binary_cross_entropy_with_logits(
                head(pooled(net, batch)), labels[index]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def one_grid(planes: list[np.ndarray]) -> np.ndarray:
    """Return the bands on the 10 m grid, mean ± 2 std mapped to [0, 1], float16."""
    size = max(p.shape[0] for p in planes)
    grid = np.stack([np.kron(p, np.ones((size // p.shape[0],) * 2, np.float32)) for p in planes])
    mean, std = (np.array(v)[:, None, None] for v in (PUBLISHED.mean, PUBLISHED.std))
    return np.clip(((grid - mean) / std + 2) / 4, 0, 1).astype(np.float16)


def compare_features(
    planes: list[list[np.ndarray]], labels: np.ndarray, test: np.ndarray, *, with_network: bool
) -> None:
    """Print mean average precision of chance, image statistics and a network."""
    row("chance", np.r_[labels[test].mean(), labels[test].mean(0)], 2)
    statistics = [
        [f(p) for f in (np.mean, np.std, np.max, np.min) for p in scene] for scene in planes
    ]
    scores = probe(np.array(statistics), labels, test)
    row("statistics", np.r_[scores.mean(), scores], 2)
    if with_network:
        torch.manual_seed(0)
        net, images = network(), torch.from_numpy(np.stack([one_grid(p) for p in planes]))
        with torch.no_grad():
            net.train()
            for batch in images[:256].split(64):
                net(batch.float())  # settles the running statistics of the norms
        scores = probe(embed(net, images), labels, test)
        row("random", np.r_[scores.mean(), scores], 2)
        train(net, images[torch.from_numpy(~test)], torch.from_numpy(labels[~test]).float())
        scores = probe(embed(net, images), labels, test)
        row("trained", np.r_[scores.mean(), scores], 2)


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("world", type=Path)
    parser.add_argument("--network", action="store_true")
    arguments = parser.parse_args()
    scenes = sorted((arguments.world / "s2c").glob("*/*"))
    planes = [[read(scene / f"{b}.tif") for b in BANDS] for scene in scenes]
    radar = [
        [read(s / f"{p}.tif") for p in ("VV", "VH")]
        for s in sorted((arguments.world / "s1").glob("*/*"))
    ]
    print(" " * 14 + " ".join(f"{b:>8s}" for b in BANDS))
    for name, values in zip(("mean", "std"), moments(planes), strict=True):
        row(name, values)
    row("published mean", np.array(PUBLISHED.mean))
    row("published std", np.array(PUBLISHED.std))
    for name, values in zip(("VV, VH mean", "std"), moments(radar), strict=True):
        row(name, values, 2)
    share = np.array([shares(arguments.world, scene) for scene in scenes])
    known = ~np.isnan(share[:, 0])
    share, location = share[known], np.array([int(s.parent.name) for s in scenes])[known]
    print("\n" + ", ".join(c.name for c in GroundCover))
    for name, level in (("any pixel", 0.0), ("above 1 %", PRESENT)):
        row(name, (share > level).mean(0), 2)
    row("area", share.mean(0), 3)
    labels = share > PRESENT
    print(f"{labels.sum(1).mean():.2f} classes per map, {len(np.unique(labels, axis=0))} sets")
    print("\naverage precision: macro, then per class")
    chosen = [p for p, k in zip(planes, known, strict=True) if k]
    compare_features(chosen, labels, location % 4 == 0, with_network=arguments.network)


if __name__ == "__main__":
    main()
