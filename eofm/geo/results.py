"""Output files of verbs: rasters and layers with styles, records, settings, images of scenes.

Rasters are cloud-optimised GeoTIFFs with names, nodata and colours. Styles are the files that QGIS
(QML) and OGC servers (SLD) read.
"""

from __future__ import annotations

import colorsys
import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import MemoryFile
from rasterio.shutil import copy as copy_raster
from torch import Tensor

from eofm import __version__
from eofm.environment import geo_library
from eofm.errors import ConfigError, DataError
from eofm.formats.foreign import foreign
from eofm.formats.text import read_yaml, settings_text
from eofm.geo.cells import Cells, Index
from eofm.geo.maps_config import ExploreConfig, SearchConfig
from eofm.io import locked, replacing, write_file
from eofm.landcover.polygons import pixels_of
from eofm.raster.grid import Grid, Window
from eofm.raster.opening import open_scene
from eofm.raster.scene import OpenScene, Scene
from eofm.report.output import PALETTE
from eofm.report.sheets import Composite, composite_for, shares_of, stretch_of
from eofm.report.tables import printable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from geopandas import GeoDataFrame

__all__ = [
    "CONFIG",
    "NO_NUMBER",
    "Colour",
    "ResultFiles",
    "ScenePicture",
    "cell_pictures",
    "check_folder",
    "class_colours",
    "class_qml",
    "class_sld",
    "drop_earlier",
    "exclusive",
    "hex_of",
    "named_scene",
    "plane",
    "polygon_qml",
    "scene_picture",
    "score_qml",
    "write_categories",
    "write_cog",
    "write_frame",
    "write_record",
    "write_settings",
]


# ------------------------------------------------------------------------------- colours and styles

Colour = tuple[int, int, int, int]

_DOCTYPE: Final = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_QGIS: Final = "3.22.0"  # the oldest version that reads these files
_SLD: Final = "http://www.opengis.net/sld"
_APART: Final = 80.0  # minimum distance of two colours, of 442 between black and white
_GOLDEN: Final = 0.61803398875  # of a turn: hues of consecutive numbers are far apart
# Usual land-cover colours of maps; the first word that a name contains decides.
_KNOWN: Final[Mapping[str, str]] = {
    "water": "#3b7dd8",
    "snow": "#e8f1f8",
    "ice": "#e8f1f8",
    "wetland": "#5ab4ac",
    "flooded": "#5ab4ac",
    "mangrove": "#018571",
    "tree": "#1b7837",
    "forest": "#1b7837",
    "shrub": "#a6793b",
    "grass": "#a6d96a",
    "range": "#c2cf7a",
    "pasture": "#c2cf7a",
    "meadow": "#c2cf7a",
    "crop": "#e5b946",
    "built": "#d7301f",
    "urban": "#d7301f",
    "bare": "#b8a99a",
}
# From dark to light, readable with any colour vision (matplotlib's magma).
_RAMP: Final = ("#000004", "#3b0f70", "#8c2981", "#de4968", "#fe9f6d", "#fcfdbf")


def class_colours(names: Sequence[str]) -> dict[int, Colour]:
    """Return the colour of each class by its code; the first has code 1.

    Land cover has the usual colours of maps, each used once; other classes have the palette of the
    figures and, when it is used up, hues that are far apart.

    Args:
        names: Names of the classes.
    """
    texts: dict[int, str] = {}
    for code, name in enumerate(names, 1):
        typical = next((text for word, text in _KNOWN.items() if word in name.lower()), None)
        if typical is not None and typical not in texts.values():
            texts[code] = typical
    spare = [*PALETTE, *(_hue(number) for number in range(4 * len(names)))]
    for code in range(1, len(names) + 1):
        if code not in texts:
            taken = {_rgba(text) for text in texts.values()}
            free = [text for text in spare if _rgba(text) not in taken]
            texts[code] = next((text for text in free if _is_apart(text, taken)), free[0])
    return {code: _rgba(texts[code]) for code in sorted(texts)}


def _is_apart(text: str, others: set[Colour]) -> bool:
    """Return whether a colour differs from others enough: blue of water from the palette's."""
    return all(math.dist(_rgba(text), other) >= _APART for other in others)


def _hue(number: int) -> str:
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.65, 0.55 + 0.4 * (number % 2))
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _rgba(text: str) -> Colour:
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16), 255


def hex_of(colour: Colour) -> str:
    """Return a colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*colour[:3])


def class_qml(names: Mapping[int, str], colours: Mapping[int, Colour]) -> bytes:
    """Return the QGIS style of a raster of classes.

    Args:
        names: Names of the codes.
        colours: Colours of the codes.
    """
    root, renderer = _raster("paletted")
    palette = SubElement(renderer, "colorPalette")
    for code, name in names.items():
        entry = {"value": str(code), "color": hex_of(colours[code]), "alpha": "255"}
        SubElement(palette, "paletteEntry", {**entry, "label": printable(name)})
    return _qml(root)


def score_qml(low: float, high: float, words: str) -> bytes:
    """Return the QGIS style of a raster of scores, dark to light.

    Args:
        low: Value shown darkest.
        high: Value shown lightest.
        words: Unit or meaning, after the numbers of the legend.
    """
    root, renderer = _raster("singlebandpseudocolor")
    renderer.set("classificationMin", repr(low))
    renderer.set("classificationMax", repr(high))
    shader = SubElement(SubElement(renderer, "rastershader"), "colorrampshader")
    shader.attrib.update(
        colorRampType="INTERPOLATED",
        classificationMode="1",
        clip="0",
        minimumValue=repr(low),
        maximumValue=repr(high),
    )
    for number, text in enumerate(_RAMP):
        value = low + (high - low) * number / (len(_RAMP) - 1)
        label = f"{value:.3g} {words}".strip()
        SubElement(shader, "item", value=repr(value), color=text, alpha="255", label=label)
    return _qml(root)


def polygon_qml(field: str, names: Sequence[str], colours: Mapping[int, Colour]) -> bytes:
    """Return the QGIS style of polygons with a class in one of their fields.

    Args:
        field: Field with the class.
        names: Its values; the first has code 1.
        colours: Colours of the codes.
    """
    root = Element("qgis", version=_QGIS, styleCategories="Symbology")
    renderer = SubElement(root, "renderer-v2", type="categorizedSymbol", attr=field)
    categories = SubElement(renderer, "categories")
    symbols = SubElement(renderer, "symbols")
    for number, name in enumerate(names):
        shown = printable(name)
        attributes = {"symbol": str(number), "value": shown, "label": shown, "render": "true"}
        SubElement(categories, "category", {"type": "string", **attributes})
        symbol = SubElement(symbols, "symbol", name=str(number), type="fill", alpha="1")
        layer = SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1"})
        colour = ",".join(map(str, colours[number + 1]))
        for key, value in {"color": colour, "outline_style": "no", "style": "solid"}.items():
            SubElement(layer, "prop", k=key, v=value)
    return _qml(root)


def _raster(kind: str) -> tuple[Element, Element]:
    root = Element("qgis", version=_QGIS, styleCategories="Symbology")
    pipe = SubElement(root, "pipe")
    renderer = SubElement(
        pipe, "rasterrenderer", type=kind, band="1", opacity="1", alphaBand="-1", nodataColor=""
    )
    return root, renderer


def _qml(root: Element) -> bytes:
    return _DOCTYPE.encode() + bytes(ElementTree.tostring(root, encoding="utf-8"))


def class_sld(layer: str, names: Mapping[int, str], colours: Mapping[int, Colour]) -> bytes:
    """Return the style of a raster of classes as OGC SLD 1.0.

    Args:
        layer: Name of the layer.
        names: Names of the codes.
        colours: Colours of the codes.
    """
    ElementTree.register_namespace("", _SLD)
    root = Element(f"{{{_SLD}}}StyledLayerDescriptor", version="1.0.0")
    named = SubElement(root, f"{{{_SLD}}}NamedLayer")
    SubElement(named, f"{{{_SLD}}}Name").text = layer
    style = SubElement(named, f"{{{_SLD}}}UserStyle")
    rule = SubElement(SubElement(style, f"{{{_SLD}}}FeatureTypeStyle"), f"{{{_SLD}}}Rule")
    colour_map = SubElement(
        SubElement(rule, f"{{{_SLD}}}RasterSymbolizer"), f"{{{_SLD}}}ColorMap", type="values"
    )
    for code, name in names.items():
        entry = {"color": hex_of(colours[code]), "quantity": str(code), "label": printable(name)}
        SubElement(colour_map, f"{{{_SLD}}}ColorMapEntry", entry)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


# ------------------------------------------------------------------------- rasters, layers, records

CONFIG: Final = "config.yaml"
NO_NUMBER: Final = -1.0  # of float rasters: some programs do not support NaN


@dataclass(frozen=True)
class ResultFiles:
    """The output of `eofm map`, `search` and `change`.

    Args:
        folder: Folder of the files.
        text: Summary: the accuracy, the best places, or the amount of change.
        files: Files written.
    """

    folder: Path
    text: str
    files: tuple[Path, ...]

    def describe(self) -> str:
        """Return the summary and the list of files."""
        names = " ".join(str(file.relative_to(self.folder)) for file in self.files)
        return f"{self.text}\n{self.folder}: {names}"


def write_record(file: Path, record: Mapping[str, Any]) -> Path:
    """Write all numbers of a result as JSON, with the version of eofm.

    Args:
        file: Output file; its parent folder is created if needed.
        record: Values in plain types.

    Raises:
        DataError: If it cannot be written.
    """
    content = json.dumps({"eofm": __version__, **record}, indent=1)
    return write_file(file, f"{content}\n".encode())


_LOCK: Final = ".lock"


@contextlib.contextmanager
def exclusive(folder: Path, lock: str = _LOCK) -> Iterator[None]:
    """Create the output folder, and hold a lock in it while the body runs.

    Two runs that write the same results use the same temporary names, and would leave a mixture of
    both. Folders that are still empty at the end, as after an error, are removed again.

    Args:
        folder: Output folder.
        lock: Name of the lock file.

    Raises:
        ConfigError: If another process holds the lock.
        DataError: If the folder cannot be created or written.
    """
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        with contextlib.ExitStack() as stack:
            with foreign(
                DataError,
                "the output folder cannot be written",
                where=folder,
                remedy="name another --out",
            ):
                folder.mkdir(parents=True, exist_ok=True)
                alone = stack.enter_context(locked(folder / lock))
            if not alone:
                raise ConfigError(
                    "another process writes its results there",
                    where=folder,
                    remedy="wait until it has finished, or name another --out",
                )
            yield
    finally:
        with contextlib.suppress(OSError):
            for one in new:
                one.rmdir()


def drop_earlier(folder: Path, names: Iterable[str], files: Sequence[Path]) -> None:
    """Remove files of an earlier run that this run has not written.

    Args:
        folder: Folder of the results.
        names: Names of all files that the verb can write there.
        files: Files that it has written now.

    Raises:
        DataError: If one cannot be removed.
    """
    for file in {folder / name for name in names} - set(files):
        with foreign(DataError, "a file of an earlier run cannot be removed", where=file):
            file.unlink(missing_ok=True)


def check_folder(config: DataclassInstance, folder: Path) -> None:
    """Check that an output folder does not hold the settings of another verb.

    They would be replaced, and with them what repeats or resumes the other run.

    Args:
        config: The settings of this verb.
        folder: Its output folder, which need not exist.

    Raises:
        ConfigError: If it does.
    """
    file = folder / CONFIG
    try:
        kept = read_yaml(file)
    except DataError:
        return
    keys = {str(key) for key in kept} if isinstance(kept, Mapping) else set[str]()
    own = {one.name for one in fields(config)}
    if keys and len(keys - own) >= len(keys & own):
        verb = type(config).__name__.removesuffix("Config").lower()
        raise ConfigError(
            "the output folder holds the results of another command",
            found=f"{CONFIG} with {', '.join(sorted(keys - own)[:_NAMED])}",
            expected="a folder of its own",
            where=folder,
            remedy=f"name another folder: --out {quote(str(folder / verb))}",
        )


_NAMED: Final = 3  # settings in a message


def write_settings(config: DataclassInstance, file: Path) -> Path:
    """Write the settings of a verb next to its output: `--config FILE` repeats the run.

    Args:
        config: The settings, as on the command line, with its file names.
        file: Output file; its parent folder is created if needed.

    Raises:
        DataError: If it cannot be written.
    """
    return write_file(file, settings_text(config).encode())


def write_frame(frame: GeoDataFrame, file: Path) -> Path:
    """Write a GeoDataFrame as GeoPackage or GeoParquet, depending on the suffix.

    Raises:
        DataError: If it cannot be written.
    """
    temporary = file.with_name(f"{file.stem}.tmp{file.suffix}")
    if file.suffix != ".parquet":
        geo_library("pyogrio", "layers need a library that is not installed", file)
    try:
        with foreign(
            DataError, "the layer cannot be written", where=file, remedy="name another --out"
        ):
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            if file.suffix == ".parquet":
                frame.to_parquet(temporary)
            else:
                frame.to_file(temporary, driver="GPKG", layer=file.stem, engine="pyogrio")
            temporary.replace(file)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return file


# ----------------------------------------------------------------------------------------- rasters


_TILE: Final = 256


def write_cog(
    file: Path,
    planes: NDArray[Any],
    grid: Grid,
    names: Sequence[str],
    *,
    nodata: float,
    tags: Mapping[str, str],
    colours: Mapping[int, Colour] | None = None,
) -> Path:
    """Write a raster atomically as COG.

    Args:
        file: Output file; its parent folder is created if needed.
        planes: (B, Y, X).
        grid: Grid of the pixels.
        names: Names of the bands.
        nodata: Nodata value.
        tags: Other metadata of the file.
        colours: Colours of the codes of a categorical raster, shown by every program.

    Raises:
        DataError: If it cannot be written.
    """
    profile = {
        "driver": "GTiff",
        "height": grid.height,
        "width": grid.width,
        "count": len(planes),
        "dtype": str(planes.dtype),
        "crs": grid.crs,
        "transform": grid.transform,
        "nodata": nodata,
    }
    options = {
        "compress": "deflate",
        "blocksize": _TILE,
        "overview_resampling": "nearest" if colours is None else "mode",
    }
    with foreign(
        DataError, "the raster cannot be written", where=file, remedy="name another --out"
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        with MemoryFile() as memory:
            with memory.open(**profile) as target:
                target.write(planes)
                target.descriptions = tuple(names)
                target.update_tags(**tags)
                if colours is not None:
                    target.write_colormap(1, {0: (0, 0, 0, 0), **colours})
            with memory.open() as source, replacing(file) as temporary:
                copy_raster(source, temporary, driver="COG", **options)
    return file


def write_categories(file: Path, names: Mapping[int, str]) -> Path:
    """Write the names of codes next to a raster, where GDAL and programs based on it expect them.

    A GeoTIFF cannot store them; GDAL's own file `.aux.xml` can.

    Args:
        file: The raster.
        names: Names of the codes; codes between them have none.

    Raises:
        DataError: If it cannot be written.
    """
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    listing = ElementTree.SubElement(band, "CategoryNames")
    for code in range(max(names) + 1):
        ElementTree.SubElement(listing, "Category").text = names.get(code, "")
    content = ElementTree.tostring(root, encoding="utf-8")
    return write_file(file.with_name(file.name + ".aux.xml"), content)


def plane(values: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Return values of cells, (N,), as rows and columns of their grid."""
    return np.ascontiguousarray(values).reshape(grid.height, grid.width)


# -------------------------------------------------------------------------- the scene under vectors

_PIXELS: Final = 1 << 22  # of the scene, read at once
_SIDE: Final = 96  # pixels of the image of one cell
_AROUND: Final = 3.0  # sides of the cell that its image covers
_BLANK: Final = 0.5


@dataclass(frozen=True, eq=False)
class ScenePicture:
    """Colour image of a scene.

    Args:
        pixels: (H, W, 3) in [0, 1]; mid gray for invalid pixels and outside.
        stretch: Description of the stretch if it is not the sensor's, else empty.
    """

    pixels: NDArray[np.float32]
    stretch: str


def named_scene(config: SearchConfig | ExploreConfig) -> Scene | None:
    """Open the scene named in the settings for images; None if there is none.

    Raises:
        DataError: If it cannot be opened.
        SpecError: If sensor or unit are neither stated nor known.
    """
    if config.scene is None:
        return None
    return open_scene(
        config.scene,
        sensor=config.sensor,
        unit=config.unit,
        bands=config.bands,
        item=config.item,
        time=config.time,
    )


def scene_picture(scene: Scene, grid: Grid) -> ScenePicture:
    """Return a scene in true colours on a grid.

    Pixels are sampled by nearest neighbour. The stretch is the sensor's; if that leaves the image
    blank (snow), it is computed from the image.

    Args:
        scene: The scene.
        grid: Grid of the image, in any CRS.

    Raises:
        DataError: If the scene is of other ground.
        RasterError: If it has no georeference, or a file is damaged.
    """
    composite = composite_for(scene.spec)
    with _shown(scene, composite).open() as opened:
        shares = _sampled(opened, composite, grid)
    ((pixels,), stretch) = _coloured(scene, [shares], composite)
    return ScenePicture(pixels, stretch)


def _coloured(
    scene: Scene, shares: Sequence[NDArray[np.float32]], composite: Composite
) -> tuple[list[NDArray[np.float32]], str]:
    """Return images of shares of a composite's range, with their common stretch described.

    Raises:
        DataError: If no pixel of the scene is valid there.
    """
    flat = np.concatenate([each.reshape(-1, 3) for each in shares])
    seen = np.isfinite(flat).all(axis=1)
    if not seen.any():
        raise DataError(
            "the scene shows nothing of the ground of the embeddings",
            found="no valid pixel there",
            where=scene.name,
            remedy="name the scene that was embedded, or no scene",
        )
    own = stretch_of(torch.from_numpy(flat[seen]))
    low = np.array(own.low, np.float32)
    span = np.array(own.high, np.float32) - low
    pictures = [((each - low) / span).clip(0, 1) for each in shares]
    return [np.where(np.isfinite(p), p, np.float32(_BLANK)) for p in pictures], own.words(composite)


def _shown(scene: Scene, composite: Composite) -> Scene:
    """Return a scene with the bands that a composite shows."""
    wanted = {part for name in composite.bands for part in name.split("-")}
    return scene.select([band for band in scene.bands if band in wanted])


def _sampled(opened: OpenScene, composite: Composite, grid: Grid) -> NDArray[np.float32]:
    """Return shares of the composite's range on a grid, (H, W, 3), NaN for invalid pixels."""
    scene = opened.scene
    rows, cols = np.indices((grid.height, grid.width), np.float64).reshape(2, -1)
    xy = np.stack(_placed(grid, cols + 0.5, rows + 0.5), axis=1)
    at = pixels_of(xy, grid.require_crs(), scene.grid)
    there = np.asarray(np.isfinite(at).all(axis=1), np.bool_)
    col, row = np.floor(np.where(there[:, None], at, -1)).astype(np.int64).T
    there &= (row >= 0) & (col >= 0) & (row < scene.grid.height) & (col < scene.grid.width)
    picture = np.full((grid.height * grid.width, 3), np.nan, np.float32)
    if not there.any():
        return picture.reshape(grid.height, grid.width, 3)
    step = scene.step
    left = int(col[there].min()) // step * step
    width = _whole(int(col[there].max()) + 1, step, scene.grid.width) - left
    height = max(_PIXELS // max(width, 1) // step, 1) * step
    first, last = int(row[there].min()) // step * step, int(row[there].max())
    for top in range(first, last + 1, height):
        mine = there & (row >= top) & (row < top + height)
        if mine.any():
            window = Window(top, left, min(height, scene.grid.height - top), width)
            imagery = opened.read(window)
            seen = imagery.valid[..., None]
            shares = torch.where(seen, shares_of(imagery, None, composite), torch.nan)[0].numpy()
            picture[mine] = shares[row[mine] - top, col[mine] - left]
    return picture.reshape(grid.height, grid.width, 3)


def _placed(
    grid: Grid, cols: NDArray[np.float64], rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    t = grid.transform
    return t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f


def _whole(end: int, step: int, length: int) -> int:
    return min(-(-end // step) * step, length)


def cell_pictures(scene: Scene, cells: Cells, which: Index) -> tuple[list[Tensor], str]:
    """Return a small image around each of some cells, (96, 96, 3) in [0, 1], and the stretch.

    All have the same stretch so that they can be compared: the sensor's, described as empty text,
    or, if that leaves them blank, one computed from the images, with its description.

    Args:
        scene: The scene under the cells.
        cells: Chips or patches.
        which: Their numbers.

    Raises:
        DataError: If the scene is of other ground.
        RasterError: If it has no georeference, or a file is damaged.
    """
    import shapely

    bounds = shapely.bounds(cells.outlines(which))
    composite = composite_for(scene.spec)
    with _shown(scene, composite).open() as opened:
        shares = [_sampled(opened, composite, _around(box, cells.crs)) for box in bounds.tolist()]
    pictures, stretch = _coloured(scene, shares, composite)
    return [torch.from_numpy(picture) for picture in pictures], stretch


def _around(box: tuple[float, float, float, float], crs: CRS) -> Grid:
    left, bottom, right, top = box
    width, height = (right - left) * _AROUND, (top - bottom) * _AROUND
    x, y = (left + right) / 2 - width / 2, (bottom + top) / 2 + height / 2
    return Grid(crs, Affine(width / _SIDE, 0, x, 0, -height / _SIDE, y), _SIDE, _SIDE)
