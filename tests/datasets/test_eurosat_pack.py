"""`eofm pack eurosat`: bands in the order of the sensor, one class per tile, the split."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import rasterio
from click.testing import CliRunner
from rasterio.rio.main import main_group

from eofm.cli import main
from eofm.contract.spec import SENSOR_BANDS, Sensor
from eofm.datasets.eurosat import CLASSES, FILE_ORDER, PackEurosatConfig, pack_eurosat
from eofm.errors import ConfigError, RasterError
from eofm.store.reader import Store


def some(real_data: Path, root: Path, tiles: int) -> Path:
    """Link a few tiles of every class, in the divided layout."""
    for split in ("train", "test"):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for file in sorted((real_data / "eurosat_ms" / split / name).iterdir())[:tiles]:
                (root / split / name / file.name).write_bytes(file.read_bytes())
    return root


def test_tiles(real_data: Path, tmp_path: Path) -> None:
    """B8A moves from the end of the file to its place; class and split are those of the folders."""
    root = some(real_data, tmp_path / "root", 2)
    report = pack_eurosat(PackEurosatConfig(root=str(root), out=str(tmp_path / "store")))
    store = Store(tmp_path / "store")
    labels = store.labels(range(len(store)))

    assert (40, 40, 40) == (report.store.images, report.store.windows, report.store.labelled)
    assert SENSOR_BANDS[Sensor.S2_L1C] == store.spec.bands
    assert [1] * 40 == labels.multi_hot.sum(dim=1).int().tolist()
    for i, (name, split) in enumerate(
        zip(store.ids, store.table["split"].to_pylist(), strict=True)
    ):
        label = CLASSES[int(labels.multi_hot[i].argmax())]
        folder = "test" if split == "test" else "train"
        plane = store.images([i]).planes[10][0].numpy()
        with rasterio.open(root / folder / label / f"{name}.tif") as dataset:
            for k, band in enumerate(FILE_ORDER):
                assert (dataset.read(k + 1) == plane[store.spec.bands.index(band)]).all()
    assert "EuroSAT MS, divided given: 10 train, 10 val, 20 test" == report.notes[0]


def test_one_split(real_data: Path, tmp_path: Path) -> None:
    """A split alone is packed when it is asked for."""
    root = some(real_data, tmp_path / "root", 1)
    config = PackEurosatConfig(root=str(root), out=str(tmp_path / "store"), split="test")

    assert 10 == pack_eurosat(config).store.windows


def test_damaged_tile(real_data: Path, tmp_path: Path) -> None:
    """A damaged tile is passed over and listed, or stops the run where all are required."""
    root = some(real_data, tmp_path / "root", 1)
    file = next((root / "test" / "River").iterdir())
    file.write_bytes(file.read_bytes()[:-5000])
    config = PackEurosatConfig(root=str(root), out=str(tmp_path / "store"))
    report = pack_eurosat(config)

    assert [file.stem] == list(report.store.quarantined)
    assert 19 == report.store.windows
    with pytest.raises(RasterError, match="cannot be read"):
        pack_eurosat(PackEurosatConfig(root=str(root), out=str(tmp_path / "all"), require="all"))


def test_no_workers() -> None:
    """Settings out of range are refused when they are made."""
    with pytest.raises(ConfigError, match="one worker"):
        PackEurosatConfig(root="r", out="o", workers=0)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("rule", [[], ["--rule", "stratified"]])
def test_tiles_that_do_not_say_where_they_lie(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: list[str]
) -> None:
    """A store needs their place, a benchmark does not: both remedies that are printed are run."""
    for name in CLASSES:
        (tmp_path / "root" / name).mkdir(parents=True)
        for file in sorted((real_data / "eurosat_ms" / "train" / name).iterdir())[:5]:
            with rasterio.open(file) as dataset:
                profile, values = dataset.profile, dataset.read()
            profile = {key: v for key, v in profile.items() if key not in {"crs", "transform"}}
            with rasterio.open(tmp_path / "root" / name / file.name, "w", **profile) as out:
                out.write(values)
    command = ["eurosat", "--root", str(tmp_path / "root")]
    pack = ["pack", *command, *rule, "--out", str(tmp_path / "store")]
    assert 1 == main(pack)
    remedy = capsys.readouterr().err.split("remedy:")[1]

    if not rule:
        words = shlex.split(remedy[remedy.index("--split") :])
        run = ["--model", "imagestats", "--controls", "false", "--probe", "nmc", "--bootstrap", "9"]
        run += ["--cache", str(tmp_path / "c"), "--out", str(tmp_path / "r.jsonl")]
        assert 0 == main(["bench", *command, *words, *run])
    edit = shlex.split(remedy[remedy.index("rio edit-info") : remedy.index(" FILE")])
    for file in sorted((tmp_path / "root").rglob("*.tif")):
        done = CliRunner().invoke(main_group, [*edit[1:], str(file)])
        assert 0 == done.exit_code, done.output
    assert 0 == main(pack)
    assert 50 == len(Store(tmp_path / "store"))
