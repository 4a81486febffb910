"""Embedding vectors with their georeference and provenance.

Vectors come in two layouts. A `ChipTable` has one per chip, a window that is one input image of the
network; a `PatchGrid` has one per patch token, as a raster. Both keep the stored number type and
convert to float32 when read, in full or in part. Both have a `Provenance`: vectors from different
preprocessing plans or models cannot be compared (`require_same_vectors`).

For int8, the range of each dimension is divided into 254 steps. The loss is measured on vectors of
the same job: of the ten nearest neighbours by cosine of a vector in float32, the share that is
among the ten nearest in int8 (recall@10).

Shapes: N chips, D dimensions, Y by X patches.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from eofm.errors import DataError, SpecError
from eofm.formats.foreign import foreign
from eofm.formats.text import parse_json
from eofm.raster.cube import grid_of_array, placed
from eofm.raster.grid import Grid

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from pyproj import CRS

__all__ = [
    "HIDDEN",
    "MAKE_AGAIN",
    "NEIGHBOURS",
    "QUANTIZE_FROM",
    "UNREADABLE",
    "ChipTable",
    "Codes",
    "Layout",
    "PatchGrid",
    "Provenance",
    "Quantization",
    "SceneRecord",
    "codes_of",
    "decoded",
    "has_vector",
    "patch_grid",
    "quantized",
    "recall",
    "relative_step",
    "require_same_vectors",
    "sample_step",
    "wants_codes",
]


HIDDEN: Final = -128  # of int8: missing vector
UNREADABLE: Final = "the embeddings cannot be read"
MAKE_AGAIN: Final = "copy them again, or make them again by eofm embed"


class Layout(StrEnum):
    """Spatial arrangement of vectors."""

    CHIPS = "chips"
    PATCHES = "patches"


class Quantization(StrEnum):
    """Number type of stored vectors."""

    NONE = "none"
    FLOAT16 = "float16"
    INT8 = "int8"


# ----------------------------------------------------------------------------- provenance


@dataclass(frozen=True)
class SceneRecord:
    """A scene from which vectors were made.

    Args:
        id: Name of the product, the item or the file.
        sha256: Hash of its files; empty if they were not hashed.
        date: Acquisition date, ISO 8601 in UTC; empty if unknown.
    """

    id: str
    sha256: str = ""
    date: str = ""


_NO_WORDS: Final = frozenset({"scenes", "settings"})


@dataclass(frozen=True)
class Provenance:
    """Origin of vectors: model, plan, scenes and settings.

    Args:
        model: Name of the weights.
        weights_sha256: Hash of the weights; empty if another program's product does not state it.
        plan_hash: Hash of the plan from the scene's pixels to the network's input; likewise.
        way_hash: Hash of everything that makes two vectors comparable: weights, input size, bands,
            resizing, normalisation, exceptions, and the token used. Two scenes that differ only in
            unit have different plans and the same `way_hash`. For a product of another program, the
            hash of what it states about its model.
        sensor: Sensor and product level; empty if unknown.
        unit: Unit of the scene's values; likewise.
        scenes: Source scenes of the vectors.
        licence: Licence of the vectors: an SPDX identifier, or as stated by the product.
        quantization: Number type of stored vectors.
        settings: Window, stride, margin and the like, in plain types.
    """

    model: str
    weights_sha256: str
    plan_hash: str
    way_hash: str
    sensor: str = ""
    unit: str = ""
    scenes: tuple[SceneRecord, ...] = ()
    licence: str = ""
    quantization: Quantization = Quantization.NONE
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dates(self) -> tuple[str, ...]:
        """Dates of the scenes, sorted and unique, without unknown ones."""
        return tuple(sorted({scene.date for scene in self.scenes if scene.date}))

    def to_json(self) -> str:
        """Return one line of JSON; `from_json` is the inverse."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: object = None) -> Self:
        """Parse the output of `to_json`.

        Args:
            text: One line of JSON.
            where: Location of the text, for messages.

        Raises:
            DataError: If it is something else.
        """
        with foreign(
            DataError,
            "the provenance of these embeddings cannot be read",
            expected="the provenance that eofm writes",
            where=where,
            remedy="embed the scene again, with the version of eofm that reads it",
        ):
            data = parse_json(text)
            data["scenes"] = tuple(SceneRecord(**scene) for scene in data["scenes"])
            data["quantization"] = Quantization(data["quantization"])
            made = cls(**data)
            made._check_types()
            return made

    def _check_types(self) -> None:
        words = {key: value for key, value in vars(self).items() if key not in _NO_WORDS}
        words |= {
            f"scenes {i} {k}": v for i, one in enumerate(self.scenes) for k, v in vars(one).items()
        }
        wrong = [key for key, value in words.items() if not isinstance(value, str)]
        wrong += [] if isinstance(self.settings, dict) else ["settings"]
        if wrong:
            raise ValueError(f"another type: {', '.join(wrong)}")


def require_same_vectors(first: Provenance, second: Provenance) -> None:
    """Raise an error if vectors were made in different ways.

    Raises:
        SpecError: If weights or preprocessing plans are not the same.
    """
    if first.weights_sha256 != second.weights_sha256 or first.model != second.model:
        raise _different("different weights", _weights(second), _weights(first))
    if first.way_hash != second.way_hash:
        raise _different("different ways from pixel to network", _way(second), _way(first))


def _different(how: str, found: str, expected: str) -> SpecError:
    return SpecError(
        f"vectors of {how} cannot be compared",
        found=found,
        expected=expected,
        remedy="embed both with one model and the same chips, as in: eofm embed SCENE --model M "
        "--chips 32 --out DIR",
    )


def _weights(made: Provenance) -> str:
    return f"{made.model}, sha256 {made.weights_sha256[:16] or 'unknown'}"


def _way(made: Provenance) -> str:
    told = (f"{key} {value}" for key, value in made.settings.items() if key != "job")  # a sha256
    settings = ", ".join(told)
    return f"way {made.way_hash[:16] or 'unknown'}" + (f" ({settings})" if settings else "")


# --------------------------------------------------------------------------- quantisation


@dataclass(frozen=True, eq=False)
class Codes:
    """Linear int8 codes per dimension: value = code x scale + offset.

    Args:
        scale: float32 (D,), positive.
        offset: float32 (D,).

    Raises:
        DataError: If shapes or values are invalid.
    """

    scale: NDArray[np.float32]
    offset: NDArray[np.float32]

    def __post_init__(self) -> None:
        scale, offset = self.scale, self.offset
        there = scale.ndim == 1 and scale.shape == offset.shape
        if not (there and np.isfinite(offset).all() and (np.isfinite(scale) & (scale > 0)).all()):
            raise DataError(
                "codes need a scale above 0 and an offset for each dimension",
                found=f"scales {_span(scale)}, offsets {_span(offset)}",
                expected="two lists of finite numbers of the same length",
            )

    @classmethod
    def between(cls, lowest: NDArray[np.float32], highest: NDArray[np.float32]) -> Self:
        """Return the codes that span a range, -127 at the lowest value and 127 at the highest.

        Args:
            lowest: (D,).
            highest: (D,).
        """
        span = highest.astype(np.float64) - lowest
        scale = np.where(span > 0, span / 254, 1.0)
        middle = (highest.astype(np.float64) + lowest) / 2
        least = np.finfo(np.float32).tiny
        return cls(np.maximum(scale, least).astype(np.float32), middle.astype(np.float32))

    def encode(self, vectors: NDArray[np.float32]) -> NDArray[np.int8]:
        """Return the nearest codes of vectors (..., D); `HIDDEN` where a vector is not finite."""
        codes = np.rint((vectors - self.offset) / self.scale)
        there = np.isfinite(codes).all(axis=-1, keepdims=True)
        with np.errstate(invalid="ignore"):
            clipped = np.clip(codes, -127, 127)
        return np.where(there, clipped, HIDDEN).astype(np.int8)

    def decode(self, codes: NDArray[np.int8]) -> NDArray[np.float32]:
        """Return the vectors of codes (..., D); NaN for missing vectors."""
        values = codes.astype(np.float32, order="C") * self.scale + self.offset
        hidden = codes == HIDDEN
        if hidden.any():
            values[hidden] = np.nan
        return values


def _span(values: NDArray[Any]) -> str:
    ends = f", {values.min():g} to {values.max():g}" if values.size else ""
    return f"{values.shape}{ends}"


def _check_codes(codes: Codes | None, dim: int) -> None:
    """Raise an error if codes do not match the vectors.

    Raises:
        DataError: If there is not one code for each dimension.
    """
    if codes is not None and len(codes.scale) != dim:
        raise DataError(
            "there is one code for each dimension",
            found=f"{len(codes.scale)} codes",
            expected=f"{dim}",
        )


def decoded(stored: NDArray[Any], codes: Codes | None) -> NDArray[np.float32]:
    """Return stored numbers (..., D) as contiguous float32 vectors.

    Band planes are transposed once here, not in each product with them.
    """
    return (
        stored.astype(np.float32, order="C", copy=False) if codes is None else codes.decode(stored)
    )


def relative_step(kept: ChipTable | PatchGrid, lengths: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a quantisation step in all dimensions, relative to the vectors' lengths.

    A step of int8 is the scale of its codes; for floating-point numbers it is relative to each
    number. The rounding error of the network is added, that of sums of D products in float32.

    Args:
        kept: The vectors as they are stored.
        lengths: Lengths of some of them, (n,).
    """
    type_ = kept.stored.dtype
    if kept.codes is not None:
        share = float(np.linalg.norm(kept.codes.scale)) / lengths
    elif np.issubdtype(type_, np.floating):
        share = np.full(len(lengths), np.finfo(type_).eps)
    else:
        share = kept.dim**0.5 / lengths
    computed = float(np.finfo(np.float32).eps) * kept.dim**0.5
    return np.asarray(np.hypot(share, computed), np.float32)


# ---------------------------------------------------------------------------------- chips


@dataclass(frozen=True, eq=False)
class ChipTable:
    """One vector per chip.

    Args:
        table: N rows: `geometry`, the outline of the chip; `id`; `datetime`; `valid_share`, its
            share of valid pixels; `cloud_share`, its share of clouds, NaN if no mask was
            requested. Tables of other programs have some of these.
        stored: (N, D) as stored: float32, float16 or int8.
        provenance: Provenance of the vectors.
        codes: Codes of int8.

    Raises:
        DataError: If the numbers of rows and vectors differ.
    """

    table: GeoDataFrame
    stored: NDArray[Any]
    provenance: Provenance
    codes: Codes | None = None

    def __post_init__(self) -> None:
        if self.stored.ndim != 2 or len(self.table) != len(self.stored):
            raise DataError(
                "there is one vector for each chip",
                found=f"{len(self.table)} chips and vectors {self.stored.shape}",
                expected="(chips, dimensions)",
            )
        _check_codes(self.codes, self.dim)

    def __len__(self) -> int:
        return len(self.stored)

    def __repr__(self) -> str:
        return f"ChipTable({len(self)} chips, dim {self.dim}, {_about(self.provenance)})"

    @property
    def dim(self) -> int:
        """Dimensions, D."""
        return int(self.stored.shape[1])

    @property
    def crs(self) -> CRS:
        """CRS of the chips' geometry."""
        crs: CRS = self.table.crs
        return crs

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """All vectors, float32 (N, D)."""
        return decoded(self.stored, self.codes)

    def block(self, rows: slice) -> NDArray[np.float32]:
        """Return the vectors of some rows, float32 (n, D), without caching them."""
        return decoded(np.asarray(self.stored[rows]), self.codes)

    def __getitem__(self, rows: slice | NDArray[Any]) -> ChipTable:
        """Return a subset of chips by slice, indices or mask."""
        return replace(self, table=self.table.iloc[rows], stored=self.stored[rows])


# ---------------------------------------------------------------------------------- patches


@dataclass(frozen=True, eq=False)
class PatchGrid:
    """One vector per patch, as a raster.

    Args:
        stored: (dim, y, x) as stored, with CRS and transform for `.rio`: float32, float16 or int8.
            It may be read lazily from its file.
        valid: bool (Y, X): True where there is a vector.
        provenance: Provenance of the vectors.
        codes: Codes of int8.

    Raises:
        DataError: If the shapes do not match, or there is no CRS.
    """

    stored: xr.DataArray
    valid: NDArray[np.bool_]
    provenance: Provenance
    codes: Codes | None = None

    def __post_init__(self) -> None:
        if self.stored.dims != ("dim", "y", "x") or self.stored.shape[1:] != self.valid.shape:
            raise DataError(
                "a patch grid has one vector for each patch",
                found=f"{self.stored.dims} {self.stored.shape}, valid {self.valid.shape}",
                expected="(dim, y, x) and valid (y, x)",
            )
        self.grid.require_crs()
        _check_codes(self.codes, self.dim)

    def __repr__(self) -> str:
        rows, columns = self.valid.shape
        about = f"valid {self.valid.mean():.0%}, {_about(self.provenance)}"
        return f"PatchGrid({rows} x {columns} patches, dim {self.dim}, {about})"

    @property
    def dim(self) -> int:
        """Dimensions, D."""
        return int(self.stored.sizes["dim"])

    @cached_property
    def grid(self) -> Grid:
        """CRS, transform, rows and columns of the patches."""
        return grid_of_array(self.stored)

    @cached_property
    def array(self) -> xr.DataArray:
        """All vectors, float32 (dim, y, x), NaN for missing ones, with CRS and transform."""
        vectors = np.moveaxis(self.rows(slice(None)), -1, 0)
        array = xr.DataArray(np.ascontiguousarray(vectors), dims=("dim", "y", "x"))
        placed_array: xr.DataArray = placed(array, self.grid).rio.write_nodata(np.nan)
        return placed_array.rename("embedding")

    def rows(self, rows: slice) -> NDArray[np.float32]:
        """Return the vectors of some rows of patches, float32 (y, X, D), NaN for missing ones.

        Nothing is cached, so that grids larger than memory can be iterated over.

        Raises:
            DataError: If they are read from a file that is damaged.
        """
        source = self.stored.encoding.get("source")
        with foreign(DataError, UNREADABLE, where=source, remedy=MAKE_AGAIN):
            part = np.moveaxis(self.stored.isel(y=rows).to_numpy(), 0, -1)
        vectors = decoded(part, self.codes)
        vectors[~self.valid[rows]] = np.nan
        return vectors


def patch_grid(
    vectors: NDArray[Any],
    grid: Grid,
    provenance: Provenance,
    codes: Codes | None = None,
    valid: NDArray[np.bool_] | None = None,
) -> PatchGrid:
    """Return an array with its grid as a `PatchGrid`.

    Args:
        vectors: (D, Y, X), as stored.
        grid: Grid of the patches.
        provenance: Provenance of the vectors.
        codes: Codes of int8.
        valid: Mask of vectors. None: where the first dimension is finite and not `HIDDEN`.

    Raises:
        DataError: If the shapes do not match.
    """
    if valid is None:
        valid = has_vector(vectors[0])
    array = xr.DataArray(vectors, dims=("dim", "y", "x"), name="embedding")
    if array.shape[1:] != (grid.height, grid.width):
        raise DataError(
            "the vectors do not fill their grid",
            found=array.shape[1:],
            expected=(grid.height, grid.width),
        )
    return PatchGrid(placed(array, grid), valid, provenance, codes)


def has_vector(plane: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the mask of valid numbers in one dimension of stored vectors."""
    there = plane != HIDDEN if plane.dtype == np.int8 else np.isfinite(plane)
    return np.asarray(there, np.bool_)


def _about(made: Provenance) -> str:
    return f"{made.model or 'unknown model'}, {made.quantization}"


# ------------------------------------------------------------------------------------------ as int8

# int8 from this number of vectors: 384 dimensions take 154 MB in float32 and 38 MB in int8.
QUANTIZE_FROM: Final = 100_000
NEIGHBOURS: Final = 10
_QUERIES: Final = 200
_AMONG: Final = 10_000  # vectors among which neighbours are searched


def wants_codes(setting: str, count: int) -> bool:
    """Return whether this number of vectors is stored as int8.

    Args:
        setting: auto, none or int8.
        count: Number of vectors.
    """
    return setting == "int8" or (setting == "auto" and count >= QUANTIZE_FROM)


def quantized(
    setting: str,
    count: int,
    parts: Callable[[], Iterable[NDArray[np.float32]]],
    made: Provenance,
) -> tuple[Codes | None, float | None, Provenance]:
    """Return the codes of vectors, their recall@10, and a provenance with both.

    Args:
        setting: auto, none or int8.
        count: Number of vectors, at least one.
        parts: Yields all of them, (n, D), finite; called once for the range and once for recall.
        made: Their provenance; returned unchanged if they do not become int8.
    """
    if not wants_codes(setting, count):
        return None, None, made
    codes, step = codes_of(parts()), sample_step(count)
    sample = np.concatenate([part[::step] for part in parts()])
    found = recall(sample, codes) if count > 1 else 1.0
    settings = {**made.settings, "recall_at_10": round(found, 4)}
    return codes, found, replace(made, quantization=Quantization.INT8, settings=settings)


def codes_of(parts: Iterable[NDArray[np.float32]]) -> Codes:
    """Return the codes that span the range of vectors.

    Args:
        parts: (n, D), finite; together at least one vector.
    """
    low: NDArray[np.float32] | None = None
    high: NDArray[np.float32] | None = None
    for part in parts:
        if len(part):
            least, most = part.min(axis=0), part.max(axis=0)
            low = least if low is None else np.minimum(low, least)
            high = most if high is None else np.maximum(high, most)
    assert low is not None  # noqa: S101 (a job without vectors has ended before)
    assert high is not None  # noqa: S101
    return Codes.between(low, high)


def sample_step(count: int) -> int:
    """Return the step between vectors that are sampled for `recall`."""
    return -(-count // _AMONG)


def recall(vectors: NDArray[np.float32], codes: Codes) -> float:
    """Return recall@10 of the codes against float32: 1 if no neighbour changes.

    Args:
        vectors: (N, D), N at least 2.
        codes: Codes of int8.
    """
    queries = np.arange(0, len(vectors), -(-len(vectors) // _QUERIES))
    nearest = [_nearest(found, queries) for found in (vectors, codes.decode(codes.encode(vectors)))]
    kept = [len(set(a) & set(b)) / len(a) for a, b in zip(*nearest, strict=True)]
    return float(np.mean(kept))


def _nearest(vectors: NDArray[np.float32], queries: NDArray[np.int64]) -> list[list[int]]:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    likeness = unit[queries] @ unit.T
    likeness[np.arange(len(queries)), queries] = -np.inf
    count = min(NEIGHBOURS, len(vectors) - 1)
    order = np.argsort(-likeness, axis=1, kind="stable")[:, :count]
    found: list[list[int]] = order.tolist()
    return found
