"""Pages that are made when the site is built, from what the package and the repository hold.

Nothing here is a second copy: options come from the parser, weights from their cards, and data
cards, results, settings and the changelog are the files of the repository themselves.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import api_pages
import cli_pages
import included
import notebook_pages
import weight_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the made pages, and put them into the navigation where `mkdocs.yml` names their part."""
    parts = {
        "api": api_pages.pages(ROOT),
        "cli": cli_pages.pages(),
        "weights": {"reference/weights.md": weight_pages.page()},
        "data-cards": included.data_cards(ROOT),
        "results": included.results(ROOT),
        "settings": included.settings(ROOT),
        "contributing": included.contributing(ROOT),
        "changelog": included.changelog(ROOT),
        "notebooks": notebook_pages.pages(ROOT),
    }
    for pages in parts.values():
        for path, text in pages.items():
            files.append(File.generated(config, path, content=text))
    for path, source in included.pictures(ROOT).items():
        files.append(File.generated(config, path, abs_src_path=str(source)))
    for path, content in notebook_pages.pictures(ROOT).items():
        files.append(File.generated(config, path, content=content))
    config.nav = _placed(config.nav, {name: list(pages) for name, pages in parts.items()})
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Lead links to files that are pages of the site, though they lie elsewhere, to these pages."""
    markdown = re.sub(r"^(\* \[[^]]*\]\(\w+)\.ipynb\)", r"\1.md)", markdown, flags=re.MULTILINE)
    return markdown.replace("](../CONTRIBUTING.md", "](contribute.md")


def _placed(nav: Any, parts: dict[str, list[str]]) -> Any:  # noqa: ANN401 (YAML: text, list, dict)
    """Replace `$part` in the navigation by the pages of that part."""
    if isinstance(nav, list):
        placed: list[Any] = []
        for entry in nav:
            if isinstance(entry, str) and entry.startswith("$"):
                placed += parts[entry[1:]]
            else:
                placed.append(_placed(entry, parts))
        return placed
    if isinstance(nav, dict):
        return {title: _placed(entry, parts) for title, entry in nav.items()}
    if isinstance(nav, str) and nav.startswith("$"):
        pages = parts[nav[1:]]
        return pages[0] if len(pages) == 1 else pages
    return nav
