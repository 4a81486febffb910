"""What is measured in an image, and whether its pixels can be what is stated of them.

One rule for every route: reading, packing, checking, benchmarking and embedding call the functions
below, so that one file has one mask, one refusal and one wording wherever it is used. Arrays go in;
no file is opened here, and no unit is ever inferred. Two questions are answered.

*Measured* (`measured`). A pixel of the mask is False where

- a band is NaN or infinite (dB of no backscatter);
- a band holds a value other than 0 that the file declares nodata or masks;
- backscatter power is 0, or negative by less than 1 (noise was subtracted), which has no dB;
- every band of one native resolution is 0 (dn, dn-offset1000, reflectance, power, db) or declared
  nodata. A single band among others that is 0 is a measurement, as B10 is over dry air: a declared
  nodata value of 0 takes no pixel away that other bands have seen, nor does a resolution with one
  band beside others. Where every resolution has one band, they tell together.

*Plausible* (`find_doubts`). A statement leaves traces in the values that scenery does not, and a
wrong one leaves others: the tests, in the order in which they are made, are

====================  ===========================================================================
number type           8-bit integers stated to be digital numbers of Sentinel-2
undeclared nodata     outside all physics (-9999, -32768, 1e20; 65535 or 32767 in every band), or
                      one value in all bands of more than 1 % of the pixels (-1, 9999)
dead band             all 0, or one value in a whole image of at least 100 x 100 pixels
radar                 sign of dB and power, whole decibels, VV darker than VH
range                 99th percentile of all bands outside what the unit can hold
8-bit numbers         Level-1C darker in B01 or B02 than the sky itself is
band order            Level-1C whose darkest band by far is not B10: EuroSAT files hold B8A last
offset                +1000 of processing baseline 04.00, stated and absent or present and unstated
====================  ===========================================================================

Whoever reads an image whole (`read_geotiff`, `read_scene`, `from_xarray`) is told of its number
type, and of digital numbers that are fractions or reflectance that is whole (`check_scale`); the
others are looked for before anything is made of the pixels.

The offset of Level-1C shows in B10, in which the ground is invisible: below 100 without it and just
above 1000 with it (17, 59 and 1069 on three TerraMesh sites; at most 40 on 270 EuroSAT tiles). In
Level-2A it shows where bands agree: with the offset the darkest pixel of no band lies below 950,
of one near 1000, and of none above 2500. Two of twelve S2-100K patches are of that kind (darkest
pixels from 1126 and 1148); none of the others, of three TerraMesh sites and of six BigEarthNet
patches is, whole or in windows of 32 to 128 pixels (1,101 of them, over snow, cloud, water,
forest, crops and towns). That holds with at least ten bands; of red, green, blue and near infrared
alone bare soil looks the same (5 of 187 windows), so that fewer than eight bands, or none in the
short-wave infrared, are never accused. Nor is bright sand, whose short-wave infrared lies above.

Shapes: B images, C bands, H by W pixels; c bands of one native resolution, h by w of its pixels.
"""

from __future__ import annotations

from eofm.contract.validity.masks import (
    check_finite,
    coarse_mask,
    fine_mask,
    measured,
    measured_of,
)
from eofm.contract.validity.plausible import (
    DEAD_BAND,
    ENOUGH_IMAGES,
    check_plausible,
    check_scale,
    check_sentinels,
    doubt_of,
    doubt_of_type,
    find_doubts,
    refusal,
)
from eofm.contract.validity.traces import Doubt

__all__ = [
    "DEAD_BAND",
    "ENOUGH_IMAGES",
    "Doubt",
    "check_finite",
    "check_plausible",
    "check_scale",
    "check_sentinels",
    "coarse_mask",
    "doubt_of",
    "doubt_of_type",
    "find_doubts",
    "fine_mask",
    "measured",
    "measured_of",
    "refusal",
]
