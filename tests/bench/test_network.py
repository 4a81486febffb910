"""A user's own encoder: how it is named, what is asked of it, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from eofm.bench.features import FeatureCache, extract
from eofm.bench.run import bench
from eofm.bench.sources import NetworkSource, load_own
from eofm.contract.imagery import Imagery
from eofm.contract.recipe import Recipe
from eofm.contract.spec import STATISTICS, Normalization, Sensor, Unit
from eofm.datasets.eurosat import EUROSAT, BenchEurosatConfig
from eofm.errors import ConfigError, PixelError, WeightsError
from eofm.weights.resolve import is_function

README = Path(__file__).parent.parent.parent / "benchmarks" / "README.md"


def recipe() -> Recipe:
    """Z-scores of thirteen bands at 64 pixels."""
    statistics = STATISTICS["ssl4eo-s12-l1c"]
    norm = Normalization.zscore(statistics.mean, statistics.std, statistics.source)
    return Recipe(Sensor.S2_L1C, statistics.bands, Unit.DN, (64, 64), norm)


def imagery(count: int = 3) -> Imagery:
    """Random tiles."""
    pixels = 2000 + 300 * torch.randn(count, 13, 64, 64, generator=torch.Generator().manual_seed(1))
    return Imagery(pixels, EUROSAT.spec, torch.ones(count, 64, 64, dtype=torch.bool))


class Means(nn.Module):
    """Band means, spoilt by what a test says."""

    def __init__(self, spoil: str = "") -> None:
        super().__init__()
        self.spoil = spoil
        self.register_buffer("count", torch.zeros(()))

    def forward(self, pixels: Tensor) -> object:
        features = pixels.mean(dim=(2, 3))
        match self.spoil:
            case "nan":
                features[0, 0] = torch.nan
            case "map":
                return pixels
            case "tuple":
                return (features,)
            case "buffer":
                self.count += 1
            case "mode":
                self.train()
        return features


def source(spoil: str = "") -> NetworkSource:
    """One of them, in evaluation mode."""
    return NetworkSource("mine", Means(spoil).eval(), recipe(), "a test")


def test_features_are_those_of_the_network_on_prepared_pixels() -> None:
    """Z-scored by name: the stored order of EuroSAT does not reach the network."""
    images = imagery()

    found = source().embed(images)

    statistics = STATISTICS["ssl4eo-s12-l1c"]
    for place, band in enumerate(statistics.bands):
        stored = images.pixels[:, EUROSAT.spec.bands.index(band)].mean(dim=(1, 2))
        expected = (stored - statistics.mean[place]) / statistics.std[place]
        assert torch.allclose(expected, found[:, place], atol=1e-4)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        ("nan", PixelError, "features that are not finite"),
        ("map", WeightsError, "one vector per image"),
        ("tuple", WeightsError, "one vector per image"),
    ],
)
def test_what_is_no_vector_is_named(spoil: str, error: type[Exception], message: str) -> None:
    """NaN, maps and tuples are refused with the name of the model."""
    with pytest.raises(error, match=message) as caught:
        source(spoil).embed(imagery())

    assert "mine" in str(caught.value)


@pytest.mark.parametrize(("spoil", "message"), [("buffer", "changed"), ("mode", "training mode")])
def test_a_network_that_moves_is_named(spoil: str, message: str) -> None:
    """A counter in a buffer, or a forward that goes into training mode, ends the run."""
    moving = source(spoil)

    with pytest.raises(WeightsError, match=message) as caught:
        extract([moving], EUROSAT.spec, "d", 3, lambda: [imagery()], FeatureCache(None))

    assert "mine" in str(caught.value)


def test_a_network_left_in_training_mode_is_refused() -> None:
    """Nobody notices dropout in features; so it is said before the first one."""
    network = nn.Sequential(Means().eval(), nn.Dropout())

    with pytest.raises(WeightsError, match="training mode") as caught:
        NetworkSource("mine", network, recipe(), "a test")

    assert ".eval()" in str(caught.value)


@pytest.mark.parametrize("word", ["my.module:function", "folder/file.py:make", "m:f"])
def test_references(word: str) -> None:
    """module:function and file.py:function are references; paths and names are not."""
    assert is_function(word)
    assert not is_function(word.replace(":", "/"))


def test_the_readme_example_runs(eurosat: Path, tmp_path: Path) -> None:
    """The encoder of one's own in benchmarks/README.md is scored as it stands there."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    (code,) = (block for block in blocks if "def encoder" in block)
    assert len(code.splitlines()) <= 25
    (tmp_path / "my_models.py").write_text(code)
    config = BenchEurosatConfig(
        str(eurosat),
        model=f"mine={tmp_path}/my_models.py:encoder",
        probe="knn",
        controls=False,
        bootstrap=20,
        out=str(tmp_path / "out.jsonl"),
        cache="",
    )

    report = bench(config)

    assert {"mine"} == {r.model.name for r in report.results}


def test_another_forward_with_the_same_weights_is_another_network(
    eurosat: Path, tmp_path: Path
) -> None:
    """Whoever edits the code between two runs does not meet the features of the old code."""
    config = BenchEurosatConfig(
        str(eurosat),
        model=f"mine={tmp_path}/my_edited.py:encoder",
        probe="knn",
        controls=False,
        bootstrap=20,
        out=str(tmp_path / "out.jsonl"),
        cache=str(tmp_path / "cache"),
    )
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    (code,) = (block for block in blocks if "def encoder" in block)
    kept = []
    for text in (code, code, code.replace("self.conv(", "-self.conv(")):
        (tmp_path / "my_edited.py").write_text(text)
        torch.manual_seed(0)  # the example draws its weights
        bench(config)
        kept.append(len([f for f in (tmp_path / "cache").iterdir() if f.is_dir()]))

    assert [3, 3, 6] == kept  # of three splits


@pytest.mark.parametrize(
    "code",
    [
        "def encoder(): return 1",
        "def encoder(): raise ValueError('no file')",
        "x = 1",
        "import nope",
    ],
)
def test_functions_that_make_no_encoder_are_named(tmp_path: Path, code: str) -> None:
    """A wrong return, an exception, a missing name, a missing import: one error that says which."""
    (tmp_path / "mine.py").write_text(code)

    with pytest.raises(ConfigError, match="your own") as caught:
        load_own(f"{tmp_path}/mine.py:encoder")

    assert "mine.py:encoder" in str(caught.value)
