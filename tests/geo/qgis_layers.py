"""Run by QGIS's own Python: open the layers of a map and print what QGIS makes of them."""

import json
import sys
from pathlib import Path

from qgis.core import QgsApplication, QgsRasterLayer, QgsVectorLayer

folder = Path(sys.argv[1])
QgsApplication.setPrefixPath("/usr", True)
application = QgsApplication([], False)
application.initQgis()
classes = QgsRasterLayer(str(folder / "map.tif"), "map")
probability = QgsRasterLayer(str(folder / "probability.tif"), "probability")
chips = QgsVectorLayer(str(folder / "chips" / "map.gpkg"), "chips", "ogr")
assert all(layer.isValid() for layer in (classes, probability, chips))
print(  # noqa: T201 (the answer)
    json.dumps(
        {
            "crs": classes.crs().authid(),
            "nodata": classes.dataProvider().sourceNoDataValue(1),
            "classes": [
                (int(entry.value), entry.label, entry.color.name())
                for entry in classes.renderer().classes()
            ],
            "probability": probability.renderer().type(),
            "chips": [category.label() for category in chips.renderer().categories()],
        }
    )
)
