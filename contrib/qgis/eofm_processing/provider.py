"""The provider, and one algorithm for each verb: a table of inputs, and a program that is run.

QGIS's own Python runs this file, so that it needs QGIS and the standard library alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterExtent,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterPoint,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorLayer,
    QgsProcessingProvider,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)

PROGRAM = "EOFM_PROGRAM"
WGS84 = QgsCoordinateReferenceSystem("EPSG:4326")


@dataclass(frozen=True)
class Input:
    """One input of a verb.

    Args:
        name: Of the parameter; its option is `--name`, and empty for a positional one.
        words: What it is.
        kind: path, folder, layer, field, number, text, point or extent.
        optional: Whether it may be left out.
        default: Of a number or text.
        positional: Whether the program takes it without an option.
    """

    name: str
    words: str
    kind: str
    optional: bool = False
    default: object = None
    positional: bool = False


EMBEDDINGS = Input("embeddings", "Embeddings (folder of eofm embed)", "folder", positional=True)
SCENE = (
    Input("scene", "Scene, for pictures", "path", optional=True),
    Input("sensor", "Sensor, where the product does not say it", "text", optional=True),
    Input("unit", "Unit, where the product does not say it", "text", optional=True),
)
VERBS: dict[str, tuple[str, tuple[Input, ...], tuple[str, ...]]] = {
    "embed": (
        "Turn a scene into vectors",
        (
            Input("scenes", "Scene (GeoTIFF, SAFE folder, STAC)", "path", positional=True),
            Input("model", "Weights: a name, or the folder of an export", "text"),
            Input("sensor", "Sensor, where the product does not say it", "text", optional=True),
            Input("unit", "Unit, where the product does not say it", "text", optional=True),
            Input("where", "Part of the scene", "extent", optional=True),
            Input("size", "Input of the network, of untrained weights", "number", optional=True),
        ),
        (),
    ),
    "map": (
        "Learn a map of classes from polygons or points",
        (
            EMBEDDINGS,
            Input("labels", "Polygons or points with their class", "layer"),
            Input("field", "Field of the class", "field"),
            Input("purity", "Share of a cell that its class covers", "number", default=0.8),
            Input("block", "Side of held-out squares in metres", "number", optional=True),
        ),
        ("map.tif", "probability.tif", "map.gpkg", "training.gpkg"),
    ),
    "search": (
        "Find places that look like others",
        (
            EMBEDDINGS,
            Input("at", "A place", "point", optional=True),
            Input("like", "Examples", "layer", optional=True),
            Input("unlike", "Counterexamples", "layer", optional=True),
            Input("top", "How many places are listed", "number", default=100),
            *SCENE,
        ),
        ("score.tif", "ranked.gpkg"),
    ),
    "change": (
        "Find where two dates differ more than unchanged ground does",
        (
            Input("before", "Embeddings of the first date", "folder", positional=True),
            Input("after", "Embeddings of the second date", "folder", positional=True),
            Input(
                "null", "Embeddings of another date, without the change", "folder", optional=True
            ),
            Input("rate", "Share of unchanged cells that is reported", "number", default=0.01),
        ),
        ("change.tif", "change.gpkg"),
    ),
}


def program() -> str:
    """Return the eofm program: of the settings, the environment, or the path."""
    named = ProcessingConfig.getSetting(PROGRAM) or os.environ.get(PROGRAM)
    found = shutil.which(str(Path(named).expanduser())) if named else shutil.which("eofm")
    if found is None:
        raise QgsProcessingException(
            f"There is no eofm program at {named or 'the path'}. Install eofm in a Python of its "
            "own, and name its program under Settings, Options, Processing, Providers, eofm, or in "
            f"the variable {PROGRAM}."
        )
    return found


class EofmAlgorithm(QgsProcessingAlgorithm):
    """One verb.

    Args:
        verb: Its name.
    """

    def __init__(self, verb: str) -> None:
        super().__init__()
        self.verb = verb
        self.words, self.inputs, self.layers = VERBS[verb]

    def name(self) -> str:  # noqa: D102
        return self.verb

    def displayName(self) -> str:  # noqa: N802, D102
        return self.words

    def shortHelpString(self) -> str:  # noqa: N802, D102
        return f"Runs `eofm {self.verb}`; its report stands in the log."

    def createInstance(self) -> EofmAlgorithm:  # noqa: N802, D102
        return EofmAlgorithm(self.verb)

    def initAlgorithm(self, config: object = None) -> None:  # noqa: N802, D102
        for one in self.inputs:
            self.addParameter(_parameter(one))
        self.addParameter(QgsProcessingParameterFolderDestination("OUT", "Folder of the results"))

    def processAlgorithm(  # noqa: N802, D102
        self,
        parameters: dict[str, object],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> dict[str, object]:
        out = Path(self.parameterAsString(parameters, "OUT", context))
        command = [program(), self.verb]
        options: list[str] = []
        for one in self.inputs:
            value = self._value(one, parameters, context)
            if value and one.positional:
                command.append(value)
            elif value:
                options += [f"--{one.name}", value]
        if self.verb == "embed":
            options.append("--patches")
        command += [*options, "--out", str(out)]
        feedback.pushCommandInfo(" ".join(command))
        _run(command, feedback)
        for file in self.layers:
            if (out / file).exists():
                _load(out / file, context)
        return {"OUT": str(out)}

    def _value(
        self, one: Input, parameters: dict[str, object], context: QgsProcessingContext
    ) -> str:
        name = one.name.upper()
        if parameters.get(name) in (None, ""):
            return "" if one.default is None else str(one.default)
        if one.kind == "layer":
            layer = self.parameterAsVectorLayer(parameters, name, context)
            return layer.source().partition("|")[0]
        if one.kind == "number":
            return f"{self.parameterAsDouble(parameters, name, context):g}"
        if one.kind == "point":
            point = self.parameterAsPoint(parameters, name, context, WGS84)
            return f"{point.x():.7f},{point.y():.7f}"
        if one.kind == "extent":
            box = self.parameterAsExtent(parameters, name, context, WGS84)
            return f"{box.xMinimum()},{box.yMinimum()},{box.xMaximum()},{box.yMaximum()}"
        return self.parameterAsString(parameters, name, context)


def _parameter(one: Input) -> object:
    name, optional = one.name.upper(), one.optional
    if one.kind == "layer":
        return QgsProcessingParameterVectorLayer(name, one.words, optional=optional)
    if one.kind == "field":
        return QgsProcessingParameterField(name, one.words, parentLayerParameterName="LABELS")
    if one.kind == "number":
        kind = QgsProcessingParameterNumber.Double
        return QgsProcessingParameterNumber(name, one.words, kind, one.default, optional=optional)
    if one.kind == "point":
        return QgsProcessingParameterPoint(name, one.words, optional=optional)
    if one.kind == "extent":
        return QgsProcessingParameterExtent(name, one.words, optional=optional)
    if one.kind == "folder":
        kind = QgsProcessingParameterFile.Folder
        return QgsProcessingParameterFile(name, one.words, kind, optional=optional)
    return QgsProcessingParameterString(name, one.words, optional=optional)


def _run(command: list[str], feedback: QgsProcessingFeedback) -> None:
    """Run the program; show its lines as they come, and end it when the user cancels."""
    # QGIS's own Python and its libraries must not reach into the other Python
    kept = {k: v for k, v in os.environ.items() if k not in {"PYTHONHOME", "PYTHONPATH"}}
    kept = {k: v for k, v in kept.items() if k not in {"PROJ_LIB", "PROJ_DATA", "GDAL_DATA"}}
    said: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=kept
    ) as running:
        assert running.stdout is not None  # noqa: S101 (a pipe was asked for)
        for line in running.stdout:
            said.append(line.rstrip())
            feedback.pushInfo(said[-1])
            if feedback.isCanceled():
                running.terminate()
    if feedback.isCanceled():
        return
    if running.returncode:
        raise QgsProcessingException("\n".join(said[-12:]))


def _load(file: Path, context: QgsProcessingContext) -> None:
    """Have a layer loaded when the algorithm has ended; its style stands beside it."""
    name = f"{file.parent.name}: {file.stem}"
    layer = (
        QgsRasterLayer(str(file), name)
        if file.suffix == ".tif"
        else QgsVectorLayer(str(file), name, "ogr")
    )
    if not layer.isValid():
        raise QgsProcessingException(f"QGIS cannot open {file}")
    context.temporaryLayerStore().addMapLayer(layer)
    project = context.project() or QgsProject.instance()
    details = QgsProcessingContext.LayerDetails(name, project, name)
    context.addLayerToLoadOnCompletion(layer.id(), details)


class EofmProvider(QgsProcessingProvider):
    """All verbs."""

    def id(self) -> str:  # noqa: D102
        return "eofm"

    def name(self) -> str:  # noqa: D102
        return "eofm"

    def load(self) -> bool:  # noqa: D102
        ProcessingConfig.settingIcons["eofm"] = self.icon()
        ProcessingConfig.addSetting(Setting("eofm", PROGRAM, "Program eofm", "", valuetype=0))
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def loadAlgorithms(self) -> None:  # noqa: N802, D102
        for verb in VERBS:
            self.addAlgorithm(EofmAlgorithm(verb))


class EofmPlugin:
    """What QGIS loads.

    Args:
        iface: The window; None without a screen.
    """

    def __init__(self, iface: object) -> None:
        self.provider: EofmProvider | None = None

    def initProcessing(self) -> None:  # noqa: N802
        """Add the provider, also without a window."""
        self.provider = EofmProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self) -> None:  # noqa: N802
        """Add the provider to the window."""
        self.initProcessing()

    def unload(self) -> None:
        """Take the provider away."""
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
