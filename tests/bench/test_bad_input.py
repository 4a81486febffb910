"""Wrong folders, torn downloads, other labels, copies: one clear error each, and status 1."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from eofm.cli import main

VERBS = ("eurosat", "bigearthnet", "so2sat", "treesatai", "ucmerced", "resisc45", "sat6", "folder")


def run(verb: str, root: Path, folder: Path, *words: str) -> int:
    """The benchmark through the command line, with band statistics alone."""
    files = ["--out", str(folder / "out" / "r.jsonl"), "--cache", ""]
    plain = ["--controls", "false", "--probe", "knn", "--bootstrap", "5", "--k", "1"]
    return main(["bench", verb, "--root", str(root), *files, *plain, *words])


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What stands on stderr, but for progress."""
    return [line for line in capsys.readouterr().err.splitlines() if line.strip()]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("", "where:"),
        ("Data.zip", "unpack Data.zip first"),
        ("Data.zip.part", "Data.zip.part is a download that has not ended"),
    ],
    ids=["wrong root", "not unpacked", "half downloaded"],
)
def test_a_folder_that_is_not_the_data_set(
    verb: str, file: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One error that says what was expected where, and what to do; nothing is written."""
    root = tmp_path / "root"
    root.mkdir()
    if file:
        (root / file).write_bytes(b"PK")

    assert 1 == run(verb, root, tmp_path)

    lines = lines_of(capsys)
    assert 1 == sum("error:" in line for line in lines)
    assert any("expected:" in line for line in lines)
    assert any(message in line for line in lines), lines
    assert not any(line.strip() == "found:" for line in lines)
    assert ["root"] == [path.name for path in tmp_path.iterdir()]


@pytest.fixture
def copy(eurosat: Path, tmp_path: Path) -> Path:
    """The miniature, to be damaged."""
    shutil.copytree(eurosat, tmp_path / "set")
    return tmp_path / "set"


def test_a_class_under_another_name(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing and foreign names are both said."""
    (copy / "train" / "River").rename(copy / "train" / "Rivers")

    assert 1 == run("eurosat", copy, tmp_path)
    assert "missing: River; foreign: Rivers" in " ".join(lines_of(capsys))


def test_an_id_in_train_and_test(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both files are named."""
    shutil.copy(copy / "train/River/River_0.tif", copy / "test/River/River_0.tif")

    assert 1 == run("eurosat", copy, tmp_path)
    text = " ".join(lines_of(capsys))
    assert "train/River/River_0.tif" in text
    assert "test/River/River_0.tif" in text


def test_the_same_image_under_another_name(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is scored, counted in the record, and named beside the table."""
    shutil.copy(copy / "train/River/River_0.tif", copy / "test/River/River_99.tif")

    assert 0 == run("eurosat", copy, tmp_path)
    text = capsys.readouterr().out
    assert "1 test samples are copies" in text
    copies = "copies of training images in test: test/River/River_99.tif is train/River/River_0"
    assert copies in text


def test_labels_that_do_not_match(
    eurosat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a table of one's own: a class that only test has is a misspelling until it is learnt."""
    table = tmp_path / "labels.csv"
    rows = ["file,split,label", "train/River/River_0.tif,train,River"]
    rows += ["train/Forest/Forest_0.tif,train,Forest", "test/River/River_6.tif,test,river"]
    table.write_text("\n".join(rows))

    assert 1 == run("folder", eurosat, tmp_path, "--labels", str(table))
    text = " ".join(lines_of(capsys))
    assert "label names of the splits do not match" in text
    assert "river" in text


def test_bands_that_are_not_in_the_files(
    eurosat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three are stated, thirteen are stored."""
    assert 1 == run("folder", eurosat, tmp_path, "--bands", "B02,B03,B04")
    text = " ".join(lines_of(capsys))
    assert "13 bands" in text
    assert "3: B02 B03 B04" in text


def test_shares_that_leave_a_class_without_an_image(
    eurosat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a pixel is read."""
    assert 1 == run("eurosat", eurosat, tmp_path, "--shares", "10")
    assert "--shares 5-shot" in " ".join(lines_of(capsys))
