"""The examples of `docs/contributing.md`, as files and as changes of a file."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "contributing.md").read_text()


def write_example(name: str, folder: Path) -> Path:
    """Write the Python example that names this file in its first line."""
    found = re.search(rf"```python\n(# {re.escape(name)}\n.*?)```", PAGE, re.DOTALL)
    assert found, name
    path = folder / name
    path.write_text(found[1])
    return path


def apply_change(name: str, root: Path) -> Path:
    """Change a file below `root` as the example says that has its name behind `---`."""
    found = re.search(rf"```diff\n--- {re.escape(name)}\n(.*?)```", PAGE, re.DOTALL)
    assert found, name
    path = root / name
    text = path.read_text()
    for old, new in _replacements(found[1].splitlines()):
        assert 1 == text.count(old), old
        text = text.replace(old, new)
    path.write_text(text)
    return path


def _replacements(lines: list[str]) -> list[tuple[str, str]]:
    """What stands in the file, and what shall: a pair for every group of changed lines.

    A group is a run of lines with a sign, with the line before it, where there is one.
    """
    pairs: list[tuple[list[str], list[str]]] = []
    changed = True
    for line in lines:
        sign, content = line[:1], line[1:]
        if sign == " " or not line:
            pairs.append(([content], [content]))
            changed = False
            continue
        if sign == "-" and not changed:
            pairs.append(([], []))
        changed = True
        pairs[-1][0 if sign == "-" else 1].append(content)
    return [("\n".join(a) + "\n", "\n".join(b) + "\n") for a, b in pairs if a != b]
