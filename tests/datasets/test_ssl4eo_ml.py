"""SSL4EO-S12-ML: labels by name of place and season, unlabelled as a state, held counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eofm.contract.spec import Sensor
from eofm.datasets.ssl4eo import PackSsl4eoConfig, folders
from eofm.datasets.ssl4eo.folders import LABEL_CLASSES, read_multilabels
from eofm.datasets.ssl4eo.pack import pack_ssl4eo
from eofm.errors import ConfigError, LabelError
from eofm.store.reader import Store
from eofm.world.config import WorldConfig
from eofm.world.files import write_world

WINTER = "20210117T104259_20210117T104300_T31TFJ"
SPRING = "20210402T104021_20210402T104258_T31TFJ"
EXAMPLE = {
    "0000002": {
        "20200718T102559_20200718T103605_T31TFJ": [],
        WINTER: ["0", "1", "2", "4", "5", "6", "8"],
        SPRING: ["1", "2", "4", "5", "6", "8"],
    },
    "0000003": {"20200403T100549_20200403T101937_T31PDQ": ["4", "5", "7"]},
    "0000004": {"20200403T100549_20200403T101937_T31PDQ": []},
}


def write(path: Path, content: object) -> Path:
    """Write JSON, or text as it is."""
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_example(tmp_path: Path) -> None:
    """The example of the published description reads as what it says."""
    labels = read_multilabels(write(tmp_path / "ml.json", EXAMPLE))

    assert (3, 2, False) == (labels.images, labels.scenes, labels.full)
    assert (1, 1, 1, 0, 1, 1, 1, 0, 1) == labels.multi_hot("0000002", WINTER)
    assert {"water": 1, "crops": 3, "bare": 1} == {
        name: labels.frequencies[name] for name in ("water", "crops", "bare")
    }
    assert {3: 1, 6: 1, 7: 1} == labels.per_image
    assert 9 == len(LABEL_CLASSES)
    assert "snow and ice" == LABEL_CLASSES[8]


def test_three_ways_to_be_unlabelled(tmp_path: Path) -> None:
    """An empty list, a missing season and a missing place are no labels, never empty labels."""
    labels = read_multilabels(write(tmp_path / "ml.json", EXAMPLE))

    assert labels.multi_hot("0000002", "20200718T102559_20200718T103605_T31TFJ") is None
    assert labels.multi_hot("0000002", "20990101T000000_20990101T000000_T31TFJ") is None
    assert labels.multi_hot("0000999", WINTER) is None
    assert labels.multi_hot("0000002", None) is None


def test_level_2a_is_joined_by_overpass(tmp_path: Path) -> None:
    """The second time of a Level-2A name is when it was made, so it is joined without."""
    labels = read_multilabels(write(tmp_path / "ml.json", EXAMPLE))
    l2a = "20210117T104259_20210117T105030_T31TFJ"

    assert WINTER == labels.season_of("0000002", l2a, Sensor.S2_L2A)
    assert labels.season_of("0000002", l2a, Sensor.S2_L1C) is None
    assert labels.season_of("0000002", l2a.replace("T31TFJ", "T31TGJ"), Sensor.S2_L2A) is None
    assert labels.season_of("0000002", "winter", Sensor.S2_L2A) is None


def test_level_2a_that_fits_two_seasons(tmp_path: Path) -> None:
    """Two Level-1C products of one overpass and tile cannot be told apart."""
    twins = {"0000002": {WINTER: ["1"], "20210117T104259_20210117T104301_T31TFJ": ["2"]}}
    labels = read_multilabels(write(tmp_path / "ml.json", twins))

    with pytest.raises(LabelError, match="fits two seasons"):
        labels.season_of("0000002", "20210117T104259_20210117T105030_T31TFJ", Sensor.S2_L2A)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"0000002": {WINTER: ["9"]}}, "not an id of Dynamic World"),
        ({"0000002": {WINTER: ["-1"]}}, "not an id of Dynamic World"),
        ({"0000002": {WINTER: [1]}}, "not an id of Dynamic World"),
        ({"0000002": {WINTER: ["01"]}}, "not an id of Dynamic World"),
        ({"0000002": {WINTER: None}}, "not an id of Dynamic World"),
        ({"0000002": {WINTER: ["1", "1"]}}, "a label is there twice"),
        (f'{{"0000002": {{"{WINTER}": ["1"], "{WINTER}": ["2"]}}}}', "twice"),
        ('{"0000002": {}, "0000002": {}}', "twice"),
        ({"2": {WINTER: ["1"]}}, "not named as in SSL4EO-S12"),
        ({"0000002": ["1"]}, "not the layout"),
        ({"0000002": {WINTER: {"1": ["1"]}}}, "not the layout"),
        (["0000002"], "not the layout"),
        ('{"0000002": {"' + WINTER + '": ["1"', "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_wrong_files(tmp_path: Path, content: object, problem: str) -> None:
    """What is not the published layout, or is cut off, is refused with the file's name."""
    file = write(tmp_path / "ml.json", content)

    with pytest.raises(LabelError, match=problem) as caught:
        read_multilabels(file)
    assert file == caught.value.where


def test_counts_of_the_full_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of as many places as the data set has must hold the published counts."""
    monkeypatch.setattr(folders, "_FULL_LABELS_FROM", 3)
    file = write(tmp_path / "ml.json", EXAMPLE)

    with pytest.raises(LabelError, match="other counts than were published") as caught:
        read_multilabels(file)
    assert "3 labelled images in 2 places" == caught.value.found
    assert "780371 labelled images in 247377 places" == caught.value.expected
    assert read_multilabels(file, partial=True).full
    monkeypatch.setattr(folders, "LABELLED_IMAGES", 3)
    monkeypatch.setattr(folders, "LABELLED_SCENES", 2)
    assert "the full file" in read_multilabels(file).describe()


# ------------------------------------------------------------------------------ packing


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Three places of the embedded world, in the layout of SSL4EO-S12."""
    write_world(WorldConfig(out=str(tmp_path / "world"), scenes=3, size=48, seed=1, workers=1))
    return tmp_path / "world"


def label(world: Path, tmp_path: Path) -> tuple[Path, dict[str, dict[str, list[str]]]]:
    """Label every season by its rank, the last one not at all, and the last place neither."""
    content = {
        place.name: {
            season.name: [str(k)] if k < 3 else []
            for k, season in enumerate(sorted(place.iterdir()))
        }
        for place in sorted((world / "s2c").iterdir())[:2]
    }
    content["0000099"] = {WINTER: ["8"]}
    return write(tmp_path / "ml.json", content), content


def settings(world: Path, labels: Path, sensor: str) -> PackSsl4eoConfig:
    """Pack one sensor with the labels of a file."""
    return PackSsl4eoConfig(
        root=str(world), sensor=sensor, out=str(world.parent / sensor), labels=str(labels)
    )


def test_pack_with_the_file(world: Path, tmp_path: Path) -> None:
    """Scenes take the labels of their own season; presence is known, the covered share is not."""
    file, content = label(world, tmp_path)
    report = pack_ssl4eo(settings(world, file, "s2-l1c"))
    store = Store(world.parent / "s2-l1c")
    labels = store.labels(range(len(store)))

    for i, (known, multi_hot) in enumerate(zip(labels.known, labels.multi_hot, strict=True)):
        place, season = store.ids[i].split("/")
        expected = content.get(place, {}).get(season, [])
        assert bool(expected) == bool(known)
        assert expected == [str(k) for k in multi_hot.nonzero().flatten().tolist()]
        assert store.fractions([i]).isnan().all() == bool(expected)
    assert ("ssl4eo-s12-ml", LABEL_CLASSES) == (store.scheme, store.classes)
    assert (12, 6) == (report.store.windows, report.store.labelled)
    assert "4 of 12 scenes have no entry there" in report.notes
    assert "1 places of it are not here" in report.notes


def test_radar_takes_the_nearest_season(world: Path, tmp_path: Path) -> None:
    """A Sentinel-1 scene takes the labels of the nearest season by date, computed by hand here."""
    file, content = label(world, tmp_path)
    pack_ssl4eo(settings(world, file, "s1-grd"))
    store = Store(world.parent / "s1-grd")
    labels = store.labels(range(len(store)))

    for i, line in enumerate(store.table.to_pylist()):
        mine = line["date"].replace("-", "").replace(":", "")
        seasons = sorted(p.name for p in (world / "s2c" / line["location"]).iterdir())
        nearest = min(seasons, key=lambda name: abs(_day(name) - _day(mine)))
        expected = content.get(line["location"], {}).get(nearest, [])
        assert expected == [str(k) for k in labels.multi_hot[i].nonzero().flatten().tolist()]
        assert bool(expected) == bool(labels.known[i])


def _day(name: str) -> int:
    year, month, day = int(name[:4]), int(name[4:6]), int(name[6:8])
    return year * 366 + month * 31 + day


def test_labels_of_another_data_set(world: Path, tmp_path: Path) -> None:
    """Labels that fit no scene are an error, not an unlabelled store."""
    with pytest.raises(LabelError, match="no entry for any of the scenes"):
        pack_ssl4eo(settings(world, write(tmp_path / "ml.json", EXAMPLE), "s2-l1c"))


def test_both_kinds_of_labels(world: Path) -> None:
    """Maps and a label file at once are refused when the settings are made."""
    with pytest.raises(ConfigError, match="not from both"):
        PackSsl4eoConfig(
            root="r", sensor="s2-l1c", out="o", labels="l", landcover="m", scheme="dynamic-world"
        )
