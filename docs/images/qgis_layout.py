"""Run by QGIS's own Python: a print layout of the layers of a map, each as QGIS opens it.

    QT_QPA_PLATFORM=offscreen python3 docs/images/qgis_layout.py SCENE.tif MAP_FOLDER PICTURE.png

Colours and legends are those of the QML files beside the layers; the scene alone, which is nobody's
result, has its three bands named here.
"""

from __future__ import annotations

import sys
from pathlib import Path

from qgis.core import (
    QgsApplication,
    QgsContrastEnhancement,
    QgsLayerTree,
    QgsLayoutExporter,
    QgsLayoutItemLabel,
    QgsLayoutItemLegend,
    QgsLayoutItemMap,
    QgsLayoutItemScaleBar,
    QgsLayoutPoint,
    QgsLayoutSize,
    QgsMapLayer,
    QgsMultiBandColorRenderer,
    QgsPrintLayout,
    QgsProject,
    QgsRasterLayer,
    QgsRasterMinMaxOrigin,
    QgsTextFormat,
    QgsUnitTypes,
    QgsVectorLayer,
)
from qgis.PyQt.QtGui import QFont

SIDE, GAP, TOP = 78.0, 6.0, 14.0  # of a map, between maps, above them: millimetres
WIDTH, HEIGHT, DPI = 3 * SIDE + 4 * GAP, 150.0, 100
RGB = (4, 3, 2)  # bands of red, green and blue in a Level-2A file of S2-100K


def true_colour(layer: QgsRasterLayer) -> None:
    """Show red, green and blue, stretched from the 2nd to the 98th percentile."""
    layer.setRenderer(QgsMultiBandColorRenderer(layer.dataProvider(), *RGB))
    stretch = QgsContrastEnhancement.StretchToMinimumMaximum
    layer.setContrastEnhancement(stretch, QgsRasterMinMaxOrigin.CumulativeCut)


def place(item: object, x: float, y: float, width: float, height: float) -> None:
    """Put an item of a layout somewhere, in millimetres."""
    item.attemptMove(QgsLayoutPoint(x, y, QgsUnitTypes.LayoutMillimeters))
    item.attemptResize(QgsLayoutSize(width, height, QgsUnitTypes.LayoutMillimeters))


def add_map(
    layout: QgsPrintLayout, left: float, title: str, layers: list[QgsMapLayer]
) -> QgsLayerTree:
    """Add a map with its title above and the legend of its first layer below.

    The legend does not own the tree of its layers: it is returned, to be kept.
    """
    label = QgsLayoutItemLabel(layout)
    label.setText(title)
    label.setFont(QFont("DejaVu Sans", 9))
    layout.addLayoutItem(label)
    place(label, left, 5, SIDE, 8)
    shown = QgsLayoutItemMap(layout)
    layout.addLayoutItem(shown)
    shown.setCrs(layers[-1].crs())
    shown.setLayers(layers)
    shown.setRect(0, 0, 1, 1)  # with no size yet, it could not be given an extent
    shown.setExtent(layers[-1].extent())
    place(shown, left, TOP, SIDE, SIDE)
    shown.setFrameEnabled(True)
    tree = QgsLayerTree()
    tree.addLayer(layers[0])
    legend = QgsLayoutItemLegend(layout)
    legend.setAutoUpdateModel(False)
    legend.model().setRootGroup(tree)
    legend.setLinkedMap(shown)
    legend.setTitle("")
    layout.addLayoutItem(legend)
    place(legend, left, TOP + SIDE + 8, SIDE, 40)
    bar = QgsLayoutItemScaleBar(layout)
    bar.setLinkedMap(shown)
    bar.setUnits(QgsUnitTypes.DistanceMeters)
    bar.setUnitLabel("m")
    bar.setNumberOfSegmentsLeft(0)
    bar.setNumberOfSegments(2)
    bar.setUnitsPerSegment(500)
    small = QgsTextFormat()
    small.setFont(QFont("DejaVu Sans"))
    small.setSize(7)
    bar.setTextFormat(small)
    bar.setHeight(1.2)
    layout.addLayoutItem(bar)
    place(bar, left, TOP + SIDE + 1, SIDE, 7)
    return tree


def main(scene: Path, folder: Path, picture: Path) -> None:
    """Open the layers, lay them out and write the picture."""
    QgsApplication.setPrefixPath("/usr", True)
    application = QgsApplication([], False)
    application.initQgis()
    project = QgsProject.instance()
    image = QgsRasterLayer(str(scene), "scene")
    true_colour(image)
    training = QgsVectorLayer(str(folder / "training.gpkg"), "training.gpkg", "ogr")
    classes = QgsRasterLayer(str(folder / "map.tif"), "map.tif")
    probability = QgsRasterLayer(str(folder / "probability.tif"), "probability.tif")
    for layer in (image, training, classes, probability):
        if not layer.isValid():
            raise SystemExit(f"QGIS cannot open {layer.name()}")
        project.addMapLayer(layer)
    layout = QgsPrintLayout(project)
    layout.initializeDefaults()
    size = QgsLayoutSize(WIDTH, HEIGHT, QgsUnitTypes.LayoutMillimeters)
    layout.pageCollection().page(0).setPageSize(size)
    maps = (
        ("the scene, and the cells that train", [training, image]),
        ("map of classes", [classes]),
        ("probability of the class", [probability]),
    )
    trees = [
        add_map(layout, GAP + number * (SIDE + GAP), title, layers)
        for number, (title, layers) in enumerate(maps)
    ]
    settings = QgsLayoutExporter.ImageExportSettings()
    settings.dpi = DPI
    if QgsLayoutExporter(layout).exportToImage(str(picture), settings):
        raise SystemExit("QGIS wrote no picture")
    del trees


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
