"""Polygons as a land-cover map, from any vector file; one of their fields holds the class.

The field holds codes of the scheme or names of its classes. A pixel has the class of the polygon
over its centre, and nothing is known of it where there is none. Polygons of two classes over one
pixel contradict each other and are an error: layers are given one by one where the first shall have
precedence.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform as warp_points

from eofm.environment import geo_library
from eofm.errors import ConfigError, LabelError, RasterError
from eofm.formats.foreign import foreign
from eofm.formats.parquet import check_table, metadata_of
from eofm.landcover.multilabel import ClassMap, unknown_codes
from eofm.landcover.schemes import Scheme
from eofm.landcover.warp import Bounds, box_in, overlapping
from eofm.raster.grid import Grid, Window, read_crs

if TYPE_CHECKING:
    from types import ModuleType

    from geopandas import GeoDataFrame
    from pandas import Series

__all__ = [
    "AREAS",
    "FORMATS",
    "PARQUETS",
    "VECTORS",
    "Layer",
    "PolygonReader",
    "VectorLayer",
    "check_field",
    "check_filled",
    "check_shapes",
    "layer_of_frame",
    "of_layer",
    "pixels_of",
    "polygon_library",
    "read_layer",
    "read_vectors",
]

PARQUETS: Final = frozenset({".parquet", ".geoparquet", ".gpq"})
VECTORS: Final = frozenset({".gpkg", ".geojson", ".shp", ".fgb"}) | PARQUETS
AREAS: Final = frozenset({"Polygon", "MultiPolygon"})
# Straight edges in one CRS are curves in another: across a window they are cut into so many parts.
_PARTS: Final = 128
_NAMED: Final = 5


FORMATS: Final = "GeoPackage, GeoJSON, Shapefile, FlatGeobuf or GeoParquet"


@dataclass(frozen=True)
class Layer:
    """Polygons of one file.

    Args:
        file: Where they are.
        crs: Their CRS.
        bounds: Left, bottom, right, top of them all.
        shapes: Polygons, (N,) of shapely's geometries.
        values: Value of the field of each.
        field: Name of that field.
    """

    file: Path
    crs: CRS
    bounds: Bounds
    shapes: NDArray[np.object_]
    values: tuple[object, ...]
    field: str

    def codes(self, scheme: Scheme) -> NDArray[np.int64]:
        """Return the code of each polygon, (N,).

        Raises:
            LabelError: If a value is neither a code of the scheme nor the name of a class.
        """
        by_name = {name: code for code, name in reversed(list(scheme.classes.items()))}
        codes = [_code(value, by_name) for value in self.values]
        strange = sorted({str(v) for v, c in zip(self.values, codes, strict=True) if c is None})
        if strange:
            raise LabelError(
                f"the field {self.field} holds values that the scheme {scheme.name} does not know",
                found=", ".join(strange[:_NAMED]) + (", ..." if strange[_NAMED:] else ""),
                expected=f"codes, or names of classes: {', '.join(scheme.names)}",
                where=self.file,
                remedy="describe the classes in a YAML file, and give it as --scheme: "
                + _scheme_of(self.values),
            )
        found = np.array(codes, np.int64)
        other = {int(c): int((found == c).sum()) for c in set(codes) - set(scheme.codes) if c}
        if other and not scheme.ignore_unknown:
            raise unknown_codes(other, scheme, f"{self.file}, field {self.field} (polygons)")
        return np.where(np.isin(found, list(other)), scheme.nodata[0], found)


def _code(value: object, by_name: dict[str, int]) -> int | None:
    if isinstance(value, str):
        text = value.strip()  # a shapefile fills texts up with blanks
        if text in by_name:
            return by_name[text]
        return int(text) if text.isdecimal() else None  # codes that were written as text
    if isinstance(value, int | float) and float(value).is_integer():
        return int(value)
    return None


def _scheme_of(values: Sequence[object]) -> str:
    """Return YAML of a scheme that knows all values of a field: numbers keep their codes."""
    codes = {code for value in values if (code := _code(value, {})) is not None}
    names = {str(v).strip() for v in values if _code(v, {}) is None}
    free = (code for code in count(1) if code not in codes)
    classes = {code: str(code) for code in sorted(codes - {0})}
    classes |= {next(free): name for name in sorted(names)}
    listed = ", ".join(f"{c}: {json.dumps(n, ensure_ascii=False)}" for c, n in classes.items())
    return f"{{name: mine, classes: {{{listed}}}, nodata: [0]}}"


@dataclass(frozen=True)
class VectorLayer:
    """The features of a file, not checked yet.

    Args:
        file: Where they are.
        crs_text: Its statement of the CRS; empty if there is none.
        shapes: shapely's geometries, (N,); None where a feature has none.
        columns: Values of every field, by its name.
    """

    file: Path
    crs_text: str
    shapes: NDArray[np.object_]
    columns: Mapping[str, tuple[object, ...]]

    @property
    def crs(self) -> CRS:
        """Their CRS.

        Raises:
            LabelError: If the file says none.
        """
        return _crs(self.file, self.crs_text)

    def field(self, name: str | None) -> tuple[object, ...]:
        """Return the values of a field.

        Raises:
            ConfigError: If none is stated.
            LabelError: If the field does not exist, or holds lists.
        """
        check_field(self.file, name, tuple(self.columns))
        assert name is not None  # noqa: S101 (checked on the line before)
        values = self.columns[name]
        several = [value for value in values if isinstance(value, list | tuple | dict | np.ndarray)]
        if several:
            raise LabelError(
                f"the field {name} holds several values in a feature",
                found=f"{several[0]} and the like in {len(several)} of {len(values)} features",
                expected="one number or text in each",
                where=self.file,
                remedy="keep one of them, as in geopandas: "
                f"layer[{name!r}] = layer[{name!r}].str[0]",
            )
        return values


def read_layer(file: Path, field: str | None) -> Layer:
    """Read the polygons of a file.

    Args:
        file: GeoPackage, GeoJSON, Shapefile, FlatGeobuf or GeoParquet.
        field: The field that holds their class.

    Raises:
        ConfigError: If the libraries that read polygons are not installed, or no field is stated.
        LabelError: If the file cannot be read, is empty, lies nowhere, has several layers or no
            such field, or holds something else than valid polygons.
    """
    try:
        state = of_layer(file)[0].stat()
    except OSError as error:
        raise LabelError("there is no such land-cover map", where=file) from error
    return _read(file, field, state.st_mtime_ns, state.st_size)


def polygon_library(name: str, file: Path) -> ModuleType:
    """Return a library that polygons need.

    Args:
        name: As it is imported.
        file: Of the polygons.

    Raises:
        ConfigError: If it is not installed.
    """
    return geo_library(name, "polygons need libraries that are not installed", file)


_LAYER: Final = "|layername="


def of_layer(file: Path) -> tuple[Path, str | None]:
    """Return the file and the layer of a name as QGIS writes it: `a.gpkg|layername=roads`."""
    path, _, layer = str(file).partition(_LAYER)
    return Path(path), layer or None


def read_vectors(file: Path) -> VectorLayer:
    """Read the features of a layer.

    Args:
        file: GeoPackage, GeoJSON, Shapefile, FlatGeobuf or GeoParquet; one of several layers is
            named as in QGIS, `a.gpkg|layername=roads`.

    Raises:
        ConfigError: If the libraries that read them are not installed.
        LabelError: If the file cannot be read, has several layers, or not the one that is named.
    """
    if file.suffix.lower() in PARQUETS:
        return _of_parquet(file)
    if file.is_dir() and file.suffix.lower() != ".gdb":
        raise LabelError(
            "a folder is no layer of polygons",
            found="a folder",
            expected=FORMATS,
            where=file,
            remedy="name a file in it",
        )
    if file.suffix.lower() == ".csv":
        with (
            foreign(LabelError, "the table cannot be read", where=file),
            file.open(encoding="utf-8-sig", newline="") as stream,
        ):
            columns = next(csv.reader(stream), [])
        raise _without_geometry(file, columns, "read_csv")
    path, layer = of_layer(file)
    pyogrio, shapely = (polygon_library(name, file) for name in ("pyogrio", "shapely"))
    with _reading(file):
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        if layer is not None and layer not in layers:
            raise LabelError(
                "the file holds no such layer",
                found=", ".join(layers) or "no layer",
                expected=layer,
                where=path,
                remedy=f"name one, as in {quote(f'{path}{_LAYER}{layers[0]}')}" if layers else None,
            )
        if layer is None and len(layers) != 1:
            raise LabelError(
                "a file of polygons must hold one layer",
                found=f"{len(layers)} layers: {', '.join(layers)}",
                where=file,
                remedy=f"name one, as in {quote(f'{path}{_LAYER}{layers[0]}')}" if layers else None,
            )
        meta, _, shapes, columns = pyogrio.raw.read(path, layer=layer or layers[0])
        plain = {
            str(name): tuple(v.item() if isinstance(v, np.generic) else v for v in column)
            for name, column in zip(meta["fields"], columns, strict=True)
        }
        return VectorLayer(file, meta["crs"] or "", shapely.from_wkb(shapes), plain)


def _reading(file: Path) -> AbstractContextManager[None]:
    """Convert every failure of the libraries into one error."""
    return foreign(
        LabelError,
        "the polygons cannot be read",
        expected=FORMATS,
        where=file,
        remedy="copy the file again, or write it again from its source",
    )


def _of_parquet(file: Path) -> VectorLayer:
    """GeoParquet is read by geopandas: GDAL has it in few of its builds."""
    geopandas = polygon_library("geopandas", file)
    with _reading(file):
        schema = check_table(file)
        if b"geo" in metadata_of(file):
            return layer_of_frame(geopandas.read_parquet(file), file)
    raise _without_geometry(file, schema.names, "read_parquet")


_EAST: Final = ("x", "lon", "long", "longitude", "lng", "xcoord")
_NORTH: Final = ("y", "lat", "latitude", "ycoord")
_TEXTS: Final = ("wkt", "wkt_geom", "geometry", "geom", "the_geom")


def _without_geometry(file: Path, columns: Sequence[str], read: str) -> LabelError:
    """Return the error for a table, with the command that makes a layer of it.

    Args:
        file: The table.
        columns: Names of its columns.
        read: Function of pandas that reads it.
    """
    lower = {name.casefold(): name for name in reversed(columns)}
    east, north, text = (
        next((lower[name] for name in names if name in lower), "")
        for names in (_EAST, _NORTH, _TEXTS)
    )
    if text and not (east and north):
        shapes = f"GeoSeries.from_{'wkt' if read == 'read_csv' else 'wkb'}(t[{text!r}])"
        when = f"if the column {text} holds polygons or points in longitude and latitude"
    else:
        east, north = (east, north) if east and north else ("x", "y")
        shapes = f"points_from_xy(t[{east!r}], t[{north!r}])"
        when = f"if its columns {east} and {north} are longitude and latitude"
    code = (
        f"import geopandas, pandas, sys; t = pandas.{read}(sys.argv[1]); geopandas.GeoDataFrame("
        f"t, geometry=geopandas.{shapes}, crs='EPSG:4326').to_file(sys.argv[2])"
    )
    return LabelError(
        "a table without geometry is no layer of polygons or points",
        found=f"columns {', '.join(columns[:_SHOWN_COLUMNS])}",
        expected=FORMATS,
        where=file,
        remedy=f'{when}: python -c "{code}" {quote(str(file))} '
        f"{quote(str(file.with_suffix('.gpkg')))}",
    )


_SHOWN_COLUMNS: Final = 10


def layer_of_frame(frame: GeoDataFrame, name: Path) -> VectorLayer:
    """Return the features of a GeoDataFrame.

    Args:
        frame: The features.
        name: Their name in messages.
    """
    names = [str(column) for column in frame.columns]
    if len(set(names)) < len(names):
        raise LabelError(
            "two columns of the table have one name",
            found=", ".join(sorted({one for one in names if names.count(one) > 1})),
            where=name,
            remedy="rename one of them, as by table.columns = [...]",
        )
    own = frame.geometry.name
    columns: dict[str, tuple[object, ...]] = {
        str(column): _filled(frame[column]) for column in frame.columns if column != own
    }
    text = "" if frame.crs is None else frame.crs.to_wkt()
    return VectorLayer(name, text, np.asarray(frame.geometry.array, object), columns)


def _filled(column: Series) -> tuple[object, ...]:
    """Return the values of a column, None for missing ones: pandas has several, NaN, NaT and NA."""
    return tuple(
        None if missing else value
        for value, missing in zip(column.tolist(), column.isna().tolist(), strict=True)
    )


@lru_cache(maxsize=8)
def _read(file: Path, field: str | None, changed: int, size: int) -> Layer:
    shapely = polygon_library("shapely", file)
    read = read_vectors(file)
    check_shapes(file, read.shapes, AREAS)
    values = read.field(field)
    assert field is not None  # noqa: S101 (`VectorLayer.field` refuses it)
    check_filled(file, field, values)
    left, bottom, right, top = map(float, shapely.total_bounds(read.shapes))
    return Layer(file, read.crs, (left, bottom, right, top), read.shapes, values, field)


def check_field(file: object, field: str | None, names: Sequence[str]) -> None:
    """Refuse a field that is not stated, or not there.

    Raises:
        ConfigError: If none is stated.
        LabelError: If the field does not exist.
    """
    if field is None:
        raise ConfigError(
            "which field of the polygons holds their class?",
            found="no --field",
            expected=", ".join(names) or "a layer with fields",
            where=file,
            remedy=f"name it: --field {quote((names or ['NAME'])[0])}",
        )
    if field not in names:
        raise LabelError(
            "the polygons have no such field",
            found=", ".join(names) or "no field at all",
            expected=field,
            where=file,
            remedy=f"name one of them: --field {quote((names or ['NAME'])[0])}",
        )


def check_shapes(file: object, shapes: NDArray[np.object_], kinds: frozenset[str]) -> None:
    """Refuse geometries from which classes cannot be counted.

    Args:
        file: Where they are from, for messages.
        shapes: (N,) of shapely's geometries.
        kinds: Accepted types, by shapely's names.

    Raises:
        LabelError: If there is none, one is of another kind, or not valid.
    """
    import shapely

    if shapely.is_empty(shapes).all():
        found = f"{len(shapes)} features, all without coordinates" if len(shapes) else "0 features"
        raise LabelError("the layer holds no polygons", found=found, where=file)
    there = {None if s is None else str(s.geom_type) for s in shapes}
    if not there <= kinds:
        alone = "polygons and points" if "Point" in kinds else "polygons"
        raise LabelError(
            f"a layer of classes holds {alone} alone",
            found=", ".join(sorted(str(kind or "no geometry") for kind in there)),
            expected=", ".join(sorted(kinds, key=len)),
            where=file,
            remedy="take collections apart, as in geopandas: "
            "layer = layer.explode(ignore_index=True)"
            if "GeometryCollection" in there
            else "leave the other features out, or give points and lines an area (buffer)",
        )
    bad = np.flatnonzero(~shapely.is_valid(shapes))
    if len(bad):
        why = "; ".join(f"{i}: {shapely.is_valid_reason(shapes[i])}" for i in bad[:3])
        raise LabelError(
            "polygons of the layer are not valid",
            found=f"{len(bad)} of {len(shapes)}, feature {why}",
            where=file,
            remedy="repair them, as in geopandas: layer.geometry = "
            'layer.geometry.make_valid(method="structure", keep_collapsed=False)',
        )


def check_filled(file: object, field: str, values: Sequence[object]) -> None:
    """Refuse features without a class.

    Raises:
        LabelError: If a value is missing.
    """
    empty = [n for n, value in enumerate(values) if value is None or value != value]  # noqa: PLR0124
    if empty:
        raise LabelError(
            f"polygons have nothing in the field {field}",
            found=f"{len(empty)} of {len(values)}, feature {', '.join(map(str, empty[:_NAMED]))}",
            where=file,
            remedy="fill it, or leave those polygons out",
        )


def _crs(file: Path, text: str | None) -> CRS:
    try:
        return read_crs(text or "")
    except RasterError as error:
        raise LabelError(
            "the polygons have no georeference",
            found=text or "no coordinate reference system",
            where=file,
            remedy="write their CRS into the file, as in geopandas: layer.set_crs('EPSG:4326')",
        ) from error


class PolygonReader:
    """Polygons on the grid of an image.

    Args:
        layer: The polygons.
        grid: The image.
    """

    def __init__(self, layer: Layer, grid: Grid) -> None:
        self._layer, self._grid = layer, grid

    def read(self, window: Window, scheme: Scheme) -> ClassMap:
        """Return the class codes of a window of the image, int32 (h, w).

        Raises:
            LabelError: If polygons of two classes lie over one pixel, or a value means nothing.
        """
        codes = np.full((window.height, window.width), scheme.nodata[0], np.int32)
        grid, all_codes = self._grid.at(window), self._layer.codes(scheme)
        box = box_in(grid, self._layer.crs)
        if box is None:
            return codes
        taken = np.zeros(codes.shape, np.bool_)
        shapes, own = self._near(grid, box)
        for code in dict.fromkeys(all_codes[own].tolist()):
            mine = [s for s, n in zip(shapes, own, strict=True) if all_codes[n] == code]
            inside = rasterize(mine, codes.shape, dtype=np.uint8) > 0
            if (inside & taken).any():
                raise self._contradiction(codes, inside & taken, code, scheme)
            codes[inside] = code
            taken |= inside
        return codes

    def _near(self, grid: Grid, box: Bounds) -> tuple[list[Any], NDArray[np.int64]]:
        """Return the polygons near a window, in its pixels, and their numbers."""
        shapely = polygon_library("shapely", self._layer.file)
        layer, shapes, own = self._layer, [], []
        edges = np.asarray(shapely.bounds(layer.shapes))
        left, bottom, right, top = box
        margin = max(right - left, top - bottom) / 8
        for number in np.flatnonzero(overlapping(box, layer.crs, edges)).tolist():
            # moved by a whole turn where polygon and window meet at the 180th meridian
            centre = (edges[number, 0] + edges[number, 2]) / 2
            turn = 0
            if layer.crs.is_geographic:
                turn = 360 * round(((left + right) / 2 - centre) / 360)
            frame = shapely.box(left - margin, bottom - margin, right + margin, top + margin)
            move = np.array([turn, 0.0])
            shape = shapely.transform(layer.shapes[number], lambda xy, by=move: xy + by)
            part = shapely.intersection(shape, frame)
            part = shapely.segmentize(part, max(right - left, top - bottom) / _PARTS)
            polygons = [p for p in shapely.get_parts(part) if p.geom_type == "Polygon"]
            shapes += [
                shapely.transform(p, lambda xy: pixels_of(xy, layer.crs, grid)) for p in polygons
            ]
            own += [number] * len(polygons)
        return shapes, np.array(own, np.int64)

    def _contradiction(
        self, codes: ClassMap, where: NDArray[np.bool_], code: int, scheme: Scheme
    ) -> LabelError:
        other = int(codes[where][0])
        known = {**{c: "nodata" for c in scheme.nodata}, **{c: "cloud" for c in scheme.cloud}}
        known |= scheme.classes
        x, y = self._grid.centre()
        return LabelError(
            "polygons of two classes lie over the same pixels",
            found=f"{known[other]} and {known[code]} over {int(where.sum())} pixels",
            expected="one class at a place",
            where=f"{self._layer.file}, image at longitude {x:.4f}, latitude {y:.4f}",
            remedy="cut them so that they do not overlap; or write each class into a file of its "
            "own and give the files in order of precedence: eofm labels FIRST.gpkg SECOND.gpkg ...",
        )


def pixels_of(xy: NDArray[np.float64], crs: CRS, grid: Grid) -> NDArray[np.float64]:
    """Return places as (column, row) of a grid, (N, 2)."""
    own = grid.require_crs()
    xs, ys = xy[:, 0], xy[:, 1]
    if own != crs:
        xs, ys = (np.asarray(v) for v in warp_points(crs, own, xs.tolist(), ys.tolist()))
    if own.is_geographic:
        middle = grid.point(grid.width / 2, grid.height / 2)[0]
        xs = xs + 360 * np.round((middle - xs) / 360)
    inverse = ~grid.transform
    return np.stack(
        [
            inverse.a * xs + inverse.b * ys + inverse.c,
            inverse.d * xs + inverse.e * ys + inverse.f,
        ],
        axis=1,
    )
