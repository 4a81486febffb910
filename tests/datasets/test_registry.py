"""Data sets as declarations: what each says of itself, and that adding one is adding a file."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

import eofm.datasets
from eofm.cli import VERBS, main, parse
from eofm.datasets.base import Dataset
from eofm.datasets.registry import DATASETS, TASKS, family_of, find_datasets, task_filter
from eofm.errors import ConfigError

NEW_SET = Path(__file__).parents[1] / "miniatures/new_set"
FOLDER = Path(eofm.datasets.__file__).parent


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=lambda one: one.name)
def test_a_declaration_is_whole(dataset: Dataset, tmp_path: Path) -> None:
    """Its name is that of its tasks, options and module; what it names exists; an empty folder is
    none of it.
    """
    can = (dataset.benchmark, dataset.packing, dataset.layout)

    assert any(one is not None for one in can)
    module = import_module(f"eofm.datasets.{dataset.name.replace('-', '_')}")
    assert module.DATASET is dataset
    if dataset.benchmark is not None:
        assert dataset.name == dataset.benchmark.settings.verb
        assert {dataset.name} >= {family_of(task.name) for task in dataset.benchmark.tasks}
        assert f"bench {dataset.name}" in VERBS
    if dataset.packing is not None:
        home, _, name = dataset.packing.run.partition(":")
        assert callable(getattr(import_module(home), name))
        assert f"pack {dataset.name}" in VERBS
    assert dataset.layout is None or not dataset.layout.fits(tmp_path)


def test_a_folder_has_few_modules() -> None:
    """Each data set is one module of `eofm/datasets`, or one folder of not more than ten."""
    modules = [path for path in FOLDER.glob("*.py") if path.stem not in {"__init__", "registry"}]

    assert {p.stem for p in modules} - {"base"} <= {name.replace("-", "_") for name in DATASETS}
    for folder in {path.parent for path in FOLDER.rglob("*.py")} - {FOLDER}:
        assert len(list(folder.glob("*.py"))) <= 10, folder


@pytest.fixture
def more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules are modules of `eofm.datasets`, as long as the test runs."""
    monkeypatch.setattr(eofm.datasets, "__path__", [*eofm.datasets.__path__, str(tmp_path)])
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith("eofm.datasets.declared_")]:
        del sys.modules[name]


def test_two_data_sets_of_one_name_are_refused(more: Path) -> None:
    """Whichever came second would have replaced the other without a word."""
    text = (
        "from eofm.datasets.base import Dataset\nDATASET = Dataset('twin', 'a twin')\nBASE = None\n"
    )
    (more / "declared_one.py").write_text(text)

    assert ["twin"] == list(find_datasets([str(more)]))
    (more / "declared_two.py").write_text(text)
    with pytest.raises(ConfigError, match="two modules declare one data set") as caught:
        find_datasets([str(more)])
    assert "declared_one and eofm.datasets.declared_two" in str(caught.value)
    (more / "declared_two.py").write_text(text.replace("twin", "other"))  # the printed remedy
    del sys.modules["eofm.datasets.declared_two"]
    assert ["twin", "other"] == list(find_datasets([str(more)]))


# ------------------------------------------------------------------------ a new data set


def write_toy(root: Path) -> Path:
    """Images of two brightnesses, side by side."""
    for number in range(36):
        split = "train" if number < 24 else "val" if number < 30 else "test"
        kind = number % 2
        path = root / split / ("dark", "bright")[kind] / f"{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(number)
        values = np.array([400, 500, 600, 900])[:, None, None] * (1 + kind)
        values = values * rng.uniform(0.8, 1.2, (4, 16, 16))
        place = Affine(10, 0, 500_000 + 200 * number, 0, -10, 5_800_000)
        with rasterio.open(
            path, "w", driver="GTiff", dtype="uint16", count=4, height=16, width=16,
            crs="EPSG:25832", transform=place,
        ) as file:  # fmt: skip
            file.write(values.astype("uint16"))
    return root


@pytest.mark.slow
def test_a_new_data_set_is_one_file(tmp_path: Path) -> None:
    """With `toy.py` beside the others, every verb knows the toy: help, bench by family and by full
    name, plan, table, compare, validate, check and pack. Nothing else is touched.
    """
    root, out = write_toy(tmp_path / "set"), tmp_path / "out"
    options = f"--controls false --bootstrap 20 --probe knn --k 3 --out {out}/r.jsonl --cache ''"
    lines = [
        "--help",
        "bench toy --help",
        f"bench toy --root {root} --model imagestats,rcf {options}",
        f"bench toy-train --root {root} --model imagestats {options}",
        "bench plan toy-train imagestats",
        f"bench table {out}/r.jsonl --task toy",
        f"bench compare imagestats rcf --results {out}/r.jsonl --task toy-all",
        f"bench validate {out}/r.jsonl --task toy",
        f"data check {root}",
        f"pack toy --root {root} --out {out}/store",
        f"data check {out}/store",
    ]
    code = f"""
import sys
import eofm.datasets
eofm.datasets.__path__.append({str(NEW_SET)!r})
from eofm.cli import main
for words in {[shlex.split(line) for line in lines]!r}:
    print("##", *words)
    try: status = main(words)
    except SystemExit as done: status = done.code
    if status: sys.exit(f"{{words}}: {{status}}")
"""

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    said = dict(zip(lines, done.stdout.split("## ")[1:], strict=True))
    assert "bench toy" in said[lines[0]]
    assert "pack toy" in said[lines[0]]
    assert "--part {all,train}" in said[lines[1]]
    assert "100.0" in said[lines[2]]
    assert "toy-train, version 1" in said[lines[4]]
    assert "other" not in said[lines[4]]
    assert said[lines[5]].count("a toy, synthetic") > 0
    assert "the toy" in said[lines[8]]
    assert "nothing is wrong" in said[lines[8]]
    assert "24 train, 6 val, 6 test" in said[lines[9]]
    assert "36 images" in said[lines[10]]


# ------------------------------------------------------------------------------ spelling


@pytest.mark.parametrize(
    ("verb", "one", "other"),
    [
        ("bench bigearthnet", "--sensor s2-l2a", "--sensor s2"),
        ("bench bigearthnet", "--sensor s1-grd", "--sensor s1"),
        ("bench eurosat", "--sensor s2-l1c", "--sensor ms"),
        ("bench eurosat", "--sensor s1-grd", "--sensor sar"),
        ("bench so2sat", "--sensor s1-grd", "--sensor s1"),
        ("bench dfc2020", "--sensor s2-l1c", "--sensor s2"),
        ("bench sen1floods11", "--sensor s1-grd", "--sensor s1"),
        ("bench folder", "--bands B02 B03", "--bands B02,B03"),
        ("bench masks", "--classes 1=a 2=b --void 0 9", "--classes 1=a,2=b --void 0,9"),
        ("pack ssl4eo", "--out o --sensor s2c", "--out o --sensor s2-l1c"),
        ("pack ssl4eo", "--out o --sensors s2c s1", "--out o --sensors s2c,s1"),
        ("pack bigearthnet", "--out o --sensor s1", "--out o --sensor s1-grd"),
        ("pack bigearthnet", "--out o --sensors s2 s1", "--out o --sensors s2,s1"),
    ],
)
def test_sensors_and_lists_have_one_spelling(verb: str, one: str, other: str) -> None:
    """A sensor goes by its product or by the word of the data set, a list with or without commas;
    the settings, and so the records, are the same.
    """
    settings = parse(verb, ["--root", "x", *one.split()])

    assert settings == parse(verb, ["--root", "x", *other.split()])
    if verb.startswith("bench"):
        words = shlex.split(settings.command())  # type: ignore[attr-defined]
        assert settings == parse(verb, words[3:])


def test_a_sensor_that_a_data_set_lacks_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """BigEarthNet is Level-2A: its tasks are not to be had under the name of Level-1C."""
    assert 2 == main(["bench", "bigearthnet", "--root", "x", "--sensor", "s2-l1c"])
    assert "s2-l1c" in capsys.readouterr().err


def test_names_of_tasks_are_those_of_their_family() -> None:
    """No full name begins with a family that is not its own, whatever stands beside it."""
    for dataset in DATASETS.values():
        for task in dataset.benchmark.tasks if dataset.benchmark else ():
            assert TASKS[task.name] is task
            assert task_filter(dataset.name)(task.name)
