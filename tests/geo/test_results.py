"""What the verbs of maps keep of how they were asked."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import geopandas
import pytest
import yaml
from rasterio._err import CPLE_AppDefinedError
from vector_world import chips_of, drawn, on_disk, world

from eofm import terminal
from eofm.cli import main
from eofm.errors import ConfigError, DataError
from eofm.geo import cells, change, class_map_files, embedding_files, explore, results, search
from eofm.geo.embedding.config import EmbedConfig
from eofm.geo.embedding.embed import embed
from eofm.geo.embedding_files import write_chips, write_tiff
from eofm.geo.maps_config import ChangeConfig, MapConfig, SearchConfig
from eofm.io import write_file

VERBS = {
    "map": "map emb --labels fields.gpkg --field class --also later --probe knn --out made",
    "search": "search emb --like water.gpkg --unlike others.gpkg --top 7 --out made",
    "change": "change emb later --null unchanged --rate 0.05 --smallest 2 --out made",
    "explore": "explore emb --dimensions 5 --out made/page.html",
}


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with embeddings of three dates and fields, in which commands are run."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("emb", "later", "unchanged")):
        Path(name).mkdir()
        patches, truth = world(size=(24, 24), seed=seed)
        write_tiff(Path(name) / "patches.tif", patches)
    layer = drawn(patches, truth)
    on_disk(layer, Path("fields.gpkg"), "EPSG:4326")
    on_disk(layer[layer["class"] == "water"], Path("water.gpkg"))
    on_disk(layer[layer["class"] != "water"], Path("others.gpkg"))


def contents() -> dict[str, object]:
    """What each file says; a GeoPackage holds the time at which it was written."""
    return {
        str(file): geopandas.read_file(file).to_json() if file.suffix == ".gpkg" else data
        for file in sorted(Path("made").rglob("*"))
        if file.is_file() and (data := file.read_bytes())
    }


SETTINGS: tuple[Any, ...] = (
    EmbedConfig(["a.tif"], "random:vit-tiny-14", "made", patches=True),
    MapConfig("emb", ["a.gpkg"], field="class", out="made"),
    SearchConfig("emb", at="11,48", out="made"),
    ChangeConfig("emb", "later", out="made"),
)
RUNS: tuple[Any, ...] = (embed, class_map_files.run_map, search.run_search, change.run_change)


@pytest.mark.parametrize("kept", range(len(SETTINGS)))
def test_settings_of_another_verb_are_not_replaced(
    kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`eofm map emb --out emb` replaced what makes the embeddings again, or a training run."""
    monkeypatch.chdir(tmp_path)
    results.write_settings(SETTINGS[kept], Path("made") / results.CONFIG)
    before = (Path("made") / results.CONFIG).read_bytes()
    for number, (run, config) in enumerate(zip(RUNS, SETTINGS, strict=True)):
        if number == kept:
            results.check_folder(replace(config), Path("made"))
            continue
        with pytest.raises(ConfigError, match="results of another command") as caught:
            run(config)
        other = str(caught.value.remedy).partition("--out ")[2]
        results.check_folder(config, Path(other))
    assert before == (Path("made") / results.CONFIG).read_bytes()
    write_file(Path("made") / results.CONFIG, b"")
    results.check_folder(SETTINGS[0], Path("made"))


@pytest.mark.usefixtures("ground")
@pytest.mark.parametrize(
    "verb", [pytest.param("map", marks=pytest.mark.slow), "search", "change", "explore"]
)
def test_the_settings_beside_the_results_make_them_again(verb: str) -> None:
    """`--config` with what a verb has kept, and nothing else, writes the same files."""
    kept = "made/page.html.yaml" if verb == "explore" else "made/config.yaml"
    assert 0 == main(VERBS[verb].split())
    first = contents()
    shutil.copy(kept, "kept.yaml")
    shutil.rmtree("made")

    assert 0 == main([verb, "--config", "kept.yaml"])
    assert kept in first
    assert first == contents()


@pytest.mark.usefixtures("ground")
@pytest.mark.parametrize(
    ("verb", "module"),
    [
        pytest.param("map", class_map_files, marks=pytest.mark.slow),
        ("search", search),
        ("change", change),
        ("explore", explore),
    ],
)
def test_two_runs_do_not_write_the_same_results_at_once(
    verb: str,
    module: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The second is refused while the first writes; the first has all its files, and no lock."""
    statuses = []

    def write(config: Any, file: Path) -> Path:
        if not statuses:
            statuses.append(main(VERBS[verb].split()))
        return results.write_settings(config, file)

    monkeypatch.setattr(module, "write_settings", write)

    assert 0 == main(VERBS[verb].split())

    assert [1] == statuses
    assert "another process writes its results there" in capsys.readouterr().err
    assert not list(Path().rglob("*.lock"))
    assert not list(Path("made").rglob("*tmp*"))
    assert 0 == main(VERBS[verb].split())


@pytest.mark.usefixtures("ground")
def test_a_refused_run_leaves_no_empty_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor the folders above it that it has made; those of others stay."""
    Path("of_the_user").mkdir()
    for out in ("new/below", "of_the_user"):
        assert 0 != main(["search", "missing", "--at", "11,48", "--out", out])
    assert not Path("new").exists()
    assert Path("of_the_user").is_dir()

    assert 0 != main(["search", "emb", "--like", "water.gpkg", "--out", "fields.gpkg"])
    assert "the output folder cannot be written" in capsys.readouterr().err


@pytest.mark.usefixtures("ground")
def test_settings_that_are_kept_can_be_changed(capsys: pytest.CaptureFixture[str]) -> None:
    """A word after the file overrides it; the outcome names the file."""
    assert 0 == main(VERBS["search"].split())
    assert "config.yaml" in capsys.readouterr().out

    assert 0 == main(["search", "--config", "made/config.yaml", "--top", "3", "--out", "fewer"])
    assert 3 == len(geopandas.read_file("fewer/ranked.gpkg"))
    assert (3, "fewer") == tuple(
        yaml.safe_load(Path("fewer/config.yaml").read_text())[name] for name in ("top", "out")
    )


@pytest.mark.usefixtures("ground")
def test_no_file_of_an_earlier_run_stays_beside_a_newer_one() -> None:
    """A sheet of other places, or the raster of patches beside polygons of chips."""
    assert 0 == main(VERBS["search"].split())
    made = {file.name for file in Path("made").iterdir()}
    assert {"score.tif", "score.qml"} < made
    Path("made/sheet.png").write_text("of the search before")
    Path("made/notes.txt").write_text("of the user")
    patches, _ = world(size=(24, 24))
    Path("chips").mkdir()
    chips = chips_of(patches)
    table = chips.table.assign(datetime=None, valid_share=1.0, cloud_share=0.0)
    write_chips(Path("chips/chips.parquet"), [replace(chips, table=table)])

    assert 0 == main(["search", "chips", "--like", "water.gpkg", "--out", "made"])

    left = {file.name for file in Path("made").iterdir()}
    assert made - {"score.tif", "score.qml"} | {"notes.txt"} == left


@pytest.mark.usefixtures("ground")
@pytest.mark.parametrize(
    ("verb", "words"),
    [
        pytest.param("map", ["testing on held-out", "mapping"], marks=pytest.mark.slow),
        ("search", ["searching"]),
        ("change", ["comparing two dates", "comparing cells with their neighbours"]),
    ],
)
def test_a_large_grid_says_how_far_it_is(
    verb: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Minutes without a word look like a program that hangs."""
    monkeypatch.setattr(terminal, "LINE_EVERY_S", 0.0)
    monkeypatch.setattr(cells, "_STRIP", 8)

    assert 0 == main(VERBS[verb].split())

    said = capsys.readouterr().err
    for one in words:
        assert re.search(rf"{one}.*: 2 of \d+, .* s left", said)


def test_a_raster_that_gdal_cannot_write_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk without room for a tag, of which rasterio hands on GDAL's own error."""

    def refuse(*_: object, **__: object) -> None:
        raise CPLE_AppDefinedError(3, 1, "IO error writing tag data")

    patches, _ = world(size=(24, 24))
    monkeypatch.setattr(results, "copy_raster", refuse)
    monkeypatch.setattr(embedding_files, "copy_raster", refuse)

    with pytest.raises(DataError, match="cannot be written") as caught:
        results.write_cog(
            tmp_path / "a.tif",
            patches.array.to_numpy()[:1],
            patches.grid,
            ["x"],
            nodata=-1.0,
            tags={},
        )
    with pytest.raises(OSError, match="cannot be written"):
        embedding_files.write_tiff(tmp_path / "b.tif", patches)

    assert "writing tag data" in str(caught.value.found)


def test_a_library_that_cannot_be_loaded_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With little memory, the layer of `eofm change` ended in a traceback of geopandas."""
    patches, truth = world(size=(24, 24))
    frame = drawn(patches, truth)
    (tmp_path / "a.gpkg").write_text("before")

    def refuse(*_: object, **__: object) -> None:
        raise ImportError("libgdal.so: failed to map segment from shared object")

    monkeypatch.setattr(geopandas.GeoDataFrame, "to_file", refuse)
    with pytest.raises(DataError, match="layer cannot be written") as caught:
        results.write_frame(frame, tmp_path / "a.gpkg")

    assert "failed to map segment" in str(caught.value.found)
    assert "before" == (tmp_path / "a.gpkg").read_text()
