"""The command line: parsing only. A verb's code is imported when the verb is called.

`eofm --help` must answer at once, so this file knows the verbs as text. Each verb has a
settings dataclass in a module that needs the standard library alone; jsonargparse makes the
options, the YAML reader and the help from it. Exit status: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Protocol, get_type_hints, runtime_checkable

from eofm import __version__
from eofm.errors import EofmError
from eofm.workers import wait_passively

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


class Outcome(Protocol):
    """What a verb returns to its caller, from the command line or from Python."""

    def describe(self) -> str:
        """Return what the command prints on stdout."""


@runtime_checkable
class Verdict(Protocol):
    """An outcome that can be a refusal: what was looked at is not in order."""

    @property
    def status(self) -> int:
        """Exit status: 0 in order, 1 not."""


@dataclass(frozen=True)
class Verb:
    """One command.

    Args:
        summary: One line for `eofm --help`.
        settings: `module:Dataclass` of its options.
        action: `module:function` that takes the dataclass and returns an `Outcome`.
        examples: Lines for the verb's own help.
        common: Options that `--help` shows, where there are many; `--help-all` shows the rest.
        defaults: `module:function` that takes the words of the command line and returns defaults,
            by option, other than those of the dataclass.
    """

    summary: str
    settings: str
    action: str
    examples: tuple[str, ...]
    common: tuple[str, ...] = ()
    defaults: str | None = None


VERBS: Final[Mapping[str, Verb]] = {
    "pretrain": Verb(
        "pretrain an encoder by soft contrastive learning; with no option, a demo in minutes",
        "eofm.train.config:PretrainConfig",
        "eofm.train.run:pretrain",
        (
            "eofm pretrain",
            "eofm pretrain --data.store stores/mine --optim.epochs 20 --run.out runs/mine",
            "eofm pretrain --data.store stores/mine --model.architecture vits14 \\",
            "    --model.weights dinov2_vits14 --model.size 224 --run.out runs/mine",
            "eofm pretrain --data.store stores/mine --dry-run",
            "eofm pretrain --method.objective moco --optim.seed 1",
            "eofm pretrain --data.store stores/both --data.views sensors --trainer.devices 4",
            "eofm pretrain --data.store stores/next --optim.schedule infinite --optim.floor 0.1 \\",
            "    --model.continue_from runs/mine/checkpoints/constant.ckpt",
            "eofm pretrain --run.out runs/mine --run.resume true",
        ),
        (
            "data.store",
            "data.holdout",
            "data.views",
            "data.unlabelled",
            "model.architecture",
            "model.weights",
            "model.continue_from",
            "model.input_init",
            "model.size",
            "model.statistics",
            "method.objective",
            "method.similarity",
            "method.soft_weight",
            "method.mask_ratio",
            "augment.scale",
            "optim.epochs",
            "optim.batch",
            "optim.optimizer",
            "optim.lr",
            "optim.schedule",
            "optim.warmup",
            "optim.layer_decay",
            "optim.freeze_epochs",
            "optim.seed",
            "trainer.devices",
            "trainer.precision",
            "run.out",
            "run.resume",
            "run.dry_run",
            "monitor.every_epochs",
            "monitor.loggers",
        ),
        "eofm.train.demo:demo_defaults",
    ),
    "report": Verb(
        "write one HTML page about a run (finished, going on, or dead), or to compare several",
        "eofm.train.config:ReportConfig",
        "eofm.train.report.page:report",
        (
            "eofm report runs/mine",
            "eofm report runs/mine runs/other --out comparison.html",
            "eofm report runs/mine --store stores/moved-here",
        ),
    ),
    "pack tiles": Verb(
        "cut your own GeoTIFFs into a packed store, with labels from a land-cover map",
        "eofm.datasets.pack_config:PackTilesConfig",
        "eofm.datasets.tiles:pack_tiles",
        (
            "eofm pack tiles --images DIR --sensor s2-l1c --unit dn \\",
            "    --landcover DIR_OR_TIF --scheme terramesh --window 112 --stride 56 --out STORE",
            "eofm pack tiles --images DIR --sensor s2-l2a --unit dn \\",
            "    --landcover fields.gpkg --field crop --scheme my.yaml --out STORE",
            "eofm pack tiles --images DIR --sensor s1-rtc --unit db --out STORE",
            "eofm pack tiles --images DIR --sensor s2-l2a --unit dn --verify --stats --out STORE",
            'eofm pack tiles ... --unit dn --unit_of \'{"609U*": "dn-offset1000"}\'',
        ),
    ),
    "pack ssl4eo": Verb(
        "pack a folder in the layout of SSL4EO-S12",
        "eofm.datasets.pack_config:PackSsl4eoConfig",
        "eofm.datasets.pack_sensors:pack_ssl4eo_sensors",
        (
            "eofm pack ssl4eo --root DIR --sensor s2-l1c --landcover DIR/dw \\",
            "    --scheme dynamic-world --out STORE",
            "eofm pack ssl4eo --root DIR --sensors s2c,s1 --workers 8 --verify --stats --out OUT",
        ),
    ),
    "pack bigearthnet": Verb(
        "pack BigEarthNet v1 or v2, with official labels and splits",
        "eofm.datasets.sets_config:PackBigEarthNetConfig",
        "eofm.datasets.pack_sensors:pack_bigearthnet_sensors",
        (
            "eofm pack bigearthnet --root DIR --sensor s2-l2a --split train --out STORE",
            "eofm pack bigearthnet --root DIR --metadata DIR --sensor s1-grd --classes 19 \\",
            "    --workers 8 --out STORE",
            "eofm pack bigearthnet --root DIR --sensors s2-l2a,s1-grd --out OUT",
        ),
    ),
    "pack eurosat": Verb(
        "pack the tiles of EuroSAT MS, with class and split",
        "eofm.datasets.sets_config:PackEurosatConfig",
        "eofm.datasets.eurosat_pack:pack_eurosat",
        ("eofm pack eurosat --root EuroSAT_MS --out STORE",),
    ),
    "data check": Verb(
        "look at a data set or a store, and say what is wrong with it; status 1 if anything is",
        "eofm.datasets.sets_config:CheckConfig",
        "eofm.datasets.check:check_data",
        (
            "eofm data check DIR",
            "eofm data check DIR --limit 0 --json",
            "eofm data check DIR --sensor s2-l1c --unit dn",
        ),
    ),
    "card": Verb(
        "write a data card of a packed store",
        "eofm.store.config:CardConfig",
        "eofm.store.card:write_card",
        ("eofm card STORE --out data_cards/mine.md --licence CC-BY-4.0",),
    ),
    "data show": Verb(
        "draw a packed store: places, label frequencies, co-occurrence, samples",
        "eofm.store.config:ShowConfig",
        "eofm.store.show:show_store",
        ("eofm data show stores/mine", "eofm data show stores/mine --out mine.png --samples 21"),
    ),
    "data verify": Verb(
        "read every image of a packed store and compare its checksum",
        "eofm.store.config:VerifyConfig",
        "eofm.store.verify:verify_store",
        ("eofm data verify stores/mine", "eofm data verify stores/mine --threads 16"),
    ),
    "data stats": Verb(
        "mean, spread and percentiles of every band of a packed store, in one pass",
        "eofm.store.config:StatsConfig",
        "eofm.store.stats:make_statistics",
        (
            "eofm data stats stores/mine",
            "eofm data stats stores/mine --split train --holdout 0.1 --seed 0 --sample 10000",
            "eofm data stats stores/ben --where '[\"split=train\"]'",
        ),
    ),
    "data relabel": Verb(
        "give a packed store other labels, without touching a pixel",
        "eofm.store.config:RelabelConfig",
        "eofm.store.relabel:relabel_store",
        (
            "eofm data relabel stores/mine --labels labels.parquet --out stores/relabelled",
            "eofm data relabel stores/mine --labels labels.parquet --in_place true",
        ),
    ),
    "data upgrade": Verb(
        "bring a store of eofm 0.1 to the present version: its rows keep CRS and transform",
        "eofm.store.config:UpgradeConfig",
        "eofm.store.upgrade:upgrade_store",
        (
            "eofm data upgrade stores/old --images DIR --out stores/new",
            "eofm data upgrade stores/old --images DIR --in_place true",
        ),
    ),
    "data subset": Verb(
        "copy some images of a packed store into a new one",
        "eofm.store.config:SubsetConfig",
        "eofm.store.copy:subset_store",
        (
            "eofm data subset stores/mine --sample 1000 --out stores/small",
            "eofm data subset stores/mine --ids ids.txt --out stores/chosen",
            'eofm data subset stores/mine --where \'["latitude>=40", "class=water"]\' --out OUT',
        ),
    ),
    "data merge": Verb(
        "copy several packed stores of the same kind into one",
        "eofm.store.config:MergeConfig",
        "eofm.store.copy:merge_stores",
        ("eofm data merge stores/north stores/south --out stores/both",),
    ),
    "labels": Verb(
        "count land-cover maps of any size: multi-labels for their windows, or for your scenes",
        "eofm.landcover.config:LabelsConfig",
        "eofm.landcover.run:write_labels",
        (
            "eofm labels MAP.tif --scheme worldcover --window 264 --out labels.parquet",
            "eofm labels DIR/maps --scenes STORE --scheme worldcover --out labels.parquet",
            "eofm labels DIR/dw --scenes DIR/images --scheme dynamic-world --dates %Y%m%d \\",
            "    --scene_dates %Y%m%d --max_gap_days 30 --workers 8 --out labels.parquet",
            "eofm labels fields.gpkg --field crop --scenes STORE --scheme my.yaml \\",
            "    --out labels.parquet",
            "eofm labels items.json --scenes footprints.parquet --scheme my.yaml \\",
            "    --dask tcp://host:8786 --out labels.parquet --resume",
            "",
            "a scheme of your own, my.yaml:",
            "  name: my-map",
            "  classes: {1: water, 2: forest, 3: forest, 7: fields}  # one name, one class",
            "  nodata: [0]",
            "  cloud: [10]",
            "  unknown: error  # or ignore: other codes count as nodata",
        ),
    ),
    "world": Verb(
        "write the embedded synthetic world as GeoTIFFs in the layout of SSL4EO-S12",
        "eofm.world.config:WorldConfig",
        "eofm.world.files:write_world",
        ("eofm world --out worlds/mine --scenes 50 --seed 1",),
    ),
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
    "models list": Verb(
        "list published weights that are known by name",
        "eofm.weights.config:ListConfig",
        "eofm.weights.catalogue:list_models",
        (
            "eofm models list",
            "eofm models list --sensor s2-l1c",
            "eofm models list --json",
        ),
    ),
    "models info": Verb(
        "say what published weights are: recipe, source, licence, published scores",
        "eofm.weights.config:InfoConfig",
        "eofm.weights.catalogue:show_model",
        (
            "eofm models info softcon_vits14_s2",
            "eofm models info softcon_vits14_s2@torchgeo-zscore",
        ),
    ),
    "models download": Verb(
        "fetch published weights, for use here or on a machine without network",
        "eofm.weights.config:DownloadConfig",
        "eofm.weights.manage:download_model",
        (
            "eofm models download softcon_vits14_s2",
            "eofm models download softcon_vits14_s2 --to weights",
            "EOFM_WEIGHTS=weights EOFM_OFFLINE=1 eofm models info softcon_vits14_s2",
        ),
    ),
    "models verify": Verb(
        "compare an export, or a folder of downloads, with its hashes",
        "eofm.weights.config:VerifyWeightsConfig",
        "eofm.weights.manage:verify",
        ("eofm models verify runs/mine/export/student", "eofm models verify weights"),
    ),
    "models export": Verb(
        "write a checkpoint, an export or published weights for others: safetensors, pt2, onnx",
        "eofm.weights.config:ExportConfig",
        "eofm.weights.export:export_source",
        (
            "eofm models export runs/mine/checkpoints/last.ckpt --to encoders/mine",
            "eofm models export runs/mine/export/student --to encoders/mine --formats pt2,onnx",
            "eofm models export softcon_vits14_s2 --to encoders/softcon --formats onnx \\",
            "    --takes physical",
        ),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    wait_passively()  # before a verb loads torch
    try:
        status = _main(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader of our output has gone (`| head`): nothing to say, and nobody to say it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _main(words: Sequence[str]) -> int:
    if not words or words[0] in {"-h", "--help", "help"}:
        print(_overview())
        return 0
    if words[0] in {"-V", "--version"}:
        print(f"eofm {__version__}")
        return 0
    name, rest = _find_verb(words)
    if name is None:
        return 2
    try:
        return _run(name, VERBS[name], rest)
    except UsageError as error:
        print(f"eofm {name}: error: {error}\n  remedy:   eofm {name} --help", file=sys.stderr)
        return 2
    except EofmError as error:
        print(f"eofm {name}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\neofm {name}: interrupted", file=sys.stderr)
        return 130


class UsageError(Exception):
    """A wrong option, key or type on the command line or in a YAML file.

    Args:
        problem: The parser's words.
        known: All keys the verb knows, for a suggestion.
    """

    def __init__(self, problem: str, known: Sequence[str]) -> None:
        unknown = re.search(
            r"(?:Group '(\S+)' does not accept option|does not accept option|"
            r"unrecognized arguments:) '?(?:--)?([\w.]+)",
            problem,
        )
        if unknown:
            key = ".".join(part for part in unknown.groups() if part)
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            problem += f"\n  did you mean: --{near[0]}" if near else ""
        super().__init__(problem)


# Titles of `eofm --help`, and the first words of the verbs under each.
_TITLES: Final[Mapping[str, tuple[str, ...]]] = {
    "pretraining": ("pretrain", "report"),
    "data": ("pack", "data", "card", "labels", "world"),
    "benchmark": ("bench",),
    "models": ("models",),
}


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [
        f"eofm {__version__}: pretrain, benchmark and use satellite encoders",
        "",
        "usage: eofm VERB [options]",
    ]
    titled = set(chain.from_iterable(_TITLES.values()))
    groups = {
        **_TITLES,
        "other": tuple(name for name in VERBS if name.split()[0] not in titled),
    }
    for title, words in groups.items():
        verbs = [name for name in VERBS if name in words or name.split()[0] in words]
        if verbs:
            lines += ["", title, *(f"  {name:{width}}  {VERBS[name].summary}" for name in verbs)]
    lines += [
        "",
        "`eofm VERB --help` lists a verb's options with examples. Every option can also stand in a",
        "YAML file: `--config FILE`. Options and files take effect in the order they are given.",
        "Lists are words: `--bands B02 B03`, or with commas between them: `--bands B02,B03`.",
        "`eofm VERB ... --print_config` prints the settings without running.",
    ]
    return "\n".join(lines)


def _find_verb(words: Sequence[str]) -> tuple[str | None, list[str]]:
    if len(words) > 1 and words[0] == "bench":
        words = _bench_words(words)
        if not words:
            return None, []
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in VERBS:
            return name, list(words[length:])
    siblings = [name for name in VERBS if name.split()[0] == words[0]]
    if siblings and (len(words) == 1 or words[1] in {"-h", "--help"}):
        print("\n".join(f"eofm {name:16} {VERBS[name].summary}" for name in siblings))
        return None, []
    typed = " ".join(word for word in words[:2] if not word.startswith("-"))
    near = difflib.get_close_matches(typed, list(VERBS), n=1, cutoff=0.4)
    print(
        f"eofm: error: there is no verb {typed!r}"
        + (f"; did you mean 'eofm {near[0]}'?" if near else "")
        + f"\n  verbs: {', '.join(VERBS)}",
        file=sys.stderr,
    )
    return None, []


def _bench_words(words: Sequence[str]) -> Sequence[str]:
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


def _load(reference: str) -> Any:  # noqa: ANN401 (a class or a function, by name)
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def parse(name: str, words: Sequence[str]) -> object:
    """Return the settings of verb `name` from its command-line words.

    Raises:
        UsageError: On a wrong option, key or type.
        SystemExit: On --help and --print_config, with status 0.
        ConfigError: If settings are well formed but out of range.
    """
    from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

    verb = VERBS[name]
    words = ["--run.dry_run=true" if word == "--dry-run" else word for word in words]
    settings = _load(verb.settings)
    positional = [f.name for f in fields(settings) if f.metadata.get("positional")]
    several = [f.name for f in fields(settings) if f.metadata.get("positional") == "+"]
    flags = [f.name for f in fields(settings) if f.metadata.get("flag")]

    class Formatter(DefaultHelpFormatter):
        """Keep the line breaks of the examples."""

        def _fill_text(self, text: str, width: int, indent: str) -> str:
            return "\n".join(indent + line for line in text.splitlines())

    examples = "\n".join(f"  {line}" for line in verb.examples)
    parser = ArgumentParser(
        prog=f"eofm {name}",
        usage=" ".join([f"eofm {name}", *(f.upper() for f in positional), "[options]"]),
        description=f"{verb.summary}\n\nexamples:\n{examples}",
        formatter_class=Formatter,
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument(
        "--config", action="config", help="YAML file of settings; later options override it."
    )
    parser.add_argument(
        "--help-all", action="help", help="Show all options, not only the common ones."
    ) if verb.common else None
    _register_enums(settings)
    parser.add_class_arguments(settings, skip={*positional, *flags})
    _show_values(parser)
    if verb.defaults is not None:
        parser.set_defaults(dict(_load(verb.defaults)(words)))
    for field_name in positional:
        many = field_name in several
        parser.add_argument(
            field_name,
            type=str,
            nargs="+" if many else None,
            help=_help(settings, field_name),
        )
    for field_name in flags:
        parser.add_argument(
            f"--{field_name}", action="store_true", help=_help(settings, field_name)
        )
    if verb.common and "--help-all" not in words:
        _hide(parser, verb.common)
    try:
        parsed = parser.instantiate(parser.parse_args(joined(words, settings)))
    except ArgumentError as error:
        known = [key for key, _ in parser.get_defaults().items()]
        raise UsageError(str(error.message), known) from error
    return settings(**{f.name: parsed[f.name] for f in fields(settings)})


def _hide(parser: ArgumentParser, common: Sequence[str]) -> None:
    """Leave all options out of the help but the common ones and those of the parser itself."""
    from jsonargparse import SUPPRESS

    shown = {"help", "help_all", "config", "print_config", *common}
    for action in parser._actions:
        if action.dest not in shown:
            action.help = SUPPRESS


_LISTS: Final = ("list[str]", "list[str] | None")


def joined(words: Sequence[str], settings: type) -> list[str]:
    """Return the words of a command with those of each list put into one.

    A list may be given as words, `--bands B02 B03`, with commas, `--bands B02,B03`, or as YAML,
    `--bands [B02,B03]`. Where the verb takes words of its own after its options, as many as it
    needs are left to it.

    Args:
        words: After the verb.
        settings: The verb's settings; fields of `list[str]` are lists, and so are those whose
            metadata say `list`, which hold words with commas.
    """
    lists = {f"--{f.name}" for f in fields(settings) if f.type in _LISTS}
    texts = {f"--{f.name}" for f in fields(settings) if f.metadata.get("list")}
    own = sum(1 for f in fields(settings) if f.metadata.get("positional"))
    out: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word not in lists | texts:
            out.append(word)
            own -= not word.startswith("-") and not (at > 1 and words[at - 2].startswith("--"))
            continue
        end = next((i for i in range(at, len(words)) if words[i].startswith("--")), len(words))
        given = list(words[at:end])
        rest = (
            given[len(given) - own :] if own > 0 and end == len(words) and own < len(given) else []
        )
        given = given[: len(given) - len(rest)]
        at = end
        text = ",".join(part.strip("[]") for part in given)
        out += [word, f"[{text}]" if word in lists else text, *rest]
    return out


def _register_enums(settings: type) -> None:
    """Let members of enumerations be named by their value, as YAML and Python have them."""
    from jsonargparse.typing import register_type

    for kind in get_type_hints(settings).values():
        if not isinstance(kind, type):
            continue
        if is_dataclass(kind):
            _register_enums(kind)
        elif issubclass(kind, StrEnum):
            register_type(kind, str, partial(_choose, kind), fail_already_registered=False)


def _choose(kind: type[StrEnum], value: object) -> StrEnum:
    known = {member.value: member for member in kind}
    if value not in known:
        raise ValueError(f"{value!r} is none of {', '.join(known)}")
    return known[str(value)]


def _show_values(parser: Any) -> None:  # noqa: ANN401 (jsonargparse is loaded when it is used)
    """Put the values of enumerations where jsonargparse has the names of their members."""
    for action in parser._actions:
        kind = getattr(action, "_typehint", None)
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            action.metavar = "{" + ",".join(kind) + "}"
            action.default = kind[action.default].value


def _help(settings: type, name: str) -> str:
    """Return what the docstring of a settings class says of a field."""
    from docstring_parser import parse as parse_docstring

    documented = {p.arg_name: p.description for p in parse_docstring(settings.__doc__ or "").params}
    return (documented.get(name) or "").replace("\n", " ")


def _run(name: str, verb: Verb, words: Sequence[str]) -> int:
    settings = parse(name, words)
    action: Callable[[Any], Outcome] = _load(verb.action)
    outcome = action(settings)
    print(outcome.describe())
    return outcome.status if isinstance(outcome, Verdict) else 0


if __name__ == "__main__":
    sys.exit(main())
