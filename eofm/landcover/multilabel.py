"""From land-cover codes to multi-labels: pixels of each class, their shares, labels.

Only *seen* ground is counted: where the image is not measured (its nodata, its margin), nobody
could see the class, whatever the map says there. So of the seen pixels

    valid_share    is the share for which the map names a class (not nodata, not cloud),
    cloud_share    the share that the map calls cloud,
    fraction       of a class its share in the pixels for which the map names one,

and of a window of a map, which has no image, every pixel is seen. A code that the scheme does not
know is an error, never a class of its own.

Shapes: h by w pixels, N images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from eofm.errors import LabelError
from eofm.landcover.schemes import SCHEMES, Scheme

ClassMap = NDArray[np.int32]
Seen = NDArray[np.bool_]


class Reason(StrEnum):
    """Why labels are unknown."""

    KNOWN = ""
    NO_MAP = "no map overlaps"
    NO_DATE = "the scene has no date"
    NOT_IN_TIME = "no map within the days allowed"
    UNSEEN = "the image has no measured pixel"
    TOO_LITTLE = "too few valid map pixels"
    NO_CLASS = "no class reaches the threshold"


@dataclass(frozen=True)
class Cover:
    """How much of the seen ground of a window each class covers.

    Args:
        fractions: Share of each class in the valid pixels, float32 (K,); zeros where none is.
        valid_share: Share of the seen pixels that are neither nodata nor cloud.
        cloud_share: Share of the seen pixels that are cloud.
    """

    fractions: NDArray[np.float32]
    valid_share: float
    cloud_share: float

    @classmethod
    def of(cls, counts: NDArray[np.int64], seen: int) -> Cover:
        """Return the cover of a window.

        Args:
            counts: Pixels of each class, of nodata and of cloud among the seen ones, (K + 2,).
            seen: Number of seen pixels.
        """
        fractions, valid, cloud = shares(counts[None], np.array([seen]))
        return cls(fractions[0], float(valid[0]), float(cloud[0]))


def shares(
    counts: NDArray[np.int64], seen: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Return the shares of N windows.

    Args:
        counts: Pixels of each class, of nodata and of cloud among the seen ones, (N, K + 2).
        seen: Number of seen pixels, (N,).

    Returns:
        Share of each class in the valid pixels (N, K); of valid and of cloud pixels in the seen
        ones, (N,) each, 0 where none is seen.
    """
    covered, cloud = counts[:, :-2], counts[:, -1]
    valid, whole = covered.sum(axis=1), np.maximum(seen, 1)
    fractions = (covered / np.maximum(valid, 1)[:, None]).astype(np.float32)
    return fractions, valid / whole, cloud / whole


def class_fractions(
    class_map: NDArray[np.integer], scheme: Scheme, where: object = None, seen: Seen | None = None
) -> Cover:
    """Count a class map.

    Args:
        class_map: Codes of the scheme, (h, w).
        scheme: Meaning of the codes.
        where: Map and window, for the message of an error.
        seen: Pixels that the image measures, (h, w); None counts all.

    Raises:
        LabelError: If the map holds codes that the scheme does not know, or no pixel.
    """
    if class_map.size == 0:
        raise LabelError("a class map without pixels", found=class_map.shape, where=where)
    counts = count_codes(class_map, scheme, seen)
    pixels = class_map.size if seen is None else int(np.count_nonzero(seen))
    if not scheme.ignore_unknown and int(counts.sum()) != pixels:
        raise unknown_codes(strange_codes(class_map, scheme, seen), scheme, where)
    return Cover.of(counts, pixels)


def count_codes(
    class_map: NDArray[np.integer], scheme: Scheme, seen: Seen | None = None
) -> NDArray[np.int64]:
    """Return the seen pixels of each class, of nodata and of cloud, int64 (K + 2,).

    Pixels of codes that the scheme does not know are in none of them.

    Args:
        class_map: Codes, (h, w).
        scheme: Meaning of the codes.
        seen: Pixels to count, (h, w); None counts all.
    """
    flat = class_map.ravel() if seen is None or seen.all() else class_map[seen]
    counts = np.zeros(len(scheme.names) + 2, np.int64)
    if not flat.size:
        return counts
    top = max(scheme.codes)
    if int(flat.min()) < 0 or int(flat.max()) > top:
        flat = flat[(flat >= 0) & (flat <= top)]
    per_code = np.bincount(flat, minlength=top + 1)[list(scheme.codes)]
    np.add.at(counts, scheme.columns, per_code)
    return counts


def strange_codes(
    class_map: NDArray[np.integer], scheme: Scheme, seen: Seen | None = None
) -> dict[int, int]:
    """Return the codes of the seen pixels that the scheme does not know, with their pixels."""
    codes, pixels = np.unique(class_map if seen is None else class_map[seen], return_counts=True)
    known = set(scheme.codes)
    pairs = zip(codes.tolist(), pixels.tolist(), strict=True)
    return {code: count for code, count in pairs if code not in known}


def unknown_codes(strange: Mapping[int, int], scheme: Scheme, where: object) -> LabelError:
    """Return the error to raise for codes that a scheme does not know.

    Args:
        strange: Code -> pixels that have it.
        scheme: The scheme.
        where: Map and window.
    """
    shown = [f"{code} ({n} pixel{'s' * (n > 1)})" for code, n in strange.items()]
    return LabelError(
        f"the class map holds codes that the scheme {scheme.name} does not know",
        found=", ".join(shown[:10]) + (", ..." if shown[10:] else ""),
        expected=", ".join(map(str, sorted(scheme.codes))),
        where=where,
        remedy=f"choose the scheme of this map ({' | '.join(SCHEMES)}), or describe its codes in "
        "a YAML file of your own; there, `unknown: ignore` counts other codes as nodata",
    )


def multi_label(
    cover: Cover, threshold: float = 0.0, min_valid: float = 0.25
) -> tuple[NDArray[np.uint8], bool]:
    """Return which classes are present, and whether that is known: see `multi_labels`.

    Args:
        cover: Cover of a window.
        threshold: Share of the valid pixels.
        min_valid: Least share of valid pixels.

    Returns:
        uint8 (K,), zeros where unknown; and whether it is known.
    """
    valid = np.array([cover.valid_share])
    present, known = multi_labels(cover.fractions[None], valid, threshold, min_valid)
    return present[0], bool(known[0])


def multi_labels(
    fractions: NDArray[np.float32],
    valid_shares: NDArray[np.floating],
    threshold: float = 0.0,
    min_valid: float = 0.25,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return which classes are present in N windows, and of which windows that is known.

    A class is present where its fraction reaches the threshold; a threshold of 0 means any pixel.
    With too few valid pixels, or where no class reaches the threshold, nothing is known: that is
    not the same as "no class is present", with which soft labels would call an image unlike every
    other, itself included.

    Args:
        fractions: Share of each class in the valid pixels, (N, K).
        valid_shares: Share of the seen pixels that are valid, (N,).
        threshold: Share of the valid pixels.
        min_valid: Least share of valid pixels.

    Returns:
        uint8 (N, K), zeros where unknown; and bool (N,), whether it is known.
    """
    # the fractions are stored as float32: a threshold of 0.1 must mean the same one later
    least = np.float32(threshold)
    present = (fractions > 0) & (fractions >= least)
    known = (valid_shares >= min_valid) & present.any(axis=1)
    return (present & known[:, None]).astype(np.uint8), known
