"""The site builds strictly and without network, and says what the package has."""

from __future__ import annotations

import html
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from eofm.cli.program import parser_of
from eofm.cli.verbs import VERBS
from eofm.weights.cards import WEIGHTS

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
MADE = ("reference/", "results/", "changelog.md")  # by docs/hooks, when the site is built
LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")


def hook(name: str) -> ModuleType:
    """A module of docs/hooks."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "hooks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------------------------- links


def links(page: Path) -> Iterator[str]:
    """The targets of a page's links and pictures, without those in code."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    yield from LINK.findall(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_internal_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page in the repository is a file, or a page that the site makes."""
    for target in links(page):
        path = target.partition("#")[0]
        if not path or re.match(r"[a-z]+:", path):
            continue
        where = (page.parent / path).resolve()
        made = where.is_relative_to(ROOT / "docs") and (
            where.relative_to(ROOT / "docs").as_posix().startswith(MADE)
        )
        assert where.exists() or made, f"{page.name}: {target}"


def test_external_links_are_listed() -> None:
    """They are not opened; `pytest -rP -k external_links` shows them. None is plain http."""
    found = sorted({t for page in PAGES for t in links(page) if t.startswith("http")})
    print("\n".join(found))  # noqa: T201

    assert found
    assert [] == [t for t in found if t.startswith("http:")]


# ---------------------------------------------------------------------------------- pages


def test_the_command_line_is_described_in_full() -> None:
    """Every verb and every option that its parser has stands on a page."""
    text = "\n".join(hook("cli_pages").pages().values())

    for name, verb in VERBS.items():
        part = text[text.index(f"## `eofm {name}`") :].partition("\n## ")[0]
        actions = parser_of(name, verb, None, every=True)._actions
        words = {a.option_strings[-1].rstrip("+") for a in actions if a.option_strings}
        wanted = words - {"--help", "--help-all", "--config", "--print_config"}
        sections = {word for word in wanted if any(o.startswith(f"{word}.") for o in wanted)}
        assert {word for word in wanted - sections if f"`{word}`" not in part} == set()


def test_the_facts_of_networks_are_current() -> None:
    """Each published network has its count; those that are quick to build are counted again."""
    facts = json.loads((ROOT / "docs/hooks/networks.json").read_text("utf-8"))
    count = hook("count_networks").count

    assert list(WEIGHTS) == list(facts)
    for name in ("softcon_vits14_s1", "softcon_rn50_s2", "ssl4eo_moco_rn18_s2"):
        assert facts[name] == count(WEIGHTS[name])


def test_every_notebook_is_a_page_with_its_outputs() -> None:
    """Each cell, each picture and each text that a cell printed stands on its page."""
    module = hook("notebook_pages")
    pages, pictures = module.pages(ROOT), module.pictures(ROOT)

    sources = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
    assert [f"notebooks/{path.stem}.md" for path in sources] == list(pages)
    for path in sources:
        text = pages[f"notebooks/{path.stem}.md"]
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            assert "".join(cell["source"]).strip().partition("\n")[2] in text
            for output in cell.get("outputs", []):
                assert "".join(output.get("text", "")).rstrip() in text
    assert pictures
    for name, content in pictures.items():
        assert content.startswith(b"\x89PNG")
        page = pages[f"notebooks/{Path(name).name.split('-')[0]}.md"]
        assert f"]({Path(name).name})" in page


def test_examples_in_docstrings_become_code() -> None:
    """A paragraph that begins with `>>>` is put in a fence; the text round it is left alone."""
    pytest.importorskip("griffe", reason="the extra `docs` is not installed")
    text = "Say.\n\n>>> f(1)\n[2]\n\nMore."

    assert "Say.\n\n```pycon\n>>> f(1)\n[2]\n```\n\nMore." == hook("doctests").fenced(text)


@pytest.mark.slow
def test_the_site_builds_strictly_without_network(tmp_path: Path) -> None:
    """No broken link or missing page, and nothing in it is fetched from elsewhere."""
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    # a process without sockets to anywhere: building needs no network
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise OSError('no network')\n"
        "socket.socket.connect = refuse\n"
        "from mkdocs.__main__ import cli\n"
        f"cli(['build', '--strict', '--site-dir', {str(tmp_path)!r}])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stderr[-3000:]
    fetched = re.compile(
        r"<(?:script|img|iframe)[^>]+src=\"https?:|<link[^>]+stylesheet[^>]+https?:"
    )
    pages = list(tmp_path.rglob("*.html"))
    assert [] == [page.name for page in pages if fetched.search(page.read_text("utf-8"))]
    names = html.unescape((tmp_path / "reference/weights.html").read_text("utf-8"))
    assert [] == [name for name in WEIGHTS if name not in names]
