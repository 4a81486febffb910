"""Encoders: imagery that fits is embedded, everything else is refused, on disk as in memory."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from levels import levels
from safetensors.torch import load_file, save_file
from torch import nn

from eofm.contract import prepare
from eofm.contract import recipe as eofm_recipe
from eofm.contract.imagery import Imagery
from eofm.contract.prepare import as_imagery
from eofm.contract.preprocess import Preprocess, plan
from eofm.contract.recipe import (
    AcceptPixels,
    AcceptScale,
    AcceptSensor,
    AcceptSize,
    FillBand,
    Pooling,
    Recipe,
)
from eofm.contract.spec import SENSOR_BANDS, STATISTICS, ImageSpec, Normalization, Sensor, Unit
from eofm.errors import PixelError, SpecError, SpecMismatch, WeightsError
from eofm.networks.state import PositionRecipe
from eofm.networks.vit import build_vit
from eofm.weights.encoder import (
    Card,
    Encoder,
    library_versions,
    load_encoder,
    random_encoder,
    save_encoder,
)

TINY = "vit-tiny-14"
BANDS = ("B02", "B03", "B04", "B08", "B8A")
STATS = STATISTICS["ssl4eo-s12-l1c"].select(BANDS)
RECIPE = Recipe(
    Sensor.S2_L1C,
    BANDS,
    Unit.DN,
    (56, 56),
    Normalization.two_sigma(STATS.mean, STATS.std, STATS.source),
)


@pytest.fixture
def encoder() -> Encoder:
    """An untrained encoder of five bands at 56 pixels."""
    return random_encoder(TINY, RECIPE, seed=0)


def imagery(
    bands: tuple[str, ...] = SENSOR_BANDS[Sensor.S2_L1C],
    size: tuple[int, int] = (64, 64),
    unit: Unit = Unit.DN,
    sensor: Sensor = Sensor.S2_L1C,
) -> Imagery:
    """Three plausible images, fractional, a different level for each band, a few pixels invalid."""
    generator = torch.Generator().manual_seed(7)
    pixels = levels(bands) * (0.6 + torch.rand(3, len(bands), *size, generator=generator))
    valid = torch.rand(3, *size, generator=generator) > 0.05
    return Imagery(pixels, ImageSpec(sensor, bands, unit, size, 10.0), valid)


# ------------------------------------------------------------------------------ embedding


def test_embedding_is_the_trunk_after_the_plan(encoder):
    """Shapes are (B, D) and (B, P, D); the values are those of plan, preprocess, trunk by hand."""
    batch = imagery()
    by_hand = Preprocess(plan(batch.spec, RECIPE))(batch).pixels
    with torch.no_grad():
        tokens = encoder.trunk.forward_features(by_hand)

    assert (192, RECIPE) == (encoder.dim, encoder.recipe)
    assert torch.equal(tokens[:, 0], encoder.embed(batch))
    assert torch.equal(tokens[:, 1:], encoder.features(batch))
    assert (3, 16, 192) == tuple(encoder.features(batch).shape)
    assert not encoder.embed(batch).requires_grad


def test_pooling_follows_the_recipe():
    """A recipe that asks for the mean gets the mean of the patch tokens."""
    encoder = random_encoder(TINY, replace(RECIPE, pooling=Pooling.MEAN), seed=0)
    batch = imagery()

    torch.testing.assert_close(encoder.embed(batch), encoder.features(batch).mean(1))


def test_stored_order_of_bands_does_not_matter(encoder):
    """Bands stored in another order, with others between, give the same vectors."""
    batch = imagery()
    shuffled = ("B8A", "B12", "B04", "B02", "B08", "B01", "B03")
    index = [batch.spec.bands.index(b) for b in shuffled]
    other = Imagery(batch.pixels[:, index], replace(batch.spec, bands=shuffled), batch.valid)

    assert torch.equal(encoder.embed(batch), encoder.embed(other))


def test_imagery_that_does_not_fit_is_refused(encoder):
    """Another product level, radar, a missing band, model input and a stretched size."""
    batch = imagery()
    ready = Preprocess(encoder.plan_for(batch.spec))(batch)
    for kind, wrong in (
        ("sensor", imagery(SENSOR_BANDS[Sensor.S2_L2A], sensor=Sensor.S2_L2A)),
        ("sensor", imagery(("VV", "VH"), unit=Unit.DB, sensor=Sensor.S1_GRD)),
        ("missing-band", imagery(("B02", "B03", "B04", "B08"))),
        ("normalization", ready),
        ("size", imagery(size=(64, 80))),
    ):
        for method in (encoder.embed, encoder.features):
            with pytest.raises(SpecMismatch) as caught:
                method(wrong)
            assert kind == caught.value.kind


def test_the_offset_of_newer_scenes_is_a_unit(encoder):
    """Digital numbers + 1000, declared as such, give the same vectors; undeclared, a refusal.

    Who takes them all the same says why, and gets others.
    """
    batch = imagery()
    offset = replace(batch, pixels=batch.pixels + 1000)
    declared = replace(offset, spec=replace(batch.spec, unit=Unit.DN_OFFSET1000))

    torch.testing.assert_close(encoder.embed(batch), encoder.embed(declared), atol=0.01, rtol=0)
    for method in (encoder.embed, encoder.features):
        with pytest.raises(PixelError, match="seem to carry it") as caught:
            method(offset)
        assert (0, 1, 2) == caught.value.images
        assert "unit dn-offset1000" in str(caught.value)
    taken = encoder.embed(offset, [AcceptPixels("to see what it costs")])
    assert (encoder.embed(batch) - taken).abs().max() > 0.05


def test_waivers_reach_the_plan(encoder):
    """A missing band filled by name works, shows in the plan, and an unused waiver is an error."""
    batch = imagery(("B02", "B03", "B04", "B08"))
    fill = FillBand("B8A", 0.5, "the sensor lacks it")
    bigger = AcceptSize((84, 84), "native resolution")

    assert (3, 192) == tuple(encoder.embed(batch, [fill]).shape)
    assert (fill,) == encoder.plan_for(batch.spec, [fill]).waivers
    assert (3, 36, 192) == tuple(encoder.features(batch, [fill, bigger]).shape)
    with pytest.raises(SpecMismatch, match="not needed"):
        encoder.embed(imagery(), [fill])
    with pytest.raises(SpecMismatch, match="B8A"):  # the plan with a waiver is not reused without
        encoder.embed(batch)


def test_a_scene_is_no_window(encoder):
    """More than five times the network's size at once is refused; a reason opens the way."""
    scene = imagery(BANDS, (284, 284))
    with pytest.raises(SpecMismatch, match="lose most of its detail") as caught:
        encoder.embed(scene)
    waiver = AcceptScale("a quick look")

    assert "scale" == caught.value.kind
    assert (3, 192) == tuple(encoder.embed(scene, [waiver]).shape)
    assert (waiver,) == encoder.plan_for(scene.spec, [waiver]).waivers
    with pytest.raises(SpecMismatch, match="not needed"):
        encoder.embed(imagery(), [waiver])


def test_invalid_pixels_have_no_influence(encoder):
    """What lies under an invalid pixel, NaN included, is not seen; a valid NaN raises."""
    batch = imagery()
    hole = ~batch.valid[:, None].expand_as(batch.pixels)
    dirty = replace(batch, pixels=batch.pixels.masked_fill(hole, torch.nan))

    assert torch.equal(encoder.embed(batch), encoder.embed(dirty))
    with pytest.raises(PixelError, match="not finite"):
        encoder.embed(replace(dirty, valid=torch.ones_like(batch.valid)))


@pytest.mark.parametrize("training", [False, True])
def test_embedding_changes_nothing(encoder, training):
    """No parameter, buffer, pixel, gradient or mode changes."""
    batch = imagery()
    state = copy.deepcopy(encoder.state_dict())
    pixels = batch.pixels.clone()
    encoder.train(training)
    encoder.trunk.norm.train(not training)  # a user may have frozen a part
    modes = [module.training for module in encoder.modules()]
    first = encoder.embed(batch)

    assert torch.equal(first, encoder.embed(batch))
    assert modes == [module.training for module in encoder.modules()]
    assert all(torch.equal(state[k], v) for k, v in encoder.state_dict().items())
    assert torch.equal(pixels, batch.pixels)
    assert all(p.grad is None for p in encoder.parameters())


def test_embedding_is_not_fooled_by_training_mode():
    """A network with batch norm embeds by its running statistics, which stay as they were.

    Even when the network fails half way, training mode is kept as before.
    """
    encoder = random_encoder("resnet18", replace(RECIPE, pooling=Pooling.MEAN), seed=0)
    batch = imagery()
    quiet = encoder.embed(batch)
    encoder.train()

    assert torch.equal(quiet, encoder.embed(batch))
    torch.testing.assert_close(quiet[:1], encoder.embed(first_of(batch)))
    handle = encoder.trunk.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        encoder.embed(batch)
    handle.remove()
    assert all(module.training for module in encoder.modules())
    assert not torch.equal(quiet, encoder(encoder.preprocess(batch)))  # the module itself trains


def first_of(batch: Imagery) -> Imagery:
    """A batch of its first image."""
    return replace(batch, pixels=batch.pixels[:1], valid=batch.valid[:1])


# --------------------------------------------------------------------- a plain module


def test_the_module_is_the_network(encoder):
    """Called with normalised pixels it gives the trunk's output, with gradients to every weight."""
    pixels = encoder.preprocess(imagery())
    encoder(pixels).square().sum().backward()

    assert torch.equal(encoder.trunk(pixels), encoder(pixels))
    assert torch.equal(encoder.trunk.forward_features(pixels), encoder.forward_features(pixels))
    assert all(p.grad is not None for p in encoder.parameters())
    with pytest.raises(SpecMismatch):
        encoder(pixels[:, :4])


def test_intermediate_layers_as_dinov2_users_know_them(encoder):
    """The last layer with the norm is what `forward_features` gives, as tokens or as a map."""
    pixels = encoder.preprocess(imagery())
    with torch.no_grad():
        tokens = encoder.forward_features(pixels)
        (patches, cls), (last, _) = encoder.get_intermediate_layers(
            pixels, n=[2, 5], return_class_token=True
        )
        (field,) = encoder.get_intermediate_layers(pixels, reshape=True)

    assert torch.equal(tokens[:, 1:], last)
    assert torch.equal(tokens[:, 1:], field.flatten(2).transpose(1, 2))
    assert (3, 16, 192) == tuple(patches.shape)
    assert (3, 192) == tuple(cls.shape)


@pytest.mark.parametrize("round_trip", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_are_independent(encoder, round_trip):
    """A deep or pickled copy, made after use, gives equal vectors and shares no tensor."""
    batch = imagery()
    before = encoder.embed(batch)
    twin = round_trip(encoder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()

    assert torch.equal(before, twin.embed(batch))
    assert encoder.card == twin.card
    assert not twin.training


def test_state_dict_round_trip(encoder):
    """Names are the published ones behind `trunk.`; another encoder takes them strictly."""
    other = random_encoder(TINY, RECIPE, seed=5)
    other.load_state_dict(encoder.state_dict())

    assert torch.equal(encoder.embed(imagery()), other.embed(imagery()))
    assert {f"trunk.{k}" for k in encoder.trunk.state_dict()} == set(encoder.state_dict())
    assert "patch_embed.proj.weight" in encoder.trunk.state_dict()


def test_compiled(encoder):
    """The module compiles without a break, and so does the encoder in place, `embed` included."""
    batch = imagery()
    pixels = encoder.preprocess(batch)
    expected = encoder.embed(batch)
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(pixels), expected)

    calls = []
    encoder.compile(backend=lambda graph, _: calls.append(graph) or graph.forward, fullgraph=True)
    torch.testing.assert_close(encoder.embed(batch), expected)
    assert calls


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_preprocessing_is_float32_until_the_cast(encoder, dtype):
    """Pixels come out in the network's dtype, and are those of float32, rounded once."""
    batch = imagery()
    exact = encoder.preprocess(batch)
    pixels = encoder.to(dtype).preprocess(batch)

    assert dtype is pixels.dtype
    assert torch.equal(exact.to(dtype), pixels)
    assert dtype is encoder(pixels).dtype
    assert torch.float32 is encoder.embed(batch).dtype


# ------------------------------------------------------------------------------ arrays


def test_arrays_are_preprocessed_as_imagery_is(encoder):
    """uint16, float64 and tensors, single and batched: what `embed` feeds to the network."""
    spec = ImageSpec(Sensor.S2_L1C, SENSOR_BANDS[Sensor.S2_L1C], Unit.DN, None, 10.0)
    digital = np.random.default_rng(1).integers(1, 9000, (2, 13, 64, 64)).astype(np.uint16)
    before = digital.copy()
    sized = replace(spec, size=(64, 64))
    valid = torch.ones(2, 64, 64, dtype=torch.bool)
    batch = Imagery(torch.from_numpy(digital.astype(np.float32)), sized, valid)
    expected = encoder.preprocess(batch)

    assert torch.equal(Preprocess(plan(sized, RECIPE))(batch).pixels, expected)
    assert torch.equal(expected, encoder.preprocess(digital, spec))
    assert torch.equal(expected, encoder.preprocess(digital.astype(np.float64), sized))
    assert torch.equal(expected, encoder.preprocess(torch.from_numpy(digital), spec))
    assert torch.equal(expected[1:], encoder.preprocess(digital[1], spec))
    assert torch.equal(
        expected, encoder.preprocess(np.asfortranarray(digital)[:, ::-1], flip(spec))
    )
    with torch.no_grad():
        assert torch.equal(encoder.embed(batch), encoder(encoder.preprocess(digital, spec)))
    assert (before == digital).all()


def flip(spec: ImageSpec) -> ImageSpec:
    """The same bands in the opposite order."""
    return replace(spec, bands=spec.bands[::-1])


@pytest.mark.parametrize(
    ("sensor", "unit", "missing"),
    [
        (Sensor.S2_L1C, Unit.REFLECTANCE, np.nan),
        (Sensor.S2_L1C, Unit.DN, 0.0),
        (Sensor.S1_GRD, Unit.DB, -np.inf),
        (Sensor.S1_GRD, Unit.POWER, 0.0),
        (Sensor.S1_GRD, Unit.POWER, -1e-3),
    ],
)
def test_missing_pixels_of_an_array(sensor, unit, missing):
    """What an array marks as missing gets no say: the rest decides, as under a mask."""
    bands = SENSOR_BANDS[sensor]
    level = {Unit.DN: 2000.0, Unit.REFLECTANCE: 0.2, Unit.DB: -12.0, Unit.POWER: 0.06}[unit]
    pixels = level * np.random.default_rng(2).uniform(0.5, 1.5, (2, len(bands), 28, 28))
    hole = np.random.default_rng(3).random((2, 28, 28)) < 0.2
    pixels[np.broadcast_to(hole[:, None], pixels.shape)] = missing
    spec = ImageSpec(sensor, bands, unit, (28, 28), 10.0)
    found = as_imagery(pixels, spec)

    assert torch.equal(torch.from_numpy(~hole), found.valid)
    statistics = STATISTICS["ssl4eo-s12-l1c" if sensor is Sensor.S2_L1C else "ssl4eo-s12-grd"]
    norm = Normalization.two_sigma(statistics.mean, statistics.std, statistics.source)
    own = Recipe(sensor, statistics.bands, statistics.unit, (28, 28), norm)
    filled = Preprocess(plan(spec, own))(found).pixels
    assert torch.isfinite(filled).all()


def test_one_dark_band_is_no_hole():
    """A digital number of 0 in some bands is a measurement; NaN in one band is a hole."""
    pixels = np.full((1, 13, 28, 28), 100.0)
    pixels[0, 3, 5, 5] = 0
    pixels[0, 4, 6, 6] = np.nan
    spec = ImageSpec(Sensor.S2_L1C, SENSOR_BANDS[Sensor.S2_L1C], Unit.DN, (28, 28), 10.0)
    valid = as_imagery(pixels, spec).valid

    assert valid[0, 5, 5]
    assert not valid[0, 6, 6]
    assert 28 * 28 - 1 == int(valid.sum())


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((13, 28)), "batch of float32"),
        (np.zeros((1, 12, 28, 28)), "number of bands"),
        (np.zeros((13, 56, 56)), "a different size"),
        (np.zeros((13, 28, 28), complex), "real numbers"),
        (np.zeros((13, 28, 28), bool), "real numbers"),
        (torch.zeros(13, 28, 28, dtype=torch.bool), "real numbers"),
        (np.full((13, 28, 28), "a"), "real numbers"),
    ],
)
def test_arrays_that_are_not_what_they_are_said_to_be(encoder, array, message):
    """Wrong rank, bands, size or kind of number: an error, never a guess."""
    spec = ImageSpec(Sensor.S2_L1C, SENSOR_BANDS[Sensor.S2_L1C], Unit.DN, (28, 28), 10.0)
    with pytest.raises(SpecError, match=message):
        encoder.preprocess(array, spec)


def test_an_array_needs_a_spec_and_imagery_brings_its_own(encoder):
    """Neither is guessed, and two statements that differ are an error."""
    batch = imagery()
    with pytest.raises(SpecError, match="needs a spec"):
        encoder.preprocess(batch.pixels)
    with pytest.raises(SpecError, match="already has a spec"):
        encoder.preprocess(batch, replace(batch.spec, unit=Unit.DN_OFFSET1000))
    assert torch.equal(encoder.preprocess(batch), encoder.preprocess(batch, batch.spec))


def test_waivers_reach_preprocess(encoder):
    """A missing band of an array is filled by a named exception only."""
    array = np.full((4, 56, 56), 900.0)
    spec = ImageSpec(Sensor.S2_L1C, ("B02", "B03", "B04", "B08"), Unit.DN, None, 10.0)
    fill = FillBand("B8A", 0.25, "the sensor lacks it")

    assert 0.25 == encoder.preprocess(array, spec, [fill])[0, 4].unique()
    with pytest.raises(SpecMismatch, match="B8A"):
        encoder.preprocess(array, spec)


def test_kinds_of_imagery_are_not_kept_for_ever(encoder):
    """Scenes of a thousand sizes do not grow the memory: the oldest plans are forgotten."""
    for side in range(1, 101):
        encoder.plan_for(ImageSpec(Sensor.S2_L1C, BANDS, Unit.DN, (side, side), 10.0))

    assert 64 == prepare._preprocess.cache_info().currsize


def test_vectors_can_feed_a_probe(encoder):
    """Embeddings are ordinary tensors: a linear probe on them can be trained."""
    probe = nn.Linear(192, 2)
    probe(encoder.embed(imagery())).sum().backward()

    assert probe.weight.grad.abs().max() > 0


def test_half_precision_trunk(encoder):
    """A trunk in bfloat16 takes float32 imagery and gives float32 vectors near the exact ones."""
    batch = imagery()
    exact = encoder.embed(batch)
    half = encoder.bfloat16().embed(batch)

    assert torch.float32 == half.dtype
    torch.testing.assert_close(half, exact, atol=0.1, rtol=0)


def test_plans_are_made_once(encoder):
    """The plan of a kind of imagery is the same object the second time."""
    batch = imagery()

    assert encoder.plan_for(batch.spec) is encoder.plan_for(replace(batch.spec))
    assert encoder.plan_for(batch.spec) == plan(batch.spec, RECIPE)


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": 4},
        {"size": (112, 112)},
        {"pooling": Pooling.MEAN},
    ],
)
def test_network_and_card_must_agree(encoder, changes, generator):
    """A network of other bands, size or pooling than its card says is refused."""
    options = {"channels": 5, "size": (56, 56), **changes}
    trunk = build_vit(TINY, generator=generator, **options)
    with pytest.raises(SpecError, match="not the one the card describes"):
        Encoder(trunk, encoder.card)


# --------------------------------------------------------------------------------- control


def test_the_random_control_is_reproducible():
    """The seed decides vectors and hash; another seed gives others."""
    batch = imagery()
    one, again, other = (random_encoder(TINY, RECIPE, seed=s) for s in (1, 1, 2))

    assert torch.equal(one.embed(batch), again.embed(batch))
    assert one.card == again.card
    assert one.card.sha256 != other.card.sha256
    assert (one.embed(batch) - other.embed(batch)).abs().max() > 0.1
    assert "seed 2" in other.card.source


# ------------------------------------------------------------------------------------ disk


def full_card() -> Card:
    """A card with every field filled in."""
    return Card(
        name="demo",
        architecture=TINY,
        recipe=RECIPE,
        objective="SoftCon (arXiv 2405.20462)",
        source="teacher after 8 epochs",
        training_data="the embedded world, seed 0: synthetic",
        counts={"scenes": 200, "images": 800},
        synthetic=True,
        licence="Apache-2.0",
        positions=PositionRecipe.TIMM,
        config_hash="ab12",
        versions=library_versions(),
    )


def trained(card: Card) -> Encoder:
    """An encoder whose LayerScale and norms are not at their initial values."""
    generator = torch.Generator().manual_seed(3)
    trunk = build_vit(TINY, 5, (56, 56), generator, positions=card.positions)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return Encoder(trunk, card)


def test_round_trip(tmp_path):
    """Saved and loaded, an encoder gives the same vectors bit for bit, and the same card."""
    encoder, batch = trained(full_card()), imagery()
    card = save_encoder(encoder, tmp_path / "export" / "teacher")
    loaded = load_encoder(str(tmp_path / "export" / "teacher"))

    assert torch.equal(encoder.embed(batch), loaded.embed(batch))
    assert torch.equal(encoder.features(batch), loaded.features(batch))
    assert card == loaded.card == replace(encoder.card, sha256=card.sha256)
    files = sorted(p.name for p in (tmp_path / "export" / "teacher").iterdir())
    assert ["card.json", "weights.safetensors"] == files
    weights = tmp_path / "export" / "teacher" / "weights.safetensors"
    assert card.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_saving_is_deterministic_and_agrees_with_the_control(encoder, tmp_path):
    """Twice saved, the bytes are equal; the control's hash is that of its file."""
    save_encoder(encoder, tmp_path / "a")
    save_encoder(load_encoder(tmp_path / "a"), tmp_path / "b")

    for name in ("weights.safetensors", "card.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert encoder.card == load_encoder(tmp_path / "b").card


def test_a_second_export_replaces_the_first(encoder, tmp_path):
    """Into the same folder: the new encoder is there, whole, and no temporary file is left."""
    save_encoder(encoder, tmp_path)
    second = random_encoder(TINY, RECIPE, seed=9)
    save_encoder(second, tmp_path)

    assert second.card == load_encoder(tmp_path).card
    assert 2 == len(list(tmp_path.iterdir()))


def test_a_kill_between_the_two_files_is_noticed(encoder, tmp_path):
    """New weights beside the old card are refused, and so is a folder that has weights only."""
    save_encoder(encoder, tmp_path / "a")
    save_encoder(random_encoder(TINY, RECIPE, seed=9), tmp_path / "b")
    (tmp_path / "b" / "weights.safetensors").replace(tmp_path / "a" / "weights.safetensors")
    with pytest.raises(WeightsError, match="not those the card describes"):
        load_encoder(tmp_path / "a")
    (tmp_path / "a" / "card.json").unlink()
    with pytest.raises(WeightsError, match=r"no card\.json"):
        load_encoder(tmp_path / "a")


def test_tampered_weights_are_refused(encoder, tmp_path):
    """One flipped bit, or a file cut short, is noticed before anything is built."""
    save_encoder(encoder, tmp_path)
    path = tmp_path / "weights.safetensors"
    data = bytearray(path.read_bytes())
    for damaged in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), b""):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match="sha256"):
            load_encoder(tmp_path)
    path.unlink()
    with pytest.raises(WeightsError, match="whole folder"):
        load_encoder(tmp_path)


def edit(folder: Path, **changes: object) -> None:
    """Rewrite fields of a card, as a careless user would."""
    path = folder / "card.json"
    card = json.loads(path.read_text())
    card.update(changes)
    path.write_text(json.dumps(card))


@pytest.mark.parametrize(
    "recipe",
    [
        replace(RECIPE, size=(112, 112)),
        replace(RECIPE, size=(28, 112)),  # the same number of patches, so shapes do not tell
        replace(RECIPE, bands=("B03", "B02", "B04", "B08", "B8A")),
        replace(RECIPE, normalization=Normalization.divide(10_000, 5, "a guess")),
        replace(RECIPE, pooling=Pooling.MEAN),
    ],
)
def test_a_card_with_another_recipe_is_refused(encoder, tmp_path, recipe):
    """The recipe stands in the weights too: an edited card is noticed though all shapes fit."""
    save_encoder(encoder, tmp_path)
    edit(tmp_path, recipe=recipe.to_dict())
    with pytest.raises(WeightsError, match="does not belong to these weights"):
        load_encoder(tmp_path)


def test_words_on_a_card_may_be_corrected(encoder, tmp_path):
    """Name and licence are no part of the identity; the vectors do not depend on them."""
    save_encoder(encoder, tmp_path)
    edit(tmp_path, name="renamed", licence="CC-BY-4.0")

    assert "renamed" == load_encoder(tmp_path).card.name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "eofm-encoder-99"}, "eofm-encoder-99"),
        ({"surprise": 1}, "surprise"),
        ({"counts": {"scenes": "many"}}, "counts"),
        ({"synthetic": "no"}, "synthetic"),
        ({"positions": "other"}, "positions"),
        ({"recipe": {}}, "recipe"),
        ({"recipe": 3}, "recipe"),
        ({"name": None}, "name"),
        ({"versions": 3}, "versions"),
    ],
)
def test_broken_cards_are_refused(encoder, tmp_path, changes, message):
    """Another format, an unknown key or a field of the wrong kind: an error that names it."""
    save_encoder(encoder, tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(WeightsError, match=message) as caught:
        load_encoder(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00\x01"])
def test_cards_that_are_no_json_are_refused(encoder, tmp_path, text):
    """An empty, cut or foreign card is an error that names the file."""
    save_encoder(encoder, tmp_path)
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(WeightsError, match=r"card\.json"):
        load_encoder(tmp_path)


def test_foreign_weights_are_refused(encoder, tmp_path):
    """Tensors of another maker, with a card made to fit their hash, do not become an encoder."""
    save_encoder(encoder, tmp_path)
    path = tmp_path / "weights.safetensors"
    for content in ({"a": torch.ones(1)}, load_file(path)):  # no metadata in either
        save_file(content, path)
        edit(tmp_path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        with pytest.raises(WeightsError, match="does not belong to these weights"):
            load_encoder(tmp_path)
    path.write_bytes(b"no safetensors at all")
    edit(tmp_path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(WeightsError, match="cannot be read"):
        load_encoder(tmp_path)


def test_unknown_architectures_are_refused(tmp_path):
    """A card that names an architecture this version lacks says which ones there are."""
    encoder = trained(replace(full_card(), architecture="vitz14"))
    save_encoder(encoder, tmp_path)
    with pytest.raises(WeightsError, match="vits14"):
        load_encoder(tmp_path)


def test_places_that_are_no_encoder(tmp_path, encoder):
    """An absent folder, and a file where the folder should be written, are explained."""
    with pytest.raises(WeightsError, match="no encoder here"):
        load_encoder(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="cannot be written"):
        save_encoder(encoder, tmp_path / "file")


def test_a_failed_export_leaves_the_earlier_one(encoder, tmp_path, monkeypatch):
    """A disk that fills up while writing loses nothing that was there."""
    save_encoder(encoder, tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WeightsError, match="No space left"):
        save_encoder(random_encoder(TINY, RECIPE, seed=9), tmp_path)
    monkeypatch.undo()
    assert encoder.card == load_encoder(tmp_path).card


def test_what_is_no_spec_and_no_waiver_is_named(encoder):
    """A spec in the place of the waivers was "no spec"; one waiver alone was a TypeError."""
    spec = imagery().spec
    array = imagery().pixels
    with pytest.raises(SpecError, match="a spec was passed as the waivers") as caught:
        encoder.embed(array, spec)
    assert "embed(array, spec=spec)" in caught.value.remedy
    assert encoder.embed(array, spec=spec).shape == encoder.embed(imagery()).shape
    with pytest.raises(SpecError, match="a spec was passed"):
        encoder.features(array, spec)
    for waivers in (AcceptScale("x"), ["x"], "x", 3):
        with pytest.raises(SpecError, match="waivers must be a list"):
            encoder.preprocess(array, spec, waivers)
        with pytest.raises(SpecError, match="waivers must be a list"):
            encoder.plan_for(spec, waivers)
    with pytest.raises(SpecError, match="a spec is an ImageSpec"):
        encoder.embed(array, spec="s2-l1c")


def test_the_waivers_of_a_message_can_be_typed(encoder):
    """Each refusal of a plan names a waiver as Python takes it, and with it the plan is made."""
    batch = imagery(("B02", "B03", "B04", "B08"))
    level = replace(batch.spec, sensor=Sensor.S2_L2A, bands=BANDS)
    for spec in (batch.spec, level, replace(level, sensor=Sensor.S2_L1C, gsd=60.0)):
        with pytest.raises(SpecMismatch, match=r"bands|sensor|ground") as refused:
            encoder.plan_for(spec)
        call = re.search(r"(?:FillBand|Accept\w+)\([^)]*\)", str(refused.value.remedy))
        assert call, refused.value.remedy
        waiver = eval(call[0], vars(eofm_recipe))
        assert (waiver,) == encoder.plan_for(spec, [waiver]).waivers
    assert AcceptSensor("s2-l2a", "a test") == AcceptSensor(Sensor.S2_L2A, "a test")
    assert AcceptSize([84, 84], "a test") == AcceptSize((84, 84), "a test")
    assert "B10" == FillBand("b10", 0.5, "a test").band
    with pytest.raises(SpecError, match="must be a number"):
        FillBand("B10", None, "a test")


def test_the_bare_network_says_what_it_takes(encoder):
    """Imagery, arrays and whole numbers are refused with the methods that take them."""
    batch = imagery()
    for wrong in (batch, batch.pixels.numpy(), batch.pixels.to(torch.int32)):
        with pytest.raises(SpecError, match="takes normalised pixels") as refused:
            encoder(wrong)
        assert "encoder.embed" in refused.value.remedy
    assert torch.equal(encoder(encoder.preprocess(batch)), encoder.embed(batch))
