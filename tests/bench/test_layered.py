"""Features of several layers: what they are, which read-out is taken, and who shows none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy_task import RECIPE, Small

from eofm.bench.controls import ImageStatistics
from eofm.bench.features import (
    columns_of,
    last_layers,
    layered_candidates,
    readout_columns,
    readouts_of,
)
from eofm.bench.probes import KINDS, Splits, choice_of
from eofm.bench.run import bench
from eofm.bench.sources import Candidate, EncoderSource, NetworkSource
from eofm.datasets.eurosat import BenchEurosatConfig
from eofm.errors import ConfigError
from eofm.networks.resnet import build_resnet
from eofm.probes.features import Labelled, Scaling
from eofm.probes.linear import C11, linear_probe
from eofm.weights.encoder import Encoder


def test_a_transformer_shows_four_cls_tokens_and_a_mean(whole_encoder: Encoder) -> None:
    """After the final norm, from the fourth last block to the last, then the patches' mean."""
    pixels = torch.randn(2, 13, 28, 28, generator=torch.Generator().manual_seed(0))
    tokens = whole_encoder.trunk.forward_features(pixels)

    with torch.no_grad():
        found = last_layers(whole_encoder.trunk, pixels)
    columns = {r.name: c for r, c in columns_of(whole_encoder.trunk, found.shape[1]).items()}

    d = whole_encoder.trunk.dim
    assert (2, 5 * d) == tuple(found.shape)
    assert torch.allclose(tokens[:, 0], found[:, columns["1 layer"]])
    assert torch.allclose(tokens[:, 1:].mean(dim=1), found[:, 4 * d :], atol=1e-6)
    pairs = whole_encoder.trunk.get_intermediate_layers(
        pixels, [2, 3, 4, 5], return_class_token=True
    )
    four = torch.cat([pair[1] for pair in pairs], dim=1)
    assert torch.equal(four, found[:, columns["4 layers"]])
    assert torch.equal(found[:, 3 * d :], found[:, columns["1 layer + patch mean"]])
    assert torch.equal(found, found[:, columns["4 layers + patch mean"]])


def test_a_resnet_shows_the_means_of_its_stages() -> None:
    """It has no CLS token, so there is no further mean: two read-outs."""
    trunk = build_resnet("resnet18", 3, (32, 32), torch.Generator().manual_seed(0)).eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        found, own = last_layers(trunk, pixels), trunk(pixels)
    columns = columns_of(trunk, found.shape[1])

    assert ["1 layer", "4 layers"] == [readout.name for readout in readouts_of(trunk)]
    last, everything = columns.values()
    assert torch.allclose(own, found[:, last], atol=1e-6)
    assert (2, 64 + 128 + 256 + 512) == tuple(found[:, everything].shape)


def test_a_pair_of_networks_is_read_alike(whole_encoder: Encoder) -> None:
    """The columns of a read-out are those of both sensors, side by side."""
    part = EncoderSource("pair", whole_encoder)
    (candidate,) = layered_candidates([Candidate("pair", (part, part))])
    d = whole_encoder.dim

    columns = readout_columns(candidate)

    assert [*range(3 * d, 4 * d), *range(8 * d, 9 * d)] == columns["1 layer"].tolist()
    assert list(range(10 * d)) == columns["4 layers + patch mean"].tolist()


def noise(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Eight features of which the last two tell three classes apart."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    x = torch.randn(count, 8, generator=generator)
    x[:, 6:] += 4 * torch.stack([(y == 0).float(), (y == 1).float()], dim=1)
    return x, y


def test_the_best_read_out_on_val_is_taken() -> None:
    """It is the plain probe on its columns, and the record says which it was."""
    (train, y), (val, z), (test, t) = noise(60, 0), noise(60, 1), noise(30, 2)
    readouts = {"empty": torch.arange(4), "telling": torch.tensor([4, 5, 6, 7])}
    splits = Splits(Labelled(train, y, 3), Labelled(val, z, 3), test, t, torch.arange(60), readouts)

    result = KINDS["linear-grid"](splits, Scaling.NONE, 5)

    plain = linear_probe(
        Labelled(train[:, 4:], y, 3),
        Labelled(val[:, 4:], z, 3),
        test[:, 4:],
        choice=choice_of(multi_label=False),
        grid=C11,
    )
    assert "telling" == result.chosen
    assert torch.allclose(plain.scores, result.scores)
    assert plain.strength == result.strength
    assert "linear-grid[lbfgs,empty/telling,C11,val,norefit,none]" == result.probe
    assert {"val, empty", "val, telling"} == set(result.details)


def test_a_grid_needs_layers_and_a_validation_split() -> None:
    """Plain features have no read-outs to choose from."""
    x, y = noise(30, 0)
    plain = Splits(Labelled(x, y, 3), Labelled(x, y, 3), x, y, torch.arange(30))
    alone = Splits(Labelled(x, y, 3), None, x, y, torch.arange(30), {"all": torch.arange(8)})

    for splits in (plain, alone):
        with pytest.raises(ConfigError, match="several layers and a validation split"):
            KINDS["linear-grid"](splits, Scaling.NONE, 5)


def test_a_network_of_ones_own_shows_no_layers() -> None:
    """It is named; and a control alone has no network at all."""
    own = NetworkSource("mine", Small().eval(), RECIPE, "toy")

    with pytest.raises(ConfigError, match="exposes only its embedding") as caught:
        layered_candidates([Candidate("mine", (own,))])

    assert "mine" in str(caught.value)
    with pytest.raises(ConfigError, match="no model here has one"):
        layered_candidates([Candidate("imagestats", (ImageStatistics(),))])


def test_the_harness_reads_layers_in_one_pass(
    eurosat: Path, whole_folder: Path, tmp_path: Path
) -> None:
    """Encoders and their twin have a row, other controls none; a second run reads the cache."""
    config = BenchEurosatConfig(
        str(eurosat),
        model=str(whole_folder),
        probe="linear-grid",
        out=str(tmp_path / "r.jsonl"),
        cache=str(tmp_path / "cache"),
        bootstrap=20,
        limit=16,
    )

    first = bench(config)
    (tmp_path / "r.jsonl").unlink()
    entries = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("features.npy")}
    again = bench(config)

    assert {"mine", "random"} == {r.model.name for r in first.results}
    assert {"linear-grid"} == {r.kind for r in first.results}
    assert all("layer" in r.chosen for r in first.results)
    assert all(r.strength is not None for r in first.results)
    assert [r.value for r in first.results] == [r.value for r in again.results]
    assert entries == {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("features.npy")}
    assert "chose " in first.describe()
