"""Verbs of the benchmark."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Final

from eofm.cli.verb import Verb
from eofm.cli.verbs.data_sets import data_set_verbs
from eofm.datasets.registry import FAMILIES, family_of, options_of

__all__ = ["VERBS", "full_words"]

VERBS: Final[Mapping[str, Verb]] = {
    **data_set_verbs("bench"),
    "bench table": Verb(
        "print the records of benchmark runs as tables",
        "eofm.bench.reports.report_config:TableConfig",
        "eofm.bench.reports.export:print_table",
        (
            "eofm bench table runs/bench/eurosat.jsonl",
            "eofm bench table runs/bench/eurosat.jsonl --probe knn --nonstandard true",
            "eofm bench table runs/bench/bigearthnet.jsonl --slice country",
            "eofm bench table runs/bench/bigearthnet.jsonl --classes true",
        ),
    ),
    "bench plot": Verb(
        "draw the records: classes with intervals, confusion or co-occurrence",
        "eofm.bench.reports.report_config:RecordsExportConfig",
        "eofm.bench.reports.export:plot",
        ("eofm bench plot runs/bench/eurosat.jsonl --probe linear --out figures",),
    ),
    "bench compare": Verb(
        "compare two models on the same test samples, by paired bootstrap",
        "eofm.bench.reports.report_config:CompareConfig",
        "eofm.bench.reports.compare:compare_models",
        ("eofm bench compare mine imagestats --results runs/bench/eurosat.jsonl",),
    ),
    "bench export": Verb(
        "write records as Markdown, CSV and one HTML page with figures",
        "eofm.bench.reports.report_config:RecordsExportConfig",
        "eofm.bench.reports.export:export",
        ("eofm bench export runs/bench/eurosat.jsonl --out reports/eurosat",),
    ),
    "bench aggregate": Verb(
        "aggregate scores over tasks: interquartile mean of normalised scores, with intervals",
        "eofm.bench.reports.report_config:AggregateConfig",
        "eofm.bench.reports.aggregate:aggregate",
        ("eofm bench aggregate runs/bench/eurosat.jsonl,runs/bench/so2sat.jsonl --probe linear",),
    ),
    "bench validate": Verb(
        "recompute every record from its predictions and say which can be trusted",
        "eofm.bench.reports.report_config:ValidateConfig",
        "eofm.bench.reports.validate:validate",
        ("eofm bench validate runs/bench/eurosat.jsonl",),
    ),
    "bench plan": Verb(
        "show the steps from a task's images to a model's input, or why there are none",
        "eofm.bench.reports.report_config:PlanConfig",
        "eofm.bench.reports.plan:bench_plan",
        (
            "eofm bench plan bigearthnet softcon_vits14_s2",
            "eofm bench plan bigearthnet-v1-s1-43 softcon_vits14_s1",
            "eofm bench plan eurosat croma_base_s2 --force sensor",
        ),
    ),
}


def full_words(words: Sequence[str]) -> Sequence[str]:
    """Return the words, the full name of a task as family and options; none if it is an error."""
    task, rest = words[1], words[2:]
    if task == "ablate":
        family = rest[0] if rest and rest[0] in FAMILIES else "eurosat"
        print(
            "eofm: error: `eofm bench ablate` is now two options of every task of whole images\n"
            f"  remedy:   eofm bench {family} --root DIR --model MODEL --probe knn "
            "--size 32,64,128 --normalization auto\n"
            f"  remedy:   of its YAML file without `figure`: eofm bench {family} --config FILE; "
            "the figure: eofm bench plot RESULTS --nonstandard true",
            file=sys.stderr,
        )
        return []
    options = None if task in FAMILIES else options_of(task)
    if options is None:
        return words
    named = [word for name, value in options.items() for word in (f"--{name}", value)]
    return ["bench", family_of(task), *named, *rest]
