"""Imports point down, rooms on one line do not know each other, and start-up stays light."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import eofm

PACKAGE = Path(eofm.__file__).parent

# Lower lines may be imported by higher ones, never the other way round, nor a neighbour.
LINES = (
    {"errors"},
    {"spec", "progress", "durable"},
    {"imagery", "sensors", "recipe"},
    {"preprocess", "softcon", "logistic", "neighbours", "metrics", "canary"},
    {"probe", "figures", "intervals", "multilabel"},
    {"nearest", "charts"},
    {"data", "models"},
    {"train", "bench"},
    {"cli", "hub"},
)
ALLOWED = {
    "rasterio": {"data"},
    "rioxarray": {"data"},
    "xarray": {"data"},
    "timm": {"models"},
    "lightning": {"train", "bench/finetune.py"},
    "kornia": {"train"},
    "torchgeo": {"models"},
    "sklearn": set(),
}
HEAVY = ("torch", "lightning", "torchgeo", "rasterio", "timm", "kornia")


def room_of(path: Path) -> str:
    """The room a file lies in: its folder, or its own name at the top."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


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


def complaints(room: str, imported: set[str], file: str = "") -> list[str]:
    """The imports that break a law of the house; a library may belong to one file of a room."""
    level = {name: i for i, line in enumerate(LINES) for name in line}
    out = []
    for module in sorted(imported):
        parts = module.split(".")
        if parts[0] == "eofm" and len(parts) > 1 and parts[1] in level and parts[1] != room:
            if level[parts[1]] >= level[room]:
                out.append(f"{room} imports {module}")
        elif parts[0] in ALLOWED and not {room, f"{room}/{file}"} & ALLOWED[parts[0]]:
            out.append(f"{room} imports {parts[0]}")
    return out


def test_every_file_has_a_line_in_the_house() -> None:
    """No file stands outside the layers, where nothing would be checked."""
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}

    assert set() == rooms - set().union(*LINES)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_imports_point_down(path: Path) -> None:
    """No file imports a higher room, a neighbour, or a library that is not its room's."""
    room = room_of(path)
    if room == "__init__":
        pytest.skip("the package itself names what it offers")

    assert [] == complaints(room, imports_of(path.read_text()), path.name)


def test_the_layer_check_can_fail() -> None:
    """A file that breaks each law is caught."""
    assert ["data imports eofm.train.run"] == complaints("data", {"eofm.train.run"})
    assert ["bench imports eofm.train"] == complaints("bench", {"eofm.train"})
    assert ["models imports rasterio"] == complaints("models", {"rasterio.windows"})
    assert ["spec imports eofm.sensors"] == complaints(
        "spec", imports_of("from eofm import sensors")
    )
    assert [] == complaints("train", {"eofm.data.pack", "lightning"})
    assert [] == complaints("bench", {"lightning"}, "finetune.py")
    assert ["bench imports lightning"] == complaints("bench", {"lightning"}, "run.py")


def loaded_after(code: str) -> set[str]:
    """Which of the heavy libraries a fresh interpreter has loaded after running `code`."""
    probe = (
        f"{code}\nimport sys, json; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_eofm_is_light() -> None:
    """`import eofm` loads no heavy library at all."""
    assert set() == loaded_after("import eofm")


def test_help_is_light() -> None:
    """`eofm --help` and `eofm VERB --help` answer without torch."""
    assert set() == loaded_after("from eofm.cli import main; main(['--help'])")
    for verb in ("pretrain", "pack tiles", "world", "bench eurosat"):
        code = f"""
from eofm.cli import main
try: main({[*verb.split(), "--help"]!r})
except SystemExit as done: assert not done.code
"""
        assert set() == loaded_after(code), verb


def test_training_from_a_store_needs_no_raster_library() -> None:
    """What trains from a packed store imports neither rasterio nor torchgeo."""
    assert not {"rasterio", "torchgeo"} & loaded_after("import eofm.train.module, eofm.data.pack")


def test_the_light_check_can_fail() -> None:
    """A heavy import would be noticed."""
    assert {"rasterio"} <= loaded_after("import rasterio")


def test_public_names_are_importable() -> None:
    """Everything in `__all__` is there, and nothing public is missing from it."""
    for name in eofm.__all__:
        assert getattr(eofm, name) is not None
    assert sorted(eofm.__all__) == sorted(set(eofm.__all__))
    assert set(eofm.__all__) <= set(dir(eofm))
