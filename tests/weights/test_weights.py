"""The cards of published weights: consistent in themselves, light, and found by name or file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm

from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.spec import Sensor, canonical_bands
from eofm.errors import WeightsError
from eofm.networks.build import BUILDERS, build
from eofm.weights.cards import WEIGHTS, candidates, find, recognise, softcon
from eofm.weights.cards.card import StateLayout, WeightCard
from eofm.weights.catalogue import readme_table, recipe_in_words
from eofm.weights.download import file_name
from eofm.weights.keymaps import KEY_MAPS

README = Path(__file__).parents[2] / "docs" / "howto" / "encoder.md"
CARDS = [pytest.param(card, id=name) for name, card in WEIGHTS.items()]
FIXED_BANDS = {StateLayout.DINOV2, StateLayout.TIMM_DINOV2, StateLayout.RESNET, StateLayout.TIMM}
SOFTCON = [c for c in softcon.CARDS if not c.name.endswith("_enc")]


@pytest.mark.parametrize("card", CARDS)
def test_a_card_is_consistent(card: WeightCard) -> None:
    """Its name, address, hash, licence and paper are well formed, and nothing needed is empty."""
    assert re.fullmatch(r"[a-z0-9_]+", card.name)
    assert card.url.startswith("https://")
    assert re.fullmatch(r"[\w.+-]+\.(pth|pt|bin|safetensors|ckpt)", card.filename)
    assert re.fullmatch(r"([0-9a-f]{8,64})?", card.sha256)
    assert re.fullmatch(r"\d{4}\.\d{4,5}", card.paper)
    assert all((card.licence, card.recipe_source, card.objective, card.training_data))


@pytest.mark.parametrize("card", CARDS)
def test_a_card_is_pinned_or_says_so(card: WeightCard) -> None:
    """A hub's address names a revision, or there is a hash, or the note says what is done."""
    pinned = re.search(r"/resolve/[0-9a-f]{40}/", card.url) or card.sha256
    if "/resolve/" in card.url and not pinned:
        assert "first download is recorded" in card.note


@pytest.mark.parametrize("card", CARDS)
def test_a_card_can_be_built_and_mapped(card: WeightCard) -> None:
    """Its architecture and layout are known, and its recipes are ones the network can expect."""
    assert card.layout in KEY_MAPS
    name = card.architecture
    assert name in BUILDERS or timm.is_model(name.removeprefix("timm:"))
    for recipe in (card.recipe, *card.alternatives.values()):
        assert recipe.bands == canonical_bands(recipe.bands, recipe.sensor)
        assert recipe == Recipe.from_dict(recipe.to_dict())
        assert recipe.pooling is Pooling.MEAN or not name.startswith("resnet")
        if card.layout in {StateLayout.DINOV2, StateLayout.TIMM_DINOV2}:
            assert (0, 0) == tuple(side % 14 for side in recipe.size)


@pytest.mark.parametrize("card", CARDS)
def test_alternatives_differ_and_are_for_the_same_file(card: WeightCard) -> None:
    """An alternative says something else about the same network: as many bands, other pixels."""
    for name, recipe in card.alternatives.items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert recipe != card.recipe
        if card.layout in FIXED_BANDS:  # other networks are told which bands they see
            assert len(recipe.bands) == len(card.recipe.bands)
        assert (card, recipe) == find(f"{card.name}@{name}")


@pytest.mark.parametrize("card", CARDS)
def test_scores_are_percentages_with_a_source(card: WeightCard) -> None:
    """A published number without its source is a rumour."""
    for score in card.scores:
        assert 1 < score.value < 100
        assert all((score.task, score.probe, score.metric, score.source))


def test_files_do_not_overwrite_one_another() -> None:
    """Two addresses are never kept under one name, and one address has one hash."""
    by_name = {file_name(card.url): (card.url, card.sha256) for card in WEIGHTS.values()}

    for card in WEIGHTS.values():
        assert (card.url, card.sha256) == by_name[file_name(card.url)]


def test_a_small_card_is_built() -> None:
    """What the cards name is what `build` makes: width, bands, size."""
    import torch

    card, recipe = find("softcon_vits14_s2")

    trunk = build(card.architecture, recipe, torch.Generator().manual_seed(0))

    assert (384, 13, (224, 224)) == (trunk.dim, trunk.channels, trunk.size)


def test_softcons_six() -> None:
    """Two modalities by three networks, whole hashes, and the README's normalisation."""
    names = [f"softcon_{m}_{s}" for s in ("s2", "s1") for m in ("rn50", "vits14", "vitb14")]
    assert names == [card.name for card in SOFTCON]
    for card in SOFTCON:
        norm = card.recipe.normalization
        s2 = card.recipe.sensor is Sensor.S2_L1C
        assert 64 == len(card.sha256)
        assert (224, 224) == card.recipe.size
        assert ((0.0, 1.0), 255) == (norm.clip, norm.levels)
        assert pytest.approx((1612.9 - 2 * 791.0) if s2 else (-12.59 - 2 * 5.26)) == norm.shift[0]
        assert pytest.approx(4 * 791.0 if s2 else 4 * 5.26) == norm.scale[0]
        zscore = card.alternatives["torchgeo-zscore"].normalization
        assert (None, None) == (zscore.clip, zscore.levels)
        assert pytest.approx(1612.9 if s2 else -12.59) == zscore.shift[0]


# --------------------------------------------------------------------------------- finding


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("softcon_vits14", "did you mean softcon_vits14_s"),
        ("softcon_vits14_s2@zscore", "torchgeo-zscore"),
        ("dino_rn50@other", "no alternatives"),
        ("", "no published weights"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, words: str) -> None:
    """The message names what there is."""
    with pytest.raises(WeightsError) as caught:
        find(name)
    assert words in str(caught.value)


def test_a_file_is_recognised_by_hash_before_name() -> None:
    """A renamed file is known by its hash; a name that many files share tells nothing."""
    card = WEIGHTS["softcon_vits14_s1"]

    assert card is recognise("renamed.pth", card.sha256)
    assert card is recognise("B13_vits14_softcon.pth", card.sha256)
    assert card is recognise("B2_vits14_softcon.pth")
    assert None is recognise("model.safetensors")
    assert WEIGHTS["dinov3_vits16"] is recognise(file_name(WEIGHTS["dinov3_vits16"].url))
    assert None is recognise("renamed.pth", "0" * 64)


def test_a_file_with_several_cards_has_to_be_told() -> None:
    """One file for two sensors: all its cards are candidates, none is taken by itself."""
    by_url: dict[str, list[WeightCard]] = {}
    for card in WEIGHTS.values():
        by_url.setdefault(card.url, []).append(card)
    shared = next(cards for cards in by_url.values() if len(cards) > 1)

    assert shared == candidates(shared[0].filename)
    assert None is recognise(shared[0].filename, shared[0].sha256)


def test_cards_need_neither_torch_nor_timm() -> None:
    """In a fresh interpreter the cards and their descriptions load no heavy library."""
    code = (
        "import sys; from eofm.cli import main; main(['models', 'list']); "
        "main(['models', 'info', 'softcon_vits14_s2']); import eofm.weights.catalogue; "
        "assert not {'torch', 'timm', 'numpy', 'huggingface_hub'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)

    assert 0 == done.returncode, done.stderr.decode()


# ----------------------------------------------------------------------------- descriptions


def test_the_table_of_the_documentation_is_made_from_the_cards() -> None:
    """Model, modality, one line to load it, published scores: as the cards have them."""
    assert readme_table(SOFTCON) in README.read_text(encoding="utf-8")
    assert "| 86.8* | 98.0* |" in readme_table(SOFTCON)


def test_a_recipe_in_words() -> None:
    """Nothing of a recipe is left out of its description."""
    words = "\n".join(recipe_in_words(WEIGHTS["softcon_vits14_s1"].recipe))

    for part in ("s1-grd", "unit db", "VV VH", "224 x 224", "bilinear", "0..1", "255 steps"):
        assert part in words
    for part in ("-23.11", "23.64", "before normalization", "CLS", "zhu-xlab/FGMAE"):
        assert part in words
