"""The Python API from its docstrings: the public names, then a page for each folder."""

from __future__ import annotations

import ast
from pathlib import Path

FOLDERS = (
    "contract", "raster", "landcover", "store", "datasets", "world", "loading", "method",
    "networks", "weights", "train", "probes", "bench", "geo", "report",
)  # fmt: skip


def pages(root: Path) -> dict[str, str]:
    """Return path -> Markdown with directives of mkdocstrings."""
    package = root / "eofm"
    made = {"reference/api/index.md": _public(package / "__init__.py")}
    for folder in FOLDERS:
        if (package / folder).is_dir():
            made[f"reference/api/{folder}.md"] = _folder(package, folder)
    made["reference/api/errors.md"] = "# `eofm.errors`\n\n::: eofm.errors\n"
    return made


def _public(init: Path) -> str:
    homes = _homes(ast.parse(init.read_text("utf-8")))
    lines = [
        "# `import eofm`",
        "",
        "The public names; each is loaded when it is first used. The pages beside this one hold",
        "every module, a page for each folder.",
        "",
        "| name | what it is |",
        "|---|---|",
    ]
    for name, home in sorted(homes.items(), key=lambda entry: entry[0].lower()):
        source = init.parent.joinpath(*home.split(".")[1:])
        file = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
        found = _defined(file, name, init.parent)
        where, what = found if found else (home, "")
        lines.append(f"| [`eofm.{name}`][{where}.{name}] | {what} |")
    return "\n".join([*lines, ""])


def _defined(file: Path, name: str, package: Path) -> tuple[str, str] | None:
    """Return the module that defines a name, which may be imported, and its first line."""
    tree = ast.parse(file.read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            parts = file.relative_to(package.parent).with_suffix("").parts
            summary = (ast.get_docstring(node) or "").split("\n\n")[0]
            return ".".join(parts), " ".join(summary.split()).replace("|", "\\|")
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            parts = (node.module or "").split(".")[1:]
            return _defined(package.joinpath(*parts).with_suffix(".py"), name, package)
    return None


def _homes(tree: ast.Module) -> dict[str, str]:
    """Return the table of public names and the modules they live in."""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "_HOME":
            table = ast.literal_eval(node.value) if node.value else {}
            return {str(name): str(home) for name, home in table.items()}
    return {}


def _folder(package: Path, folder: str) -> str:
    """Return a page with what each module of a folder says of itself, and its public names."""
    summary = _docstring(package / folder / "__init__.py")
    lines = [f"# `eofm.{folder}`", "", summary, ""]
    for path in sorted((package / folder).rglob("*.py")):
        if path.name.startswith("_") or "cards" in path.parts:
            continue
        module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        lines += [f"::: {module}", "    options:", "      heading_level: 2", ""]
    return "\n".join(lines)


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "" if path.is_file() else ""
