"""Which exceptions a network needs for images, of those granted and those a user forces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from eofm.contract.recipe import AcceptSensor, FillBand, Recipe, Waiver
from eofm.contract.spec import ImageSpec
from eofm.errors import MismatchKind

# What `--force` may turn into a waiver. A wrong unit, size or normalisation cannot be forced:
# there is no number to be had from them.
FORCEABLE: Final = (MismatchKind.SENSOR, MismatchKind.BANDS)
FORCED_WHY: Final = "forced on the command line"


def waivers_for(
    spec: ImageSpec,
    recipe: Recipe,
    granted: Sequence[Waiver] = (),
    forced: Sequence[MismatchKind] = (),
) -> tuple[Waiver, ...]:
    """Return the waivers that `plan(spec, recipe)` needs, as far as there are any.

    A sensor is only ever accepted for another that has bands of the same name: no waiver makes
    radar of Sentinel-2, or three bands of a photograph those of Sentinel-2.

    Args:
        spec: What the images are.
        recipe: What the network expects.
        granted: By the task.
        forced: By the user.
    """
    missing = [band for band in recipe.bands if band not in spec.bands]
    if len(missing) == len(recipe.bands):
        return ()
    needed: list[Waiver] = []
    if spec.sensor is not recipe.sensor:
        forced_sensor = AcceptSensor(spec.sensor, FORCED_WHY)
        offers = [w for w in granted if isinstance(w, AcceptSensor) and w.sensor is spec.sensor]
        needed += offers[:1] or ([forced_sensor] if MismatchKind.SENSOR in forced else [])
    for band in missing:
        fills = [w for w in granted if isinstance(w, FillBand) and w.band == band]
        if not fills and MismatchKind.BANDS in forced:
            fills = [FillBand(band, 0.0, FORCED_WHY)]
        needed += fills[:1]
    return tuple(needed)
