"""Runs of the prompt probe from folder to table: on a miniature in the true format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dense_world import write_floods

from eofm.bench.config import CompareConfig, SegmentationConfig, TableConfig, ValidateConfig
from eofm.bench.controls import PatchStatistics
from eofm.bench.patches import partners_of
from eofm.bench.predictions import predictions_of
from eofm.bench.records import read_results
from eofm.bench.reports.compare import compare_models
from eofm.bench.reports.export import print_table
from eofm.bench.reports.validate import validate
from eofm.bench.run import BenchReport, bench
from eofm.bench.samples import load, unit_of
from eofm.bench.sources import EncoderSource
from eofm.contract.imagery import Imagery
from eofm.contract.spec import Sensor
from eofm.datasets.sen1floods11 import SPECS, BenchSen1Floods11Config
from eofm.errors import ConfigError, DataError
from eofm.weights.encoder import Encoder, random_encoder, save_encoder

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(scope="module")
def floods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sen1Floods11 with chips of several events."""
    root = tmp_path_factory.mktemp("floods")
    names = {"train": ["A_1"], "valid": ["B_1", "E_1"], "test": ["C_1", "C_2", "D_1"]}
    return write_floods(root, names) and root


@pytest.fixture(scope="module")
def wide(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained encoder of Sentinel-2 with 4 x 4 patches."""
    folder = tmp_path_factory.mktemp("encoders") / "wide"
    recipe = replace(encoder.recipe, size=(56, 56))
    save_encoder(random_encoder("vit-tiny-14-2blocks", recipe, seed=5), folder)
    return folder


def settings(root: Path, out: Path, **options: object) -> SegmentationConfig:
    """One run with few resamples."""
    chosen = {
        "sensor": "s2",
        "probe": "prompt",
        "out": str(out / "results.jsonl"),
        "cache": str(out / "cache"),
        "bootstrap": 20,
        "patches": 500,
        "batch": 4,
        **options,
    }
    return BenchSen1Floods11Config(str(root), **chosen)  # type: ignore[arg-type]


def values(report: BenchReport, model: str) -> dict[str, float]:
    """Metric -> score of a model's prompts."""
    rows = [r for r in report.results if (r.model.name, r.kind) == (model, "prompt")]
    return {r.metric: r.value for r in rows}


@pytest.fixture(scope="module")
def both(floods: Path, wide: Path, tmp_path_factory: pytest.TempPathFactory) -> BenchReport:
    """A run of both probes on an encoder and its controls."""
    out = tmp_path_factory.mktemp("both")
    return bench(settings(floods, out, model=f"mine={wide}", probe="linear,prompt"))


def test_water_resembles_water(both: BenchReport) -> None:
    """Band statistics of a patch find the dark half of an image, and that of other events."""
    found = values(both, "patchstats")

    assert found["prompt_auroc"] > 0.99
    assert found["across_auroc"] > 0.99
    assert found["prompt_iou"] > 0.9
    assert found["prompt_iou"] <= found["prompt_best_iou"] <= 1
    assert found["prompt_overlap"] < 0.1


def test_every_probe_has_its_models_and_its_table(both: BenchReport) -> None:
    """Pixels have no patch to prompt with, and patch statistics no linear layer; nobody is lost."""
    models = {
        kind: {r.model.name for r in both.results if r.kind == kind}
        for kind in ("dense-linear", "prompt")
    }

    assert {"mine", "pixels", "random"} == models["dense-linear"]
    assert {"mine", "patchstats", "random"} == models["prompt"]
    text = both.describe()
    linear, prompt = (line for line in text.splitlines() if line.startswith("| model |"))
    assert "mean IoU" in linear
    assert "prompt" not in linear
    assert "prompt AUROC" in prompt
    assert "AUROC across images" in prompt
    (row,) = [r for r in both.results if (r.model.name, r.metric) == ("mine", "prompt_auroc")]
    assert any("patchstats" in flag for flag in row.flags)
    assert row.chosen.startswith("threshold ")
    assert "prompt[cosine,5 per class and image,pure=0.75,8 others" in row.probe


def test_records_of_prompts_are_read_compared_and_validated(both: BenchReport) -> None:
    """From what is kept beside them, to the last digit; class by class too."""
    path = both.out
    for result in read_results(path):
        predictions_of(result, path)  # raises if they give another score

    compared = compare_models(
        CompareConfig("patchstats", "random", results=str(path), probe="prompt", bootstrap=30)
    )
    checked = validate(ValidateConfig(str(path)))
    classes = print_table(TableConfig(str(path), probe="prompt", classes=True)).describe()

    assert not checked.status, checked.describe()
    names = {d.one.metric: d.verdict for d in compared.differences}
    assert 6 == len(names)
    assert "random is better" not in names.values()
    assert "AUROC of prompt patches" in classes
    assert "| Water | " in classes


def test_a_second_run_compares_nothing(
    floods: Path, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens and what they said are kept; a run of prompts alone fits no linear layer."""
    options = {"model": f"mine={wide}", "controls": False}
    first = bench(settings(floods, tmp_path, **options))

    def refuse(self: EncoderSource, imagery: Imagery) -> torch.Tensor:
        raise AssertionError("embedded again")

    monkeypatch.setattr(EncoderSource, "tokens", refuse)
    again = bench(settings(floods, tmp_path, **options))

    assert 0 == again.appended
    assert values(first, "mine") == values(again, "mine")
    assert {"prompt"} == {r.kind for r in first.results}
    assert first.classes is None


def test_one_event_has_no_other_images(floods: Path, tmp_path: Path) -> None:
    """Scores across images are left out where all test images are of one group."""
    root = tmp_path / "set"
    write_floods(root, {"train": ["A_1"], "valid": ["B_1"], "test": ["C_1", "C_2"]})

    report = bench(settings(root, tmp_path))
    again = bench(settings(root, tmp_path))

    names = ["prompt_auroc", "prompt_iou", "prompt_best_iou", "prompt_overlap"]
    assert names == list(values(report, "patchstats"))
    assert values(report, "patchstats") == values(again, "patchstats")


def test_two_sensors_are_one_token(floods: Path, tmp_path: Path) -> None:
    """Bands of both stand side by side in a patch."""
    report = bench(settings(floods, tmp_path, sensor="both", limit=1))

    about = report.results[0].model.about
    assert "13 bands" in about
    assert "2 bands" in about
    assert values(report, "patchstats")["prompt_auroc"] > 0.8


def test_partners_are_of_other_groups_and_even(floods: Path) -> None:
    """No image meets its own event; every image is met, and ids alone decide by whom."""
    chips = load(settings(floods, floods)).chips.splits["test"]
    found = partners_of(chips, 3)
    turned = partners_of(chips[::-1], 3)

    for place, others in enumerate(found):
        assert 3 == len(set(others))
        assert all((chips[o].group or unit_of(chips[o])) != chips[place].group for o in others)
        other = turned[len(chips) - 1 - place]
        assert [chips[o].id for o in others] == [chips[::-1][o].id for o in other]


def test_statistics_of_patches_are_those_of_their_valid_pixels() -> None:
    """As numpy makes them; a patch without a valid pixel takes the mean of the others."""
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.normal(900, 200, (2, 13, 32, 48))).float()
    valid = torch.from_numpy(rng.random((2, 32, 48)) < 0.7)
    valid[0, :16, :16] = False
    spec = replace(SPECS[Sensor.S2_L1C], size=(32, 48))
    pixels = torch.where(valid[:, None], pixels, torch.nan)

    found = PatchStatistics("p", (2, 3)).tokens(Imagery(pixels, spec, valid))

    assert (2, 6, 26) == found.shape
    for image in range(2):
        for patch in range(6):
            row, column = 16 * (patch // 3), 16 * (patch % 3)
            there = valid[image, row : row + 16, column : column + 16]
            values = pixels[image, :, row : row + 16, column : column + 16][:, there].double()
            if not there.any():
                others = found[image, [p for p in range(6) if p != patch], :13].double()
                assert others.mean(dim=0).tolist() == pytest.approx(
                    found[image, patch, :13].tolist()
                )
                assert 0 == found[image, patch, 13:].abs().max()
                continue
            expected = [*values.mean(dim=1).tolist(), *values.std(dim=1, correction=0).tolist()]
            assert expected == pytest.approx(found[image, patch].tolist(), rel=1e-4)


def test_masks_without_a_pure_patch_are_refused(floods: Path, tmp_path: Path) -> None:
    """One patch is the whole window, half of it water: nothing to prompt; the linear layer runs."""
    model = {"model": "patchstats", "controls": False, "limit": 1}
    small = tmp_path / "set"
    write_floods(small, {"train": ["A_1"], "valid": ["B_1"], "test": ["C_1"]})
    for mask in (small / "v1.1").rglob("*_LabelHand.tif"):
        _striped(mask)

    with pytest.raises(DataError, match="no validation image has two patches") as caught:
        bench(settings(small, tmp_path, **model))
    assert "--probe linear" in str(caught.value)
    report = bench(settings(small, tmp_path, probe="linear", model="pixels", limit=1))
    assert {"dense-linear"} == {r.kind for r in report.results}


def _striped(mask: Path) -> None:
    """Let water and land take turns line by line."""
    import rasterio

    with rasterio.open(mask, "r+") as file:
        lines = np.zeros((1, 512, 512), file.dtypes[0])
        lines[:, ::2] = 1
        file.write(lines)


def test_what_cannot_be_prompted_is_refused(floods: Path, tmp_path: Path) -> None:
    """Single pixels, and probes that do not exist; the remedy of the first is enough."""
    with pytest.raises(ConfigError, match="compares patches") as caught:
        bench(settings(floods, tmp_path, model="pixels", controls=False))
    assert "leave --controls on" in str(caught.value)
    assert values(bench(settings(floods, tmp_path, model="pixels")), "patchstats")
    alone = {"model": "patchstats", "controls": False}
    with pytest.raises(ConfigError, match="control of the prompt probe") as caught:
        bench(settings(floods, tmp_path, probe="linear", **alone))
    assert "--probe prompt" in str(caught.value)
    assert bench(settings(floods, tmp_path, **alone)).results
    with pytest.raises(ConfigError, match="which is not asked for") as caught:
        settings(floods, tmp_path, figure="classes.png")
    assert "--probe linear,prompt" in str(caught.value)
    settings(floods, tmp_path, figure="classes.png", probe="linear,prompt")
    for word in ("knn", ""):
        with pytest.raises(ConfigError, match="no such probe of a segmentation"):
            settings(floods, tmp_path, probe=word)
