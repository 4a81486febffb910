"""Masked image modelling: blocks, pixels below the patch mean, patches that know their image."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_terms import DECODER, combined, passes, scored, step, train, twice, unreached

from eofm.errors import ConfigError
from eofm.method import MaskForm
from eofm.method.masking import number_kept
from eofm.method.terms.mim import BlockMask, Mim, MimSettings, cls_to_patch_loss
from eofm.method.terms.seam import RandomMask, RunFacts, TeacherKind
from eofm.networks.resnet import build_resnet
from eofm.networks.vit import build_vit

PIXELS = {"mim": {"cls_weight": 0.0, **DECODER}}
WHOLE = {"mim": {"cls_hidden": 16, "cls_dim": 16, **DECODER}}


def slow_blocks(mask: BlockMask, grid: tuple[int, int], generator: torch.Generator) -> set[int]:
    """Return what is hidden of one image: rectangle after rectangle, patch after patch."""
    rows, columns = grid
    patches = rows * columns
    target = patches - number_kept(patches, mask.ratio)
    longest = [math.ceil(mask.side * length) for length in grid]
    area = (longest[0] + 1) / 2 * (longest[1] + 1) / 2
    count = math.ceil(-2 * math.log(1 - mask.ratio) * patches / area)
    boxes = []
    for length, most in zip(grid, longest, strict=True):
        size, start = torch.rand(2, 1, 1, count, generator=generator).flatten(1).tolist()
        sizes = [int(each * most) + 1 for each in size]
        boxes.append([(int(s * (length - n + 1)), n) for s, n in zip(start, sizes, strict=True)])
    left = torch.rand(1, patches, generator=generator)[0].tolist()
    hidden: list[int] = []
    for (top, height), (first, width) in zip(*boxes, strict=True):
        for row in range(top, top + height):
            for column in range(first, first + width):
                patch = row * columns + column
                if patch not in hidden and len(hidden) < target:
                    hidden.append(patch)
    rest = sorted((p for p in range(patches) if p not in hidden), key=left.__getitem__)
    return set(hidden + rest[: target - len(hidden)])


@given(
    st.integers(0, 10_000),
    st.sampled_from([(16, 16), (4, 4), (3, 7)]),
    st.sampled_from([0.1, 0.5, 0.9]),
    st.sampled_from([0.1, 0.3, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_blocks_are_those_of_a_loop(seed, grid, ratio, side):
    """Rectangles painted one by one hide the same patches; as many as without blocks are kept."""
    mask = BlockMask(ratio, side)
    keep = mask.draw(1, grid, torch.Generator().manual_seed(seed))[0].tolist()

    hidden = slow_blocks(mask, grid, torch.Generator().manual_seed(seed))

    patches = grid[0] * grid[1]
    assert number_kept(patches, ratio) == len(keep)
    assert set(range(patches)) - hidden == set(keep)


def test_blocks_hang_together_and_differ_between_images(generator):
    """A hidden patch's right neighbour is hidden more often than by chance; images differ."""

    def together(mask: BlockMask | RandomMask) -> float:
        keep = mask.draw(64, (16, 16), generator)
        hidden = torch.ones(64, 256).scatter_(1, keep, 0).view(64, 16, 16)
        return float((hidden[:, :, 1:] * hidden[:, :, :-1]).sum() / hidden[:, :, :-1].sum())

    assert 0.45 < together(RandomMask(0.5)) < 0.55
    assert together(BlockMask(0.5, 0.3)) > 0.65
    keeps = BlockMask(0.5, 0.3).draw(8, (16, 16), generator)
    assert len({tuple(sorted(keep.tolist())) for keep in keeps}) == 8


def test_patches_find_images_as_in_a_loop(generator):
    """The cross entropy equals a loop over images, patches and all images of the batch."""
    patches = torch.randn(3, 4, 5, generator=generator)
    images = torch.randn(6, 5, generator=generator)
    own = torch.tensor([2, 3, 4])
    total = 0.0
    for image in range(3):
        for patch in range(4):
            vector = patches[image, patch]
            cosines = [
                float(vector @ each / vector.norm() / each.norm()) for each in images.unbind()
            ]
            likely = [math.exp(cosine / 0.7) for cosine in cosines]
            total -= math.log(likely[int(own[image])] / sum(likely)) / 12

    assert pytest.approx(total, rel=1e-5) == float(cls_to_patch_loss(patches, images, own, 0.7))


def test_values_of_the_comparison_that_are_known(generator):
    """Ln N where all images look alike; next to nothing where each patch is its image's vector."""
    patches = torch.randn(4, 3, 8, generator=generator)
    own, apart = torch.arange(4), torch.eye(8)[:4]

    unknown = cls_to_patch_loss(patches, torch.ones(4, 8), own, 0.1)
    found = cls_to_patch_loss(apart[:, None].expand(-1, 3, -1), apart, own, 0.1)

    assert pytest.approx(math.log(4), rel=1e-5) == float(unknown)
    assert pytest.approx(math.log(1 + 3 * math.exp(-10)), rel=1e-3) == float(found)


def test_images_give_no_gradient(generator):
    """The teacher's side is a target: only patches are moved."""
    patches = torch.randn(4, 3, 8, generator=generator, requires_grad=True)
    images = torch.randn(4, 8, generator=generator, requires_grad=True)

    cls_to_patch_loss(patches, images, torch.arange(4), 0.1).backward()

    assert images.grad is None
    assert patches.grad is not None
    assert patches.grad.ne(0).any()


def test_hidden_pixels_are_predicted_better_than_by_their_mean():
    """After a short run the error on new images is below the floor; of noise it never is."""
    terms, blind = combined(PIXELS, symmetric=False), combined(PIXELS, symmetric=False)
    fresh = torch.Generator().manual_seed(99)

    def noise(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.randn(16, 3, 16, 16, generator=generator)
        return images, images

    before = scored(terms, twice(fresh))
    train(terms, twice, 100)
    train(blind, noise, 50)
    after, control = scored(terms, twice(fresh)), scored(blind, noise(fresh))

    assert before["mim/error"] > before["mim/floor"]
    assert after["mim/error"] < 0.98 * after["mim/floor"]
    assert control["mim/error"] > 0.99 * control["mim/floor"]


@pytest.mark.parametrize(("bands", "size"), [(13, 56), (12, 42), (2, 28)])
def test_a_loss_for_every_sensor(bands, size, generator):
    """Transformers of 13, 12 and 2 bands have a loss that reaches every trained parameter."""
    vit = build_vit("vit-tiny-14", bands, (size, size), generator)
    terms = combined(WHOLE, vit)
    images = torch.rand(2, bands, size, size, generator=generator)

    assert not unreached(terms, (images, images.flip(3)))
    assert terms.teacher is not None
    assert all(p.grad is None for p in terms.teacher.parameters())


def test_without_the_vector_there_is_neither_teacher_nor_head():
    """What no loss reaches is not built: DDP would wait for it."""
    terms = combined(PIXELS)

    assert terms.teacher is None
    assert not [name for name, _ in terms.named_parameters() if "mim_head" in name]
    assert not unreached(terms, twice(torch.Generator().manual_seed(0)))
    assert TeacherKind.NONE is Mim.needs_of(MimSettings(cls_weight=0.0)).teacher
    assert TeacherKind.EMA is Mim.needs_of(MimSettings()).teacher


def test_hidden_pixels_that_are_invalid_do_not_count():
    """Whatever lies under an invalid pixel of a hidden patch, the loss stays the same.

    Under a valid one it does not: the test can see a difference.
    """
    terms = combined(PIXELS, symmetric=False)
    images, other = twice(torch.Generator().manual_seed(0))
    valid = torch.rand(16, 1, 16, 16, generator=torch.Generator().manual_seed(1)) > 0.3
    seen = terms.see((images, other), torch.Generator().manual_seed(0))
    keep = seen.keep(0, BlockMask(0.5, 0.3))
    patches = torch.ones(16, 16).scatter_(1, keep, 0).view(16, 1, 4, 4)
    hidden = patches.repeat_interleave(4, 2).repeat_interleave(4, 3).bool()

    plain = step(terms, (images, other), valid=valid).loss
    poisoned = torch.where(hidden & ~valid, 100.0, images)
    changed = torch.where(hidden & valid, 100 * images.flip(3), images)

    assert plain.equal(step(terms, (poisoned, other), valid=valid).loss)
    assert not plain.equal(step(terms, (changed, other), valid=valid).loss)


def test_a_shared_mask_is_a_shared_pass():
    """With the method's mask, mim adds no pass of the student to SoftCon's; with its own, two."""
    views = twice(torch.Generator().manual_seed(0))
    own = {"softcon": 1, **PIXELS}
    shared = {"softcon": 1, "mim": {**PIXELS["mim"], "mask": "method"}}

    assert passes(combined({"softcon": 1}), views) == 2
    assert passes(combined(shared), views) == 2
    assert passes(combined(own), views) == 4
    assert passes(combined(PIXELS, symmetric=False), views) == 1


def test_softcon_beside_mim_is_softcon():
    """The other term changes neither SoftCon's masks nor its numbers."""
    views = twice(torch.Generator().manual_seed(0))
    shared = {"softcon": 1, "mim": {**PIXELS["mim"], "mask": "method"}}
    alone, beside = step(combined({"softcon": 1}), views), step(combined(shared), views)

    assert alone.scalars["hard"].equal(beside.scalars["hard"])
    assert alone.scalars["soft"].equal(beside.scalars["soft"])


def test_patches_learn_what_their_image_is():
    """On new images they find it above chance after a short run, at the start at chance."""
    terms = combined({"mim": {**WHOLE["mim"], "cls_weight": 1.0}}, symmetric=False)
    views = twice(torch.Generator().manual_seed(99))

    before = scored(terms, views)["mim/cls"]
    train(terms, twice, 60)
    after = scored(terms, views)["mim/cls"]

    assert before > 0.95 * math.log(16)
    assert after < 0.97 * math.log(16)


def test_networks_and_masks_without_dropped_tokens_are_refused(generator):
    """A ResNet, a mask of pixels, two patches of which none can be hidden; the remedy works."""
    resnet = build_resnet("resnet18", 3, (64, 64), generator)
    with pytest.raises(ConfigError, match=r"mim(.|\n)*ResNet(.|\n)*model\.architecture=vits14"):
        combined(PIXELS, resnet)
    with pytest.raises(ConfigError, match=r"method\.mask=pixels"):
        combined(PIXELS, mask=MaskForm.PIXELS)
    with pytest.raises(ConfigError, match="nothing to predict"):
        Mim(MimSettings(), RunFacts(64, (1, 2), 14, (13, 13)), generator)
    with pytest.raises(ConfigError, match="nothing to predict"):
        combined({"mim": {**PIXELS["mim"], "mask": "method"}}, mask_ratio=0.0)
    advised = build_vit("vits14", 3, (28, 28), generator)
    images = torch.rand(2, 3, 28, 28, generator=generator)
    assert step(combined(PIXELS, advised), (images, images)).loss > 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("ratio", 1.0), ("ratio", 0.0), ("side", 0.0), ("side", 1.1), ("cls_weight", -1.0),
     ("cls_hidden", 0), ("cls_dim", -1), ("tau", 0.0)],
)  # fmt: skip
def test_settings_out_of_range_are_named(name, value):
    """Each is one error that names the setting."""
    with pytest.raises(ConfigError, match=f"mim.{name} is out of range"):
        MimSettings(**{name: value})


def test_settings_come_from_a_file_as_words():
    """Enumerations and numbers as YAML has them; a foreign name is one error."""
    terms = combined({"mim": {"distance": "mse", "mask": "method", "side": 1, **DECODER}})

    chosen = terms.terms["mim"].chosen
    assert ("mse", "method", 1.0) == (chosen.distance, chosen.mask, chosen.side)
    with pytest.raises(ConfigError, match="no such setting"):
        combined({"mim": {"sides": 1}})
