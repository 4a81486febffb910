"""Frozen features: what they depend on, what is kept, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from eofm.bench.controls import ImageStatistics, random_control
from eofm.bench.features import FeatureCache, ahead, extract, key_of
from eofm.bench.sources import EncoderSource, FeatureSource, Identity
from eofm.contract.imagery import Imagery
from eofm.contract.recipe import AcceptSize
from eofm.contract.spec import ImageSpec
from eofm.datasets.eurosat import EUROSAT
from eofm.errors import DataError, PixelError, WeightsError
from eofm.networks.state import state_sha256
from eofm.probes.features import Scaling
from eofm.weights.encoder import Encoder

SPEC = EUROSAT.spec


def tiles(count: int = 5) -> list[Imagery]:
    """Two batches of random tiles."""
    generator = torch.Generator().manual_seed(3)
    pixels = 2000 + 300 * torch.randn(count, 13, 64, 64, generator=generator)
    valid = torch.ones(count, 64, 64, dtype=torch.bool)
    return [Imagery(p, SPEC, v) for p, v in zip(pixels.split(3), valid.split(3), strict=True)]


class Shop:
    """Hands out batches, and counts how often it was asked."""

    def __init__(self) -> None:
        self.opened = 0

    def __call__(self) -> Iterator[Imagery]:
        self.opened += 1
        return iter(tiles())


class Fake:
    """A source that returns what it is told to."""

    name = "fake"
    scaling = Scaling.NONE
    network = None

    def __init__(self, value: float = 1.0, rows: int | None = None) -> None:
        self.value, self.rows = value, rows

    def identity(self, spec: ImageSpec) -> Identity:
        return Identity(self.name, False, "a fake", str(self.value), "", "", (), ())

    def embed(self, imagery: Imagery) -> Tensor:
        rows = len(imagery) if self.rows is None else self.rows
        return torch.full((rows, 2), self.value)

    def check_frozen(self) -> None:
        pass


def run(sources: list[FeatureSource], cache: FeatureCache, shop: Shop, data: str = "d") -> Tensor:
    """The features of the last source."""
    return extract(sources, SPEC, data, 5, shop, cache)[sources[-1].name]


def test_features_are_those_of_embed(encoder: Encoder) -> None:
    """In order, over all batches, and read once for all models."""
    shop = Shop()
    mine, stats = EncoderSource("mine", encoder), ImageStatistics()

    found = extract([mine, stats], SPEC, "d", 5, shop, FeatureCache(None))

    assert 1 == shop.opened
    assert torch.equal(torch.cat([encoder.embed(b) for b in tiles()]), found["mine"])
    assert (5, 52) == tuple(found["imagestats"].shape)


def test_the_batch_size_has_no_say(encoder: Encoder) -> None:
    """Features of a tile do not depend on its neighbours in the batch."""
    whole = torch.cat([b.pixels for b in tiles()])
    one = Imagery(whole, SPEC, torch.ones(5, 64, 64, dtype=torch.bool))

    assert torch.allclose(
        encoder.embed(one), torch.cat([encoder.embed(b) for b in tiles()]), atol=1e-5
    )


def test_a_second_run_reads_no_image(encoder: Encoder, tmp_path: Path) -> None:
    """The same weights on the same bytes come from the cache, bit for bit."""
    cache, shop = FeatureCache(tmp_path), Shop()
    first = run([EncoderSource("mine", encoder)], cache, shop)

    second = run([EncoderSource("mine", encoder)], cache, shop)

    assert 1 == shop.opened
    assert torch.equal(first, second)
    assert not list(tmp_path.glob(".*")), "nothing half-written is left"


def test_a_name_is_not_part_of_the_key(encoder: Encoder) -> None:
    """Features follow the weights, not what a run calls them."""
    one, other = EncoderSource("one", encoder), EncoderSource("other", encoder)

    assert key_of(one, SPEC, "d") == key_of(other, SPEC, "d")


def test_whatever_changes_features_changes_the_key(encoder: Encoder) -> None:
    """Weights, plan, data, declared pixels: each has a say."""
    mine = EncoderSource("mine", encoder)
    waiver = AcceptSize((56, 56), "to see")
    found = [
        key_of(mine, SPEC, "d"),
        key_of(mine, SPEC, "e"),
        key_of(mine, replace(SPEC, gsd=20.0), "d"),
        key_of(EncoderSource("mine", encoder, waivers=[waiver]), SPEC, "d"),
        key_of(random_control(encoder, 0), SPEC, "d"),
        key_of(random_control(encoder, 1), SPEC, "d"),
        key_of(ImageStatistics(), SPEC, "d"),
    ]

    assert 7 == len({key.sha256 for key in found})


def test_a_network_that_moves_is_refused(encoder: Encoder) -> None:
    """A buffer that drifts while features are computed makes them incomparable."""
    moving = EncoderSource("mine", random_twin(encoder))
    encoder_inside = moving._encoder
    before = moving.embed(tiles()[0])

    next(encoder_inside.parameters()).data.add_(0.1)

    assert not torch.allclose(before, moving.embed(tiles()[0]))
    with pytest.raises(WeightsError, match="changed while"):
        run([moving], FeatureCache(None), Shop())


def random_twin(encoder: Encoder) -> Encoder:
    """An encoder that a test may spoil."""
    return random_control(encoder, 9)._encoder


def test_a_network_in_train_mode_is_put_into_eval_mode(encoder: Encoder) -> None:
    """Dropout and batch statistics have no place in frozen features."""
    twin = random_twin(encoder).train()

    EncoderSource("mine", twin)

    assert not any(module.training for module in twin.modules())


def test_the_state_hash_sees_values_names_and_buffers() -> None:
    """A changed running mean, or a renamed tensor, is another state."""
    network = nn.Sequential(nn.BatchNorm1d(3))
    before = state_sha256(network)
    assert before == state_sha256(nn.Sequential(nn.BatchNorm1d(3)))

    network(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))

    assert before != state_sha256(network)
    assert before != state_sha256(nn.ModuleDict({"norm": nn.BatchNorm1d(3)}))


@pytest.mark.parametrize(("value", "message"), [(torch.nan, "not finite"), (0.0, "all zero")])
def test_broken_features_are_neither_used_nor_kept(
    tmp_path: Path, value: float, message: str
) -> None:
    """A network that returns NaN or zeros is an error, today and tomorrow."""
    for _ in range(2):
        with pytest.raises(PixelError, match=message):
            run([Fake(value)], FeatureCache(tmp_path), Shop())

    assert not list(tmp_path.iterdir())


def test_lost_samples_are_noticed() -> None:
    """Five images that yield four features would shift every label."""
    with pytest.raises(DataError, match="lost samples"):
        run([Fake(rows=2)], FeatureCache(None), Shop())


def test_a_cache_that_cannot_be_kept_fails_no_run(tmp_path: Path) -> None:
    """A file where the folder should be: the features are those of a run without a cache."""
    blocked = tmp_path / "file"
    blocked.touch()

    found = run([Fake()], FeatureCache(blocked), Shop())

    assert torch.equal(found, run([Fake()], FeatureCache(None), Shop()))


def test_reading_ahead_keeps_the_order() -> None:
    """Batches come as they would without the thread, also fewer than are held in advance."""
    for count in 1, 2, 5:
        batches = tiles(count)
        assert [id(b) for b in batches] == [id(b) for b in ahead(iter(batches), 3)]


def test_a_fault_while_reading_is_raised_at_its_place() -> None:
    """The batches before it were whole; the error is the reader's own."""

    def broken() -> Iterator[Imagery]:
        yield tiles()[0]
        raise DataError("the second batch is torn")

    batches = ahead(broken())

    assert (3, 13, 64, 64) == tuple(next(batches).pixels.shape)
    with pytest.raises(DataError, match="second batch"):
        next(batches)
