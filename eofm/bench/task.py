"""Tasks: what is scored on what. A changed task is a new version, never an edit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from eofm.data import eurosat
from eofm.metrics import Metric
from eofm.recipe import Waiver
from eofm.spec import ImageSpec


@dataclass(frozen=True)
class Task:
    """One task.

    Args:
        name: As on the command line.
        version: Part of every record's key: scores of two versions are never compared.
        dataset: Data set and revision.
        spec: What its images are.
        classes: Class names in the order of the label indices.
        size: Number of images of the whole set; fewer make a subset, and the table says so.
        metrics: Ids; the first is the primary one.
        waivers: Exceptions every model is granted on this task, with reasons.
    """

    name: str
    version: str
    dataset: str
    spec: ImageSpec
    classes: tuple[str, ...]
    size: int
    metrics: tuple[Metric, ...]
    waivers: tuple[Waiver, ...] = ()


EUROSAT: Final = Task(
    name="eurosat",
    version="1",
    dataset="EuroSAT MS, 13 bands, Sentinel-2 L1C (Helber et al. 2019, arXiv 1709.00029)",
    spec=eurosat.SPEC,
    classes=eurosat.CLASSES,
    size=eurosat.TILES,
    metrics=(Metric.OA, Metric.AA),
)
