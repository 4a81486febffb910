"""Colours of classes and scores, and the style files that QGIS (QML) and OGC servers (SLD) read."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from eofm.report.output import PALETTE, printable

Colour = tuple[int, int, int, int]

_DOCTYPE: Final = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_QGIS: Final = "3.22.0"  # the oldest version whose files these are
_SLD: Final = "http://www.opengis.net/sld"
_APART: Final = 80.0  # least distance of two colours, of 442 between black and white
_GOLDEN: Final = 0.61803398875  # of a turn: hues of consecutive numbers lie far apart
# Land cover as maps show it; the first word that a name contains decides.
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
# From dark to light, told apart with any colour vision (matplotlib's magma).
_RAMP: Final = ("#000004", "#3b0f70", "#8c2981", "#de4968", "#fe9f6d", "#fcfdbf")


def class_colours(names: Sequence[str]) -> dict[int, Colour]:
    """Return the colour of each class by its code; the first has code 1.

    Land cover has the colours of maps, as far as each is used once; other classes have the palette
    of the figures, and beyond it hues that lie far apart.

    Args:
        names: Of the classes.
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
    """Return whether a colour can be told from others: blue of water from that of the palette."""
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
        names: Of the codes.
        colours: Of the codes.
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
        low: Shown darkest.
        high: Shown lightest.
        words: Unit or meaning, behind the numbers of the legend.
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
        field: That field.
        names: Its values; the first has code 1.
        colours: Of the codes.
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
        names: Of the codes.
        colours: Of the codes.
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
