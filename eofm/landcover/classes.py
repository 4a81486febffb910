"""From land-cover maps to multi-labels: class codes, covered fractions, labels.

A scheme is a table of codes. Which pixels of a map say nothing (nodata, cloud) is part of it, and
a code that it does not know is an error, never a class of its own.

Shapes: h by w map pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eofm.errors import LabelError
from eofm.landcover.schemes import SCHEMES, Scheme

__all__ = [
    "SCHEMES",
    "ClassMap",
    "Cover",
    "Scheme",
    "class_fractions",
    "count_codes",
    "multi_label",
    "multi_labels",
    "strange_codes",
    "unknown_codes",
]

ClassMap = NDArray[np.int32]


@dataclass(frozen=True)
class Cover:
    """How much of a window each class covers.

    Args:
        fractions: float32 (K,), share of each class in the valid pixels; zeros where none is.
        valid_share: Share of the pixels that are neither nodata nor cloud.
        cloud_share: Share of the pixels that are cloud.
    """

    fractions: NDArray[np.float32]
    valid_share: float
    cloud_share: float


def class_fractions(class_map: NDArray[np.integer], scheme: Scheme, where: object = None) -> Cover:
    """Count a class map.

    Args:
        class_map: Codes of the scheme, (h, w).
        scheme: What they mean.
        where: Which map and window it is, for the message of an error.

    Raises:
        LabelError: If the map holds codes that the scheme does not know, or no pixel.
    """
    if class_map.size == 0:
        raise LabelError("a class map without pixels", found=class_map.shape, where=where)
    counts = count_codes(class_map, scheme)
    if not scheme.ignore_unknown and int(counts.sum()) != class_map.size:
        raise unknown_codes(strange_codes(class_map, scheme), scheme, where)
    covered, cloud = counts[:-2], int(counts[-1])
    valid = int(covered.sum())
    return Cover(
        (covered / max(valid, 1)).astype(np.float32),
        valid / class_map.size,
        cloud / class_map.size,
    )


def count_codes(class_map: NDArray[np.integer], scheme: Scheme) -> NDArray[np.int64]:
    """Return the pixels of each class, of nodata and of cloud, int64 (K + 2,).

    Pixels of codes that the scheme does not know are in none of them.
    """
    flat = class_map.ravel()
    top = max(scheme.codes)
    if int(flat.min()) < 0 or int(flat.max()) > top:
        flat = flat[(flat >= 0) & (flat <= top)]
    per_code = np.bincount(flat, minlength=top + 1)[list(scheme.codes)]
    counts = np.zeros(len(scheme.names) + 2, np.int64)
    np.add.at(counts, scheme.columns, per_code)
    return counts


def strange_codes(class_map: NDArray[np.integer], scheme: Scheme) -> dict[int, int]:
    """Return the codes of a map that its scheme does not know, with their pixels."""
    codes, pixels = np.unique(class_map, return_counts=True)
    known = set(scheme.codes)
    pairs = zip(codes.tolist(), pixels.tolist(), strict=True)
    return {code: count for code, count in pairs if code not in known}


def unknown_codes(strange: Mapping[int, int], scheme: Scheme, where: object) -> LabelError:
    """Return the error to raise for codes that a scheme does not know.

    Args:
        strange: Code -> pixels that have it.
        scheme: The scheme.
        where: Which map and window it is.
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
        cover: The count.
        threshold: Share of the valid pixels.
        min_valid: Least share of valid pixels.

    Returns:
        uint8 (K,), zeros where unknown; and whether it is known.
    """
    shares = np.array([cover.valid_share])
    present, known = multi_labels(cover.fractions[None], shares, threshold, min_valid)
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
        valid_shares: Share of the pixels that are valid, (N,).
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
