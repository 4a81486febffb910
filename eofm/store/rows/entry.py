"""One row of a store's index, and how counted land cover labels it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from eofm.landcover.multilabel import Cover, multi_label
from eofm.store.format import LabelRule


@dataclass(frozen=True)
class Entry:
    """What the index says of one image.

    Args:
        id: Unique in the store.
        location: The place: images of one place overlap, or repeat one another in time.
        season: Which of several images of one place.
        longitude: Of the centre, degrees east.
        latitude: Of the centre, degrees north.
        date: `YYYY-MM-DDTHH:MM:SS`, or empty where unknown.
        source: Name of the image it was cut from.
        source_unit: The unit that image was stated to be in.
        fraction: Share of each class in the valid map pixels.
        multi_hot: 1 where a class is present; zeros where the labels are unknown.
        known: Whether the labels are known.
        valid_share: Share of the measured pixels of the image for which the map names a class.
        split: `train`, `val` or `test`, where the data set has an official division; else empty.
        crs: CRS of the image, an authority code or WKT; empty where unknown.
        transform: Coefficients a, b, c, d, e, f from (column, row) of a pixel corner on the finest
            grid to coordinates in that CRS; None where unknown.
    """

    id: str
    location: str
    season: str
    longitude: float
    latitude: float
    date: str
    source: str
    source_unit: str
    fraction: tuple[float, ...] = ()
    multi_hot: tuple[int, ...] = ()
    known: bool = False
    valid_share: float = 0.0
    split: str = ""
    crs: str = ""
    transform: tuple[float, ...] | None = None

    def labelled(self, cover: Cover, rule: LabelRule) -> Entry:
        """Return the entry with the labels that the land cover of its measured pixels gives it.

        Args:
            cover: Share of each class of the rule.
            rule: Threshold and least share of valid pixels.
        """
        present, known = multi_label(cover, rule.threshold, rule.min_valid)
        return replace(
            self,
            fraction=tuple(cover.fractions.tolist()),
            multi_hot=tuple(present.tolist()),
            known=known,
            valid_share=cover.valid_share,
        )

    def unlabelled(self, rule: LabelRule) -> Entry:
        """Return the entry of an image that no map covers."""
        classes = len(rule.classes)
        return replace(self, fraction=(0.0,) * classes, multi_hot=(0,) * classes)
