"""The page `docs/minimal.md`: it runs, it is short, and it computes what eofm computes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from softcon_small import Patches, batch, small

from eofm.method import LabelFacts, SoftCon, momentum_at

BLOCKS = re.findall(
    r"```python\n(.*?)```",
    (Path(__file__).parents[1] / "docs" / "minimal.md").read_text(),
    re.DOTALL,
)


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The names that the page makes, after all of it has run."""
    names: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[]):
        for block in BLOCKS:
            exec(block, names)
    return names


def test_the_page_is_minimal() -> None:
    """The method takes about sixty lines, and nothing of eofm."""
    lines = [line for line in BLOCKS[0].splitlines() if line.strip()]

    assert len(lines) <= 66
    assert "eofm" not in BLOCKS[0]


def test_the_page_trains(page: dict[str, Any]) -> None:
    """Ten steps on one batch bring the loss down."""
    losses = page["losses"]

    assert 10 == len(losses)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("ratio", [0.0, 0.7])
def test_the_page_computes_what_eofm_computes(page: dict[str, Any], ratio: float) -> None:
    """Loss and every gradient agree to 1e-6, one unlabelled image and hidden patches included."""
    generator = torch.Generator().manual_seed(3)
    views, labels = batch(generator)
    config = small(mask_ratio=ratio, soft_unit="plain", soft_weight=2.0)
    theirs = SoftCon(Patches(), config, generator, LabelFacts(9, 0.4)).double()
    mine = page["SoftCon"](Patches(), 0.4, config.hidden, config.dim).double()
    mine.load_state_dict(theirs.state_dict())
    pixels = [view.double() for view in views]

    expected = theirs((pixels[0], pixels[1]), labels, generator)
    found = mine(pixels, labels.multi_hot.double(), expected.keep, weight=2.0)
    expected.loss.backward()
    found.backward()

    assert abs(expected.loss.item() - found.item()) < 1e-6
    gradients = dict(theirs.named_parameters())
    for name, parameter in mine.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(gradients[name].grad, parameter.grad, rtol=0, atol=1e-6)


def test_the_teacher_of_the_page_follows_as_in_eofm(page: dict[str, Any]) -> None:
    """The schedule of the loop is `momentum_at`, and a step of it is a weighted mean."""
    assert page["momentum"] == pytest.approx(momentum_at(9, 10, 0.99))
    slow, fast = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    expected = 0.75 * slow.weight.detach() + 0.25 * fast.weight.detach()
    page["follow"](slow, fast, 0.75)

    torch.testing.assert_close(expected, slow.weight.detach())
