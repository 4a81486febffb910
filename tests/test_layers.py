"""Imports point down, folders on one line do not know each other, and start-up stays light."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import eofm

PACKAGE = Path(eofm.__file__).parent

# Lower lines may be imported by higher ones, never the other way round, nor a neighbour. A file
# may stand on a line of its own.
LINES = (
    {"errors"},
    {"io", "settings", "environment"},
    {"formats"},
    {"terminal"},
    {"contract", "probes"},
    {"report"},
    {"method", "raster", "networks"},
    {"weights", "landcover"},
    {"store"},
    # they read maps *and* stores
    {"landcover/jobs"},
    {"landcover/run"},
    {"loading"},
    # what every benchmark run is told; data sets add their own settings
    {"bench/config"},
    {"datasets", "world"},
    {"train", "bench", "geo"},
    {"cli", "hub"},
    {"__main__"},
)
ALLOWED = {
    "rasterio": {"raster", "landcover", "datasets", "world", "geo"},
    "rioxarray": {"raster", "geo"},
    "xarray": {"raster", "geo"},
    "timm": {"networks", "weights"},
    "lightning": {"train", "bench/finetune"},
    "kornia": {"loading"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "markupsafe": {"report"},
    "torchgeo": {"networks"},
    "sklearn": set(),
}
# Methods that a notebook calls on an object of a lower folder: each is one line, imports when it is
# called, and nothing of the lower folder needs it.
DOORS = {
    # xarray, matplotlib: the types of what a door returns, for the type checker alone
    "eofm.contract.prepare": {"eofm.raster.cube", "xarray"},
    "eofm.contract.imagery": {
        "eofm.report.sheets",
        "eofm.raster.cube",
        "xarray",
        "matplotlib.axes",
    },
}
LEVEL = {name: number for number, line in enumerate(LINES) for name in line}
HEAVY = (
    *("torch", "lightning", "pytorch_lightning", "torchgeo"),
    *("rasterio", "xarray", "timm", "kornia"),
)
FOLDERS = ("eofm.report", "eofm.raster")


def place_of(module: str) -> str:
    """Where a module stands in `LINES`: by itself, else with its folder.

    >>> place_of("eofm.landcover.jobs"), place_of("eofm.landcover.multilabel")
    ('landcover/jobs', 'landcover')
    """
    parts = module.split(".")[1:]
    return "/".join(parts[:2]) if "/".join(parts[:2]) in LEVEL else parts[0]


def module_of(path: Path) -> str:
    """The dotted name of a file of the package."""
    return ".".join(["eofm", *path.relative_to(PACKAGE).with_suffix("").parts])


def imports_of(source: str) -> set[str]:
    """Every module a file imports, at the top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "eofm":
                found |= {f"eofm.{alias.name}" for alias in node.names}
    return found


def complaints(module: str, imported: set[str]) -> list[str]:
    """The imports of a module that do not point down, or that belong to other folders."""
    here, out = place_of(module), []
    imported = imported - DOORS.get(module, set())
    folder, file = module.split(".")[1], "/".join(module.split(".")[1:3])
    for name in sorted(imported):
        parts = name.split(".")
        if parts[0] == "eofm" and len(parts) > 1 and place_of(name) in LEVEL:
            there = place_of(name)
            if there != here and LEVEL[there] >= LEVEL[here]:
                out.append(f"{here} imports {name}")
        elif parts[0] in ALLOWED and not {folder, file} & ALLOWED[parts[0]]:
            out.append(f"{here} imports {parts[0]}")
    return out


def test_every_file_has_a_line() -> None:
    """No file stands outside the layers, where nothing would be checked."""
    places = {place_of(module_of(path)) for path in PACKAGE.rglob("*.py")} - {"__init__"}

    assert set() == places - set(LEVEL)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=module_of)
def test_imports_point_down(path: Path) -> None:
    """No file imports a higher folder, a neighbour, or a library that is not its folder's."""
    if module_of(path) == "eofm.__init__":
        pytest.skip("the package itself names what it offers")

    assert [] == complaints(module_of(path), imports_of(path.read_text()))


def test_the_layer_check_can_fail() -> None:
    """A file that breaks each rule is caught, also one whose own folder stands lower."""
    assert ["store imports eofm.train.run"] == complaints("eofm.store.stats", {"eofm.train.run"})
    assert ["bench imports eofm.train"] == complaints("eofm.bench.run", {"eofm.train"})
    assert ["weights imports rasterio"] == complaints("eofm.weights.load", {"rasterio.windows"})
    assert ["contract imports eofm.raster"] == complaints(
        "eofm.contract.spec", imports_of("from eofm import raster")
    )
    assert ["landcover imports eofm.landcover.jobs"] == complaints(
        "eofm.landcover.multilabel", {"eofm.landcover.jobs"}
    )
    assert [] == complaints("eofm.contract.imagery", {"eofm.report.sheets"})
    assert ["contract imports eofm.report.sheets"] == complaints(
        "eofm.contract.spec", {"eofm.report.sheets"}
    )
    assert [] == complaints("eofm.train.module", {"eofm.store.reader", "lightning"})
    assert [] == complaints("eofm.bench.finetune.fit", {"lightning"})
    assert ["bench imports lightning"] == complaints("eofm.bench.run", {"lightning"})


def loaded_after(*steps: str) -> list[set[str]]:
    """What a fresh interpreter has loaded after each of some lines of code, from the start on.

    Of the heavy libraries, and of the folders of eofm.
    """
    code = "import sys, json\nloaded = []\n"
    for step in steps:
        code += f"{step}\nloaded.append([m for m in {(*HEAVY, *FOLDERS)!r} if m in sys.modules])\n"
    code += "print(json.dumps(loaded))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [set(names) for names in json.loads(done.stdout.splitlines()[-1])]


@cache
def loaded_one_by_one() -> dict[str, set[str]]:
    """What is loaded after each of these imports, each of which needs more than the one before.

    What is missing at the end was missing before: one interpreter shows all of it.
    """
    steps = (
        "import eofm",
        "import eofm.contract.imagery",
        "import eofm.weights.encoder, eofm.method",
        "import eofm.train.module, eofm.store.reader",
    )
    return dict(zip(steps, loaded_after(*steps), strict=True))


def heavy(names: set[str]) -> set[str]:
    """The heavy libraries among what is loaded."""
    return names & set(HEAVY)


def test_import_eofm_is_light() -> None:
    """`import eofm` loads no heavy library at all."""
    assert set() == heavy(loaded_one_by_one()["import eofm"])


def test_help_is_light() -> None:
    """`eofm --help`, and `--help` of every verb of a data set and of some others: no torch."""
    code = """
from eofm.cli import VERBS, main
main(['--help'])
some = 'pretrain', 'world', 'embed', 'map', 'search'
for verb in VERBS:
    if verb in some or VERBS[verb].settings.startswith('eofm.datasets.'):
        try: main([*verb.split(), '--help'])
        except SystemExit as done: assert not done.code
"""
    (loaded,) = loaded_after(code)
    assert set() == heavy(loaded)


@pytest.mark.slow
def test_plotting_and_rasters_are_not_imported_with_imagery() -> None:
    """Imagery imports what its methods for notebooks need only when they are called."""
    loaded = loaded_one_by_one()["import eofm.contract.imagery"]

    assert {"torch"} == heavy(loaded)
    assert not {"eofm.report", "eofm.raster"} & loaded


def test_loading_weights_needs_neither_lightning_nor_rasterio() -> None:
    """The encoder's module imports torch and timm, and no library of the heavy folders."""
    assert {"torch", "timm"} == heavy(
        loaded_one_by_one()["import eofm.weights.encoder, eofm.method"]
    )


def test_training_from_a_store_needs_no_raster_library() -> None:
    """What trains from a packed store imports neither rasterio, xarray nor torchgeo."""
    loaded = loaded_one_by_one()["import eofm.train.module, eofm.store.reader"]

    assert {"lightning"} <= loaded
    assert not {"rasterio", "torchgeo", "xarray"} & loaded


def test_the_light_check_can_fail() -> None:
    """A heavy import would be noticed."""
    before, after = loaded_after("import sys", "import rasterio")
    assert "rasterio" not in before
    assert "rasterio" in after
