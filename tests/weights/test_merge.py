"""`eofm models merge`: the encoder between two, and what there is none between."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eofm.cli import main
from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.spec import Normalization, Sensor, Unit
from eofm.errors import WeightsError
from eofm.weights.cards.card import UNSTATED
from eofm.weights.encoder import Encoder, load_encoder, random_encoder, save_encoder
from eofm.weights.merge import merge_encoders

RECIPE = Recipe(
    Sensor.S2_L2A,
    ("B04", "B03", "B02"),
    Unit.DN,
    (28, 28),
    Normalization.divide(10_000, 3, "made for tests"),
)


def encoder(seed: int, architecture: str = "vit-tiny-14-2blocks", **changes: object) -> Encoder:
    """A small encoder; its card says which."""
    made = random_encoder(architecture, replace(RECIPE, **changes), seed)  # type: ignore[arg-type]
    return Encoder(made.trunk, replace(made.card, name=f"seed-{seed}", counts={"scenes": seed}))


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two exports."""
    places = tmp_path / "a", tmp_path / "b"
    for seed, place in enumerate(places, 1):
        save_encoder(encoder(seed), place)
    return places


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_every_weight_lies_on_the_line(alpha: float) -> None:
    """A plain loop in float64 says where; at the ends it is one of the two, bit for bit."""
    one, other = encoder(1), encoder(2)

    merged = merge_encoders(one, other, alpha, "between").trunk.state_dict()

    a, b = one.trunk.state_dict(), other.trunk.state_dict()
    assert list(a) == list(merged)
    for name, tensor in merged.items():
        expected = a[name].double() + alpha * (b[name].double() - a[name].double())
        assert torch.allclose(expected.float(), tensor, rtol=1e-6, atol=1e-8), name
        if alpha in (0, 1):
            assert torch.equal((a, b)[int(alpha)][name], tensor), name


def test_from_the_command_line(two: tuple[Path, Path], tmp_path: Path) -> None:
    """The folder is an encoder; its card names both with their hashes, and the share."""
    out = tmp_path / "between"

    assert 0 == main(["models", "merge", *map(str, two), "--alpha", "0.25", "--out", str(out)])

    merged, cards = load_encoder(out), [load_encoder(place).card for place in two]
    assert RECIPE == merged.recipe
    assert "between" == merged.card.name
    assert "alpha 0.25 of the second" in merged.card.source
    for card in cards:
        assert f"{card.name} ({card.source}; sha256 {card.sha256[:12]})" in merged.card.source
    assert {"first scenes": 1, "second scenes": 2} == dict(merged.card.counts)
    assert ("Apache-2.0", "none") == (merged.card.licence, merged.card.objective)
    assert "batch norms" not in merged.card.source
    assert json.loads((out / "preprocess.json").read_text())
    assert "alpha 0.25" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "vits14"}, "architecture: vit-tiny-14-2blocks and vits14"),
        (
            {"bands": ("B02", "B03", "B04")},
            "bands: B04 B03 B02 and B02 B03 B04",
        ),
        ({"size": (56, 56)}, r"size: (28, 28) and (56, 56)"),
        ({"pooling": Pooling.MEAN}, "pooling: cls and mean"),
        ({"normalization": Normalization.divide(255, 3, "tests")}, "normalization: "),
    ],
)
def test_what_is_not_alike_is_refused(changes: dict[str, object], words: str) -> None:
    """By name, with the values of both."""
    with pytest.raises(WeightsError) as caught:
        merge_encoders(encoder(1), encoder(2, **changes), 0.5, "x")  # type: ignore[arg-type]

    assert words in str(caught.value.found)
    assert len(str(caught.value.found)) < 400  # not the constants of every band


def test_the_source_of_constants_may_differ() -> None:
    """Recipes with equal constants are one recipe, whoever wrote them down."""
    again = replace(RECIPE.normalization, source="another paper")

    assert merge_encoders(encoder(1), encoder(2, normalization=again), 0.5, "x")


def test_batch_norms_are_spoken_of() -> None:
    """Their statistics are no measurements of the merged network; counts are those of one."""
    one, other = (encoder(seed, "resnet18", pooling=Pooling.MEAN) for seed in (1, 2))
    other.trunk.bn1.num_batches_tracked.fill_(7)  # type: ignore[union-attr,operator]

    merged = merge_encoders(one, other, 0.75, "x")

    assert "statistics of batch norms interpolated" in merged.card.source
    assert 7 == int(merged.trunk.bn1.num_batches_tracked)  # type: ignore[arg-type,union-attr]


def test_licences_and_origins_of_both_are_kept() -> None:
    """An unstated licence stays unstated; made-up data stay made up."""

    def merged(**changes: object) -> tuple[str, bool, str]:
        one, other = encoder(1), encoder(2)
        card = replace(other.card, **changes)  # type: ignore[arg-type]
        found = merge_encoders(one, Encoder(other.trunk, card), 0.5, "x").card
        return found.licence, found.synthetic, found.training_data

    assert ("Apache-2.0 AND MIT", False, "none") == merged(licence="MIT")
    assert (UNSTATED, True, "none; maps") == merged(
        licence=UNSTATED, synthetic=True, training_data="maps"
    )


def test_neither_of_the_two_is_replaced(two: tuple[Path, Path], tmp_path: Path) -> None:
    """The folder of one of them is refused, and another one is taken."""
    words = ["models", "merge", *map(str, two), "--out"]

    assert 0 != main([*words, str(two[1])])

    assert "seed-2" == load_encoder(two[1]).card.name
    assert 0 == main([*words, str(tmp_path / "another")])
    assert 0 != main([*words, str(tmp_path / "c"), "--alpha", "1.5"])
