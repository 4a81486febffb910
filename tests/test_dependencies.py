"""What the package imports is what pyproject.toml declares, and the other way round."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
SOURCES = [*sorted((ROOT / "eofm").rglob("*.py")), ROOT / "hubconf.py"]

# Declared though no file names them in an import: who needs them.
NEEDED_BY = {
    "torchvision": "timm",
    "pytorch-lightning": "lightning",
    "requests": "torchgeo",
    "onnx": "torch.onnx",
    "onnxscript": "torch.onnx",
    "tensorboard": "torch.utils.tensorboard",
    "aiohttp": "fsspec",
    "s3fs": "fsspec",
    "gcsfs": "fsspec",
    "open-clip-torch": "eofm.bench.texts, by its name in a string",
    "pyogrio": "geopandas",  # and, by its name in a string, for polygons
}


@cache
def homes() -> dict[str, list[str]]:
    """Of each name that can be imported, the distributions; reading them takes a second."""
    return dict(packages_distributions())


def imported(source: str) -> set[str]:
    """The libraries that a file imports, by their names in the package index.

    >>> imported("import os, yaml; from eofm.errors import EofmError; from torch import nn")
    {'pyyaml', 'torch'}
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    foreign = names - set(sys.stdlib_module_names) - {"eofm", "_typeshed"}  # of type checkers
    return {canonical(homes().get(name, [name])[0]) for name in foreign}


def canonical(name: str) -> str:
    """The name as the package index has it.

    >>> canonical("docstring_parser"), canonical("PyYAML")
    ('docstring-parser', 'pyyaml')
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    """The names in a list of requirements.

    >>> sorted(declared(["torch>=2.10", "jsonargparse[signatures]>=4.40"]))
    ['jsonargparse', 'torch']
    """
    return {canonical(re.match(r"[\w.-]+", line)[0]) for line in requirements}  # type: ignore[index]


CORE = declared(PROJECT["dependencies"])
# extras of those who work on the package, not of its users
TOOLS = {"dev", "docs", "notebooks", "release"}
OPTIONAL = set().union(*(declared(lines) for name, lines in EXTRAS.items() if name not in TOOLS))


@cache
def used() -> set[str]:
    """The libraries that the package imports."""
    return set().union(*(imported(path.read_text()) for path in SOURCES))


def test_what_is_imported_is_declared() -> None:
    """No library is there only because another one brings it along."""
    assert set() == used() - CORE - OPTIONAL


def test_what_is_declared_is_imported() -> None:
    """No library is asked for that nothing uses; the exceptions are needed by others."""
    assert set() == (CORE | OPTIONAL) - used() - set(NEEDED_BY)
    assert set(NEEDED_BY) <= (CORE | OPTIONAL) - used()  # the list of exceptions stays true


def test_the_tests_import_what_is_declared() -> None:
    """What the tests import is in the extra `dev`, or in what it includes."""
    own = {canonical(path.stem) for path in (ROOT / "tests").rglob("*.py")}
    tested = set().union(*(imported(path.read_text()) for path in (ROOT / "tests").rglob("*.py")))
    tested -= {"qgis"}  # of the distribution: PyPI has none, and its tests skip without it
    tools = set().union(*(declared(EXTRAS[name]) for name in TOOLS))

    assert set() == tested - own - CORE - OPTIONAL - tools


@pytest.mark.slow
@pytest.mark.parametrize("extra", sorted(set(EXTRAS) - TOOLS))
def test_an_optional_library_is_imported_when_it_is_needed(extra: str) -> None:
    """No file imports a library of an extra at its top: eofm works without it."""
    optional = declared(EXTRAS[extra]) - CORE
    for path in SOURCES:
        top = ast.Module([node for node in ast.parse(path.read_text()).body if _runs(node)], [])
        assert set() == optional & imported(ast.unparse(top)), path


def _runs(node: ast.stmt) -> bool:
    """Whether a statement is an import that runs when the file is imported."""
    return isinstance(node, ast.Import | ast.ImportFrom)


def test_the_check_can_fail() -> None:
    """An import that nobody declared is seen, also inside a function."""
    assert {"scikit-learn"} == imported("def f():\n    import sklearn.svm\n") - CORE
