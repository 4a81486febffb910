"""Where training starts: every kind of weights, every tensor accounted for, nothing misread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.spec import DEFAULT_STATISTICS, STATISTICS, Normalization, Sensor, Unit
from eofm.errors import WeightsError
from eofm.networks.build import build
from eofm.networks.resnet import build_resnet
from eofm.networks.state import InputInit, PositionRecipe, State, resample_positions
from eofm.networks.trunk import Trunk
from eofm.networks.vit import build_vit
from eofm.weights import cards as published
from eofm.weights.cards.card import StateLayout, WeightCard
from eofm.weights.encoder import random_encoder, save_encoder
from eofm.weights.start import Origin, start_from

TINY = "vit-tiny-14"


def recipe_for(
    sensor: Sensor = Sensor.S2_L1C, size: int = 56, *, rule: str = "two-sigma", **changes: object
) -> Recipe:
    """What a run on that sensor feeds, with its published statistics."""
    stats = STATISTICS[DEFAULT_STATISTICS[sensor]]
    make = Normalization.zscore if rule == "zscore" else Normalization.two_sigma
    norm = make(stats.mean, stats.std, stats.source)
    recipe = Recipe(sensor, stats.bands, stats.unit, (size, size), norm)
    return replace(recipe, **changes)  # type: ignore[arg-type]


def start(
    weights: Path | str | None,
    recipe: Recipe,
    architecture: str = TINY,
    rule: InputInit = InputInit.RANDOM,
) -> tuple[Trunk, Origin]:
    """`start_from` with a seed of its own, and the accounts checked."""
    trunk, origin = start_from(
        weights,
        architecture,
        recipe,
        torch.Generator().manual_seed(5),
        input_init=rule,
        positions=PositionRecipe.DINOV2,
    )
    sorted_out = origin.loaded + origin.adapted + origin.initialised
    assert len(sorted_out) == len(set(sorted_out))
    assert set(trunk.state_dict()) == set(sorted_out)
    return trunk.eval(), origin


def trained(trunk: Trunk) -> State:
    """The tensors of a network with scales, positions and statistics that are not initial ones."""
    generator = torch.Generator().manual_seed(6)
    state = {key: value.clone() for key, value in trunk.state_dict().items()}
    for key, value in state.items():
        if key.endswith(("gamma", "running_var")):
            value.uniform_(0.2, 0.8, generator=generator)
        elif key.endswith(("pos_embed", "cls_token", "running_mean", "norm.bias")):
            value.normal_(0, 0.3, generator=generator)
    return state


def rgb_vit(size: int = 518, name: str = TINY) -> Trunk:
    """A vision model for photographs, on the demo network."""
    trunk = build_vit(name, 3, (size, size), torch.Generator().manual_seed(1))
    trunk.load_state_dict(trained(trunk))
    return trunk.eval()


def as_released(trunk: Trunk, path: Path) -> Path:
    """The file that Meta would publish: names of DINOv2, with the mask token."""
    torch.save({**trunk.state_dict(), "mask_token": torch.zeros(1, trunk.dim)}, path)
    return path


@pytest.fixture
def dinov2(tmp_path: Path) -> Path:
    """`dinov2_vits14_pretrain.pth` in miniature: 37 x 37 positions."""
    return as_released(rgb_vit(), tmp_path / "dinov2_tiny_pretrain.pth")


# ------------------------------------------------------------------------------- RGB


def test_without_weights_everything_is_drawn() -> None:
    """Random weights are those of `build` with the same seed, and the origin says so."""
    trunk, origin = start(None, recipe_for())
    twin = build(TINY, recipe_for(), torch.Generator().manual_seed(5))

    assert all(
        torch.equal(a, b) for a, b in zip(trunk.parameters(), twin.parameters(), strict=True)
    )
    assert ("random weights", True, ()) == (origin.line, origin.new_input, origin.loaded)


def test_a_file_of_another_network_says_which(tmp_path: Path) -> None:
    """A file of a ViT, given to another one or to a ResNet, is named, and its name is the remedy.

    So is the file of a ResNet; weights that are no network of ours fail by their tensors.
    """
    vit = as_released(rgb_vit(56, "vits14"), tmp_path / "vits.pth")
    resnet = tmp_path / "resnet.pth"
    torch.save(build_resnet("resnet18", 3, (56, 56), torch.Generator()).state_dict(), resnet)
    mean = replace(recipe_for(), pooling=Pooling.MEAN)
    for file, architecture, recipe, found in (
        (vit, TINY, recipe_for(), "vits14"),
        (vit, "vitb14", recipe_for(), "vits14"),
        (vit, "resnet50", mean, "vits14"),
        (resnet, "resnet50", mean, "resnet18"),
        (resnet, TINY, recipe_for(), "resnet18"),
    ):
        with pytest.raises(WeightsError, match="another network") as caught:
            start(file, recipe, architecture)
        assert f"--model.architecture {found}" == caught.value.remedy
        assert architecture == caught.value.expected
    for file, found in ((vit, "vits14"), (vit, "vits14-7blocks"), (resnet, "resnet18")):
        start(file, mean, found)  # as the remedy says


def test_the_papers_rule_loads_all_but_the_input_layer(dinov2: Path) -> None:
    """Random input, interpolated positions, all else bit for bit; mask_token is left out."""
    source = torch.load(dinov2, weights_only=True)
    trunk, origin = start(dinov2, recipe_for())
    state = trunk.state_dict()

    assert ("pos_embed",) == origin.adapted
    assert ("patch_embed.proj.weight", "patch_embed.proj.bias") == origin.initialised
    assert ("mask_token",) == origin.dropped
    assert origin.new_input
    assert all(torch.equal(source[key], state[key]) for key in origin.loaded)
    expected = resample_positions(source["pos_embed"], (37, 37), (4, 4), PositionRecipe.DINOV2)
    assert torch.equal(expected, state["pos_embed"])
    assert (13 * 14 * 14) ** -0.5 >= state["patch_embed.proj.weight"].abs().max()


def test_a_cut_network_takes_the_first_blocks_and_names_what_it_leaves(
    dinov2: Path, tmp_path: Path
) -> None:
    """Of a file and of an export of the whole one; an export of the cut one is continued whole."""
    recipe = recipe_for(pooling=Pooling.MEAN)
    source = torch.load(dinov2, weights_only=True)
    trunk, origin = start(dinov2, recipe, f"{TINY}-4blocks")
    state = trunk.state_dict()

    left_out = {key for key in source if key.startswith(("blocks.4.", "blocks.5.", "norm."))}
    assert {"mask_token", *left_out} == set(origin.dropped)
    assert all(torch.equal(source[key], state[key]) for key in origin.loaded)

    save_encoder(random_encoder(TINY, recipe, 1), tmp_path / "whole")
    save_encoder(random_encoder(f"{TINY}-4blocks", recipe, 1), tmp_path / "cut")
    assert left_out == set(start(tmp_path / "whole", recipe, f"{TINY}-4blocks")[1].dropped)
    assert () == start(tmp_path / "cut", recipe, f"{TINY}-4blocks")[1].dropped
    with pytest.raises(WeightsError, match="made for another network"):
        start(tmp_path / "cut", recipe, TINY)
    with pytest.raises(WeightsError, match="made for another network"):
        start(dinov2, recipe, "vits14-7blocks")


def test_the_line_and_the_list_name_what_happened(dinov2: Path) -> None:
    """One line with file, layout and counts; a list with every tensor and the file's sha256."""
    _, origin = start(dinov2, recipe_for())
    text = origin.describe()

    assert "dinov2_tiny_pretrain.pth (dinov2)" in origin.line
    for words in ("1 adapted", "2 drawn afresh", "1 left out", "input layer random"):
        assert words in origin.line
    assert "\n" not in origin.line
    assert origin.sha256 in text
    assert 64 == len(origin.sha256)
    for key in (*origin.loaded, *origin.adapted, *origin.initialised, *origin.dropped):
        assert f"  {key}\n" in text + "\n"


@pytest.mark.parametrize("rule", [InputInit.RGB_MATCHED, InputInit.RGB_NEAREST, InputInit.MEAN])
@pytest.mark.parametrize("normalization", ["two-sigma", "zscore"])
def test_gray_gives_the_features_of_the_vision_model(
    rule: InputInit, normalization: str, tmp_path: Path, generator: torch.Generator
) -> None:
    """Gray through 13 bands embeds as through RGB, also where pixels come as (z + 2) / 4."""
    model = rgb_vit(size=56)
    path = as_released(model, tmp_path / "weights.pth")
    trunk, origin = start(path, recipe_for(rule=normalization), rule=rule)
    z = torch.randn(2, 1, 56, 56, generator=generator)
    pixels = (z + 2) / 4 if normalization == "two-sigma" else z

    with torch.no_grad():
        expected, found = model(z.expand(-1, 3, -1, -1)), trunk(pixels.expand(-1, 13, -1, -1))
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)
    assert rule == origin.input_layer
    assert not origin.new_input  # copied filters carry the start
    assert "patch_embed.proj.weight" in origin.adapted
    assert ("patch_embed.proj.bias" in origin.adapted) == (normalization == "two-sigma")


def test_rgb_for_rgb_is_kept(dinov2: Path) -> None:
    """For red, green and blue there is nothing to make: the layer stays, under any rule."""
    recipe = recipe_for(Sensor.RGB, rule="zscore")
    trunk, origin = start(dinov2, recipe)
    source = torch.load(dinov2, weights_only=True)

    weight = trunk.state_dict()["patch_embed.proj.weight"]
    assert torch.equal(source["patch_embed.proj.weight"], weight)
    assert ("kept", False) == (origin.input_layer, origin.new_input)


def test_registers_keep_their_place_and_go_by_size(tmp_path: Path) -> None:
    """`dinov2_vits14_reg4_pretrain.pth`: registers load, positions are antialiased as by Meta."""
    model = rgb_vit(518, "vits14_reg4")
    path = as_released(model, tmp_path / "dinov2_vits14_reg4_pretrain.pth")
    trunk, origin = start(path, recipe_for(), "vits14_reg4")
    state = trunk.state_dict()

    assert "register_tokens" in origin.loaded
    table = model.state_dict()["pos_embed"]
    expected = resample_positions(table, (37, 37), (4, 4), PositionRecipe.TIMM)
    assert torch.equal(expected, state["pos_embed"])


def dino_resnet(tmp_path: Path, name: str = "resnet18") -> tuple[Path, State]:
    """`dino_resnet50_pretrain.pth`, or in miniature: torchvision's names, no fc, no counters."""
    net = build_resnet(name, 3, (64, 64), torch.Generator().manual_seed(1))
    state = {k: v for k, v in trained(net).items() if not k.endswith("num_batches_tracked")}
    path = tmp_path / f"dino_{name}_pretrain.pth"
    torch.save(state, path)
    return path, state


def test_dino_resnet_loads_under_the_papers_rule(tmp_path: Path) -> None:
    """conv1 is drawn for 13 bands without a bias; all else, statistics of norms too, is loaded."""
    path, source = dino_resnet(tmp_path, "resnet50")
    recipe = recipe_for(size=64, pooling=Pooling.MEAN)
    trunk, origin = start(path, recipe, "resnet50")
    state = trunk.state_dict()

    assert ("conv1.weight",) == origin.initialised
    assert () == origin.adapted == origin.dropped
    assert all(torch.equal(source[key], state[key]) for key in source if key != "conv1.weight")
    assert (64, 13, 7, 7) == tuple(state["conv1.weight"].shape)


def test_dino_resnet_with_copied_filters(tmp_path: Path, generator: torch.Generator) -> None:
    """The norm behind conv1 takes the offset of pixels in [0, 1]: gray is as in RGB, inside."""
    path, source = dino_resnet(tmp_path)
    recipe = recipe_for(size=64, pooling=Pooling.MEAN)
    trunk, origin = start(path, recipe, "resnet18", InputInit.RGB_NEAREST)
    rgb = build_resnet("resnet18", 3, (64, 64), torch.Generator())
    rgb.load_state_dict(source, strict=False)
    z = torch.randn(2, 1, 64, 64, generator=generator)
    stems = [net.eval().get_submodule("conv1") for net in (rgb, trunk)]
    norms = [net.get_submodule("bn1") for net in (rgb, trunk)]

    with torch.no_grad():
        expected = norms[0](stems[0](z.expand(-1, 3, -1, -1)))
        found = norms[1](stems[1](((z + 2) / 4).expand(-1, 13, -1, -1)))
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(found[inside], expected[inside], atol=1e-4, rtol=1e-3)
    assert not torch.allclose(found, expected, atol=0.1)  # zeros are padded to both
    assert ("bn1.running_mean", "conv1.weight") == tuple(sorted(origin.adapted))


def test_dinov3_through_timm(tmp_path: Path, generator: torch.Generator) -> None:
    """A safetensors file of timm's DINOv3: all loaded, and gray embeds as timm's own model does."""
    name = "vit_small_patch16_dinov3"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=0, img_size=64, dynamic_img_size=True).eval()
    state = model.state_dict()
    for key, value in state.items():
        if "gamma" in key:
            value.fill_(0.3)
    save_file(state, tmp_path / "model.safetensors")
    trunk, origin = start(
        tmp_path / "model.safetensors",
        recipe_for(size=64, rule="zscore"),
        f"timm:{name}",
        InputInit.RGB_NEAREST,
    )
    z = torch.randn(2, 1, 64, 64, generator=generator)

    with torch.no_grad():
        expected = model.forward_features(z.expand(-1, 3, -1, -1))
        found = trunk.forward_features(z.expand(-1, 13, -1, -1))
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)
    assert ("model.patch_embed.proj.weight",) == origin.adapted
    assert len(state) - 1 == len(origin.loaded)


def test_timms_positions_go_as_timm_does(tmp_path: Path) -> None:
    """A ViT of timm for 224 px starts at 64 px with timm's own interpolation."""
    name = "vit_tiny_patch16_224"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = timm.create_model(name).state_dict()
    torch.save(state, tmp_path / "tiny.pth")
    trunk, origin = start(tmp_path / "tiny.pth", recipe_for(size=64), f"timm:{name}")

    assert "model.pos_embed" in origin.adapted
    expected = resample_positions(state["pos_embed"], (14, 14), (4, 4), PositionRecipe.TIMM)
    torch.testing.assert_close(trunk.state_dict()["model.pos_embed"], expected)
    assert ("head.bias", "head.weight") == tuple(sorted(origin.dropped))


# -------------------------------------------------------------------- an earlier pretraining


@pytest.fixture
def export(tmp_path: Path) -> Callable[[Recipe, str], Path]:
    """Writes an export of a network for a recipe."""

    def write(recipe: Recipe, architecture: str = TINY) -> Path:
        encoder = random_encoder(architecture, recipe, seed=3)
        encoder.trunk.load_state_dict(trained(encoder.trunk))
        save_encoder(encoder, tmp_path / "export")
        return tmp_path / "export"

    return write


def test_an_export_goes_on_as_it_is(export: Callable[..., Path]) -> None:
    """Same bands, same normalisation: every tensor bit for bit, by folder, card or file."""
    folder = export(recipe_for())
    for path in (folder, folder / "card.json", folder / "weights.safetensors"):
        trunk, origin = start(path, recipe_for())
        assert set(trunk.state_dict()) == set(origin.loaded)
        assert ("kept", False) == (origin.input_layer, origin.new_input)


def test_an_export_goes_on_at_another_size(export: Callable[..., Path]) -> None:
    """Only the position table is computed."""
    _, origin = start(export(recipe_for()), recipe_for(size=112))

    assert ("pos_embed",) == origin.adapted
    assert not origin.new_input


@pytest.mark.parametrize("architecture", [TINY, "resnet18"])
def test_l1c_goes_on_with_l2a(
    architecture: str, export: Callable[..., Path], generator: torch.Generator
) -> None:
    """13 bands to 12: with B10 at its mean everywhere the embedding of both is the same."""
    pooling = Pooling.CLS if architecture == TINY else Pooling.MEAN
    l1c, l2a = (recipe_for(s, pooling=pooling) for s in (Sensor.S2_L1C, Sensor.S2_L2A))
    folder = export(l1c, architecture)
    whole, _ = start(folder, l1c, architecture)
    part, origin = start(folder, l2a, architecture)
    pixels = torch.rand(2, 13, 56, 56, generator=generator)
    pixels[:, 10] = 0.5
    without = torch.cat([pixels[:, :10], pixels[:, 11:]], dim=1)

    assert not origin.new_input
    assert "brought from 13 to 12 bands by name" == origin.input_layer
    with torch.no_grad():
        expected, found = whole(pixels), part(without)
    if architecture == TINY:
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    else:  # conv1 pads with zeros, where B10 was not at its mean
        assert (found - expected).norm() < 0.05 * expected.norm()


def test_l2a_goes_on_with_l1c(export: Callable[..., Path], generator: torch.Generator) -> None:
    """12 bands to 13: whatever is in B10, the embedding is that of the twelve."""
    folder = export(recipe_for(Sensor.S2_L2A))
    part, _ = start(folder, recipe_for(Sensor.S2_L2A))
    whole, origin = start(folder, recipe_for())
    pixels = torch.rand(2, 13, 56, 56, generator=generator)
    without = torch.cat([pixels[:, :10], pixels[:, 11:]], dim=1)

    with torch.no_grad():
        torch.testing.assert_close(whole(pixels), part(without), atol=1e-5, rtol=1e-4)
    assert ("patch_embed.proj.weight",) == origin.adapted


@pytest.mark.parametrize(
    ("have", "want", "words"),
    [
        (recipe_for(), recipe_for(rule="zscore"), "normalization"),
        (recipe_for(Sensor.S2_L2A, rule="zscore"), recipe_for(), "normalization"),
        (
            recipe_for(),
            recipe_for(normalization=replace(recipe_for().normalization, levels=None)),
            "normalization",
        ),
        (
            recipe_for(),
            recipe_for(
                normalization=replace(
                    recipe_for().normalization,
                    shift=tuple(s + 1 for s in recipe_for().normalization.shift),
                )
            ),
            "normalization",
        ),
        (recipe_for(), recipe_for(Sensor.S1_GRD), "s2-l1c"),
        (recipe_for(Sensor.S1_GRD), recipe_for(Sensor.S1_RTC), "s1-grd"),
    ],
    ids=["two-sigma", "zscore-l2a", "quantised", "other-statistics", "s1", "grd"],
)
def test_an_export_for_other_pixels_is_refused(
    have: Recipe, want: Recipe, words: str, export: Callable[..., Path]
) -> None:
    """Another normalisation, statistics or sensor: the error says what it was made for."""
    with pytest.raises(WeightsError, match="other input") as caught:
        start(export(have), want)
    assert words in str(caught.value)


def test_the_source_of_equal_statistics_does_not_matter(export: Callable[..., Path]) -> None:
    """The same constants under another label are the same normalisation."""
    recipe = recipe_for()
    renamed = replace(recipe, normalization=replace(recipe.normalization, source="elsewhere"))

    assert not start(export(renamed), recipe)[1].new_input


def test_an_export_of_another_network_is_refused(export: Callable[..., Path]) -> None:
    """The architecture is stated on the card and compared first."""
    folder = export(recipe_for(size=64, pooling=Pooling.MEAN), "resnet18")

    with pytest.raises(WeightsError, match="resnet18"):
        start(folder, recipe_for(pooling=Pooling.MEAN))


# ---------------------------------------------------------- published names, bare files


def publish(
    monkeypatch: pytest.MonkeyPatch, path: Path, recipe: Recipe, **changes: object
) -> WeightCard:
    """Add a card for a file on this machine to the table of published weights."""
    card = WeightCard(
        name="tiny_s2",
        architecture=TINY,
        url=path.resolve().as_uri(),
        layout=StateLayout.DINOV2,
        recipe=recipe,
        recipe_source="this test",
        objective="none",
        training_data="none",
        licence="Apache-2.0",
        paper="",
    )
    card = replace(card, **changes)  # type: ignore[arg-type]
    monkeypatch.setitem(published.WEIGHTS, card.name, card)  # type: ignore[arg-type]
    return card


def softcon(tmp_path: Path) -> Path:
    """A file of SoftCon in miniature: DINOv2's names, 13 bands, positions of the working grid."""
    trunk = build_vit(TINY, 13, (56, 56), torch.Generator().manual_seed(1))
    trunk.load_state_dict(trained(trunk))
    return as_released(trunk, tmp_path / "B13_tiny_softcon.pth")


def test_a_published_pretraining_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name: fetched, mapped by its card, every tensor kept where the bands agree."""
    path = softcon(tmp_path)
    publish(monkeypatch, path, recipe_for())
    trunk, origin = start("tiny_s2", recipe_for())
    source = torch.load(path, weights_only=True)

    assert all(torch.equal(source[key], value) for key, value in trunk.state_dict().items())
    assert ("kept", False, ("mask_token",)) == (
        origin.input_layer,
        origin.new_input,
        origin.dropped,
    )
    assert "tiny_s2 (B13_tiny_softcon.pth)" in origin.line


def test_a_published_pretraining_is_held_to_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its card's bands, normalisation and architecture are compared, also for a file it knows."""
    path = softcon(tmp_path)
    card = publish(monkeypatch, path, recipe_for())
    for weights in (card.name, path, path.as_uri()):
        with pytest.raises(WeightsError, match="other input"):
            start(weights, recipe_for(rule="zscore"))
        assert not start(weights, recipe_for(Sensor.S2_L2A))[1].new_input
    with pytest.raises(WeightsError, match="vit-tiny-14"):
        start(card.name, recipe_for(), "vits14")


def test_a_published_vision_model_is_adapted(dinov2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name: an RGB card leads to the same network as its file does."""
    publish(monkeypatch, dinov2, recipe_for(Sensor.RGB, 518, rule="zscore"), name="tiny_rgb")
    named, by_name = start("tiny_rgb", recipe_for(), rule=InputInit.RGB_NEAREST)
    filed, by_file = start(dinov2, recipe_for(), rule=InputInit.RGB_NEAREST)

    assert all(map(torch.equal, named.parameters(), filed.parameters()))
    assert by_name.adapted == by_file.adapted


def test_a_file_with_another_hash_is_not_the_published_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name proves nothing where a hash is published: the file's bands are then not known."""
    path = softcon(tmp_path)
    publish(monkeypatch, path, recipe_for(), sha256="0" * 64)
    _, origin = start(path, recipe_for(rule="zscore"))

    assert "does not say for which 13 bands" in origin.line
    with pytest.raises(WeightsError, match="hash differs"):
        start("tiny_s2", recipe_for())


def test_a_file_for_other_bands_is_refused(tmp_path: Path) -> None:
    """13 channels of which nothing says what they are cannot become 12 or 2."""
    path = softcon(tmp_path)
    for sensor in (Sensor.S2_L2A, Sensor.S1_GRD):
        with pytest.raises(WeightsError, match="13 bands") as caught:
            start(path, recipe_for(sensor))
        assert "3 (red, green, blue)" in str(caught.value)


def test_words_that_lead_nowhere(tmp_path: Path) -> None:
    """A missing file, an unknown name and an empty folder are each told apart."""
    for word, message in (
        (tmp_path / "absent.pth", "no such weights file"),
        ("dinov2_vits41", "did you mean dinov2_vits14"),
        (tmp_path, "no encoder here"),
    ):
        with pytest.raises(WeightsError, match=message):
            start(word, recipe_for())


def test_weights_of_another_width_are_refused(tmp_path: Path, dinov2: Path) -> None:
    """Shapes that differ outside the input layer are listed, not interpolated."""
    state = torch.load(dinov2, weights_only=True)
    odd = tmp_path / "odd.pth"  # of no network that has a name
    torch.save({k: v for k, v in state.items() if not k.startswith("blocks.5.")}, odd)
    with pytest.raises(WeightsError, match="do not fit the architecture"):
        start(odd, recipe_for(), "vits14")
    with pytest.raises(WeightsError, match="0 bands"):
        start(odd, recipe_for(size=64, pooling=Pooling.MEAN), "resnet18")


def test_all_units_of_one_sensor_are_not_one_input(export: Callable[..., Path]) -> None:
    """Constants of another unit are another normalisation, even where they are equal."""
    recipe = recipe_for()

    with pytest.raises(WeightsError, match="other input"):
        start(export(replace(recipe, unit=Unit.REFLECTANCE)), recipe)


def test_nothing_is_drawn_from_the_global_source(dinov2: Path) -> None:
    """Two starts with one seed are equal whatever the global state, which stays as it was."""
    before = torch.get_rng_state()
    first, _ = start(dinov2, recipe_for())
    after: Tensor = torch.get_rng_state()
    with torch.random.fork_rng():
        torch.manual_seed(99)
        second, _ = start(dinov2, recipe_for())

    assert torch.equal(before, after)
    assert all(map(torch.equal, first.parameters(), second.parameters()))
