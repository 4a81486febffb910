"""Intervals over clusters of test samples: patches of one product are drawn together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eofm.bench.models.sources import Identity
from eofm.bench.predictions import groups_of
from eofm.bench.probes import Scored, compare
from eofm.bench.records import Made, Result, Sample
from eofm.bench.samples import clusters_of
from eofm.datasets.base import Cluster
from eofm.datasets.bigearthnet.lists import read_tables
from eofm.datasets.registry import TASKS
from eofm.errors import ConfigError, DataError
from eofm.probes.bootstrap import Interval, bootstrap_interval, bootstrap_values, resampled_accuracy
from eofm.probes.linear import ProbeResult
from eofm.probes.metrics import Metric

MODEL = Identity("m", False, "a vit", "w", "r", "p", (), ())
SAMPLE = Sample("set", "official", "ids", "data", 3, 2, 4, True, 0)
PATCHES = (
    "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57",
    "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_87_48",
    "S2A_MSIL2A_20170613T101031_N9999_R022_T34UUP_26_57",
    "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_1_2",
)


def scored(hits: list[int], groups: tuple[int, ...] | None) -> Scored:
    """A probe that is right where a 1 stands."""
    target = torch.zeros(len(hits), dtype=torch.int64)
    said = 1 - torch.tensor(hits)
    scores = torch.nn.functional.one_hot(said, 2).double()
    return Scored(
        kind="knn",
        probe=ProbeResult("knn[]", scores),
        metrics={Metric.OA: resampled_accuracy(said, target)},
        samples=len(hits),
        seconds=0.0,
        groups=None if groups is None else torch.tensor(groups),
    )


def test_the_product_is_read_from_the_name() -> None:
    """Two products of one time are two clusters; the row and column of a patch are no part."""
    cluster = TASKS["bigearthnet-v2-s2"].cluster

    assert cluster is not None
    assert (0, 0, 1, 0) == cluster.of(PATCHES)
    assert {"clusters": 2, "cluster": "Sentinel-2 product"} == clusters_of(cluster, PATCHES)
    assert {"clusters": 0, "cluster": ""} == clusters_of(None, PATCHES)


def test_whole_groups_are_drawn() -> None:
    """Values of resamples are those of a slow loop that repeats the samples of drawn groups."""
    hits = torch.tensor([1, 0, 1, 1, 0, 0, 1])
    groups = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    metric = resampled_accuracy(1 - hits, torch.zeros(7, dtype=torch.int64))

    values = bootstrap_values(metric, 7, repeats=50, seed=3, groups=groups)

    generator = torch.Generator().manual_seed(3)
    for value in values.tolist():
        drawn = torch.randint(4, (4,), generator=generator).tolist()
        rows = [row for group in drawn for row in range(7) if groups[row] == group]
        assert hits[rows].double().mean().item() == pytest.approx(value)
    with pytest.raises(ConfigError, match="needs a group"):
        bootstrap_values(metric, 7, groups=groups[:3])


def test_groups_of_one_are_single_samples() -> None:
    """With every sample in a group of its own, nothing changes."""
    metric = resampled_accuracy(torch.tensor([0, 1, 0, 0]), torch.zeros(4, dtype=torch.int64))

    plain = bootstrap_interval(metric, 4, repeats=99, seed=1)

    assert plain == bootstrap_interval(metric, 4, repeats=99, seed=1, groups=torch.arange(4))


def test_one_cluster_tells_no_model_from_another() -> None:
    """A hundred patches of one product have no spread, however many they are."""
    worse, better = [0] * 60 + [1] * 40, [1] * 100

    def flags(groups: tuple[int, ...] | None) -> tuple[str, ...]:
        return compare(scored(worse, groups), scored(better, groups), "rcf", Metric.OA, 50, 0)

    assert ("below rcf",) == flags(None)
    assert ("not above rcf",) == flags((0,) * 100)
    assert ("below rcf",) == flags(tuple(range(100)))


def test_a_record_says_what_was_resampled() -> None:
    """One of 0.1 has no clusters; one whose clusters are not those of its task is refused."""
    result = Result(
        task="bigearthnet-v2-s2",
        version="1",
        sample=SAMPLE,
        model=MODEL,
        probe="knn[]",
        strength=None,
        gradient_norm=None,
        metric="oa",
        value=0.5,
        interval=Interval(0.4, 0.6, 0.95, 10),
        seed=0,
        flags=(),
        made=Made("eofm", "2026", {"eofm": "1"}, "", "cpu", 0.0, 0.0, None),
    )

    assert groups_of(result, PATCHES) is None
    found = groups_of(replace(result, sample=replace(SAMPLE, clusters=2)), PATCHES)
    assert found is not None
    assert [0, 0, 1, 0] == found.tolist()
    for task, count in (("bigearthnet-v2-s2", 3), ("eurosat", 2)):
        with pytest.raises(DataError, match="not those of its task"):
            groups_of(replace(result, task=task, sample=replace(SAMPLE, clusters=count)), PATCHES)


def test_intervals_by_product_of_the_real_test_split(real_data: Path) -> None:
    """Of 119,825 patches with simulated hits: equal to NumPy's, and far wider than by patch."""
    listing = read_tables(real_data / "bigearthnet_v2")
    test = {name for name, split in listing.splits.items() if split == "test"}
    ids = sorted(test - listing.excluded)
    assert 119_825 == len(ids)
    products = [name.rsplit("_", 2)[0] for name in ids]
    names, number = np.unique(products, return_inverse=True)
    rng = np.random.default_rng(0)
    hits = rng.random(len(ids)) < rng.uniform(0.3, 1, len(names))[number]
    groups = torch.tensor(Cluster("product", r"_\d+_\d+").of(ids))
    metric = resampled_accuracy(
        torch.from_numpy(~hits).long(), torch.zeros(len(ids), dtype=torch.int64)
    )

    found = bootstrap_interval(metric, len(ids), repeats=400, seed=0, groups=groups)
    single = bootstrap_interval(metric, len(ids), repeats=20, seed=0)

    right = np.bincount(number, hits)
    count = np.bincount(number)
    order = {name: place for place, name in enumerate(dict.fromkeys(products))}
    place = np.array([order[name] for name in names])  # numbers of the package -> of NumPy
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(400):
        drawn = torch.randint(len(names), (len(names),), generator=generator).numpy()
        times = np.bincount(drawn, minlength=len(names))[place]
        values.append((times * right).sum() / (times * count).sum())
    low, high = np.quantile(values, [0.025, 0.975])
    assert (low, high) == pytest.approx((found.low, found.high), abs=1e-12)
    assert 80 < len(names) < 200
    assert found.high - found.low > 5 * (single.high - single.low)
