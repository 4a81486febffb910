"""Settings of `eofm pretrain`: the two random views of a scene. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eofm.settings import checked_settings

__all__ = ["AugmentConfig"]


@dataclass(frozen=True)
@checked_settings
class AugmentConfig:
    """The two random views of a scene; parameters are drawn per sample.

    Args:
        scale: Smallest and largest share of the area a random resized crop keeps.
        flips: Horizontal and vertical flips. For Sentinel-1 they alter the look direction.
        nested_scale: Smallest and largest share of the first view's area that the second keeps,
            where it is a crop of the first (data.views=nested; arXiv 2403.17823).
        pair: Of two sensors (data.views=sensors): both views show the same crop, flipped alike, or
            each one of its own. Everything else is drawn for each.
        season_pair: Of two dates of a place (data.views=seasons and its kind): both views show the
            same crop, flipped alike, or each one of its own. A term that completes one date from
            the other (croco) has most to gain from `same`.
        brightness: Largest relative change of all values: x · s with s from 1 - b to 1 + b.
        contrast: Largest relative change of the distance from the mean of each band.
        colour_probability: Probability of a change of brightness and contrast, one draw for both.
            Not used for Sentinel-1.
        gray_probability: Probability that all bands become their mean. Not used for Sentinel-1.
        rgb_probability: Probability that a scene is seen in its red, green and blue alone, in both
            views: every band has the value of the colour nearest to it. So a network of colour
            images is shown again what it has learned (replay, arXiv 2403.08763). Not for
            Sentinel-1. A frozen teacher sees all bands.
        blur_probability: Probability of a Gaussian blur.
        blur_sigma: Smallest and largest standard deviation of the blur in pixels.
        engine: `fused` makes kornia's draws by two matrix products per sample; `kornia` is the
            slower reference it agrees with.
    """

    scale: tuple[float, float] = (0.4, 1.0)
    nested_scale: tuple[float, float] = (0.3, 0.6)
    flips: bool = True
    pair: Literal["same", "independent"] = "same"
    season_pair: Literal["same", "independent"] = "independent"
    brightness: float = 0.1
    contrast: float = 0.2
    colour_probability: float = 0.8
    gray_probability: float = 0.0
    rgb_probability: float = 0.0
    blur_probability: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    engine: Literal["fused", "kornia"] = "fused"
