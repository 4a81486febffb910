"""Bands beside the measurement: cloud masks, probabilities, angles, and how a cloud mask is read.

Products put them into the same file, or beside the bands in files of their own. They are left out
by name; a mask of clouds is applied where it is asked for.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from eofm.errors import RasterError
from eofm.raster.geotiff import damaged, grid_of
from eofm.raster.grid import Grid, Window

# What products call bands that hold no reflectance and no backscatter, in lower case without
# separators: the Sentinel-2 product specification (S2-PDGS-TAS-DI-PSD, L2A), the Earth Engine
# catalogue (COPERNICUS/S2_SR_HARMONIZED, S1_GRD, CLOUD_SCORE_PLUS), Sentinel Hub's data pages, the
# HLS v2.0 user guide, SNAP and ASF's RTC products; and the common spectral indices.
# fmt: off
_BESIDE: Final = frozenset({
    "scl", "qa10", "qa20", "qa60", "mskcldprb", "msksnwprb", "mskclassiopaque", "mskclassicirrus",
    "mskclassisnowice", "cldprb", "snwprb", "cld", "snw", "clp", "clm", "cloudprobability",
    "cloudprobabilities", "probability", "cloudmask", "cloud", "clouds", "cs", "cscdf", "aot",
    "wvp", "tci", "tcir", "tcig", "tcib", "alpha", "datamask", "mask", "validmask", "fmask", "qa",
    "qapixel", "sunazimuthangles", "sunzenithangles", "viewazimuthmean", "viewzenithmean", "saa",
    "sza", "vaa", "vza", "angle", "localincidenceangle", "incidenceangle",
    "projectedlocalincidenceangle", "incidenceanglefromellipsoid", "incmap", "lsmap",
    "layovershadowmask", "shadowmask", "elevation", "dem",
    "ndvi", "ndwi", "ndsi", "ndmi", "nbr", "evi", "savi",
})
# fmt: on
_DECLARES: Final = frozenset({"alpha", "datamask", "validmask"})
_WORD: Final = re.compile(r"[^a-z0-9]+")
_RESOLUTION: Final = re.compile(r"[ _-]\d{1,3}m$")


class CloudMask(StrEnum):
    """A band that says where clouds are, by the name its product gives it.

    * `SCL`: the scene classification of Level-2A. Masked are 0 (no data), 1 (saturated or
      defective), 3 (cloud shadow), 8 and 9 (cloud of medium and high probability) and 10 (thin
      cirrus); kept are dark areas, vegetation, soil, water, unclassified and snow (Sentinel-2
      product specification, table of the scene classification).
    * `QA60`: bits 10 (opaque cloud) and 11 (cirrus) of Earth Engine's Sentinel-2 collections.
      Between 25 January 2022 and 28 February 2024 the products had no such masks, and there the
      band says "no cloud" everywhere.
    * `MSK_CLDPRB`: Level-2A's probability of cloud in per cent, and s2cloudless in Earth Engine.
      Masked from 40, the threshold of 0.4 at which s2cloudless was published.
    * `CLP`: the same from Sentinel Hub, where 255 means 1: masked from 102.
    * `CLM`: Sentinel Hub's mask: 1 is cloud, 255 no data.
    * `FMASK`: HLS: bits 1 (cloud), 2 (adjacent to one) and 3 (shadow), and 255, no data (HLS v2.0
      user guide).
    """

    SCL = "SCL"
    QA60 = "QA60"
    MSK_CLDPRB = "MSK_CLDPRB"
    CLP = "CLP"
    CLM = "CLM"
    FMASK = "Fmask"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the mask of that name.

        Raises:
            RasterError: If eofm does not know how to read it.
        """
        text = str(text)
        found = next((mask for mask in cls if mask.is_called(text)), None)
        if found is not None:
            return found
        near = difflib.get_close_matches(text.upper(), list(cls), n=1)
        raise RasterError(
            f"no cloud mask is called {text!r}",
            found=text,
            expected=" | ".join(cls),
            remedy=f"did you mean '{near[0]}'?" if near else None,
        )

    def is_called(self, name: str) -> bool:
        """Return whether a product calls this mask by that name."""
        return word_of(name) in _SPELLINGS[self]

    def clouded(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return where there is cloud, shadow or nothing to judge by, for values as stored."""
        known = np.isfinite(values)
        stored = np.where(known, values, 0).astype(np.int64)
        masked: NDArray[np.bool_] = ~known
        if self is CloudMask.SCL:
            masked |= np.isin(stored, (0, 1, 3, 8, 9, 10))
        elif self is CloudMask.QA60:
            masked |= (stored & (1 << 10 | 1 << 11)) != 0
        elif self is CloudMask.FMASK:
            masked |= ((stored & 0b1110) != 0) | (stored == 255)
        elif self is CloudMask.CLM:
            masked |= stored != 0
        else:
            masked |= stored >= (40 if self is CloudMask.MSK_CLDPRB else 102)
        return masked


_SPELLINGS: Final[Mapping[CloudMask, frozenset[str]]] = {
    CloudMask.SCL: frozenset({"scl"}),
    CloudMask.QA60: frozenset({"qa60"}),
    CloudMask.MSK_CLDPRB: frozenset(
        {"mskcldprb", "cldprb", "probability", "cloudprobability", "cloudprobabilities", "cld"}
    ),
    CloudMask.CLP: frozenset({"clp"}),
    CloudMask.CLM: frozenset({"clm"}),
    CloudMask.FMASK: frozenset({"fmask"}),
}


def word_of(name: str) -> str:
    """Return a name in lower case, without separators and resolution: `SCL_20m` is `scl`."""
    return _WORD.sub("", _RESOLUTION.sub("", name.strip().casefold()))


def is_beside(name: str) -> bool:
    """Return whether a name is that of a band beside the measurement."""
    return word_of(name) in _BESIDE


def declares_measured(name: str) -> bool:
    """Return whether a band of that name is 0 where nothing was measured, and not 0 elsewhere."""
    return word_of(name) in _DECLARES


@dataclass(frozen=True)
class Clouds:
    """An open cloud mask.

    Args:
        mask: How its values are read.
        dataset: Its file.
        index: Its number in the file, counted from 1.
        grid: Of the finest band of the image. The mask's pixels are as large, or a whole multiple,
            or a whole fraction.

    Raises:
        RasterError: If the mask covers other ground than the image.
    """

    mask: CloudMask
    dataset: DatasetReader
    index: int
    grid: Grid

    def __post_init__(self) -> None:
        own, fine = grid_of(self.dataset), self.grid
        ratio, rest = divmod(max(fine.height, own.height), min(fine.height, own.height))
        coarse = own.width * ratio == fine.width and own.height * ratio == fine.height
        finer = fine.width * ratio == own.width and fine.height * ratio == own.height
        fits = not rest and (coarse or finer) and own.crs == fine.crs
        if not fits or not np.allclose(own.bounds, fine.bounds, rtol=0, atol=abs(fine.transform.a)):
            raise RasterError(
                "a cloud mask covers other ground than its image",
                found=f"{own.height} x {own.width} pixels",
                expected=f"a whole fraction or multiple of {fine.height} x {fine.width} pixels on "
                "one ground",
                where=self.dataset.name,
                remedy="cut both to the same extent",
            )

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Return where a window of the image, on its finest grid, is under clouds."""
        n = self.dataset.height // self.grid.height
        if n > 1:  # a pixel is clouded where anything below it is
            finer = Window(window.row * n, window.col * n, window.height * n, window.width * n)
            below = self.mask.clouded(self._values(finer))
            return np.asarray(below.reshape(window.height, n, window.width, n).any(axis=(1, 3)))
        r = self.grid.height // self.dataset.height
        top, left = window.row // r, window.col // r
        bottom, right = -(-(window.row + window.height) // r), -(-(window.col + window.width) // r)
        values = self._values(Window(top, left, bottom - top, right - left))
        fine = self.mask.clouded(values).repeat(r, 0).repeat(r, 1)
        row, col = window.row - top * r, window.col - left * r
        return fine[row : row + window.height, col : col + window.width]

    def _values(self, window: Window) -> NDArray[Any]:
        place = RasterioWindow(window.col, window.row, window.width, window.height)
        try:
            values: NDArray[Any] = self.dataset.read(self.index, window=place)
        except RasterioError as error:
            raise damaged(self.dataset.name, error) from error
        return values
