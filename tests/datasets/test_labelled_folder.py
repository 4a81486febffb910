"""A user's own labelled images: class folders and tables."""

from __future__ import annotations

import warnings
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning
from remedies import named_bands, run_rio

from eofm.cli import main
from eofm.contract.spec import Sensor, Unit
from eofm.datasets.folder import DATASET, BenchFolderConfig, open_labelled_folder
from eofm.datasets.images.chips import Chips, read_batches
from eofm.errors import ConfigError, DataError, LabelError, RasterError, SpecError
from eofm.store.splits import hold_out

BANDS = ("B02", "B03", "B04", "B08")


_GROUND = count()


def write(
    path: Path, level: int = 500, side: int = 12, bands: int = 4, east: float | None = None
) -> None:
    """Write an image whose bands are constants of their own, on ground of its own or `east`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    north = 5_000_000 if east is not None else 5_500_000
    east = 1_000.0 * next(_GROUND) if east is None else east
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
        transform=Affine(10, 0, 400_000 + east, 0, -10, north),
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
    water, forest = "train/water/odd", "train/forest/odd"
    for name, message in ((water, "not of the kind"), (forest, "number of bands")):
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
    with pytest.raises(DataError, match="no image in the class folders"):
        opened(tmp_path)
    write(tmp_path / "train" / "a" / "1.tif")
    with pytest.raises(SpecError, match="there is no band"):
        opened(tmp_path, bands=("B02", "B99"))


# ------------------------------------------------------------------------------ identity


def test_numbers_may_begin_anew_in_every_folder(tmp_path: Path) -> None:
    """An image is called like its path: equal numbers in each split and class are no leak."""
    for split in ("train", "test"):
        for name in ("crop", "forest"):
            for number in range(6):
                write(tmp_path / split / name / f"{number}.tif")
    chips = opened(tmp_path)

    assert 24 == len({chip.id for chip in chips.all})
    assert {"test/crop/0", "test/forest/0"} <= {chip.id for chip in chips.splits["test"]}
    assert {"train/crop/0", "train/forest/0"} <= {
        chip.id for name in ("train", "val") for chip in chips.splits[name]
    }
    assert () == chips.remarks


def test_endings_that_differ_are_two_images(tmp_path: Path) -> None:
    """`a.tif` and `a.tiff` keep their endings as names, in folders and in tables."""
    for split in ("train", "test"):
        write(tmp_path / split / "x" / "a.tif")
        write(tmp_path / split / "x" / "a.tiff")
    ids = ["test/x/a.tif", "test/x/a.tiff"]
    assert ids == [chip.id for chip in opened(tmp_path).splits["test"]]

    lines = [f"{s}/x/a.{end},{s},x" for s in ("train", "test") for end in ("tif", "tiff")]
    (tmp_path / "labels.csv").write_text("\n".join(["file,split,label", *lines]))
    assert ids == [chip.id for chip in opened(tmp_path).splits["test"]]


def test_a_table_that_names_an_image_twice_is_refused(tmp_path: Path) -> None:
    """In one split or in two; keeping one of its rows helps."""
    root = table(tmp_path, "a.tif,train,x", "b.tif,test,x", "./b.tif,train,x")
    with pytest.raises(LabelError, match="more than once") as caught:
        opened(root)
    assert "b.tif" in str(caught.value.found)

    assert 2 == len(opened(table(tmp_path, "a.tif,train,x", "b.tif,test,x")).all)


def test_two_folders_of_one_split_are_refused(folders: Path) -> None:
    """`val` and `validation`: one of them had been read, and the other not."""
    write(folders / "val" / "water" / "1.tif")
    write(folders / "validation" / "water" / "2.tif")

    with pytest.raises(DataError, match="the same split") as caught:
        opened(folders)

    assert "what is in validation" in str(caught.value.remedy)
    (folders / "validation" / "water" / "2.tif").rename(folders / "val" / "water" / "2.tif")
    (folders / "validation" / "water").rmdir()
    (folders / "validation").rmdir()
    assert 2 == len(opened(folders).splits["val"])


def test_val_is_drawn_by_place(tmp_path: Path) -> None:
    """Windows of one scene are in train or in val, whatever they are called."""
    for name, start in (("water", 0), ("forest", 100_000)):
        for number in range(20):
            scene, part = divmod(number, 4)
            east = start + 10_000.0 * scene + 60 * part  # half of each overlaps the next
            write(tmp_path / "train" / name / f"{number}.tif", east=east)
        write(tmp_path / "test" / name / "0.tif")
    chips = opened(tmp_path)
    scenes = {
        split: {(c.label, int(c.id.rsplit("/", 1)[1]) // 4) for c in chips.splits[split]}
        for split in ("train", "val")
    }

    assert not scenes["train"] & scenes["val"]
    assert (32, 8) == (len(chips.splits["train"]), len(chips.splits["val"]))
    assert () == chips.remarks


def test_the_draw_of_lone_images_is_that_of_version_0_1(tmp_path: Path) -> None:
    """Where every image is a place, val holds the images it held before there were places."""
    for name in ("water", "forest"):
        for number in range(20):
            write(tmp_path / "train" / name / f"{number}.tif")
        write(tmp_path / "test" / name / "0.tif")
    groups = {n: [f"{n}/{k}" for k in range(20)] for n in ("water", "forest")}
    _, taken = hold_out(groups, "folder")

    assert {f"train/{name}" for name in taken} == {c.id for c in opened(tmp_path).splits["val"]}


def test_train_of_one_place_is_said(folders: Path) -> None:
    """Val cannot be drawn by place then; it is drawn by image, with a remark and its remedy."""
    for number, path in enumerate(sorted(folders.rglob("*.tif"))):
        write(path, east=0.0 if "train" in path.parts else 5_000.0 * (1 + number))
    chips = opened(folders)

    assert 2 == len(chips.splits["val"])
    assert ["10 of 12 images are one place", "Val shows ground that train shows, too"] == [
        remark.split(" (")[0].split(", and")[0] for remark in chips.remarks
    ]
    assert () == opened(folders, place="{place}").remarks
    for name in ("water", "forest"):
        write(folders / "val" / name / "7.tif")
    assert ["10 of 14 images are one place"] == [r.split(" (")[0] for r in opened(folders).remarks]


def test_ground_of_training_images_in_test_is_said(folders: Path) -> None:
    """Given splits stay as they are; the images are named, and both remedies were run here."""
    write(folders / "train" / "water" / "0.tif", east=-9_000.0)
    write(folders / "test" / "water" / "9.tif", east=-9_060.0)
    (remark,) = opened(folders).remarks

    assert remark.startswith("Leak: 1 of 2 test images show ground of train or val: test/water/9 ")
    assert "with train/water/0" in remark
    assert () == opened(folders, place="{place}").remarks
    write(folders / "test" / "water" / "10.tif")
    (folders / "test" / "water" / "9.tif").rename(folders / "train" / "water" / "9.tif")
    assert () == opened(folders).remarks


def test_a_place_that_holds_a_whole_class_stays_in_train(tmp_path: Path) -> None:
    """Else val would take the last training image of a class."""
    for number in range(30):
        write(tmp_path / "train" / "common" / f"{number}.tif")
        if number < 3:
            write(tmp_path / "train" / "common" / f"{number}.tif", east=1_000.0 * number)
            write(tmp_path / "train" / "rare" / f"{number}.tif", east=1_000.0 * number)
    write(tmp_path / "test" / "common" / "0.tif")
    write(tmp_path / "test" / "rare" / "0.tif")

    chips = opened(tmp_path)
    assert {0, 1} == {chip.label for chip in chips.splits["train"]}


def test_hidden_files_links_and_subfolders(
    folders: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What a Mac leaves is left out, links to folders and subfolders are read, loops refused."""
    disk = tmp_path_factory.mktemp("disk")
    write(disk / "b.tif")
    write(folders / "train" / "water" / "2020" / "a.tif")
    (folders / "train" / "water" / "more").symlink_to(disk)
    (folders / "train" / "water" / "._0.tif").write_bytes(b"resource fork")
    (folders / "train" / "water" / "folder.tif").mkdir()
    (folders / "train" / ".hidden").mkdir()
    ids = {chip.id for chip in opened(folders).all}

    assert 14 == len(ids)
    assert {"train/water/2020/a", "train/water/more/b"} <= ids
    (disk / "back").symlink_to(folders / "train" / "water")
    with pytest.raises(DataError, match="reached by two paths") as caught:
        opened(folders)
    Path(str(caught.value.remedy).removeprefix("remove the link: ")).unlink()
    assert 14 == len(opened(folders).all)


@pytest.mark.parametrize("name", ["valid", "Val", "validation"])
def test_other_names_of_a_split(folders: Path, name: str) -> None:
    """What others call val is val, in upper case as well, and no images are left out unsaid."""
    for label in ("water", "forest"):
        write(folders / name / label / "1.tif")

    chips = opened(folders)

    assert "given" == chips.rule
    assert [f"{name}/forest/1", f"{name}/water/1"] == [chip.id for chip in chips.splits["val"]]


def test_folders_that_are_no_split_are_named(folders: Path) -> None:
    """Class folders in `dev`, and images without a class, were left out without a word."""
    write(folders / "dev" / "water" / "1.tif")
    with pytest.raises(DataError, match="none of them") as refused:
        opened(folders)
    assert "dev" == refused.value.found
    (folders / "dev").rename(folders / "val")  # as the remedy says
    assert "given" == opened(folders).rule
    (folders / "previews" / "water").mkdir(parents=True)  # without images it is no split
    write(folders / "train" / "loose.tif")
    with pytest.raises(DataError, match="have no class") as loose:
        opened(folders)
    assert "loose.tif" == loose.value.found
    (folders / "train" / "loose.tif").unlink()
    assert "given" == opened(folders).rule


def test_one_class_alone_is_no_task(tmp_path: Path) -> None:
    """It was scored with 100 %."""
    for name in ("train/water/1", "train/water/2", "test/water/3"):
        write(tmp_path / f"{name}.tif")

    config = BenchFolderConfig(str(tmp_path), sensor="s2-l2a", bands=",".join(BANDS))
    assert DATASET.benchmark is not None
    with pytest.raises(LabelError, match="one class alone"):
        DATASET.benchmark.open(config)
    write(tmp_path / "train" / "forest" / "1.tif")
    assert 2 == len(DATASET.benchmark.open(config).task.classes)


@pytest.mark.parametrize(
    ("encoding", "divider"),
    [("utf-8-sig", ","), ("utf-8-sig", ";"), ("utf-8", "\t"), ("utf-8", ", ")],
)
def test_tables_as_spreadsheets_save_them(folders: Path, encoding: str, divider: str) -> None:
    """A mark in front, semicolons, tabs, blanks and capitals are those of the same table."""
    rows = [["File", "Split", "Label"]]
    for name in ("water", "forest"):
        rows += [[f"train/{name}/{k}.tif", "Train", name] for k in range(5)]
        rows += [[f"test/{name}/9.tif", "test", name]]
    text = "\n".join(divider.join(row) for row in rows)
    (folders / "labels.csv").write_text(text + "\n", encoding=encoding)

    chips = opened(folders)

    assert ("forest", "water") == chips.classes
    assert 2 == len(chips.splits["test"])


@pytest.mark.parametrize("missing", [None, float("nan"), ["water", None]])
def test_a_missing_label_is_no_class(folders: Path, missing: object) -> None:
    """An empty cell of a Parquet file was a class called None, or nan."""
    names = [f"train/water/{k}.tif" for k in range(4)]
    column = "labels" if isinstance(missing, list) else "label"
    present: list[object] = [["water"]] * 3 if isinstance(missing, list) else ["water"] * 3
    if isinstance(missing, float):
        present = [1.0, 2.0, 1.0]
    table = {"file": names, "split": ["train"] * 4, column: [*present, missing]}
    pq.write_table(pa.table(table), folders / "labels.parquet")

    with pytest.raises(LabelError, match="has no label"):
        opened(folders)


@pytest.mark.parametrize(
    ("rows", "encoding", "problem"),
    [
        ("train/water/1.tif,train,ä", "latin-1", "not in UTF-8"),
        ("train/water/1.tif,train,water,more", "utf-8", "more or fewer cells"),
        ("train/water/1.tif,train", "utf-8", "more or fewer cells"),
        ("/dev/null,train,water", "utf-8", "not there|outside"),
        ("train\\\\water\\\\1.tif,train,water", "utf-8", "not there"),
    ],
)
def test_tables_that_cannot_be_read(folders: Path, rows: str, encoding: str, problem: str) -> None:
    """What is wrong with a table is said with what to do."""
    (folders / "labels.csv").write_text(f"file,split,label\n{rows}\n", encoding=encoding)

    with pytest.raises(DataError, match=problem) as refused:
        opened(folders)

    assert refused.value.remedy


def test_a_file_outside_of_the_folder(
    folders: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Absolute paths are taken below the folder; the remedy for others is a folder above."""
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "1.tif"
    write(elsewhere)
    lines = [f"{folders}/train/{n}/{k}.tif,train,{n}" for n in ("water", "forest") for k in (1, 2)]
    lines += [f"{folders}/test/water/9.tif,test,water"]
    table = folders / "labels.csv"
    table.write_text("\n".join(["file,split,label", *lines]) + "\n")
    assert "train/water/1" in {chip.id for chip in opened(folders).all}
    table.write_text("\n".join(["file,split,label", *lines, f"{elsewhere},test,water"]) + "\n")
    with pytest.raises(DataError, match="outside of the folder") as refused:
        opened(folders)
    assert "--labels" in str(refused.value.remedy)


def test_bands_in_an_order_of_their_own(folders: Path) -> None:
    """A file that names its bands is read by their names, whatever their order."""
    for file in sorted(folders.rglob("*.tif")):
        with rasterio.open(file, "r+") as image:
            image.descriptions = BANDS
    odd = folders / "test" / "water" / "9.tif"
    with rasterio.open(odd, "r+") as image:
        image.write(image.read()[::-1])
        image.descriptions = BANDS[::-1]

    chips = opened(folders, bands=None)

    water = next(chip for chip in chips.splits["test"] if chip.label == 1)
    (image,) = read_batches([water], 4)
    assert [200.0, 300.0, 400.0, 500.0] == image.pixels[0, :, 0, 0].tolist()


# ---------------------------------------------------------------------- images that lie nowhere


def plain(root: Path, ending: str, bands: int = 3, kind: str = "uint8") -> Path:
    """train/<class> with five chips each and test/<class> with two, without a place."""
    drivers = {".tif": "GTiff", ".png": "PNG", ".jpg": "JPEG"}
    random = np.random.default_rng(0)
    for name, level in (("water", 40), ("forest", 120)):
        for path in [f"train/{name}/{k}" for k in range(5)] + [f"test/{name}/{k}" for k in "89"]:
            file = root / f"{path}{ending}"
            file.parent.mkdir(parents=True, exist_ok=True)
            values = random.integers(level, level + 60, (bands, 32, 32)).astype(kind)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with rasterio.open(
                    file,
                    "w",
                    driver=drivers[ending],
                    height=32,
                    width=32,
                    count=bands,
                    dtype=kind,
                ) as target:
                    target.write(values)
    return root


@pytest.mark.parametrize("ending", [".tif", ".png", ".jpg"])
def test_chips_without_a_place_need_a_stated_gsd(
    ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The option that the error names is all that is missing for a benchmark of plain pictures."""
    root = plain(tmp_path / "chips", ending)
    words = ["bench", "folder", "--root", str(root), "--sensor", "rgb", "--unit", "uint8"]
    words += ["--model", "imagestats", "--controls", "false", "--bootstrap", "10", "--cache", ""]
    words += ["--probe", "knn", "--k", "3", "--out", str(tmp_path / "r.jsonl")]

    assert main(words) == 1
    said = capsys.readouterr().err
    assert "how large their pixels are" in said
    option = said.partition("as in: ")[2].split()[:2]
    assert option[0] == "--gsd"

    assert main([*words, *option]) == 0
    assert (tmp_path / "r.jsonl").read_text().count("\n") == 2


def test_pictures_go_through_the_same_contract(tmp_path: Path) -> None:
    """Values are those of the file, their GSD is the stated one, and what cannot be is refused."""
    root = plain(tmp_path, ".png")
    chips, spec = open_labelled_folder(root, Sensor.RGB, Unit.UINT8, gsd=0.3)

    assert (0.3, ("R", "G", "B"), (32, 32)) == (spec.gsd, spec.bands, spec.size)
    chip = chips.splits["test"][0]
    (image,) = read_batches([chip], 1)
    assert image.spec == spec
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        source = rasterio.open(root / "test" / "forest" / "8.png")
    with source:
        assert np.array_equal(source.read(), image.pixels[0].numpy())
    assert len({one.group for one in chips.all}) == 14  # of each nobody knows the place
    with pytest.raises(RasterError, match="bands"):
        open_labelled_folder(root, Sensor.S2_L2A, Unit.DN, gsd=10.0)
    (root / "train" / "water" / "0.png").write_bytes(b"no picture")
    with pytest.raises(RasterError, match="PNG picture"):
        list(read_batches(chips.all, 4))


def test_sixteen_bits_of_a_png_are_digital_numbers(tmp_path: Path) -> None:
    """A stated sensor with as many bands is read from a picture too."""
    _, spec = open_labelled_folder(
        plain(tmp_path, ".png", 4, "uint16"), Sensor.S2_L2A, Unit.DN, bands=BANDS, gsd=10.0
    )

    assert (BANDS, 10.0) == (spec.bands, spec.gsd)


def test_a_gsd_that_the_files_contradict(folders: Path) -> None:
    """What files say of themselves is not overruled in silence; what they say may be stated."""
    with pytest.raises(RasterError, match="say themselves") as caught:
        opened(folders, gsd=0.3)

    stated = float(str(caught.value.remedy).rpartition(" ")[2])
    assert opened(folders, gsd=stated).all
    with pytest.raises(ConfigError, match="gsd"):
        BenchFolderConfig("x", gsd=0.0)


def test_previews_beside_rasters_are_no_images(folders: Path) -> None:
    """A folder of rasters has as many images as before when pictures lie among them."""
    before = [chip.id for chip in opened(folders).all]
    plain(folders, ".png")

    assert before == [chip.id for chip in opened(folders).all]


def test_pixels_of_another_size_are_refused(folders: Path) -> None:
    """30 m among 10 m were read as 10 m: the first image alone was asked."""
    path = folders / "train" / "water" / "3.tif"
    with rasterio.open(path, "r+") as file:
        file.transform = file.transform @ Affine.scale(3)
    chips = opened(folders)

    with pytest.raises(RasterError, match="not as large as those of the others") as caught:
        list(read_batches([chip for split in chips.splits.values() for chip in split], 16))

    assert ("30 m", "10 m") == (caught.value.found, caught.value.expected)
    assert str(path) == str(caught.value.where)


def test_a_file_for_each_band_is_no_image(tmp_path: Path) -> None:
    """Each band was an image of its class, of one band and of one place."""
    for split in ("train", "test"):
        for name in ("water", "forest"):
            for number in range(4):
                east = 1_000.0 * next(_GROUND)
                for k, band in enumerate(BANDS):
                    file = tmp_path / split / name / f"{number}_{band}.tif"
                    write(file, 200 + k, bands=1, east=east)
    for _ in range(16):
        with pytest.raises(DataError, match="a file for each band") as caught:
            opened(tmp_path)
        words = run_rio(caught.value)
        assert list(BANDS) == named_bands(caught.value)
        for file in words[2:-2]:
            Path(file).unlink()

    chips = opened(tmp_path)

    assert 16 == sum(map(len, chips.splits.values()))
    (image,) = read_batches(chips.splits["test"][:1], 1)
    assert [200.0, 201.0, 202.0, 203.0] == image.pixels[0, :, 0, 0].tolist()


def test_names_that_end_like_bands_are_images(folders: Path) -> None:
    """`field_b1.tif` and `field_b2.tif` with all bands each are no bands of one."""
    for number in (1, 2):
        write(folders / "train" / "water" / f"field_b{number}.tif", 250)

    assert 16 - 2 == sum(map(len, opened(folders).splits.values()))


def test_an_image_that_lies_nowhere_is_named(tmp_path: Path) -> None:
    """The error named no file, and its command held the word FILE."""
    for split in ("train", "test"):
        for name in ("crop", "forest"):
            for k in range(3):
                write(tmp_path / split / name / f"{split}{k}.tif")
    first = tmp_path / "test/crop/test0.tif"
    last = tmp_path / "train/forest/train2.tif"
    for file in (first, last):
        with rasterio.open(file, "r+") as image:
            image.transform = Affine(10, 0, 5_000_000, 0, -10, 400_000)
        with pytest.raises(RasterError, match="do not fit its CRS") as caught:
            [list(read_batches(chips, 4)) for chips in opened(tmp_path).splits.values()]
        assert file == caught.value.where
        run_rio(caught.value)
