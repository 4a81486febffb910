"""Rules that every file of the package keeps: docstrings, public names, size of folders, types."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import eofm

PACKAGE = Path(eofm.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
ROOT = PACKAGE.parent
TYPED = Path(__file__).parent / "typing" / "api.py"

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

# Modules that a folder may hold beside its subfolders.
MODULES = 15


@cache
def trees() -> dict[Path, ast.Module]:
    """The files of the package, parsed."""
    return {path: ast.parse(path.read_text()) for path in FILES}


def name_of(path: Path) -> str:
    """The file's path in the package."""
    return path.relative_to(PACKAGE).as_posix()


# ------------------------------------------------------------------------------- docstrings


def public(tree: ast.Module) -> Iterator[tuple[str, Definition]]:
    """The functions and classes of a file whose name has no underscore, methods included.

    The methods of private classes count; not those of private protocols, which say of foreign
    objects what is used of them.
    """

    def inside(node: ast.Module | ast.ClassDef, before: str) -> Iterator[tuple[str, Definition]]:
        for child in node.body:
            if not isinstance(child, Definition):
                continue
            if not child.name.startswith("_"):
                yield before + child.name, child
            if isinstance(child, ast.ClassDef) and not _is_private_protocol(child):
                yield from inside(child, f"{before}{child.name}.")

    return inside(tree, "")


def _is_private_protocol(node: ast.ClassDef) -> bool:
    return node.name.startswith("_") and "Protocol" in map(ast.unparse, node.bases)


def undocumented(tree: ast.Module) -> list[str]:
    """The public functions, classes and methods of a file that have no docstring."""
    return [name for name, node in public(tree) if not ast.get_docstring(node)]


def test_what_is_public_has_a_docstring() -> None:
    """A file, its classes, functions and methods say what they are for."""
    silent = {name_of(path): undocumented(tree) for path, tree in trees().items()}

    assert {} == {name: what for name, what in silent.items() if what}
    assert [] == [name_of(path) for path in FILES if not ast.get_docstring(trees()[path])]


def test_a_missing_docstring_is_seen() -> None:
    """Of a method too, and of a method of a private class."""
    source = "class _A:\n    def of(self): ...\n    def _b(self): ...\ndef c(): ...\n"

    assert ["_A.of", "c"] == undocumented(ast.parse(source))
    assert [] == undocumented(ast.parse("class _A(Protocol):\n    def of(self): ...\n"))


# ----------------------------------------------------------------------------- public names


def bound(tree: ast.Module) -> list[str]:
    """The names without an underscore that a file makes: functions, classes, constants."""
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, Definition):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
    return [name for name in names if not name.startswith("_")]


def offered(tree: ast.Module) -> list[str] | None:
    """What a file has in `__all__`; None where it has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and "__all__" in map(ast.unparse, node.targets):
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def test_public_names_are_in_all() -> None:
    """Each file says what it offers: every public name it makes, once."""
    for path, tree in trees().items():
        made, names = set(bound(tree)), offered(tree)
        assert names is not None or not made, name_of(path)
        assert set() == made - set(names or ()), name_of(path)
        assert {1} >= set(Counter(names or ()).values()), name_of(path)


def test_dir_of_the_package_is_its_api() -> None:
    """What completion offers in a notebook is `__all__`, and all of it is there."""
    assert sorted(eofm.__all__) == dir(eofm)
    assert set(eofm.__all__) == {*eofm._HOME, "__version__"}
    for name in eofm.__all__:
        assert getattr(eofm, name) is not None


# ------------------------------------------------------------------------------ class names


def classes_of(tree: ast.Module) -> list[str]:
    """The public classes that a file defines."""
    return [n.name for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name[0] != "_"]


def test_a_class_name_means_one_thing() -> None:
    """No two files of the package define a public class of the same name.

    A private class is a word of its file alone, and may be one in another file too.
    """
    homes: dict[str, list[str]] = {}
    for path, tree in trees().items():
        for name in classes_of(tree):
            homes.setdefault(name, []).append(name_of(path))

    assert {} == {name: where for name, where in homes.items() if len(where) > 1}
    assert ["A"] == classes_of(ast.parse("class A:\n    class _B: ..."))


# --------------------------------------------------------------------------------- folders


def sizes() -> dict[str, int]:
    """Folder of the package -> how many modules lie directly in it, beside `__init__`."""
    found = Counter(path.relative_to(PACKAGE).parent.as_posix() for path in FILES)
    return {folder: count - 1 for folder, count in found.items() if folder != "."}


def test_no_folder_is_a_heap() -> None:
    """A folder of more than 15 modules has subfolders."""
    assert {} == {folder: count for folder, count in sizes().items() if count > MODULES}


# ----------------------------------------------------------------------------------- types


def test_mypy_checks_the_use_of_the_api() -> None:
    """`mypy`, as everybody runs it, reads the package and the file that uses it, both strictly."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]

    assert settings["strict"] is True
    assert ["eofm", TYPED.relative_to(ROOT).as_posix()] == settings["files"]


@pytest.mark.slow
def test_the_public_api_is_typed() -> None:
    """The file that uses the public names as a caller would passes mypy --strict."""
    words = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(TYPED)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)

    assert 0 == done.returncode, done.stdout + done.stderr


def test_the_typed_file_uses_the_whole_api() -> None:
    """No public name is missing from it."""
    used = {
        node.attr
        for node in ast.walk(ast.parse(TYPED.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "eofm"
    }

    assert set(eofm.__all__) == used
