"""Which weights are meant: every form of naming them, and what is said where there are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import eofm
from eofm.contract.recipe import Recipe
from eofm.errors import WeightsError
from eofm.weights.cards import WEIGHTS
from eofm.weights.encoder import random_encoder, save_encoder
from eofm.weights.resolve import WeightsKind, is_function, resolve

TINY = "timm:vit_tiny_patch16_224"


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("softcon_vits14_s2", WeightsKind.CARD, "softcon_vits14_s2"),
        ("softcon_vits14_s2@torchgeo", WeightsKind.CARD, "softcon_vits14_s2@torchgeo"),
        (
            "torchgeo:ResNet50_Weights.SENTINEL2_ALL_MOCO@torchgeo",
            WeightsKind.CARD,
            "ssl4eo_moco_rn50_s2@torchgeo",
        ),
        ("softcon_vits14_s2@dir/a@b.pth", WeightsKind.FILE, "softcon_vits14_s2"),
        (
            "softcon_vits14_s2@torchgeo-zscore@./w.safetensors",
            WeightsKind.FILE,
            "softcon_vits14_s2@torchgeo-zscore",
        ),
        (TINY, WeightsKind.TIMM, TINY),
        (f"{TINY}@some/file.pth", WeightsKind.TIMM, TINY),
        ("random", WeightsKind.RANDOM, ""),
        ("random:vits14", WeightsKind.RANDOM, "vits14"),
        (f"random:{TINY}", WeightsKind.RANDOM, TINY),
        ("https://host/a/b.pth", WeightsKind.ADDRESS, "https://host/a/b.pth"),
        ("file:///a/b.pth", WeightsKind.ADDRESS, "file:///a/b.pth"),
        (
            "hf:owner/model/weights.safetensors",
            WeightsKind.ADDRESS,
            "https://huggingface.co/owner/model/resolve/main/weights.safetensors",
        ),
        (
            "hf:owner/model/sub/w.pth@abc",
            WeightsKind.ADDRESS,
            "https://huggingface.co/owner/model/resolve/abc/sub/w.pth",
        ),
        ("package.module:encoder", WeightsKind.FUNCTION, "package.module:encoder"),
        ("dir/mine.py:encoder", WeightsKind.FUNCTION, "dir/mine.py:encoder"),
    ],
)
def test_forms_that_need_no_file(text: str, kind: WeightsKind, name: str) -> None:
    """A name, a prefix, an address and a function are known by themselves."""
    found = resolve(text)

    assert (kind, name, text) == (found.kind, found.name, found.text)
    assert (kind is WeightsKind.FUNCTION) == is_function(text)


def test_forms_on_this_disk(tmp_path: Path) -> None:
    """A run, an export, its card or weights, a checkpoint and a file are told apart."""
    export = tmp_path / "run/export/student"
    export.mkdir(parents=True)
    for name in ("card.json", "weights.safetensors"):
        (export / name).write_text("{}")
    last = tmp_path / "run/checkpoints/last.ckpt"
    file = tmp_path / "w.pth"
    file.touch()
    folder = tmp_path / "empty"
    folder.mkdir()

    for place in ("run", "run/export", "run/export/student", "run/export/student/card.json"):
        assert (WeightsKind.EXPORT, export) == (
            resolve(tmp_path / place).kind,
            resolve(tmp_path / place).path,
        )
    weights = resolve(str(export / "weights.safetensors"))
    assert (WeightsKind.EXPORT, export) == (weights.kind, weights.path)
    assert (WeightsKind.CHECKPOINT, last, "student") == _shape(str(last))
    assert (WeightsKind.CHECKPOINT, last, "teacher") == _shape(f"{last}@teacher")
    assert (WeightsKind.FILE, file, "") == _shape(str(file))
    assert (WeightsKind.EXPORT, folder, "") == _shape(
        str(folder)
    )  # load_encoder says what is missing
    assert (WeightsKind.FILE, tmp_path / "none.safetensors", "") == _shape(
        str(tmp_path / "none.safetensors")
    )


def _shape(text: str) -> tuple[WeightsKind, Path | None, str]:
    found = resolve(text)
    return found.kind, found.path, found.branch


def test_a_name_goes_before_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder called like published weights is meant by `./` or as a Path."""
    (tmp_path / "softcon_vits14_s2").mkdir()
    monkeypatch.chdir(tmp_path)

    assert WeightsKind.CARD is resolve("softcon_vits14_s2").kind
    assert WeightsKind.EXPORT is resolve("./softcon_vits14_s2").kind
    assert WeightsKind.EXPORT is resolve(Path("softcon_vits14_s2")).kind


@pytest.mark.parametrize("text", ["softcon_vits14_s3", "softcon_vit14_s2@torchgeo", "none/here"])
def test_no_such_weights(text: str) -> None:
    """The nearest published names are offered, and are published names."""
    with pytest.raises(WeightsError, match="no such weights") as caught:
        resolve(text)

    remedy = str(caught.value.remedy)
    offered = remedy.removeprefix("did you mean ").rstrip("?").split(" or ")
    assert remedy == "see `eofm models list`" or all(name in WEIGHTS for name in offered)


def test_a_published_name_as_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Path is no published name; the remedy is the text, which is one."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(WeightsError) as caught:
        resolve(Path("softcon_vits14_s2"))

    assert "'softcon_vits14_s2'" in str(caught.value.remedy)
    assert WeightsKind.CARD is resolve("softcon_vits14_s2").kind


@pytest.mark.parametrize("text", ["hf:owner", "hf:owner/model", "hf:/model/file"])
def test_half_a_place_on_the_hub(text: str) -> None:
    """Owner, model and file are all needed."""
    with pytest.raises(WeightsError, match="owner, model and file"):
        resolve(text)


def test_a_run_loads_as_its_student(tmp_path: Path, recipe: Recipe) -> None:
    """What a user types, the folder of the run, gives the encoder that the export gives."""
    encoder = random_encoder("vits14", recipe, seed=1)
    save_encoder(encoder, tmp_path / "run/export/student")

    found = eofm.load_weights(tmp_path / "run")

    assert all(
        torch.equal(a, b)
        for a, b in zip(encoder.trunk.parameters(), found.trunk.parameters(), strict=True)
    )


def test_untrained_weights_need_a_recipe_and_others_refuse_one(
    tmp_path: Path, recipe: Recipe
) -> None:
    """`random:vits14` says nothing of its input; an export does, and two answers are refused."""
    made = eofm.load_weights("random:vits14", recipe=recipe, seed=3)
    save_encoder(made, tmp_path / "export")

    assert made.card.sha256 == random_encoder("vits14", recipe, 3).card.sha256
    with pytest.raises(WeightsError, match="weights have no recipe") as caught:
        eofm.load_weights("random:vits14")
    assert "recipe=" in str(caught.value.remedy)
    with pytest.raises(WeightsError, match="have a recipe already"):
        eofm.load_weights(tmp_path / "export", recipe=recipe)
    assert eofm.load_weights(tmp_path / "export").recipe == recipe  # the remedy: leave it out


def test_a_damaged_export_is_named(tmp_path: Path) -> None:
    """The card that cannot be read is named, whichever way the export was meant."""
    folder = tmp_path / "run/export/student"
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps([]))

    with pytest.raises(WeightsError, match="not the card of an encoder"):
        eofm.load_weights(tmp_path / "run")


@pytest.fixture
def recipe() -> Recipe:
    """What a small network for Sentinel-1 expects."""
    norm = eofm.Normalization.zscore((-12.0, -19.0), (5.0, 5.0), "made up")
    return Recipe(eofm.Sensor.S1_GRD, ("VV", "VH"), eofm.Unit.DB, (28, 28), norm)
