"""Protocols and metrics of records in plain words; the record keeps the exact string."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from eofm.probes.metrics import METRIC_WORDS, Metric

_METRICS: Final[Mapping[str, str]] = {
    Metric.AP_MICRO: "micro AP",
    Metric.AP_MACRO: "macro AP",
    Metric.AP_WEIGHTED: "weighted AP",
    Metric.AP_MICRO_BATCHES: "micro AP by batches",
    Metric.F1_MICRO: "micro F1",
    Metric.F1_MACRO: "macro F1",
    Metric.OA: "overall accuracy",
    Metric.AA: "average accuracy",
    Metric.ECE: "calibration error",
    Metric.MIOU: "mean IoU",
    Metric.PIXEL_OA: "pixel accuracy",
}
_CHOSEN: Final = {
    "norefit": "strength chosen on validation",
    "refit": "strength chosen on validation, refitted on both splits",
    "fixed": "strength fixed",
}
_PROBES: Final[Mapping[str, str]] = {
    "nmc": "nearest class mean",
    "linear": "linear probe",
    "linear-grid": "linear probe; layers, pooling and strength chosen on validation",
    "dense-linear": "linear layer on patches",
    "finetune": "fine-tuned network, its rate chosen on validation",
    "dinov2-heads": "DINOv2's grid of linear heads, chosen on validation",
    "ssl4eo-moco": "linear head of SSL4EO-S12's MoCo protocol",
    "ssl4eo-dino": "linear head of SSL4EO-S12's DINO protocol",
    "ssl4eo-mae": "linear head of SSL4EO-S12's MAE protocol",
    "softcon-linear": "linear head of SoftCon's protocol",
    "softcon-dino4": "linear head of SoftCon's protocol, four layers",
    "softcon-dino4-mean": "linear head of SoftCon's protocol, four layers and patch mean",
}
_SCALED: Final = {"standard": "features standardised", "unit": "features of unit length"}
# Kinds whose string says all that the words above leave out: several of them look alike.
_WITH_CHOICE: Final = frozenset({"linear", "dense-linear"})


def metric_name(metric: str) -> str:
    """Return what a metric is called at the head of a column.

    Args:
        metric: Its id; one that is not known is its own name.
    """
    return _METRICS.get(metric, metric)


def metric_note(metric: str) -> str:
    """Return what a metric is, with its id, as a footnote.

    Args:
        metric: Its id.
    """
    name = metric_name(metric)
    words = METRIC_WORDS[Metric(metric)] if metric in set(Metric) else "no metric of this version"
    return f"**{name}** (`{metric}`): {words.removeprefix(f'{name}: ')}"


def probe_words(probe: str, *, scaling: bool = True) -> str:
    """Return a protocol in plain words: shorter than its exact string, which stays in the record.

    Args:
        probe: As in a record.
        scaling: Whether the words say what was done to the features first.

    >>> probe_words("linear[lbfgs,C40,val,norefit,standard]")
    'linear probe, strength chosen on validation, features standardised'
    >>> probe_words("knn[k=20,cosine,T=0.07,none]")
    'kNN (k = 20, cosine, weighted)'
    """
    kind, _, inner = probe.removesuffix("]").partition("[")
    choices = inner.split(",")
    words = [_neighbours(choices) if kind == "knn" else _PROBES.get(kind, kind)]
    if kind in _WITH_CHOICE:
        words += [text for key, text in _CHOSEN.items() if key in choices]
    if scaling:
        words += [text for key, text in _SCALED.items() if key in choices]
    return ", ".join(words)


def _neighbours(choices: list[str]) -> str:
    number = next((re.sub("=", " = ", c) for c in choices if c.startswith("k=")), "")
    distance = "cosine" if "cosine" in choices else "Euclidean" if "l2" in choices else ""
    weighted = "weighted" if any(c.startswith("T=") for c in choices) else ""
    inside = ", ".join(part for part in (number, distance, weighted) if part)
    return f"kNN ({inside})" if inside else "kNN"
