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
        scale: Range of the share of the area that a random resized crop keeps.
        flips: Horizontal and vertical flips. For Sentinel-1 they change the look direction.
        nested_scale: Range of the share of the first view's area that the second keeps
            (data.views=nested; arXiv 2403.17823).
        pair: For two sensors (data.views=sensors): one crop and flip for both views (`same`), or
            independent ones. All other augmentations are drawn per view.
        season_pair: The same for two dates of a place (data.views=seasons, fixed-seasons,
            independent-seasons). Completing one date from the other (croco) suits `same`.
        brightness: Largest relative change b of all values: x · s, with s from 1 - b to 1 + b.
        contrast: Largest relative change of the distance from each band's mean.
        colour_probability: Probability of changing brightness and contrast, drawn once for both.
            Not used for Sentinel-1.
        gray_probability: Probability that all bands are replaced by their mean. Not used for
            Sentinel-1.
        rgb_probability: Probability that both views show red, green and blue only: every band gets
            the values of the colour nearest in wavelength. It replays what a network trained on
            colour images has learnt (replay: arXiv 2403.08763). Not used for Sentinel-1; a frozen
            teacher sees all bands.
        blur_probability: Probability of a Gaussian blur.
        blur_sigma: Range of the standard deviation of the blur, in pixels.
        engine: `fused` applies kornia's random parameters by two matrix products per sample;
            `kornia` is the slower reference implementation, with the same result.
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
