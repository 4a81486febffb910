"""The words of --model: folders, controls, names."""

from __future__ import annotations

from pathlib import Path

import pytest

from eofm.bench.config import BenchEurosatConfig
from eofm.bench.models import resolve_models
from eofm.bench.task import EUROSAT
from eofm.errors import ConfigError, SpecError, WeightsError
from eofm.recipe import AcceptSize


def names(model: str, **options: object) -> list[str]:
    """The names of what `model` resolves to."""
    config = BenchEurosatConfig("x", model=model, **options)  # type: ignore[arg-type]
    return [source.name for source in resolve_models(config)]


def test_controls_come_along(encoder_folder: Path) -> None:
    """Every encoder is shown beside band statistics and its untrained twin, unless declined."""
    assert ["mine", "imagestats", "random"] == names(str(encoder_folder))
    assert ["mine"] == names(str(encoder_folder), controls=False)
    assert ["imagestats"] == names("imagestats")


def test_controls_that_are_named_are_not_doubled(encoder_folder: Path) -> None:
    """The order is the user's."""
    assert ["random", "imagestats", "mine"] == names(f"random,imagestats,{encoder_folder}")
    assert ["random", "imagestats"] == names(f"random:{encoder_folder}")


def test_names_can_be_chosen(encoder_folder: Path) -> None:
    """NAME= tells apart two folders that end alike."""
    both = f"a={encoder_folder},b={encoder_folder},zero=random:{encoder_folder}"

    assert ["a", "b", "zero", "imagestats"] == names(both)


def test_random_is_the_twin_of_the_first_encoder(encoder_folder: Path) -> None:
    """Same recipe and plan, other weights; the seed makes the weights."""
    spec = EUROSAT.spec

    def identities(seed: int) -> dict[str, tuple[str, str, str]]:
        config = BenchEurosatConfig("x", model=str(encoder_folder), seed=seed)
        found = (source.identity(spec) for source in resolve_models(config))
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


def test_waivers_of_the_task_reach_the_plan(encoder_folder: Path) -> None:
    """An exception the task grants stands in the identity, with its reason."""
    config = BenchEurosatConfig("x", model=str(encoder_folder), controls=False)
    why = "native size, to compare"

    (source,) = resolve_models(config, [AcceptSize((56, 56), why)])

    assert why in source.identity(EUROSAT.spec).waivers[0]
    with pytest.raises(SpecError, match="reason"):
        resolve_models(config, [AcceptSize((56, 56), "")])[0].identity(EUROSAT.spec)
