"""Protocols in plain words: short, different where a reader must tell them apart, none invented."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eofm.bench.reports.tables import metric_name, metric_note, probe_words
from eofm.probes.metrics import Metric

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ("knn[k=5,l2,uniform,none]", "kNN (k = 5, Euclidean)"),
        ("knn[k=20,cosine,T=0.07,none]", "kNN (k = 20, cosine, weighted)"),
        ("nmc[standard]", "nearest class mean, features standardised"),
        ("linear[lbfgs,C40,val,norefit,none]", "linear probe, strength chosen on validation"),
        (
            "linear[lbfgs,C45,val,refit,unit]",
            "linear probe, strength chosen on validation, refitted on both splits, "
            "features of unit length",
        ),
        ("linear[lbfgs,C=1,fixed,none]", "linear probe, strength fixed"),
        (
            "dense-linear[lbfgs,C11,val,norefit,none,192 patches]",
            "linear layer on patches, strength chosen on validation",
        ),
        ("something-new[a,b]", "something-new"),
        ("knn", "kNN"),
    ],
)
def test_a_protocol_has_its_words(probe: str, words: str) -> None:
    """What is chosen on which split is said; an unknown protocol is its own name."""
    assert words == probe_words(probe)


def test_scaling_can_be_left_to_the_notes() -> None:
    """A figure of models with different scalings has one title."""
    assert "nearest class mean" == probe_words("nmc[standard]", scaling=False)


@pytest.mark.parametrize("name", ["bigearthnet_v1", "eurosat_encoders", "eurosat_subset"])
def test_every_protocol_on_record_has_words(name: str) -> None:
    """No bracket is left of any committed record, whatever its probe."""
    lines = (RESULTS / f"{name}.jsonl").read_text().splitlines()
    probes = {json.loads(line)["probe"] for line in lines}

    assert probes
    assert not [probe for probe in probes if "[" in probe_words(probe)]


def test_every_metric_has_a_name_and_a_note() -> None:
    """No two names are alike; the note holds the id."""
    names = [metric_name(metric) for metric in Metric]

    assert len(Metric) == len(set(names))
    assert not {metric.value for metric in Metric} & set(names)
    assert all(f"(`{metric}`): " in metric_note(metric) for metric in Metric)
    assert "speed" == metric_name("speed")
    assert "no metric of this version" in metric_note("speed")
