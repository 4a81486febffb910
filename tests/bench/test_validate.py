"""Records are made again from what lies beside them; whatever was touched is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eofm.bench.config import ValidateConfig
from eofm.bench.records import Result, read_results
from eofm.bench.reports.validate import Validation, validate
from eofm.bench.run import bench
from eofm.cli import main
from eofm.datasets.eurosat import BenchEurosatConfig
from eofm.errors import DataError
from eofm.formats.foreign import sealed

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def original(eurosat: Path, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of an encoder at two sizes and of a control, with shares of the labels."""
    folder = tmp_path_factory.mktemp("original")
    files = {"out": str(folder / "r.jsonl"), "cache": str(folder / "cache")}
    model = f"mine={encoder_folder},imagestats"
    for options in ({"size": "42"}, {"shares": "2-shot", "draws": 1}):
        config = BenchEurosatConfig(
            str(eurosat),
            model=model,
            probe="knn",
            k=2,
            controls=False,
            bootstrap=40,
            **{**files, **options},  # type: ignore[arg-type]
        )
        bench(config)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    shutil.copytree(original, tmp_path / "copy", ignore=shutil.ignore_patterns("cache"))
    return tmp_path / "copy"


def edit(folder: Path, change: Change) -> None:
    """Change the first record, and give it the key of its new content."""
    path = folder / "r.jsonl"
    first, *others = path.read_text().splitlines()
    data = json.loads(first)
    change(data)
    data.pop("checksum")  # as a record of eofm 0.1: what follows from other files is still found
    data["key"] = _key(data)
    path.write_text("\n".join([json.dumps(data), *others]) + "\n")


def _key(data: dict[str, Any]) -> str:
    """The key a forger would give."""
    for guess in ("",):
        try:
            Result.from_line(json.dumps({**data, "key": guess}))
        except DataError as error:
            return str(error.expected)
    raise AssertionError("an empty key was accepted")


def check(folder: Path) -> Validation:
    """What is said of the records."""
    return validate(ValidateConfig(str(folder / "r.jsonl")))


def test_what_nobody_touched_can_be_trusted(folder: Path) -> None:
    """All of it: own and other sizes, a control, a share of the labels; status 0."""
    found = check(folder)

    assert 0 == found.status, found.describe()
    assert "10 records, 10 can be trusted, 0 cannot" in found.describe()
    assert "of a subset" in found.describe()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(value=d["value"] - 0.01), "another score than the record"),
        (lambda d: d["interval"].update(low=d["interval"]["low"] - 0.01), "the interval is"),
        (lambda d: d["sample"].update(n_test=19), "predictions of 20 test samples"),
        (lambda d: d["sample"].update(test_sha256="0" * 64), "not those of the test split"),
        (lambda d: d.update(version="0"), "version 0 of the task"),
        (lambda d: d["sample"].update(dataset="EuroSAT, mine"), "data set EuroSAT, mine"),
        (lambda d: d["model"].update(plan_sha256="0" * 64), "not the one of its hash"),
        (lambda d: d["model"].update(recipe_sha256="0" * 64), "recipe is not the one"),
        (lambda d: d.update(probe="knn[k=9,l2,uniform,none]"), "the predictions are those of knn"),
        (lambda d: d.update(predictions=""), "without predictions"),
        (lambda d: d.update(predictions_sha256="0" * 64), "the checksum differs"),
    ],
)
def test_a_touched_record_is_found(folder: Path, change: Change, message: str) -> None:
    """Even where the forger gives it the right key; the other records stay trusted."""
    edit(folder, change)

    found = check(folder)

    assert 1 == found.status
    assert message in " ".join(found.checked[0].faults)
    assert all(not one.faults for one in found.checked[2:])


def test_a_plan_that_does_not_follow_is_found(folder: Path) -> None:
    """Another recipe with its right hash, and words and hash of a plan that agree."""

    def forge(data: dict[str, Any]) -> None:
        import hashlib

        recipe = json.loads(data["model"]["recipe"])
        recipe["normalization"]["shift"][0] += 1
        text = json.dumps(recipe, sort_keys=True)
        sha = hashlib.sha256(text.encode()).hexdigest()
        data["model"].update(recipe=text, recipe_sha256=sha)

    edit(folder, forge)

    assert "give another plan" in " ".join(check(folder).checked[0].faults)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(flags=["nothing to say"]),
        lambda d: d["model"].update(plan=["another plan"]),
        lambda d: d["model"].update(trained_on=["nothing"]),
        lambda d: d["sample"].update(complete=not d["sample"]["complete"]),
        lambda d: d["sample"].update(copies=d["sample"]["copies"] + 1),
        lambda d: d["made"].update(git=""),
    ],
)
def test_an_edited_record_is_found_by_its_checksum(folder: Path, change: Change) -> None:
    """What follows from no other file, and does not enter the key, has a checksum."""
    path = folder / "r.jsonl"
    first, *others = path.read_text().splitlines()
    data = json.loads(first)
    assert 0 == check(folder).status
    before = json.dumps(data)
    change(data)
    assert before != json.dumps(data)
    path.write_text("\n".join([json.dumps(data), *others]) + "\n")

    found = check(folder)

    assert 1 == found.status
    assert "edited or damaged" in found.checked[0].faults[0]
    assert all(not one.faults for one in found.checked[1:])


@pytest.mark.parametrize("score", [float("nan"), 95.0, -0.1, "0.5", None, True])
def test_a_score_is_a_share(folder: Path, score: object) -> None:
    """No number, one in percent and one below nothing are no scores, with the right checksum."""
    path = folder / "r.jsonl"
    first, *others = path.read_text().splitlines()
    data = json.loads(first)
    data["value"] = score
    path.write_text("\n".join([json.dumps(sealed(data)), *others]) + "\n")

    assert "score of this record is invalid" in check(folder).checked[0].faults[0]


def test_a_record_of_before_has_no_checksum(folder: Path) -> None:
    """It is read and compared with all that lies beside it, and a remark says what was not."""
    edit(folder, lambda data: None)

    found = check(folder)

    assert 0 == found.status
    assert "has no checksum" in found.describe()


@pytest.mark.parametrize(
    "name", ["/dev/zero", "/etc/hostname", "../r.jsonl", "predictions/../r.jsonl", "predictions/"]
)
def test_predictions_lie_in_their_folder(folder: Path, name: str) -> None:
    """A record names no file outside of it, nor one that never ends."""
    edit(folder, lambda data: data.update(predictions=name))

    assert any(
        word in " ".join(check(folder).checked[0].faults)
        for word in ("outside of its folder", "no predictions here")
    )


def test_predictions_are_a_plain_file(folder: Path) -> None:
    """A link in the folder to a device is not read for ever."""
    (folder / "predictions/zero.npz").symlink_to("/dev/zero")
    edit(folder, lambda data: data.update(predictions="predictions/zero.npz"))

    assert "no plain file" in check(folder).checked[0].faults[0]


def test_a_line_ends_where_json_says(folder: Path) -> None:
    """A name with the line separator of Unicode stands in one line."""
    path = folder / "r.jsonl"
    data = json.loads(path.read_text().splitlines()[0])
    data["details"] = {"note": "one\u2028two\x85three"}
    path.write_text(json.dumps(sealed(data), ensure_ascii=False) + "\n", "utf-8")

    found = check(folder)

    assert 0 == found.status, found.describe()
    assert 1 == len(found.checked) == len(read_results(path))


def test_an_edited_line_and_a_torn_one_are_found(folder: Path) -> None:
    """The key gives the first away; the second is named, and the lines after it are read."""
    path = folder / "r.jsonl"
    first, second, *others = path.read_text().splitlines()
    path.write_text("\n".join([first.replace('"seed": 0', '"seed": 3'), second[:99], *others]))

    found = check(folder)

    assert "was edited" in found.checked[0].faults[0]
    assert "no result" in found.checked[1].faults[0]
    assert all(not one.faults for one in found.checked[2:])


def test_a_record_that_stands_twice_is_found(folder: Path) -> None:
    """One of the two may be the better one."""
    path = folder / "r.jsonl"
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join([first, *others, first]))

    assert ("the same thing was scored in line 1",) == check(folder).checked[-1].faults


def test_touched_predictions_are_found(folder: Path) -> None:
    """Scores that were improved no longer have the checksum; ids that were swapped neither."""
    path = folder / Result.from_line((folder / "r.jsonl").read_text().splitlines()[0]).predictions
    with np.load(path) as file:
        arrays = dict(file)
    arrays["scores"] = np.roll(arrays["scores"], 1, axis=1)
    np.savez(path, **arrays)

    found = check(folder)

    assert 1 == found.status
    assert "checksum differs" in found.describe()


def test_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 where all can be trusted, 1 where not, or where there is nothing."""
    assert 0 == main(["bench", "validate", str(folder / "r.jsonl")])
    edit(folder, lambda d: d.update(value=0.99))
    assert 1 == main(["bench", "validate", str(folder / "r.jsonl")])
    assert "line 1: eurosat, mine" in capsys.readouterr().out
    (folder / "empty.jsonl").write_text("\n")
    assert 1 == main(["bench", "validate", str(folder / "empty.jsonl")])
    assert 1 == main(["bench", "validate", str(folder / "none.jsonl")])
