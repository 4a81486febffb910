"""A user's own labelled images: class folders and tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine

from eofm.contract.spec import Sensor, Unit
from eofm.datasets.chips import Chips, read_batches
from eofm.datasets.labelled_folder import open_labelled_folder
from eofm.errors import DataError, LabelError, RasterError, SpecError

BANDS = ("B02", "B03", "B04", "B08")


def write(path: Path, level: int = 500, side: int = 12, bands: int = 4) -> None:
    """Write an image whose bands are constants of their own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = level + 100 * np.arange(bands)[:, None, None] + np.zeros((bands, side, side))
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint16",
        count=bands,
        height=side,
        width=side,
        crs="EPSG:32631",
        transform=Affine(10, 0, 400_000, 0, -10, 5_000_000),
    ) as file:
        file.write(values.astype(np.uint16))


def opened(root: Path, **options: object) -> Chips:
    """The images of a folder of four bands."""
    arguments = {"bands": BANDS, **options}
    chips, spec = open_labelled_folder(root, Sensor.S2_L2A, Unit.DN, **arguments)  # type: ignore[arg-type]
    assert (12, 12) == spec.size
    assert BANDS == spec.bands
    return chips


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """train/<class> with five images each, test/<class> with one."""
    for name, level in (("water", 200), ("forest", 700)):
        for number in range(5):
            write(tmp_path / "train" / name / f"{number}.tif", level)
        write(tmp_path / "test" / name / "9.tif", level)
    return tmp_path


def test_class_folders(folders: Path) -> None:
    """Classes by the alphabet, a fifth of train held out as val, pixels as stored."""
    chips = opened(folders)

    assert ("forest", "water") == chips.classes
    assert (8, 2, 2) == tuple(len(chips.splits[s]) for s in ("train", "val", "test"))
    assert {0, 1} == {chip.label for chip in chips.splits["val"]}
    water = next(chip for chip in chips.splits["test"] if chip.label == 1)
    (image,) = read_batches([water], 4)
    assert [200.0, 300.0, 400.0, 500.0] == image.pixels[0, :, 0, 0].tolist()


def test_a_val_folder_is_taken(folders: Path) -> None:
    """Nothing is held out then."""
    for name in ("water", "forest"):
        write(folders / "val" / name / "7.tif")

    chips = opened(folders)

    assert (10, 2, 2) == tuple(len(chips.splits[s]) for s in ("train", "val", "test"))
    assert "given" == chips.rule


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables_of_several_labels(tmp_path: Path, ending: str) -> None:
    """Lists in Parquet, names with ; between them in CSV: the same images."""
    rows = [
        ("images/1.tif", "train", ["water", "forest"]),
        ("images/2.tif", "train", ["forest"]),
        ("images/3.tif", "validation", ["water"]),
        ("images/4.tif", "test", ["water"]),
    ]
    for name, *_ in rows:
        write(tmp_path / name)
    if ending == "csv":
        lines = [f"{n},{s},{';'.join(labels)}" for n, s, labels in rows]
        (tmp_path / "labels.csv").write_text("\n".join(["file,split,labels", *lines]))
    else:
        names, splits, labels = zip(*rows, strict=True)
        table = pa.table({"file": names, "split": splits, "labels": labels})
        pq.write_table(table, tmp_path / "labels.parquet")

    chips = opened(tmp_path)

    assert chips.multi_label
    assert [(0, 1), (0,)] == [chip.label for chip in chips.splits["train"]]
    assert (2, 1, 1) == tuple(len(chips.splits[s]) for s in ("train", "val", "test"))


def table(root: Path, *lines: str, head: str = "file,split,label") -> Path:
    """Write labels.csv, and the images it names."""
    for line in lines:
        write(root / line.split(",")[0])
    (root / "labels.csv").write_text("\n".join([head, *lines]))
    return root


def test_tables_of_one_label(tmp_path: Path) -> None:
    """A column `label`: class indices."""
    chips = opened(table(tmp_path, "a.tif,train,x", "b.tif,val,x", "c.tif,test,x"))

    assert not chips.multi_label


@pytest.mark.parametrize(
    ("lines", "head", "message"),
    [
        (("a.tif,train,x",), "file,split,class", "other columns"),
        (("a.tif,train,x,y",), "file,split,label,labels", "other columns"),
        (("a.tif,trein,x",), "file,split,label", "no such split"),
        (("a.tif,train,",), "file,split,label", "no label"),
        (("a.tif,train,Forest", "b.tif,test,forest"), "file,split,label", "names .* do not match"),
        ((), "file,split,label", "other columns"),
    ],
)
def test_tables_that_do_not_fit_are_named(
    tmp_path: Path, lines: tuple[str, ...], head: str, message: str
) -> None:
    """Missing or double columns, unknown splits, no label, a class that only test has."""
    with pytest.raises(LabelError, match=message) as caught:
        opened(table(tmp_path, *lines, head=head))

    assert "labels.csv" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A half-copied folder with a whole table."""
    root = table(tmp_path, "a.tif,train,x", "b.tif,test,x")
    (root / "b.tif").unlink()

    with pytest.raises(DataError, match="not there") as caught:
        opened(root)

    assert "b.tif" in str(caught.value)


def test_an_image_of_another_size_or_number_of_bands_is_refused(folders: Path) -> None:
    """When it is read, with its name."""
    write(folders / "train" / "water" / "odd.tif", side=16)
    write(folders / "train" / "forest" / "odd.tif", bands=3)
    chips = opened(folders)
    for name, message in (("water/odd", "not of the kind"), ("forest/odd", "number of bands")):
        odd = [chip for chip in chips.all if chip.id == name]

        with pytest.raises(RasterError, match=message):
            list(read_batches(odd, 1))


def test_folders_that_hold_nothing_are_named(tmp_path: Path) -> None:
    """No such folder, no split folders, an archive, no images, wrong bands."""
    with pytest.raises(DataError, match="no such folder"):
        opened(tmp_path / "nowhere")
    (tmp_path / "mine.zip").touch()
    with pytest.raises(DataError, match="no labelled images") as caught:
        opened(tmp_path)
    assert "unpack mine.zip" in str(caught.value)
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "test" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="no GeoTIFF"):
        opened(tmp_path)
    write(tmp_path / "train" / "a" / "1.tif")
    with pytest.raises(SpecError, match="no band is called"):
        opened(tmp_path, bands=("B02", "B99"))
