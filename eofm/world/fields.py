"""The shapes of the land: fractal fields, parcels, winding lines.

Shapes: n fields, H by W pixels (always square here), all float32 unless said.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


def fractal(rng: np.random.Generator, size: int, betas: Sequence[float]) -> Floats:
    """Return fields with power spectra 1/f^beta, each of zero mean and unit variance.

    Spectral synthesis on a grid half as large again, so that opposite edges do not match.

    Args:
        rng: Source of randomness.
        size: Height and width.
        betas: One exponent per field: 0 is white, 2 rugged like bark, 4 smooth like hills.

    Returns:
        (n, H, W).
    """
    grid = size + size // 2 + size % 2
    frequency = np.hypot(np.fft.fftfreq(grid)[:, None], np.fft.rfftfreq(grid)[None])
    frequency[0, 0] = np.inf  # no mean: an infinite frequency has no power
    decay = -np.asarray(betas, np.float32)[:, None, None] / 2 * np.log(frequency.astype(np.float32))
    noise = rng.standard_normal((2, *decay.shape), dtype=np.float32)
    spectrum = (noise[0] + np.complex64(1j) * noise[1]) * np.exp(decay)
    field = np.fft.irfft2(spectrum, s=(grid, grid))[:, :size, :size]
    field -= field.mean((1, 2), keepdims=True)
    field /= field.std((1, 2), keepdims=True)
    return field.astype(np.float32)


def below(field: Floats, share: float) -> Bools:
    """Return where the field is among its lowest `share` of values, (H, W)."""
    if share <= 0:
        return np.zeros(field.shape, bool)
    return field <= np.quantile(field, min(share, 1.0))


def coordinates(size: int) -> tuple[Floats, Floats]:
    """Return row and column of each pixel from the centre, twice (H, W)."""
    axis = np.arange(size, dtype=np.float32) - (size - 1) / 2
    return np.meshgrid(axis, axis, indexing="ij")


def winding(rng: np.random.Generator, size: int, bend: float) -> Floats:
    """Return the distance in pixels to a winding line through the scene, (H, W).

    Args:
        rng: Source of randomness.
        size: Height and width.
        bend: How far the line swings, as a share of the scene; 0 is straight.
    """
    row, column = coordinates(size)
    angle, offset = rng.uniform(0, np.pi), rng.normal(0, 0.18) * size
    along = column * np.cos(angle) + row * np.sin(angle)
    across = row * np.cos(angle) - column * np.sin(angle) - offset
    path = _profile(rng, 2 * size) * bend * size
    steep = np.gradient(path)
    index = np.clip(along + size, 0, 2 * size - 1).astype(np.int64)
    distance: Floats = np.abs(across - path[index]) / np.sqrt(1 + steep[index] ** 2)
    return distance


def _profile(rng: np.random.Generator, length: int) -> Floats:
    """Return a smooth random curve of unit variance, (length,)."""
    frequency = np.fft.rfftfreq(2 * length)
    noise = rng.standard_normal((2, len(frequency)))
    frequency[0] = np.inf
    curve = np.fft.irfft((noise[0] + 1j * noise[1]) * frequency**-1.9)[:length]
    curve = np.convolve(np.pad(curve, 3, mode="edge"), np.full(7, 1 / 7), mode="valid")
    standard: Floats = ((curve - curve.mean()) / curve.std()).astype(np.float32)
    return standard


def parcels(
    rng: np.random.Generator,
    size: int,
    width: float,
    length: float,
    districts: int,
    bent: Floats,
    *,
    turn: float = 0.4,
) -> Ints:
    """Cut the scene into parcels: strips of varying width, cut across, turned per district.

    Args:
        rng: Source of randomness.
        size: Height and width.
        width: Mean width of a strip in pixels.
        length: Mean length of a parcel along its strip in pixels.
        districts: Number of regions with an orientation of their own.
        bent: Two fields (2, H, W), in pixels, by which the lines are bent.
        turn: Standard deviation of a district's angle in radians.

    Returns:
        Parcel numbers from 1, (H, W) int32.
    """
    row, column = coordinates(size)
    row, column = row + bent[0], column + bent[1]
    seeds = rng.uniform(-size / 2, size / 2, (districts, 2)).astype(np.float32)
    gap = (row - seeds[:, :1, None]) ** 2 + (column - seeds[:, 1:, None]) ** 2
    district = gap.argmin(0)
    base = rng.uniform(0, np.pi)
    strips = int(3 * size / width) + 8
    number = np.zeros((size, size), np.int64)
    for i in range(districts):
        inside = district == i
        angle = base + rng.normal(0, turn)
        edges = np.cumsum(rng.gamma(8, width / 8, strips)) - 1.5 * size
        lengths = np.maximum(length * rng.lognormal(0, 0.35, strips + 1), 1.0)
        phase = rng.uniform(0, 1, strips + 1)
        u = column[inside] * np.cos(angle) + row[inside] * np.sin(angle)
        v = row[inside] * np.cos(angle) - column[inside] * np.sin(angle)
        strip = np.searchsorted(edges, u)
        cut = np.floor(v / lengths[strip] + phase[strip]).astype(np.int64) + 4 * size
        number[inside] = (i * (strips + 1) + strip) * (8 * size) + cut
    inverse = np.unique(number, return_inverse=True)[1]
    return (inverse.reshape(size, size) + 1).astype(np.int32)


def borders(number: Ints) -> Bools:
    """Return the pixels whose right or lower neighbour is of another parcel, (H, W)."""
    edge = np.zeros(number.shape, bool)
    edge[:, :-1] |= number[:, 1:] != number[:, :-1]
    edge[:-1] |= number[1:] != number[:-1]
    return edge


def smooth(field: Floats, side: float) -> Floats:
    """Return the field after a 3 x 3 separable kernel (side, 1 - 2 side, side), edges repeated.

    Args:
        field: (..., H, W).
        side: Weight of each neighbour, 0 to 1/3.
    """
    for axis in (-1, -2):
        first, last = _slices(axis, slice(0, -1)), _slices(axis, slice(1, None))
        out: Floats = field * np.float32(1 - 2 * side)
        out[last] += side * field[first]
        out[first] += side * field[last]
        for end in (slice(0, 1), slice(-1, None)):
            out[_slices(axis, end)] += side * field[_slices(axis, end)]
        field = out
    return field


def _slices(axis: int, part: slice) -> tuple[EllipsisType | slice, ...]:
    return (..., part) if axis == -1 else (..., part, slice(None))


def coarsen(field: Floats, factor: int) -> Floats:
    """Return means of factor x factor blocks of the last two axes."""
    *head, height, width = field.shape
    blocks = field.reshape(*head, height // factor, factor, width // factor, factor)
    mean: Floats = blocks.mean((-3, -1), dtype=np.float32)
    return mean
