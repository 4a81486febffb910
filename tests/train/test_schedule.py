"""The learning rate follows the published table; decay spares what has a meaning of its own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eofm.models.vit import build_vit
from eofm.train.schedule import cosine, parameter_groups


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0), (25, 7.5), (50, 15), (175, 14.431), (300, 12.822), (550, 7.693), (800, 2.923),
     (900, 1.866), (1000, 1.5), (5000, 1.5)],
)  # fmt: skip
def test_cosine_follows_the_table(step: int, rate: float) -> None:
    """Peak 15, floor 1.5, 50 of 1000 steps warm-up: the values computed for the method's notes."""
    assert pytest.approx(rate, abs=6e-4) == cosine(step, 1000, 50, 15.0, 1.5)


def test_without_warmup_the_first_step_is_the_peak() -> None:
    """No warm-up, no division by zero, and no step above the peak."""
    rates = [cosine(step, 10, 0, 1.0) for step in range(11)]

    assert 1.0 == rates[0] == max(rates)
    assert pytest.approx(0.0) == rates[-1]
    assert rates == sorted(rates, reverse=True)


def test_decay_spares_biases_norms_and_tables() -> None:
    """Only matrices decay: no bias, norm, LayerScale, CLS or position; frozen ones are left out."""
    vit = build_vit("vit-tiny-14", 2, (28, 28), torch.Generator().manual_seed(0))
    frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)
    named = dict(vit.named_parameters())

    decayed, exempt = parameter_groups([*named.items(), ("frozen", frozen)], 0.1)

    def names(group: dict) -> set[str]:
        return {name for name, p in named.items() if any(p is q for q in group["params"])}

    assert (0.1, 0.0) == (decayed["weight_decay"], exempt["weight_decay"])
    assert {"cls_token", "pos_embed", "blocks.0.ls1.gamma", "norm.weight"} <= names(exempt)
    assert {"blocks.0.attn.qkv.weight", "patch_embed.proj.weight"} <= names(decayed)
    assert set(named) == names(decayed) | names(exempt)
    assert not names(decayed) & names(exempt)
    assert all(named[name].ndim > 1 for name in names(decayed))
