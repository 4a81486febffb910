"""Run by QGIS's own Python: open the layers of a map, print what QGIS makes of them, and draw.

python3 qgis_layers.py FOLDER [PICTURE.png]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from qgis.core import (
    QgsApplication,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize

folder = Path(sys.argv[1])
QgsApplication.setPrefixPath("/usr", True)
application = QgsApplication([], False)
application.initQgis()
classes = QgsRasterLayer(str(folder / "map.tif"), "map")
probability = QgsRasterLayer(str(folder / "probability.tif"), "probability")
chips = folder / "chips" / "map.gpkg"
found = {
    "crs": classes.crs().authid(),
    "nodata": classes.dataProvider().sourceNoDataValue(1),
    "classes": [
        (int(entry.value), entry.label, entry.color.name())
        for entry in classes.renderer().classes()
    ],
    "probability": probability.renderer().type(),
}
if chips.exists():
    layer = QgsVectorLayer(str(chips), "chips", "ogr")
    found["chips"] = [category.label() for category in layer.renderer().categories()]
if len(sys.argv) > 2:
    settings = QgsMapSettings()
    settings.setLayers([classes])
    settings.setDestinationCrs(classes.crs())
    settings.setExtent(classes.extent())
    settings.setOutputSize(QSize(480, 480))
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(sys.argv[2])
print(json.dumps(found))  # noqa: T201 (the answer)
