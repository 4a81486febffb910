"""Projectors and predictors have the layers, widths and weights that their papers' code has."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eofm.method import HeadForm, HeadNorm, prediction_head, projection_head


def test_heads_have_the_published_sizes():
    """19.4 M and 2.1 M weights for ViT-S, no biases, and a last norm without scale and shift."""
    g = torch.Generator()
    projector = projection_head(384, 4096, 256, HeadNorm.BN, g)
    predictor = prediction_head(256, 4096, HeadNorm.BN, g)
    linear = sum(p.numel() for p in projector.parameters() if p.ndim == 2)

    assert 384 * 4096 + 4096 * 4096 + 4096 * 256 == linear
    assert 19.4 == pytest.approx(linear / 1e6, abs=0.05)
    assert 2.1 == pytest.approx(sum(p.numel() for p in predictor.parameters()) / 1e6, abs=0.05)
    assert all(m.bias is None for m in projector if isinstance(m, nn.Linear))
    assert projector[-1].weight is None
    kinds = ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    assert kinds == [type(m).__name__ for m in projector]


def test_heads_are_drawn_from_their_generator_alone():
    """The seed decides every weight, the range is torch's, the global state is untouched."""
    before = torch.get_rng_state()
    first, again = (
        projection_head(16, 8, 4, HeadNorm.BN, torch.Generator().manual_seed(3)) for _ in range(2)
    )

    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert 0.25 == pytest.approx(first[0].weight.abs().max().item(), abs=0.02)
    assert not torch.equal(first[0].weight[0], first[0].weight[1])


@pytest.mark.parametrize("norm", list(HeadNorm))
def test_head_norms(norm, generator):
    """Outputs have the asked width; bn centres each of them over the batch, ln each image."""
    out = projection_head(6, 8, 5, norm, generator)(torch.randn(32, 6, generator=generator))

    assert (32, 5) == tuple(out.shape)
    if norm is HeadNorm.BN:
        torch.testing.assert_close(out.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    elif norm is HeadNorm.LN:
        torch.testing.assert_close(out.mean(1), torch.zeros(32), atol=1e-5, rtol=0)


BN = HeadNorm.BN


def layout(head: nn.Sequential) -> list[str]:
    """One word per layer: widths of linear maps, and what is between them."""
    words = []
    for layer in head:
        if isinstance(layer, nn.Linear):
            words.append(
                f"{layer.in_features}-{layer.out_features}" + "b" * (layer.bias is not None)
            )
        elif isinstance(layer, nn.BatchNorm1d):
            words.append("bn" if layer.affine else "bn*")
        else:
            words.append(type(layer).__name__.lower())
    return words


@pytest.mark.parametrize(
    ("form", "projector", "predictor"),
    [
        (
            HeadForm.MOCO3,
            ["384-4096", "bn", "relu", "4096-4096", "bn", "relu", "4096-256", "bn*"],
            ["256-4096", "bn", "relu", "4096-256", "bn*"],
        ),
        (
            HeadForm.MOCO3_RESNET,
            ["384-4096", "bn", "relu", "4096-256", "bn*"],
            ["256-4096", "bn", "relu", "4096-256"],
        ),
        (HeadForm.MOCO2, ["384-4096b", "relu", "4096-256b"], []),
    ],
)
def test_layers(
    form: HeadForm, projector: list[str], predictor: list[str], generator: torch.Generator
) -> None:
    """Depth, widths, biases and norms, with bn* for a norm without scale and shift."""
    made = projection_head(384, 4096, 256, BN, generator, form)

    assert projector == layout(made)
    assert predictor == layout(prediction_head(256, 4096, BN, generator, form))


def test_sizes(generator: torch.Generator) -> None:
    """19.4 M weights for a ViT-S, 9.4 M for a ResNet-50, 2.1 M in the predictor."""

    def millions(head: nn.Module) -> float:
        return round(sum(p.numel() for p in head.parameters() if p.ndim == 2) / 1e6, 1)

    assert 19.4 == millions(projection_head(384, 4096, 256, BN, generator))
    resnet = projection_head(2048, 4096, 256, BN, generator, HeadForm.MOCO3_RESNET)
    assert 9.4 == millions(resnet)
    assert 2.1 == millions(prediction_head(256, 4096, BN, generator))


def test_no_predictor_is_the_identity(generator: torch.Generator) -> None:
    """MoCo-v2's student is compared as it comes out of the projector."""
    x = torch.rand(4, 8, generator=generator)

    assert x is prediction_head(8, 16, BN, generator, HeadForm.MOCO2)(x)


@pytest.mark.parametrize("form", [form for form in HeadForm if form is not HeadForm.AUTO])
def test_weights_are_drawn_from_the_generator(form: HeadForm) -> None:
    """Two heads of one seed are equal, and the global random state is not touched."""
    state = torch.get_rng_state()
    one, two = (
        projection_head(6, 8, 4, BN, torch.Generator().manual_seed(3), form) for _ in range(2)
    )

    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    weight = one[0].weight
    assert isinstance(weight, torch.Tensor)
    assert float(weight.detach().abs().max()) <= 6**-0.5


def test_moco2_has_no_norms_whatever_is_asked(generator: torch.Generator) -> None:
    """Its head is two linear maps and a ReLU."""
    head = projection_head(6, 8, 4, HeadNorm.LN, generator, HeadForm.MOCO2)

    assert ["6-8b", "relu", "8-4b"] == layout(head)
