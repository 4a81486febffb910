"""Other labels for the same pixels: joined by identifier, all at once, without touching a pixel."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eofm.errors import ConfigError, LabelError, StoreError
from eofm.landcover.table import FORMAT, KEY, VERSION, schema
from eofm.store.config import RelabelConfig
from eofm.store.edit import relabel_store
from eofm.store.reader import Store

CLASSES = ("rock", "ice")


def write_labels(file: Path, ids: list[str], **about: object) -> Path:
    """Write a table of two classes, in reverse order: image i has i / 10 of the first one."""
    layout = schema(len(CLASSES))
    lines = []
    for i, name in reversed(list(enumerate(ids))):
        line = dict.fromkeys(layout.names, 0.0) | dict.fromkeys(("crs", "date", "reason"), "")
        line |= {"id": name, "source": ["map"], "map_date": ["2020"], "known": i != 1}
        line |= {"fraction": [i / 10, 1 - i / 10], "multi_hot": [int(i > 0), 1]}
        lines.append({**line, "valid_share": 0.5})
    said = {
        "format": FORMAT,
        "version": VERSION,
        "scheme": {"name": "mountains"},
        "classes": list(CLASSES),
        "threshold": 0.05,
        "min_valid": 0.3,
        "ground": "seen",
        **about,
    }
    metadata = {KEY: json.dumps(said).encode()}
    pq.write_table(pa.Table.from_pylist(lines, layout.with_metadata(metadata)), file)
    return file


def relabel(path: Path, labels: Path, **changes) -> Store:
    """Give a store other labels; return it."""
    config = RelabelConfig(str(path), str(labels), **{"in_place": "out" not in changes, **changes})
    relabel_store(config)
    return Store(config.out or path)


@pytest.mark.parametrize("in_place", [True, False])
def test_new_labels(tmp_path: Path, miniature, tree, in_place: bool) -> None:
    """Labels, rule and classes are those of the table; pixels, checksums and places stay."""
    path = miniature.store(tmp_path / "s", 6)
    before, old = tree(path), Store(path)
    labels = write_labels(tmp_path / "l.parquet", old.ids.tolist())
    store = relabel(path, labels, **({} if in_place else {"out": str(tmp_path / "new")}))

    assert (CLASSES, "mountains") == (store.classes, store.scheme)
    assert (0.05, 0.3) == (store.card.labels.threshold, store.card.labels.min_valid)
    assert [i != 1 for i in range(6)] == store.labels(range(6)).known.tolist()
    assert [[0, 1], *[[1, 1]] * 5] == store.labels(range(6)).multi_hot.int().tolist()
    assert [0.3, 0.7] == pytest.approx(store.fractions([3])[0].tolist())
    store.verify()
    same = [c for c in old.table.schema.names if c not in {"fraction", "multi_hot", "known"}]
    assert old.table.select(same).equals(store.table.select(same))
    after = tree(store.path)
    changed = {name for name in before if before[name] != after[name]}
    assert {"index.parquet", "spec.json"} == changed
    assert set(before) == set(after)
    if not in_place:
        assert before == tree(path)
        assert (path / "shard-00000/10m.npy").samefile(store.piece(0, "10m"))


def test_labels_for_an_unlabelled_store(tmp_path: Path, radar_miniature) -> None:
    """A store that was packed without a map can be labelled later."""
    path = radar_miniature.store(tmp_path / "s", 3)
    labels = write_labels(tmp_path / "l.parquet", [*Store(path).ids, "elsewhere"])
    report = relabel_store(RelabelConfig(str(path), str(labels), in_place=True))

    assert CLASSES == Store(path).classes
    assert (0, 1) == (report.unlabelled, report.spare)
    assert "1 rows of the table are of other images" in report.describe()


def test_images_the_table_does_not_know(tmp_path: Path, miniature, tree) -> None:
    """They are named, and nothing is changed; or they become unlabelled where that is asked for."""
    path = miniature.store(tmp_path / "s", 5)
    before = tree(path)
    labels = write_labels(tmp_path / "l.parquet", Store(path).ids[:3].tolist())
    with pytest.raises(LabelError, match="not in the table") as caught:
        relabel(path, labels)
    assert "2 of 5: p1_3, p2_4" == caught.value.found
    assert before == tree(path)

    store = relabel(path, labels, missing="unlabelled")
    assert [True, False, True, False, False] == store.labels(range(5)).known.tolist()
    assert [[0, 0]] * 2 == store.labels([3, 4]).multi_hot.tolist()
    assert [[0, 0]] * 2 == store.fractions([3, 4]).tolist()


@pytest.mark.parametrize(
    ("about", "problem"),
    [({"threshold": None}, "how they were made"), ({"format": "x"}, "not a table")],
)
def test_foreign_tables(tmp_path: Path, miniature, about, problem: str) -> None:
    """A table that does not say what its labels mean is refused."""
    path = miniature.store(tmp_path / "s", 2)
    labels = write_labels(tmp_path / "l.parquet", Store(path).ids.tolist(), **about)

    with pytest.raises(LabelError, match=problem):
        relabel(path, labels)


def test_an_image_twice_in_the_table(tmp_path: Path, miniature) -> None:
    """Which of two lines holds is not guessed."""
    path = miniature.store(tmp_path / "s", 2)
    labels = write_labels(tmp_path / "l.parquet", [*Store(path).ids, "p0_1"])

    with pytest.raises(LabelError, match="twice") as caught:
        relabel(path, labels)
    assert "p0_1" == caught.value.found


@pytest.mark.parametrize("in_place", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_killed_anywhere(tmp_path: Path, miniature, tree, kill, in_place: bool) -> None:
    """Interrupted at any call, a store has all the old labels or all the new; a re-run ends it."""
    labels = write_labels(tmp_path / "l.parquet", [f"p{i // 2}_{i}" for i in range(6)])
    whole = relabel(miniature.store(tmp_path / "whole", 6), labels)
    expected, seen, kills = tree(whole.path), set(), 0
    fresh = miniature.store(tmp_path / "fresh", 6)
    for call in range(1, 100):
        path = Path(shutil.copytree(fresh, tmp_path / f"s{call}"))
        out = {} if in_place else {"out": str(tmp_path / f"out{call}")}
        with kill.at(call) as calls:
            try:
                relabel(path, labels, **out)
            except kill.Error:
                kills += 1
        done = calls() < call
        if in_place or done:
            seen.add(Store(out.get("out", path)).classes)
        elif Path(out["out"], "journal.jsonl").exists():
            with pytest.raises(StoreError, match="half written"):
                Store(out["out"])
        if in_place or not done:
            relabel(path, labels, **out)
        assert expected == tree(Path(out.get("out", path)))
        if done:
            break
    assert kills > 5
    assert seen == ({CLASSES, ("water", "trees", "crops")} if in_place else {CLASSES})


def test_where_to(tmp_path: Path, miniature) -> None:
    """It must be said, once; a folder with something in it is left alone."""
    for wrong in ({}, {"out": "x", "in_place": True}):
        with pytest.raises(ConfigError, match="must be said"):
            RelabelConfig("s", "l", **wrong)
    path = miniature.store(tmp_path / "s", 2)
    labels = write_labels(tmp_path / "l.parquet", Store(path).ids.tolist())
    with pytest.raises(StoreError, match="not empty"):
        relabel(path, labels, out=str(path))
