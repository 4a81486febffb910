"""The words of --model: folders, controls, names of ours and of others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import yaml

from eofm.bench.candidates import TrainImages, resolve_models
from eofm.bench.sources import Candidate
from eofm.contract.imagery import Imagery
from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.spec import Normalization, Sensor, Unit
from eofm.datasets.base import Task
from eofm.datasets.eurosat import EUROSAT, BenchEurosatConfig
from eofm.errors import ConfigError, WeightsError
from eofm.weights.cards import WEIGHTS
from eofm.weights.encoder import load_encoder, random_encoder, save_encoder
from eofm.weights.load import load_timm
from eofm.weights.resolve import TORCHGEO_NAMES, torchgeo_card


def noise(sensor: int, index: int) -> Imagery:
    """A training image."""
    generator = torch.Generator().manual_seed(index)
    pixels = 2000 + 300 * torch.randn(1, 13, 64, 64, generator=generator)
    return Imagery(pixels, EUROSAT.spec, torch.ones(1, 64, 64, dtype=torch.bool))


def resolve(
    model: str, task: Task = EUROSAT, images: TrainImages = noise, **options: object
) -> list[Candidate]:
    """What `model` resolves to."""
    config = BenchEurosatConfig("x", model=model, **options)  # type: ignore[arg-type]
    return resolve_models(config, task, images, 5)


def names(model: str, **options: object) -> list[str]:
    """The names of what `model` resolves to."""
    return [candidate.name for candidate in resolve(model, **options)]


def test_controls_come_along(encoder_folder: Path) -> None:
    """Every encoder is shown beside four controls, unless declined."""
    always = ["imagestats", "rcf", "rcf-zca"]
    assert ["mine", *always, "random"] == names(str(encoder_folder))
    assert ["mine"] == names(str(encoder_folder), controls=False)
    assert always == names("imagestats")


@pytest.mark.slow
def test_controls_that_are_named_are_not_doubled(encoder_folder: Path) -> None:
    """The order is the user's."""
    found = names(f"random,imagestats,{encoder_folder}")
    assert ["random", "imagestats", "mine", "rcf", "rcf-zca"] == found
    assert "random:resnet18" == names("random:resnet18")[0]
    assert "random" == names(f"{encoder_folder},random:resnet18")[-1], "resnet18 is no twin"
    assert ["rcf", "imagestats", "rcf-zca"] == names("rcf")


@pytest.mark.slow
def test_every_architecture_gets_its_twin(encoder_folder: Path, tmp_path: Path) -> None:
    """Two encoders of one recipe share an untrained twin; another architecture gets its own."""
    mine = load_encoder(encoder_folder)
    save_encoder(random_encoder("vit-tiny-14-2blocks", mine.recipe, seed=9), tmp_path / "same")
    recipe = replace(mine.recipe, pooling=Pooling.MEAN)
    save_encoder(random_encoder("resnet18", recipe, seed=9), tmp_path / "other")

    found = names(f"{encoder_folder},{tmp_path}/same,{tmp_path}/other")

    assert ["mine", "same", "other"] == found[:3]
    assert ["random", "random-2"] == found[-2:]


def test_names_can_be_chosen(encoder_folder: Path) -> None:
    """NAME= tells apart two folders that end alike."""
    both = f"a={encoder_folder},b={encoder_folder},zero=random:{encoder_folder}"

    assert ["a", "b", "zero"] == names(both)[:3]


def test_random_is_the_twin_of_the_first_encoder(encoder_folder: Path) -> None:
    """Same recipe and plan, other weights; the seed makes the weights."""

    def identities(seed: int) -> dict[str, tuple[str, str, str]]:
        found = (c.identity(EUROSAT) for c in resolve(str(encoder_folder), seed=seed))
        return {i.name: (i.recipe_sha256, i.plan_sha256, i.weights_sha256) for i in found}

    one, other = identities(0), identities(1)

    assert one["mine"] == other["mine"]
    assert one["mine"][:2] == one["random"][:2] == other["random"][:2]
    assert 3 == len({one["mine"][2], one["random"][2], other["random"][2]})


def test_same_names_are_refused(encoder_folder: Path) -> None:
    """Two rows of one name could not be told apart."""
    with pytest.raises(ConfigError, match="same name") as caught:
        names(f"{encoder_folder},{encoder_folder}/")

    assert "first=FOLDER" in str(caught.value)


def test_random_alone_has_nothing_to_be_like() -> None:
    """It needs an architecture and a recipe."""
    with pytest.raises(ConfigError, match="architecture and a recipe"):
        names("random")


@pytest.mark.parametrize("word", ["=x", "name="])
def test_a_name_needs_a_target(word: str) -> None:
    """Half an assignment is refused."""
    with pytest.raises(ConfigError, match="a name and a target"):
        names(word)


def test_a_folder_without_encoder_is_refused(tmp_path: Path) -> None:
    """Before any image is read."""
    with pytest.raises(WeightsError, match="no encoder"):
        names(str(tmp_path))


def test_random_needs_a_known_architecture() -> None:
    """A misspelt architecture is taken for a folder, and the error says what is there."""
    with pytest.raises(WeightsError, match="no such weights"):
        names("random:resnet19", controls=False)


# ---------------------------------------------------------------------- names of others


def test_names_of_torchgeo_are_cards_of_the_same_file() -> None:
    """The table agrees with torchgeo's own addresses, member by member."""
    models = pytest.importorskip("torchgeo.models", reason="torchgeo is an extra")
    for member, card in TORCHGEO_NAMES.items():
        enum, name = member.split(".")
        weights = vars(models)[enum][name]
        assert weights.url.rpartition("/")[2].partition("?")[0] == WEIGHTS[card].filename


def test_a_name_of_torchgeo_without_a_card_is_refused() -> None:
    """What it expects is not known here, so it is not guessed."""
    assert "softcon_rn50_s2@torchgeo-zscore" == torchgeo_card(
        "torchgeo:ResNet50_Weights.SENTINEL2_ALL_SOFTCON@torchgeo-zscore"
    )
    with pytest.raises(WeightsError, match="no card") as caught:
        names("torchgeo:ResNet50_Weights.SENTINEL2_ALL_MOC0", controls=False)
    assert "SENTINEL2_ALL_MOCO" in str(caught.value)


RECIPE = """
sensor: s2-l1c
bands: [B04, B03, B02]
unit: dn
size: [64, 64]
normalization:
  {shift: [0, 0, 0], scale: [10000, 10000, 10000], source: mine, clip: null, levels: null}
resize: {kernel: bilinear, antialias: true, order: before-normalization}
pooling: mean
"""


@pytest.fixture
def timm_file(tmp_path: Path) -> Path:
    """Weights of a small network of timm."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = timm.create_model("resnet10t")
    torch.save(model.state_dict(), tmp_path / "resnet10t.pth")
    return tmp_path / "resnet10t.pth"


def test_networks_of_timm_eat_what_the_recipe_says(timm_file: Path, tmp_path: Path) -> None:
    """Without a recipe they are refused; with one, features are timm's on prepared pixels."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    word = f"timm:resnet10t@{timm_file}"
    with pytest.raises(ConfigError, match="does not state its recipe"):
        names(word, controls=False)

    (candidate,) = resolve(word, controls=False, recipe=str(tmp_path / "recipe.yaml"))

    images = noise(0, 1)
    model = timm.create_model("resnet10t", num_classes=0).eval()
    state = torch.load(timm_file, weights_only=True)
    model.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc.")})
    index = [EUROSAT.spec.bands.index(b) for b in ("B04", "B03", "B02")]
    with torch.no_grad():
        expected = model(images.pixels[:, index] / 10_000)
    assert torch.allclose(expected, candidate.parts[0].embed(images), atol=1e-5)


def test_weights_of_timm_are_not_tiled_over_bands(timm_file: Path) -> None:
    """Its loader would repeat red, green and blue over thirteen bands: another network."""
    bands = EUROSAT.spec.bands
    norm = Normalization.divide(10_000, len(bands), "mine")
    recipe = Recipe(Sensor.S2_L1C, bands, Unit.DN, (64, 64), norm, pooling=Pooling.MEAN)

    with pytest.raises(WeightsError, match="three bands"):
        load_timm(f"timm:resnet10t@{timm_file}", recipe)
    with pytest.raises(WeightsError, match="no such file"):
        load_timm("timm:resnet10t@nowhere.pth", Recipe.from_dict(yaml.safe_load(RECIPE)))


@pytest.mark.parametrize("text", ["sensor: s2-l1c", "a: [", "- 1", RECIPE.replace("dn", "db")])
def test_a_recipe_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    """Missing fields, broken YAML, a unit the sensor never has."""
    (tmp_path / "recipe.yaml").write_text(text)

    with pytest.raises(ConfigError, match="cannot be read") as caught:
        names("timm:resnet10t", controls=False, recipe=str(tmp_path / "recipe.yaml"))

    assert "recipe.yaml" in str(caught.value)
