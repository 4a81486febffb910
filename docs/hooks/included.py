"""Files of the repository that are pages of the site: data cards, results, settings, changes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

# results that a reader looks for first
_FIRST = ("real_data", "study_real_pixels", "study", "geo_real", "harness", "data_at_scale")
_FACTS = ("licence", "synthetic", "revision", "layout", "places", "images", "seasons", "size")


def data_cards(root: Path) -> dict[str, str]:
    """Return path -> Markdown of the index and of every data card."""
    cards = {path.stem: _split(path) for path in sorted((root / "data_cards").glob("*.md"))}
    lines = [
        "# Data cards",
        "",
        "What each known data set is, with its unit, its splits and its faults. The front matter",
        "is checked against the code by a test.",
        "",
        '<input class="eofm-filter" placeholder="filter: s1-grd, CC-BY, multi-label …">',
        "",
        "| data set | sensors | unit | licence | classes |",
        "|---|---|---|---|---:|",
    ]
    for name, (front, _) in cards.items():
        sensors = front.get("sensors") or {}
        units = dict.fromkeys(str(s["unit"]) for s in sensors.values())
        title = front.get("pretty_name", name)
        lines.append(
            f"| [{title}]({name}.md) | {', '.join(sensors)} | {', '.join(units)} "
            f"| {front['licence']} | {len(front.get('classes') or [])} |"
        )
    pages = {"reference/data-cards/index.md": "\n".join([*lines, ""])}
    for name, (front, body) in cards.items():
        pages[f"reference/data-cards/{name}.md"] = _with_facts(front, body)
    return pages


def _split(path: Path) -> tuple[dict[str, Any], str]:
    _, front, body = path.read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(front), body.lstrip()


def _with_facts(front: dict[str, Any], body: str) -> str:
    """Put the facts of the front matter in a table below the heading."""
    head, _, rest = body.partition("\n")
    lines = [head, "", "| | |", "|---|---|"]
    lines += [f"| {key} | {_words(front[key])} |" for key in _FACTS if key in front]
    for sensor, what in (front.get("sensors") or {}).items():
        lines.append(f"| {sensor} | unit `{what['unit']}`, bands {' '.join(what['bands'])} |")
    return "\n".join([*lines, "", rest])


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " x ".join(map(str, value))
    return str(value).replace("|", "\\|")


def results(root: Path) -> dict[str, str]:
    """Return path -> Markdown of the protocol and of every page of results."""
    pages = {"results/protocol.md": (root / "benchmarks" / "README.md").read_text("utf-8")}
    found = (root / "benchmarks" / "results").glob("*.md")
    for path in sorted(found, key=lambda path: (_place(path.stem), path.stem)):
        pages[f"results/{path.name}"] = path.read_text("utf-8")
    return pages


def _place(name: str) -> int:
    """Return where a page of results stands; times come last."""
    if name in _FIRST:
        return _FIRST.index(name)
    return len(_FIRST) + name.startswith("speed")


def pictures(root: Path) -> dict[str, Path]:
    """Return path -> file of the pictures that results show."""
    folder = root / "benchmarks" / "results"
    return {
        f"results/{path.relative_to(folder).as_posix()}": path
        for path in sorted(folder.rglob("*.png"))
    }


def settings(root: Path) -> dict[str, str]:
    """Return path -> Markdown of the page with the shipped settings of pretraining."""
    lines = [
        "# Shipped settings",
        "",
        "Complete settings, one file for each run, of `configs/pretrain/`:",
        "`eofm pretrain --config configs/pretrain/NAME.yaml`. The head of each states cost and",
        "expected result. A test runs every file for two steps.",
        "",
    ]
    for path in sorted((root / "configs" / "pretrain").glob("*.yaml")):
        lines += [f"## {path.name}", "", "```yaml", path.read_text("utf-8").rstrip(), "```", ""]
    return {"reference/settings.md": "\n".join(lines)}


def contributing(root: Path) -> dict[str, str]:
    """Return the rules for contributors; links into the site's folder become links of the site."""
    text = (root / "CONTRIBUTING.md").read_text("utf-8")
    return {"contribute.md": text.replace("](docs/", "](")}


def changelog(root: Path) -> dict[str, str]:
    """Return the changes, with those not yet released."""
    text = (root / "CHANGELOG.md").read_text("utf-8")
    fragments = sorted((root / "changelog.d").glob("*.md"))
    fresh = "\n".join(path.read_text("utf-8").rstrip() for path in fragments)
    if not fresh:
        return {"changelog.md": text}
    head = re.match(r"# .*\n+", text)
    title, rest = (head[0], text[head.end() :]) if head else ("# Changelog\n\n", text)
    return {"changelog.md": f"{title}## Merged, not yet in the list\n\n{fresh}\n\n{rest}"}
