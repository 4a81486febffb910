"""Runs of segmentation tasks from folder to table: on miniatures in the true formats."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from dense_world import write_copernicus, write_floods

from eofm.bench.config import CompareConfig, SegmentationConfig, ValidateConfig
from eofm.bench.predictions import Predictions, predictions_of
from eofm.bench.records import read_results
from eofm.bench.reports.compare import compare_models
from eofm.bench.reports.validate import validate
from eofm.bench.run import BenchReport, bench
from eofm.bench.samples import load
from eofm.bench.sources import EncoderSource
from eofm.cli import main
from eofm.contract.imagery import Imagery
from eofm.contract.spec import Sensor
from eofm.datasets.masks import BenchMasksConfig
from eofm.datasets.sen1floods11 import SPECS, BenchSen1Floods11Config
from eofm.errors import ConfigError, LabelError, PixelError
from eofm.weights.encoder import Encoder, random_encoder, save_encoder

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(scope="module")
def floods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sen1Floods11 with five chips."""
    root = tmp_path_factory.mktemp("floods")
    names = {"train": ["A_1", "A_2"], "valid": ["B_1"], "test": ["C_1", "C_2"]}
    write_floods(root, names)
    return root


@pytest.fixture(scope="module")
def large_folder(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained encoder of Sentinel-2 with 4 x 4 patches."""
    folder = tmp_path_factory.mktemp("encoders") / "wide"
    recipe = replace(encoder.recipe, size=(56, 56))
    save_encoder(random_encoder("vit-tiny-14-2blocks", recipe, seed=5), folder)
    return folder


def run(kind: type[SegmentationConfig], root: Path, out: Path, **options: object) -> BenchReport:
    """One run with few resamples."""
    settings = {
        "out": str(out / "results.jsonl"),
        "cache": str(out / "cache"),
        "bootstrap": 20,
        "patches": 2_000,
        "batch": 4,
        **options,
    }
    return bench(kind(str(root), **settings))  # type: ignore[arg-type]


def said(report: BenchReport) -> Predictions:
    """What is kept of the first model."""
    return predictions_of(report.results[0], report.out)


def value(report: BenchReport, model: str, metric: str = "miou") -> float:
    """A score."""
    (found,) = (r.value for r in report.results if (r.model.name, r.metric) == (model, metric))
    return found


@pytest.mark.parametrize("sensor", ["s1", "s2"])
def test_water_is_found_by_its_pixels(floods: Path, tmp_path: Path, sensor: str) -> None:
    """A linear layer on bands tells dark from bright, to the pixel; intervals are over chips."""
    report = run(BenchSen1Floods11Config, floods, tmp_path, sensor=sensor)

    assert value(report, "pixels") > 0.99
    assert value(report, "pixels", "pixel_oa") > 0.99
    first = report.results[0]
    assert (f"sen1floods11-{sensor}", "official") == (first.task, first.sample.split)
    assert (2, 1, 2) == (first.sample.n_train, first.sample.n_val, first.sample.n_test)
    assert not first.sample.complete
    one = said(report)
    assert ("C_1", "C_2") == one.ids
    assert one.matrices is not None
    labelled = sum(int((c.mask.read() >= 0).sum()) for c in _test_chips(floods))
    assert labelled == int(one.matrices.sum()) == 2 * 505 * 512


def _test_chips(root: Path) -> tuple:
    return load(BenchSen1Floods11Config(str(root))).chips.splits["test"]


@pytest.mark.slow
def test_an_encoder_runs_beside_its_controls(
    floods: Path, large_folder: Path, tmp_path: Path
) -> None:
    """Patches are coarser than pixels and say less; the row says that it lies below a control."""
    report = run(
        BenchSen1Floods11Config,
        floods,
        tmp_path,
        sensor="s2",
        model=f"mine={large_folder}",
        figure=str(tmp_path / "classes.png"),
    )

    names = list(dict.fromkeys(r.model.name for r in report.results))
    assert ["mine", "pixels", "random"] == names
    assert 0.5 < value(report, "mine") < value(report, "pixels")
    (mine,) = (r for r in report.results if (r.model.name, r.metric) == ("mine", "miou"))
    assert any("pixels" in flag for flag in mine.flags)
    assert "dense-linear[lbfgs,C11,val,norefit,none," in mine.probe
    text = report.describe()
    assert "| Water | " in text
    assert "mean IoU, %" in text
    assert "**subset**" in text
    assert (tmp_path / "classes.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_one_group_of_test_images_tells_no_model_from_another(
    floods: Path, large_folder: Path, tmp_path: Path
) -> None:
    """One chip has no spread: a model that scores lower is not above a control, never below it."""
    options = {"sensor": "s2", "model": f"mine={large_folder}", "limit": 1}

    report = run(BenchSen1Floods11Config, floods, tmp_path, **options)

    assert 1 == report.results[0].sample.n_test
    assert value(report, "mine") < value(report, "pixels")
    flags = {flag for r in report.results if r.model.name == "mine" for flag in r.flags}
    assert "not above pixels" in flags
    assert not [flag for flag in flags if flag.startswith("below")]


@pytest.mark.slow
def test_a_second_run_embeds_and_fits_nothing(
    floods: Path, large_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was fitted is kept; what was embedded is kept even with another number of patches."""
    options = {"sensor": "s2", "model": f"mine={large_folder}", "controls": False}
    first = run(BenchSen1Floods11Config, floods, tmp_path, **options)

    def refuse(self: EncoderSource, imagery: Imagery) -> torch.Tensor:
        raise AssertionError("embedded again")

    monkeypatch.setattr(EncoderSource, "tokens", refuse)
    again = run(BenchSen1Floods11Config, floods, tmp_path, **options)
    (kept,) = (tmp_path / "predictions").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    mended = run(BenchSen1Floods11Config, floods, tmp_path, **options)

    assert 0 == again.appended == mended.appended
    assert value(first, "mine") == value(again, "mine") == value(mended, "mine")
    assert 2 == len(read_results(tmp_path / "results.jsonl"))


@pytest.mark.slow
def test_records_can_be_compared_and_validated(
    floods: Path, large_folder: Path, tmp_path: Path
) -> None:
    """By what is kept beside them: paired over chips, and against the declared task."""
    report = run(
        BenchSen1Floods11Config,
        floods,
        tmp_path,
        sensor="s2",
        model=f"mine={large_folder}",
        controls=False,
    )
    run(BenchSen1Floods11Config, floods, tmp_path, sensor="s2")
    records = str(tmp_path / "results.jsonl")

    compared = compare_models(CompareConfig("pixels", "mine", results=records, bootstrap=30))
    checked = validate(ValidateConfig(records))

    miou = next(d for d in compared.differences if d.one.metric == "miou")
    assert miou.one.value > miou.other.value
    assert miou.interval is None  # of so few groups
    assert value(report, "mine") < 1
    assert not checked.status, checked.describe()


def test_two_sensors_side_by_side(
    floods: Path, large_folder: Path, radar_folder: Path, tmp_path: Path
) -> None:
    """Bands of both for the control; encoders that cut other patches are refused."""
    report = run(BenchSen1Floods11Config, floods, tmp_path, sensor="both", limit=1)

    assert value(report, "pixels") > 0.99
    assert "13 bands" in report.results[0].model.about
    assert "2 bands" in report.results[0].model.about
    with pytest.raises(ConfigError, match="different patches"):
        run(
            BenchSen1Floods11Config,
            floods,
            tmp_path,
            sensor="both",
            model=f"two={large_folder}+{radar_folder}",
            controls=False,
        )


def test_images_without_a_measurement_count_nowhere(floods: Path, tmp_path: Path) -> None:
    """A chip whose radar is missing altogether, and one whose mask is void, as in the real set."""
    write_floods(
        tmp_path, {"train": ["A_1", "A_2"], "valid": ["B_1"], "test": ["C_1", "C_2", "C_3"]}
    )
    hand = tmp_path / "v1.1/data/flood_events/HandLabeled"
    for name, fill in (("S1Hand/C_1_S1Hand.tif", np.nan), ("LabelHand/C_2_LabelHand.tif", -1)):
        with rasterio.open(hand / name, "r+") as file:
            file.write(np.full((file.count, 512, 512), fill, file.dtypes[0]))

    report = run(BenchSen1Floods11Config, tmp_path, tmp_path / "out", sensor="s1")

    one = said(report)
    assert one.matrices is not None
    assert [0, 0, 505 * 512] == one.matrices.sum(dim=(1, 2)).tolist()
    assert "2 test images have no labelled pixel" in report.describe()
    assert value(report, "pixels") > 0.99


def test_dfc2020_runs_by_the_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line; classes that no test mask has are not averaged."""
    root = write_copernicus(tmp_path / "set", {"train": 3, "val": 1, "test": 2})
    words = ["--root", str(root), "--out", str(tmp_path / "r.jsonl"), "--cache", ""]

    assert 0 == main(["bench", "dfc2020", *words, "--bootstrap", "9", "--patches", "900"])

    text = re.sub(" +", " ", capsys.readouterr().out)
    assert "**dfc2020-s2** version 1, split `copernicus-bench`: 3 train, 1 val, 2 test" in text
    assert "| Forest | 0 | not in test |" in text
    row = json.loads((tmp_path / "r.jsonl").read_text().splitlines()[0])
    assert row["value"] > 0.99
    assert "eofm bench dfc2020 --root" in row["made"]["command"]


def test_a_wrong_declaration_is_noticed_before_any_token(tmp_path: Path) -> None:
    """Bands in another order than declared: refused, nothing cached."""
    root = tmp_path / "mine"
    for split, count in (("train", 5), ("test", 2)):
        for n in range(count):
            for kind, bands in (("images", 2), ("masks", 1)):
                path = root / split / kind / f"{n}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                rng = np.random.default_rng(n)
                values = np.array([-18.7, -11.3])[:, None, None] + rng.normal(0, 1, (2, 16, 16))
                if kind == "masks":
                    values = np.repeat(rng.integers(1, 3, (1, 16, 1)), 16, 2)
                profile = {"crs": "EPSG:25832", "transform": rasterio.Affine(10, 0, 0, 0, -10, 0)}
                dtype = "float32" if bands == 2 else "uint8"
                with rasterio.open(
                    path,
                    "w",
                    driver="GTiff",
                    dtype=dtype,
                    count=bands,
                    height=16,
                    width=16,
                    **profile,
                ) as file:
                    file.write(values.astype(dtype))
    options = {"sensor": "s1-grd", "unit": "db", "classes": "1=a,2=b"}

    with pytest.raises(PixelError, match="VH is brighter than VV"):
        run(BenchMasksConfig, root, tmp_path, **options)
    assert not (tmp_path / "cache").exists()
    report = run(BenchMasksConfig, root, tmp_path, **options, bands="VH,VV")
    assert "masks-mine" == report.results[0].task
    assert report.results[0].sample.complete
    with pytest.raises(LabelError, match="no class"):
        run(BenchMasksConfig, root, tmp_path, **{**options, "classes": "1=a,3=b"}, bands="VH,VV")


def test_models_without_patches_are_refused(floods: Path, tmp_path: Path) -> None:
    """Image statistics have no patches, nor has a plain network of one's own."""
    with pytest.raises(ConfigError, match="patch tokens"):
        run(BenchSen1Floods11Config, floods, tmp_path, model="imagestats")
    with pytest.raises(ConfigError, match="patch tokens"):
        run(BenchSen1Floods11Config, floods, tmp_path, model="rcf", controls=False)


def test_tokens_that_are_no_numbers_are_refused(encoder: Encoder) -> None:
    """Half precision overflows; the harness names the model."""
    broken = random_encoder("vit-tiny-14-2blocks", encoder.recipe, seed=1)
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    source = EncoderSource("mine", broken)
    pixels = torch.full((1, 13, 128, 128), 900.0)
    spec = replace(SPECS[Sensor.S2_L1C], size=(128, 128))
    imagery = Imagery(pixels, spec, torch.ones(1, 128, 128, dtype=torch.bool))
    with pytest.raises(PixelError, match="not finite"):
        source.tokens(imagery)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "1=a"}, "two classes"),
        ({"classes": "x=a,2=b"}, "a code and a name"),
        ({"classes": "1=a,1=b"}, "each code once"),
        ({"classes": "1=a,2=b", "void": "cloud"}, "whole number"),
        ({"classes": "1=a,2=b", "patches": 0}, "patches must be positive"),
        ({"classes": "1=a,2=b", "model": ""}, "nothing to score"),
        ({"classes": "1=a,2=b", "force": "unit"}, "cannot be forced"),
    ],
)
def test_nonsense_is_refused(options: dict[str, str], message: str) -> None:
    """Before anything is read."""
    with pytest.raises(ConfigError, match=message):
        BenchMasksConfig("x", **options)  # type: ignore[arg-type]


def test_settings_without_a_data_set_are_refused() -> None:
    """The base of all dense settings names none."""
    with pytest.raises(ConfigError, match="no data set"):
        load(SegmentationConfig("x"))


def test_a_wrong_root_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each verb ends with status 1 and one message that names the folder."""
    for verb, more in (("dfc2020", []), ("sen1floods11", []), ("masks", ["--classes", "1=a,2=b"])):
        assert 1 == main(["bench", verb, "--root", str(tmp_path / "nowhere"), *more])
        message = capsys.readouterr().err
        assert f"eofm bench {verb}: error: " in message
        assert "nowhere" in message
