"""Two random views of a scene, with parameters drawn per sample.

kornia draws the parameters and defines their meaning. Crop, resize, flip and Gaussian blur are
separable and linear, so one draw is two small matrices per sample. The `fused` engine applies them
as two matrix products and agrees with kornia to 1e-4.

Views are made in normalised space, after `eofm.contract.preprocess`. Where the normalisation clips
to [0, 1], colour changes are clamped to it as well; otherwise nothing is clamped (clamping a
z-scored image to [0, 1] silently destroys a third of it).

Shapes: B samples, C bands, H by W pixels in, S by S pixels out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import kornia.augmentation as K
import torch
from kornia.augmentation.container.params import ParamItem
from kornia.augmentation.random_generator import PlainUniformGenerator
from torch import Tensor, nn

from eofm.contract.recipe import Recipe
from eofm.contract.spec import Sensor
from eofm.loading.config import AugmentConfig
from eofm.networks.state import colour_bands, nearest_colours

__all__ = [
    "RADAR",
    "RandomBandMean",
    "RandomColour",
    "View",
    "ViewParameters",
    "Views",
    "apply_fused",
    "blur_matrix",
    "colours_alone",
    "crop_matrix",
    "crop_of",
    "recolour_",
    "resampling",
    "shows_colour",
    "translate",
    "view_of",
    "views_for",
    "with_crop_within",
    "with_geometry_of",
]


class RandomBandMean(K.IntensityAugmentationBase2D):
    """Replace every band by the mean of all bands: a gray image for any number of bands."""

    def apply_transform(
        self,
        input: Tensor,
        params: dict[str, Tensor],
        flags: dict[str, object],
        transform: Tensor | None = None,
    ) -> Tensor:
        """Return the band mean in every band."""
        return input.mean(dim=1, keepdim=True).expand_as(input)


class RandomColour(K.IntensityAugmentationBase2D):
    """Brightness x · s, then contrast about the mean of each band; one draw decides on both.

    As in the transforms of zhu-xlab/SSL4EO-S12, except for its uint8 arithmetic, which wraps
    around: values outside the normalised space are clamped. An additive change, as in kornia's
    RandomBrightness, would shift all bands equally, by more than the difference between tiles.

    Args:
        brightness: Largest relative change b: s is drawn from 1 - b to 1 + b.
        contrast: Largest relative change of the distance from the mean.
        probability: Probability of changing both.
        clip: Bounds of the normalised space, or None if it is unbounded.
    """

    def __init__(
        self,
        brightness: float,
        contrast: float,
        probability: float,
        clip: tuple[float, float] | None,
    ) -> None:
        super().__init__(p=probability)
        self.clip = clip
        self._param_generator = PlainUniformGenerator(
            (torch.tensor((1 - brightness, 1 + brightness)), "brightness", None, None),
            (torch.tensor((1 - contrast, 1 + contrast)), "contrast", None, None),
        )

    def apply_transform(
        self,
        input: Tensor,
        params: dict[str, Tensor],
        flags: dict[str, object],
        transform: Tensor | None = None,
    ) -> Tensor:
        """Return the images with changed brightness and contrast."""
        return recolour_(input.clone(), params["brightness"], params["contrast"], self.clip)


def recolour_(
    pixels: Tensor, brightness: Tensor, contrast: Tensor, clip: tuple[float, float] | None
) -> Tensor:
    """Change brightness and contrast of images in place, and return them, (B, C, H, W).

    Args:
        pixels: (B, C, H, W).
        brightness: Factor s on every value, (B,).
        contrast: Factor on the distance from the mean of the band, (B,).
        clip: Bounds of the normalised space, or None if it is unbounded.
    """
    brightness, contrast = (each.to(pixels).view(-1, 1, 1, 1) for each in (brightness, contrast))
    pixels.mul_(brightness)
    if clip:
        pixels.clamp_(*clip)
    mean = pixels.mean(dim=(2, 3), keepdim=True)
    pixels.mul_(contrast).add_(mean * (1 - contrast))  # exactly unchanged for a factor of 1
    return pixels.clamp_(*clip) if clip else pixels


@dataclass(frozen=True)
class ViewParameters:
    """One draw for a batch, as parameters of the fused engine.

    Args:
        top, left, height, width: int64 (B,), the crop box in pixels.
        flip_x, flip_y: bool (B,).
        sigma: float (B,), standard deviation of the blur in output pixels; 0 means none.
        brightness: float (B,), factor on every value.
        contrast: float (B,), factor on the distance from the mean of a band, after brightness.
        gray: bool (B,).
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip_x: Tensor
    flip_y: Tensor
    sigma: Tensor
    brightness: Tensor
    contrast: Tensor
    gray: Tensor


class Views(nn.Module):
    """Draws and computes one random view of each image of a batch.

    Args:
        size: Output height and width in pixels.
        config: Ranges and probabilities.
        clip: Bounds of the normalised space, or None if it is unbounded.
        colour: Whether to change brightness, contrast and gray (not for SAR).
    """

    def __init__(
        self, size: int, config: AugmentConfig, *, clip: tuple[float, float] | None, colour: bool
    ) -> None:
        super().__init__()
        self.size = size
        self.clip = clip
        self.fused = config.engine == "fused"
        flip = 0.5 if config.flips else 0.0
        jitter = config.colour_probability if colour else 0.0
        self.kernel_size = max(3, size // 10 | 1)  # a tenth of the image, odd, as in SimCLR
        self.draws = K.AugmentationSequential(
            K.RandomResizedCrop(
                (size, size), scale=config.scale, align_corners=False, cropping_mode="slice"
            ),
            K.RandomHorizontalFlip(p=flip),
            K.RandomVerticalFlip(p=flip),
            K.RandomGaussianBlur(
                (self.kernel_size, self.kernel_size), config.blur_sigma, p=config.blur_probability
            ),
            RandomColour(config.brightness, config.contrast, jitter, clip),
            RandomBandMean(p=config.gray_probability if colour else 0.0),
            same_on_batch=False,
            data_keys=["input"],
        )

    def draw(self, shape: torch.Size) -> list[ParamItem]:
        """Draw the parameters for a batch of that shape."""
        parameters: list[ParamItem] = self.draws.forward_parameters(shape)
        return parameters

    def forward(self, pixels: Tensor) -> Tensor:
        """Return one new view of each image: (B, C, H, W) -> (B, C, S, S)."""
        return self.make(pixels, self.draw(pixels.shape))

    def measured(self, valid: Tensor, parameters: list[ParamItem]) -> Tensor:
        """Return the mask of valid pixels of the views given by `parameters`.

        A pixel of a view is a weighted mean of several, with weights that add up to 1. It is valid
        if invalid pixels have less than a thousandth of the weight.

        Args:
            valid: Valid pixels of the images, bool (B, H, W).
            parameters: Parameters of the views.

        Returns:
            bool (B, 1, S, S).
        """
        view = translate(parameters, valid.device)
        rows, columns = resampling(
            view, valid.shape[1], valid.shape[2], self.size, self.kernel_size
        )
        with torch.autocast(valid.device.type, enabled=False):
            missing = rows @ (~valid).float() @ columns.mT
        return (missing < _LARGEST_MISSING)[:, None]

    def make(self, pixels: Tensor, parameters: list[ParamItem]) -> Tensor:
        """Return the views given by `parameters`."""
        if self.fused:
            view = translate(parameters, pixels.device)
            return apply_fused(pixels, view, self.size, self.kernel_size, self.clip)
        with torch.autocast(pixels.device.type, enabled=False):
            out: Tensor = self.draws(pixels, params=parameters)
        return out


def views_for(recipe: Recipe, config: AugmentConfig) -> Views:
    """Return the random views for a recipe; SAR images get no colour changes."""
    return Views(
        recipe.size[0],
        config,
        clip=recipe.normalization.clip,
        colour=shows_colour(recipe.sensor),
    )


@dataclass(frozen=True)
class View:
    """A view of each image of a batch, with its valid pixels.

    Args:
        pixels: (B, C, S, S), normalised.
        measured: Function that returns the valid pixels, bool (B, 1, S, S), computed on demand
            because most objectives do not need them.
        crop: Function that cuts the same crop from other pixels of the same area, at another size
            (`crop_of`).
    """

    pixels: Tensor
    measured: Callable[[], Tensor]
    crop: Callable[[Tensor, int], Tensor]


def view_of(views: Views, pixels: Tensor, valid: Tensor, draw: list[ParamItem]) -> View:
    """Return the view of images given by a draw.

    Args:
        views: Engine of the views.
        pixels: Normalised images, (B, C, H, W).
        valid: Their valid pixels, bool (B, H, W).
        draw: Draw of `views` for images of this size.
    """
    made, measured = views.make(pixels, draw), partial(views.measured, valid, draw)
    return View(made, measured, partial(crop_of, draw))


def crop_of(draw: list[ParamItem], pixels: Tensor, size: int) -> Tensor:
    """Return the crop and flips of a draw, without its blur and colour changes.

    Args:
        draw: Draw for images of this height and width, with any number of bands.
        pixels: (B, C, H, W).
        size: Side of the result in pixels, S.

    Returns:
        (B, C, S, S), float32.
    """
    drawn = translate(draw, pixels.device)
    plain = replace(
        drawn,
        sigma=torch.zeros_like(drawn.sigma),
        brightness=torch.ones_like(drawn.brightness),
        contrast=torch.ones_like(drawn.contrast),
        gray=torch.zeros_like(drawn.gray),
    )
    return apply_fused(pixels, plain, size, kernel_size=3, clip=None)


def colours_alone(pixels: Tensor, bands: Sequence[str], alone: Tensor) -> Tensor:
    """Replace every band of some images by the colour nearest in wavelength.

    The response of an `InputInit.RGB_NEAREST` input layer to these equals the response of the
    original RGB layer to the three colours.

    Args:
        pixels: Normalised images, (B, C, H, W).
        bands: Names of the bands, with B04, B03 and B02 among them.
        alone: Images to change, bool (B,).

    Returns:
        (B, C, H, W); the same tensor if no image is changed.
    """
    if not alone.any():
        return pixels
    colours = colour_bands(bands)
    assert colours is not None  # noqa: S101 (ensured by the run)
    shown = torch.tensor(colours)[nearest_colours(bands)].to(pixels.device)
    alone = alone.to(pixels.device)
    made = pixels.clone()
    made[alone] = pixels[alone][:, shown]
    return made


RADAR: Final = frozenset({Sensor.S1_GRD, Sensor.S1_RTC})


def shows_colour(sensor: Sensor) -> bool:
    """Whether brightness, contrast and gray are realistic changes, which they are not for SAR."""
    return sensor not in RADAR


# Geometric parameters, which must be equal if two images are to show the same area.
_CROP: Final = "RandomResizedCrop"
_GEOMETRY: Final = (_CROP, "RandomHorizontalFlip", "RandomVerticalFlip")
_LARGEST_MISSING: Final = 1e-3
_LOG_RATIO: Final = math.log(4 / 3)  # kornia's default for a random resized crop


def with_geometry_of(one: list[ParamItem], other: list[ParamItem]) -> list[ParamItem]:
    """Return a draw with the crops and flips of `one`, and everything else from `other`.

    Args:
        one: A draw for B images of some size.
        other: A draw for B images of the same size, of any number of bands.
    """
    return [a if a.name.startswith(_GEOMETRY) else b for a, b in zip(one, other, strict=True)]


def with_crop_within(
    outer: list[ParamItem], inner: list[ParamItem], share: tuple[float, float]
) -> list[ParamItem]:
    """Return the draw `inner`, its crop drawn again within that of `outer`: nested views.

    The distribution is that of the crops: share of the area uniform, aspect ratio log-uniform from
    3/4 to 4/3, cut at the outer crop's borders. Flips and colours of `inner` are kept.

    Args:
        outer: A draw for B images of some size.
        inner: A draw for B images of the same size.
        share: Smallest and largest share of the outer crop's area (CropMAE: 0.3 to 0.6).
    """
    corners = _crop_of(outer)
    start, end = corners[:, 0], corners[:, 2]  # (B, 2), x before y, the last pixel included
    whole = end - start + 1
    area = whole.prod(dim=1) * torch.empty(len(whole)).uniform_(*share)
    ratio = torch.empty(len(whole)).uniform_(-_LOG_RATIO, _LOG_RATIO).exp()
    sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1)
    sides = sides.round().clamp(min=1).minimum(whole)
    start = start + (torch.rand(len(whole), 2) * (whole - sides + 1)).floor()
    end = start + sides - 1
    left, top, right, bottom = start[:, 0], start[:, 1], end[:, 0], end[:, 1]
    box = torch.stack([left, top, right, top, right, bottom, left, bottom], dim=1)
    return [
        ParamItem(item.name, {**item.data, "src": box.view_as(corners).to(corners.dtype)})  # type: ignore[dict-item]
        if item.name.startswith(_CROP)
        else item
        for item in inner
    ]


def _crop_of(draw: list[ParamItem]) -> Tensor:
    """Return the corners of a draw's crops, (B, 4, 2), clockwise, the last pixel included."""
    (crop,) = (item.data for item in draw if item.name.startswith(_CROP))
    corners: Tensor = crop["src"]  # type: ignore[index,call-overload]
    return corners


def translate(parameters: list[ParamItem], device: torch.device) -> ViewParameters:
    """Express kornia's draw of `Views.draws` in the terms of the fused engine."""
    data: dict[str, dict[str, Tensor]] = {
        item.name.rsplit("_", 1)[0]: item.data  # type: ignore[misc]  # a dict for every plain op
        for item in parameters
    }
    on = {name: values["batch_prob"] > 0.5 for name, values in data.items()}
    box = data["RandomResizedCrop"]["src"].long()  # corners (x, y) clockwise, the last included

    def where(name: str, key: str, otherwise: float) -> Tensor:
        values = torch.full((len(box),), otherwise)
        if key in data[name]:
            values = torch.where(on[name], data[name][key].float(), values)
        return values

    # one table and one copy: a GPU stops for each copy from ordinary memory
    table = torch.stack(
        [
            box[:, 0, 1].float(),
            box[:, 0, 0].float(),
            (box[:, 2, 1] - box[:, 0, 1] + 1).float(),
            (box[:, 1, 0] - box[:, 0, 0] + 1).float(),
            on["RandomHorizontalFlip"].float(),
            on["RandomVerticalFlip"].float(),
            on["RandomBandMean"].float(),
            where("RandomGaussianBlur", "sigma", 0.0),
            where("RandomColour", "brightness", 1.0),
            where("RandomColour", "contrast", 1.0),
        ]
    )
    if device.type == "cuda":
        table = table.pin_memory()
    table = table.to(device, non_blocking=True)
    top, left, height, width = table[:4].long().unbind()
    flip_x, flip_y, gray = (table[4:7] > 0).unbind()
    sigma, brightness, contrast = table[7:].unbind()
    return ViewParameters(
        top=top, left=left, height=height, width=width, flip_x=flip_x, flip_y=flip_y,
        sigma=sigma, brightness=brightness, contrast=contrast, gray=gray,
    )  # fmt: skip


def crop_matrix(start: Tensor, length: Tensor, flip: Tensor, source: int, target: int) -> Tensor:
    """Return (B, target, source): bilinear resampling of each sample's own interval.

    Half-pixel centres, edges repeated, no widening of the kernel when shrinking: what kornia's
    sliced crop does.
    """
    steps = torch.arange(target, device=start.device, dtype=torch.float32)
    steps = torch.where(flip[:, None], target - 1 - steps, steps)
    length = length[:, None]
    position = (steps + 0.5) * (length / target) - 0.5
    position = position.clamp(min=0).minimum(length - 1.0)
    below = position.floor()
    weight = position - below
    low = below.long() + start[:, None]
    high = (below + 1).minimum(length - 1.0).long() + start[:, None]
    matrix = torch.zeros(len(start), target, source, device=start.device)
    matrix.scatter_add_(2, low[:, :, None], (1 - weight)[:, :, None])
    return matrix.scatter_add_(2, high[:, :, None], weight[:, :, None])


def blur_matrix(sigma: Tensor, size: int, kernel_size: int) -> Tensor:
    """Return (B, size, size): Gaussian blur with mirrored borders; the identity for sigma 0."""
    radius = kernel_size // 2
    offset = torch.arange(-radius, radius + 1, device=sigma.device)
    taps = torch.exp(-(offset.float() ** 2) / (2 * sigma.clamp_min(1e-3)[:, None] ** 2))
    taps = taps / taps.sum(dim=1, keepdim=True)
    index = torch.arange(size, device=sigma.device)[:, None] + offset
    index = index.abs()
    index = torch.where(index > size - 1, 2 * (size - 1) - index, index)
    matrix = torch.zeros(len(sigma), size, size, device=sigma.device)
    return matrix.scatter_add_(
        2,
        index.expand(len(sigma), -1, -1),
        taps[:, None, :].expand(-1, size, -1).contiguous(),
    )


def resampling(
    view: ViewParameters, height: int, width: int, size: int, kernel_size: int
) -> tuple[Tensor, Tensor]:
    """Return how rows and columns of views are made: weights (B, S, H) and (B, S, W).

    Args:
        view: A draw.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
        size: Side of the views, S.
        kernel_size: Of the blur.
    """
    rows = crop_matrix(view.top, view.height, view.flip_y, height, size)
    columns = crop_matrix(view.left, view.width, view.flip_x, width, size)
    blur = blur_matrix(view.sigma, size, kernel_size)
    with torch.autocast(rows.device.type, enabled=False):
        return blur @ rows, blur @ columns


def apply_fused(
    pixels: Tensor,
    view: ViewParameters,
    size: int,
    kernel_size: int,
    clip: tuple[float, float] | None,
) -> Tensor:
    """Make the views of one draw: (B, C, H, W) -> (B, C, S, S), float32."""
    batch, bands, height, width = pixels.shape
    rows, columns = resampling(view, height, width, size, kernel_size)
    with torch.autocast(pixels.device.type, enabled=False):
        # both products are one batched matrix product over views of the same memory
        out = pixels.float().permute(0, 2, 1, 3).reshape(batch, height, bands * width)
        out = (rows @ out).view(batch, size * bands, width) @ columns.mT
        out = out.view(batch, size, bands, size).permute(0, 2, 1, 3).contiguous()
    recolour_(out, view.brightness, view.contrast, clip)
    if out.device.type == "cpu":
        out[view.gray] = out[view.gray].mean(dim=1, keepdim=True)
        return out
    # to ask a GPU which images these are would stop it
    return torch.where(view.gray.view(-1, 1, 1, 1), out.mean(dim=1, keepdim=True), out)
