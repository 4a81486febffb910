"""The pages of terms that learn from a teacher, from labels or from features say what there is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from doc_blocks import blocks

from eofm.method.config import SoftConConfig
from eofm.method.terms.seam import find_term, settings_of

PAGES = Path(__file__).parents[3] / "docs" / "terms"
NAMES = pytest.mark.parametrize("name", ["distill", "self_distill", "look", "hallucinate"])


@NAMES
def test_the_settings_on_a_page_are_those_of_the_term(name):
    """Every YAML block makes the terms of a run, with settings that the term has."""
    text = (PAGES / f"{name}.md").read_text("utf-8")
    found = [yaml.safe_load(b.code) for b in blocks(text) if b.language == "yaml"]

    assert found
    for settings in found:
        config = SoftConConfig(**settings["method"])
        chosen = {choice.name: choice for choice in config.chosen}
        settings_of(find_term(name), chosen[name], config)


@NAMES
def test_a_page_names_every_setting_with_its_default(name):
    """A new setting, or another default, is told on the page."""
    text = (PAGES / f"{name}.md").read_text("utf-8")

    for field in dataclasses.fields(find_term(name).settings):
        assert f"`{field.name}`" in text, field.name
        assert not field.default or str(field.default) in text, field.name


@NAMES
def test_a_page_says_what_when_cost_and_evidence(name):
    """And where its numbers are from."""
    text = (PAGES / f"{name}.md").read_text("utf-8")

    for part in ("**What.**", "**When.**", "**Cost.**", "**Evidence.**", "(../results/terms.md)"):
        assert part in text, part
    assert f"({name}.md)" in (PAGES / "index.md").read_text("utf-8")
