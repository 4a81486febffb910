"""One location drawn from its biome: its land cover, constant over the year.

The shapes of the land are fractal fields, parcels and winding lines.

Shapes: n fields, H by W pixels of 10 m (always square here), all float32 unless said; U units, a
unit being one patch of one surface (a field, a roof, all the conifers); S surfaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Final

import numpy as np
import numpy.typing as npt

from eofm.world.places import Biome, Span
from eofm.world.spectra import SURFACE_INDEX, SURFACES

__all__ = [
    "PIXEL",
    "Bools",
    "Floats",
    "Ints",
    "Landscape",
    "Shares",
    "below",
    "borders",
    "coarsen",
    "coordinates",
    "draw_landscape",
    "fractal",
    "parcels",
    "smooth",
    "winding",
]

# ------------------------------------------------------------------------------- shapes of the land

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
        districts: Number of regions, each with its own orientation.
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


# ------------------------------------------------------------------------------------ the landscape

PIXEL: Final = 10.0  # metres
Shares = npt.NDArray[np.float64]  # of surfaces, sum 1
_WATERS = ("deep water", "clear water", "turbid water")
_PATCHES = 2**32  # more than there can be parcels


@dataclass(frozen=True)
class Landscape:
    """A location without weather.

    Args:
        unit: Unit of each pixel, (H, W).
        surface: Surface of each unit, (U,).
        delay: Days by which each unit grows later than its kind, (U,).
        vigour: Greenness of each unit relative to its kind, (U,).
        tone: Brightness of each unit relative to its kind, (U,).
        tint: Natural log of the brightness of each surface at this place: level and
            spectral slope, (S, 2).
        texture: Rough, medium and smooth texture, zero mean and unit variance, (3, H, W).
        facets: Radar texture that stays from pass to pass, in standard deviations, (H, W).
        height: Metres above the mean of the scene, (H, W).
        base_height: Mean height of the scene in metres.
    """

    unit: Ints
    surface: Ints
    delay: Floats
    vigour: Floats
    tone: Floats
    tint: Floats
    texture: Floats
    facets: Floats
    height: Floats
    base_height: float


class _Canvas:
    """The scene while it is painted; later paint covers earlier paint."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.surface = np.zeros((size, size), np.int32)
        self.patch = np.zeros((size, size), np.int32)
        self._patches = 1

    def paint(self, where: Bools, surface: str) -> None:
        """Paint one surface as a single patch."""
        self.surface[where] = SURFACE_INDEX[surface]
        self.patch[where] = 0

    def paint_parcels(
        self, rng: np.random.Generator, where: Bools, number: Ints, mix: Mapping[str, float]
    ) -> None:
        """Paint every parcel with a surface drawn from the mix."""
        names = [SURFACE_INDEX[name] for name in mix]
        drawn = rng.choice(names, int(number.max()) + 1, p=_shares(mix))
        self.surface[where] = drawn[number[where]]
        self.patch[where] = number[where] + self._patches
        self._patches += int(number.max()) + 1

    def is_any(self, *names: str) -> Bools:
        """Return the pixels of some surfaces, bool (H, W)."""
        return np.isin(self.surface, [SURFACE_INDEX[name] for name in names])


def _shares(mix: Mapping[str, float]) -> Shares:
    shares = np.array(list(mix.values()), np.float64)
    normal: Shares = shares / shares.sum()
    return normal


def draw_landscape(rng: np.random.Generator, biome: Biome, size: int) -> Landscape:
    """Draw a location of a biome, (size, size) pixels."""
    canvas = _Canvas(size)
    # heights, town and field limits, sea and lakes, bends of lines
    relief, field, town, wet, bend_row, bend_column = fractal(
        rng, size, (4.2, 2.6, 2.2, 3.2, 3.0, 3.0)
    )
    bent = np.stack([bend_row, bend_column]) * np.float32(rng.uniform(0.5, 2.5))
    height = _heights(relief, biome)
    _paint_nature(rng, canvas, biome, height)
    towns = _town_limits(rng, canvas, biome, town)
    _paint_farmland(rng, canvas, biome, field, bent)
    _paint_towns(rng, canvas, biome, towns, bent)
    _paint_roads(rng, canvas, biome)
    if biome.by_height:  # in the mountains water gathers in the valleys
        wet = height / height.std() + np.float32(0.3) * wet
    _paint_water(rng, canvas, biome, wet)
    return _finish(rng, canvas, biome, height)


def _heights(relief: Floats, biome: Biome) -> Floats:
    """Return heights in metres; mountains get ridges by folding the field at its mean."""
    if biome.by_height:
        relief = smooth(smooth(-np.abs(relief), 0.25), 0.25)
        relief = relief - relief.mean()
    down, right = np.gradient(relief, PIXEL)
    height: Floats = relief * (biome.slope / np.sqrt((down**2 + right**2).mean()))
    return height


def _paint_nature(rng: np.random.Generator, canvas: _Canvas, biome: Biome, height: Floats) -> None:
    """Fill the scene: belts by height in the mountains, else the strongest of fractal fields."""
    names, share = list(biome.nature), _shares(biome.nature)
    # places differ: a location has its own mixture around that of the biome
    share = rng.dirichlet(share * 3 + 0.02)
    fields = fractal(rng, canvas.size, tuple(rng.uniform(2.1, 3.0, len(names))))
    if biome.by_height:
        order = height / height.std() + 0.35 * fields[0]
        limits = np.quantile(order, np.cumsum(share)[:-1])
        winner = np.searchsorted(limits, order)
    else:
        winner = (fields + 1.4 * np.log(share + 1e-3)[:, None, None]).argmax(0)
    for i, name in enumerate(names):
        canvas.paint(winner == i, name)


def _draw(rng: np.random.Generator, span: Span) -> float:
    """Draw from a span; values below zero become zero, so a negative start means "often none"."""
    return max(float(rng.uniform(*span)), 0.0)


def _town_limits(rng: np.random.Generator, canvas: _Canvas, biome: Biome, rugged: Floats) -> Bools:
    """Return the built-up area: nearness to a few centres, frayed by a fractal field."""
    share = _draw(rng, biome.towns)
    row, column = coordinates(canvas.size)
    near = np.full(row.shape, np.inf, np.float32)
    for _ in range(max(1, int(rng.integers(1, biome.centres + 1)))):
        y, x = rng.uniform(-0.5, 0.5, 2) * canvas.size
        reach = canvas.size * rng.uniform(0.1, 0.35)
        near = np.minimum(near, ((row - y) ** 2 + (column - x) ** 2) / reach**2)
    return below(np.sqrt(near) + 0.35 * rugged, share)


def _paint_farmland(
    rng: np.random.Generator, canvas: _Canvas, biome: Biome, field: Floats, bent: Floats
) -> None:
    share = _draw(rng, biome.farmed)
    if share == 0:
        return
    if rng.random() < biome.pivots:
        _paint_pivots(rng, canvas, biome, share)
        return
    if rng.random() < biome.ribs:
        field = _ribs(rng, canvas.size) + 0.5 * field
    farmed = below(field, share)
    width, length = (s * float(rng.lognormal(0, 0.25)) for s in biome.parcel)
    number = parcels(rng, canvas.size, width, length, int(rng.integers(2, 6)), bent)
    if rng.random() < 0.5:  # half of the farms end where a parcel ends
        inside = np.bincount(number.ravel(), farmed.ravel() - 0.5)
        farmed = inside[number] > 0
    mix = dict(zip(biome.crops, rng.dirichlet(_shares(biome.crops) * 4 + 0.02), strict=True))
    canvas.paint_parcels(rng, farmed, number, mix)
    edge = borders(number) & farmed
    if rng.random() < biome.hedges:
        canvas.paint(edge & (rng.random(edge.shape) < 0.75), "broadleaf")
    elif width > 8:  # grass along some of the tracks
        canvas.paint(edge & (rng.random(int(number.max()) + 1) < 0.2)[number], "lawn")


def _paint_pivots(rng: np.random.Generator, canvas: _Canvas, biome: Biome, share: float) -> None:
    """Irrigated circles on a grid, some split in sectors."""
    row, column = coordinates(canvas.size)
    radius = float(rng.uniform(14, 38))
    start = rng.uniform(0, 2 * radius, 2)
    cell_y = np.floor((row + start[0]) / (2 * radius)).astype(np.int32)
    cell_x = np.floor((column + start[1]) / (2 * radius)).astype(np.int32)
    y = row + start[0] - (cell_y + 0.5) * 2 * radius
    x = column + start[1] - (cell_x + 0.5) * 2 * radius
    cell_x -= cell_x.min()
    number = (cell_y - cell_y.min()) * (int(cell_x.max()) + 1) + cell_x
    worked = rng.random(int(number.max()) + 1) < max(share * 1.8, 0.4)
    halves = rng.random(int(number.max()) + 1) < 0.4
    number = number * 2 + (halves[number] & (x * np.cos(number) + y * np.sin(number) > 0)) + 1
    circle = (np.hypot(x, y) < radius * 0.96) & worked[(number - 1) // 2]
    canvas.paint_parcels(rng, circle, number.astype(np.int32), biome.crops)


def _ribs(rng: np.random.Generator, size: int) -> Floats:
    """Return the distance to parallel tracks that leave a main track, in units of their gap."""
    row, column = coordinates(size)
    angle, gap = rng.uniform(0, np.pi), rng.uniform(0.3, 0.6) * size
    along = column * np.cos(angle) + row * np.sin(angle) + rng.uniform(0, gap)
    across = row * np.cos(angle) - column * np.sin(angle)
    rib = np.abs((along / gap) % 1 - 0.5) * 2
    field: Floats = (np.minimum(1 - rib, np.abs(across) / gap) * 3).astype(np.float32)
    return field


def _paint_towns(
    rng: np.random.Generator, canvas: _Canvas, biome: Biome, towns: Bools, bent: Floats
) -> None:
    """Street blocks of houses with gardens, of halls, of towers, and parks."""
    if not towns.any():
        return
    size, turn = canvas.size, float(rng.uniform(0.05, 0.5))
    width, length = (s * float(rng.lognormal(0, 0.2)) for s in biome.block)
    districts = int(rng.integers(1, 6))
    number = parcels(rng, size, width, length, districts, bent * 0.5, turn=turn)
    lots = parcels(rng, size, 2.2, 2.6, districts, bent * 0.5, turn=turn)
    dense = min(biome.dense * float(rng.uniform(0.3, 1.7)), 0.8)
    park = float(rng.uniform(0.03, 0.15))
    kinds = rng.choice(4, int(number.max()) + 1, p=_blocks(dense, park))[number]
    green = float(rng.uniform(0.3, 0.65))
    halls = parcels(rng, size, 5.5, 8, districts, bent * 0.5, turn=turn)
    for kind, (plots, mix) in enumerate(
        (
            (lots, {"detached": 0.55, "garden": green * 0.6, "houses": 0.6 - green * 0.6}),
            (halls, {"halls": 0.55, "street": 0.38, "garden": 0.07}),
            (lots, {"towers": 0.4, "houses": 0.34, "garden": 0.16, "street": 0.1}),
            (number, {"broadleaf": 0.65, "lawn": 0.35}),
        )
    ):
        canvas.paint_parcels(rng, towns & (kinds == kind), plots, mix)
    # wide paths between parcels are streets; narrow ones are hidden between houses
    canvas.paint(borders(number) & towns & (kinds != 3), "street")


def _blocks(dense: float, park: float) -> Shares:
    """Return the shares of house, hall, tower and park blocks."""
    return np.array([(1 - dense) * (1 - park), dense * 0.45, dense * 0.55, (1 - dense) * park])


def _paint_roads(rng: np.random.Generator, canvas: _Canvas, biome: Biome) -> None:
    """A road or two; where people build there are more."""
    busy = sum(biome.towns) > 0.08
    for _ in range(int(rng.poisson(1.4 if busy else 0.5))):
        width = 1.3 if busy and rng.random() < 0.15 else 0.5
        road = winding(rng, canvas.size, float(rng.uniform(0, 0.08))) < width
        canvas.paint(road, "street" if busy or rng.random() < 0.5 else "open soil")


def _paint_water(rng: np.random.Generator, canvas: _Canvas, biome: Biome, wet: Floats) -> None:
    """A river, lakes and the sea, each over the one before."""
    if rng.random() < biome.river[0]:
        _paint_river(rng, canvas, biome, wet)
    if rng.random() < biome.lakes[0]:
        level = np.float32(np.quantile(wet, rng.uniform(*biome.lakes[1])))
        _paint_banks(rng, canvas, biome, (wet - level) * np.float32(canvas.size / 10))
        canvas.paint(wet < level, str(rng.choice(_WATERS)))
    if rng.random() < biome.sea:
        _paint_sea(rng, canvas, wet)


def _paint_river(rng: np.random.Generator, canvas: _Canvas, biome: Biome, wet: Floats) -> None:
    reach = float(np.exp(rng.uniform(*np.log(biome.river[1]))))
    line = winding(rng, canvas.size, float(rng.uniform(0.05, 0.2)))
    line -= np.float32(reach) * (1 + np.float32(0.2) * wet)
    _paint_banks(rng, canvas, biome, line)
    canvas.paint(line < 0, "turbid water" if rng.random() < 0.67 else "clear water")
    if reach > 3:  # bars of gravel
        canvas.paint((line < -0.3) & (line > -2.2) & (wet > 1.2), "open soil")


def _paint_sea(rng: np.random.Generator, canvas: _Canvas, wet: Floats) -> None:
    row, column = coordinates(canvas.size)
    angle = rng.uniform(0, 2 * np.pi)
    shore = (row * np.sin(angle) + column * np.cos(angle)) / (0.28 * canvas.size) + 0.45 * wet
    level = float(rng.uniform(-0.8, 0.6))
    canvas.paint(np.abs(shore - level) < rng.uniform(0.02, 0.10), "pale sand")
    canvas.paint(shore < level, "clear water")
    canvas.paint(shore < level - rng.uniform(0.1, 0.5), "deep water")


def _paint_banks(rng: np.random.Generator, canvas: _Canvas, biome: Biome, distance: Floats) -> None:
    """Marsh or trees within a few pixels of water; a shore in town stays built."""
    free = ~canvas.is_any("houses", "detached", "halls", "towers", "street", "garden", *_WATERS)
    frayed = distance + fractal(rng, canvas.size, (2.0,))[0] * 1.5
    if biome.marsh and rng.random() < 0.7:
        canvas.paint((frayed < biome.marsh * rng.uniform(0.5, 2)) & free, "marsh")
    elif "pale sand" not in biome.nature and rng.random() < 0.7:
        canvas.paint((frayed < rng.uniform(0.5, 4)) & free, "broadleaf")


def _finish(rng: np.random.Generator, canvas: _Canvas, biome: Biome, height: Floats) -> Landscape:
    """Number the units and draw their individual properties."""
    key = canvas.surface.astype(np.int64) * _PATCHES + canvas.patch
    units, unit = np.unique(key, return_inverse=True)
    surface = (units // _PATCHES).astype(np.int32)
    single = units % _PATCHES > 0  # parcels differ from each other, natural patches do not
    count = len(units)
    spread = np.where(single, 1.0, 0.3).astype(np.float32)
    built = np.isin(surface, [i for i, s in enumerate(SURFACES.values()) if s.facets >= 3])
    tone = rng.standard_normal(count).astype(np.float32) * np.where(built, 0.15, 0.09) * spread
    texture = fractal(rng, canvas.size, (0.9, 1.8, 3.0))
    return Landscape(
        unit=unit.reshape(key.shape).astype(np.int32),
        surface=surface,
        delay=rng.standard_normal(count).astype(np.float32) * 9 * spread,
        vigour=np.clip(1 - 0.3 * np.abs(rng.standard_normal(count)), 0.25, 1).astype(np.float32),
        tone=np.exp(tone).astype(np.float32),
        tint=rng.normal(0, (0.13, 0.06), (len(SURFACES), 2)).astype(np.float32),
        texture=texture,
        facets=rng.standard_normal(key.shape, dtype=np.float32),
        height=height.astype(np.float32),
        base_height=float(rng.uniform(800, 2200)) if biome.by_height else 100.0,
    )
