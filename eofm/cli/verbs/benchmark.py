"""Verbs of the benchmark."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Final

from eofm.cli.verb import Verb

__all__ = ["VERBS", "full_words"]

VERBS: Final[Mapping[str, Verb]] = {
    "bench eurosat": Verb(
        "score encoders and controls on EuroSAT: MS, RGB or SAR",
        "eofm.bench.task_config:BenchEurosatConfig",
        "eofm.bench.run:bench",
        (
            "eofm bench eurosat --root EuroSAT_MS --model runs/mine/export/student \\",
            "    --probe knn,linear",
            "eofm bench eurosat --root DIR --model softcon_vits14_s2,random:resnet50",
            "eofm bench eurosat --root DIR --model softcon_vits14_s2 --probe finetune \\",
            "    --train.epochs 30 --train.factors 0.01,0.1",
            "eofm bench eurosat --root DIR --model softcon_vits14_s2 --size 32,64,96,128 \\",
            "    --normalization own,zscore,divide10000",
        ),
    ),
    "bench bigearthnet": Verb(
        "score encoders and controls on BigEarthNet v1 or v2: Sentinel-2, Sentinel-1 or both",
        "eofm.bench.task_config:BenchBigEarthNetConfig",
        "eofm.bench.run:bench",
        (
            "eofm bench bigearthnet --root DIR --model softcon_vits14_s2 --probe knn,linear",
            "eofm bench bigearthnet --root DIR --sensor both --percent 10 \\",
            "    --model softcon_vits14_s2+softcon_vits14_s1",
            "eofm bench bigearthnet --root DIR --version v1 --model softcon_vits14_s2 \\",
            "    --probe softcon --train.faults true",
            "eofm bench bigearthnet-v1-s1-43 --root DIR --model softcon_vits14_s1",
        ),
    ),
    "bench folder": Verb(
        "score encoders and controls on your own labelled images",
        "eofm.bench.task_config:BenchFolderConfig",
        "eofm.bench.run:bench",
        (
            "eofm bench folder --root DIR --sensor s2-l2a --unit dn --model my_models:encoder",
            "",
            "DIR holds train/<class>/*.tif and test/<class>/*.tif, or labels.csv:",
            "  file,split,labels",
            "  images/1.tif,train,water;forest",
        ),
    ),
    "bench so2sat": Verb(
        "score encoders and controls on So2Sat LCZ42",
        "eofm.bench.task_config:BenchSo2SatConfig",
        "eofm.bench.run:bench",
        ("eofm bench so2sat --root DIR --version v3-culture-10 --model softcon_vits14_s2",),
    ),
    "bench treesatai": Verb(
        "score encoders and controls on TreeSatAI",
        "eofm.bench.task_config:BenchTreeSatAIConfig",
        "eofm.bench.run:bench",
        ("eofm bench treesatai --root DIR --metres 60 --model softcon_vits14_s2",),
    ),
    "bench ucmerced": Verb(
        "score encoders and controls on UC Merced Land Use",
        "eofm.bench.task_config:BenchUCMercedConfig",
        "eofm.bench.run:bench",
        ("eofm bench ucmerced --root DIR --model dinov2_vits14",),
    ),
    "bench resisc45": Verb(
        "score encoders and controls on NWPU-RESISC45",
        "eofm.bench.task_config:BenchResisc45Config",
        "eofm.bench.run:bench",
        ("eofm bench resisc45 --root DIR --model dinov2_vits14",),
    ),
    "bench sat6": Verb(
        "score encoders and controls on SAT-6, aerial images",
        "eofm.bench.task_config:BenchSat6Config",
        "eofm.bench.run:bench",
        ("eofm bench sat6 --root DIR --model dinov2_vits14",),
    ),
    "bench dfc2020": Verb(
        "segment land cover on DFC2020 by a linear layer on patch tokens",
        "eofm.bench.task_config:BenchDfc2020Config",
        "eofm.bench.run:bench",
        (
            "eofm bench dfc2020 --root DIR --model softcon_vits14_s2 --figure classes.png",
            "eofm bench dfc2020 --root DIR --sensor both --model A_OF_S2+B_OF_S1",
        ),
    ),
    "bench sen1floods11": Verb(
        "segment floods on Sen1Floods11 by a linear layer on patch tokens",
        "eofm.bench.task_config:BenchSen1Floods11Config",
        "eofm.bench.run:bench",
        (
            "eofm bench sen1floods11 --root DIR --sensor s1 --model softcon_vits14_s1",
            "eofm bench sen1floods11 --root DIR --sensor s2 --test bolivia --model MODEL",
        ),
    ),
    "bench masks": Verb(
        "segment your own images with masks by a linear layer on patch tokens",
        "eofm.bench.task_config:BenchMasksConfig",
        "eofm.bench.run:bench",
        (
            "eofm bench masks --root DIR --sensor s2-l2a --unit dn --classes 1=water,2=forest \\",
            "    --void 0,255 --model my_models:encoder",
            "",
            "DIR holds train/images/*.tif and train/masks/*.tif of the same names, test likewise.",
        ),
    ),
    "bench table": Verb(
        "print the records of benchmark runs as tables",
        "eofm.bench.report_config:TableConfig",
        "eofm.bench.export:print_table",
        (
            "eofm bench table runs/bench/eurosat.jsonl",
            "eofm bench table runs/bench/eurosat.jsonl --probe knn --nonstandard true",
        ),
    ),
    "bench plot": Verb(
        "draw the records: classes with intervals, confusion or co-occurrence",
        "eofm.bench.report_config:RecordsExportConfig",
        "eofm.bench.export:plot",
        ("eofm bench plot runs/bench/eurosat.jsonl --probe linear --out figures",),
    ),
    "bench compare": Verb(
        "compare two models on the same test samples, by paired bootstrap",
        "eofm.bench.report_config:CompareConfig",
        "eofm.bench.compare:compare_models",
        ("eofm bench compare mine imagestats --results runs/bench/eurosat.jsonl",),
    ),
    "bench export": Verb(
        "write records as Markdown, CSV and one HTML page with figures",
        "eofm.bench.report_config:RecordsExportConfig",
        "eofm.bench.export:export",
        ("eofm bench export runs/bench/eurosat.jsonl --out reports/eurosat",),
    ),
    "bench aggregate": Verb(
        "aggregate scores over tasks: interquartile mean of normalised scores, with intervals",
        "eofm.bench.report_config:AggregateConfig",
        "eofm.bench.aggregate:aggregate",
        ("eofm bench aggregate runs/bench/eurosat.jsonl,runs/bench/so2sat.jsonl --probe linear",),
    ),
    "bench validate": Verb(
        "recompute every record from its predictions and say which can be trusted",
        "eofm.bench.report_config:ValidateConfig",
        "eofm.bench.validate:validate",
        ("eofm bench validate runs/bench/eurosat.jsonl",),
    ),
    "bench plan": Verb(
        "show the steps from a task's images to a model's input, or why there are none",
        "eofm.bench.report_config:PlanConfig",
        "eofm.bench.plan:bench_plan",
        (
            "eofm bench plan bigearthnet softcon_vits14_s2",
            "eofm bench plan bigearthnet-v1-s1-43 softcon_vits14_s1",
            "eofm bench plan eurosat croma_base_s2 --force sensor",
        ),
    ),
}


def full_words(words: Sequence[str]) -> Sequence[str]:
    """Return the words, the full name of a task as family and options; none if it is an error."""
    from eofm.bench.task_config import FAMILIES, family_of, options_of

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
