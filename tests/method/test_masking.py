"""What is hidden from the student, and how: tokens that are dropped, pixels that are filled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from eofm.errors import ConfigError, SpecError
from eofm.method import MaskForm, hide_blocks, keep_tokens, see_patches
from eofm.networks.resnet import build_resnet
from eofm.networks.vit import build_vit


@pytest.mark.parametrize(
    ("tokens", "ratio", "kept"),
    [
        (256, 0.5, 128),
        (256, 0.7, 76),
        (256, 0.75, 64),
        (196, 0.7, 58),
        (64, 0.7, 19),
        (4, 0.9, 2),
        (2, 0.5, 2),
        (100, 0.9, 10),
        (49, 0.985, 2),
    ],
)
def test_how_many_tokens_are_kept(tokens, ratio, kept, generator):
    """max(2, floor(P (1 - r))): never none, also on the grids where a small share rounds to 0."""
    assert (3, kept) == tuple(keep_tokens(3, tokens, ratio, generator).shape)


@given(seed=st.integers(0, 10_000), tokens=st.integers(2, 80), ratio=st.floats(0.01, 0.99))
@settings(max_examples=60, deadline=None)
def test_masks_are_valid_and_repeatable(seed, tokens, ratio):
    """Kept patches are distinct, in range, at least two, and the seed decides them alone."""
    keep = keep_tokens(4, tokens, ratio, torch.Generator().manual_seed(seed))
    again = keep_tokens(4, tokens, ratio, torch.Generator().manual_seed(seed))

    assert torch.equal(keep, again)
    assert keep.shape[1] >= 2
    assert all(len(set(row.tolist())) == keep.shape[1] for row in keep)
    assert keep.min() >= 0
    assert keep.max() < tokens


def test_masks_are_uniform_and_differ_between_images(generator):
    """Every patch is kept equally often, and no two images of a batch see the same patches."""
    keep = keep_tokens(4000, 20, 0.75, generator)
    frequency = torch.bincount(keep.flatten(), minlength=20) / 4000

    # standard deviation 0.007 at a share of 0.25: five of them
    assert (frequency - 0.25).abs().max() < 0.035
    sets = {tuple(sorted(row.tolist())) for row in keep_tokens(8, 64, 0.7, generator)}
    assert len(sets) == 8


def test_no_masking_and_impossible_masking(generator):
    """Ratio 0 keeps all and says so; a ratio of 1, or one single patch, is refused."""
    assert keep_tokens(3, 64, 0.0, generator) is None
    assert keep_tokens(3, 1, 0.0, generator) is None
    for tokens, ratio in ((64, 1.0), (64, -0.1), (1, 0.5)):
        with pytest.raises(ConfigError, match="two patches"):
            keep_tokens(3, tokens, ratio, generator)


def slowly_hidden(pixels: Tensor, keep: Tensor, block: int, fill: float) -> Tensor:
    """The oracle: pixel by pixel, from the definition of a block."""
    out = pixels.clone()
    columns = -(-pixels.shape[3] // block)
    for image in range(pixels.shape[0]):
        seen = set(keep[image].tolist())
        for row in range(pixels.shape[2]):
            for column in range(pixels.shape[3]):
                if (row // block) * columns + column // block not in seen:
                    out[image, :, row, column] = fill
    return out


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    block=st.integers(1, 9),
    ratio=st.floats(0, 0.95),
    seed=st.integers(0, 99),
)
def test_blocks_are_hidden_as_a_loop_over_pixels_hides_them(
    height: int, width: int, block: int, ratio: float, seed: int
) -> None:
    """Any size, also one that is no multiple of the block: the remainder is a block of its own."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(2, 3, height, width, generator=generator)
    blocks = -(-height // block) * -(-width // block)
    if blocks < 2:
        return
    keep = keep_tokens(2, blocks, ratio, generator)
    if keep is None:
        return

    assert torch.equal(
        slowly_hidden(pixels, keep, block, 0.5), hide_blocks(pixels, keep, block, 0.5)
    )


def test_every_image_hides_the_same_number_of_blocks(generator: torch.Generator) -> None:
    """224 pixels, blocks of 32, ratio 0.7: every image shows 14 of 49 blocks, each its own."""
    keep = keep_tokens(8, 49, 0.7, generator)
    assert keep is not None
    hidden = hide_blocks(torch.ones(8, 1, 224, 224), keep, 32, 0.0)
    blocks = hidden.view(8, 7, 32, 7, 32).mean(dim=(2, 4)).reshape(8, 49)

    assert [14.0] * 8 == blocks.sum(1).tolist()
    assert {0.0, 1.0} == set(blocks.flatten().tolist())
    assert len({tuple(row) for row in blocks.tolist()}) == 8


@pytest.mark.parametrize(
    "keep", [torch.tensor([[0, 4]]), torch.tensor([[-1, 0]]), torch.zeros(2, 1).long()]
)
def test_blocks_that_are_not_there_are_refused(keep: Tensor) -> None:
    """Two by two blocks of one image: a fifth, a negative one or a line too many is an error."""
    with pytest.raises(SpecError, match="1 images of 2 x 2 blocks of 4 pixels"):
        hide_blocks(torch.zeros(1, 2, 8, 8), keep, 4, 0.0)


def test_a_resnet_does_not_see_hidden_blocks(generator: torch.Generator) -> None:
    """Whatever stands in a hidden block, the vector is the same; in a seen one it is not."""
    resnet = build_resnet("resnet18", 4, (64, 96), generator).eval()
    pixels = torch.rand(2, 4, 64, 96, generator=generator)
    keep = torch.tensor([[0, 1, 4], [2, 3, 5]])
    other = pixels.clone()
    other[0, :, 32:, :32] = 7.0  # block 3, hidden in the first image
    seen = pixels.clone()
    seen[0, :, :32, :32] = 7.0  # block 0

    def look(x: Tensor) -> Tensor:
        return see_patches(resnet, x, keep, MaskForm.PIXELS, 0.5)

    assert 32 == resnet.block
    assert torch.equal(look(pixels), look(other))
    assert not torch.allclose(look(pixels)[0], look(seen)[0])


def test_a_transformer_hides_pixels_in_dense_form(generator: torch.Generator) -> None:
    """Filled patches are seen as patches of one value: dense, but as blind as dropped tokens."""
    vit = build_vit("vit-tiny-14", 3, (56, 56), generator).eval()
    pixels = torch.rand(2, 3, 56, 56, generator=generator)
    keep = torch.tensor([[0, 5, 9], [1, 2, 15]])
    expected = vit(slowly_hidden(pixels, keep, 14, 0.5))

    assert 14 == vit.block
    assert torch.equal(expected, see_patches(vit, pixels, keep, MaskForm.PIXELS, 0.5))
    assert torch.equal(vit(pixels, keep), see_patches(vit, pixels, keep, MaskForm.TOKENS, 0.5))
    assert torch.equal(vit(pixels), see_patches(vit, pixels, None, MaskForm.PIXELS, 0.5))


def test_only_seen_pixels_get_a_gradient(generator: torch.Generator) -> None:
    """The gradient of hidden pixels is exactly zero."""
    conv = nn.Conv2d(2, 1, 3, padding=1)
    pixels = torch.rand(1, 2, 8, 8, generator=generator, requires_grad=True)

    conv(hide_blocks(pixels, torch.tensor([[1, 2]]), 4, 0.3)).square().sum().backward()

    assert pixels.grad is not None
    seen = np.kron([[0, 1], [1, 0]], np.ones((4, 4))).astype(bool)
    assert (pixels.grad[0, 0].numpy()[~seen] == 0).all()
    assert (pixels.grad[0, 0].numpy()[seen] != 0).all()


def test_one_block_cannot_be_half_hidden(generator: torch.Generator) -> None:
    """An image of a single block has none to spare."""
    with pytest.raises(ConfigError, match="at least two patches"):
        keep_tokens(4, 1, 0.5, generator)
