"""The verbs, in the groups of `eofm --help`.

A verb is defined by text only, so that `eofm --help` is fast: one entry in the table of its group,
with its settings, a dataclass in a module that needs the standard library alone, and the function
that takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from eofm.datasets.base import Packing
from eofm.datasets.registry import DATASETS

__all__ = ["GROUPS", "VERBS", "Outcome", "Verb", "Verdict"]


class Outcome(Protocol):
    """Result of a verb, for the command line and for Python."""

    def describe(self) -> str:
        """Return the output of the command on stdout."""


@runtime_checkable
class Verdict(Protocol):
    """A result that can be a refusal: a check has failed."""

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
        spelled: Spelling in other programs -> the option it means.
    """

    summary: str
    settings: str
    action: str
    examples: tuple[str, ...]
    common: tuple[str, ...] = ()
    defaults: str | None = None
    spelled: Mapping[str, str] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------- the table


def _declared(word: str) -> dict[str, Verb]:
    """Return the verbs that the data sets declare: `eofm bench NAME` or `eofm pack NAME`.

    Args:
        word: `bench` or `pack`.
    """
    verbs = {}
    for dataset in DATASETS.values():
        entry = dataset.benchmark if word == "bench" else dataset.packing
        if entry is not None:
            settings = f"{entry.settings.__module__}:{entry.settings.__qualname__}"
            run = entry.run if isinstance(entry, Packing) else "eofm.bench.run:bench"
            verbs[f"{word} {dataset.name}"] = Verb(entry.summary, settings, run, entry.examples)
    return verbs


_PRETRAINING: Final[Mapping[str, Verb]] = {
    "pretrain": Verb(
        "pretrain an encoder by soft contrastive learning; with no option, a demo in minutes",
        "eofm.train.config:PretrainConfig",
        "eofm.train.run:pretrain",
        (
            "eofm pretrain",
            "eofm pretrain --data.store stores/mine --dry-run",
            "eofm pretrain --data.store stores/mine --optim.epochs 20 --run.out runs/mine",
            "eofm pretrain --data.store stores/mine --model.architecture vits14 \\",
            "    --model.weights dinov2_vits14 --model.size 224 --run.out runs/mine",
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
        "eofm.train.config:demo_defaults",
        {"--dry-run": "--run.dry_run=true"},
    ),
    "report": Verb(
        "write one HTML page about a run (finished, running, or dead), or to compare several",
        "eofm.train.config:ReportConfig",
        "eofm.train.report:report",
        (
            "eofm report runs/mine",
            "eofm report runs/mine runs/other --out comparison.html",
            "eofm report runs/mine --store stores/moved-here",
        ),
    ),
}


_DATA: Final[Mapping[str, Verb]] = {
    **_declared("pack"),
    "data check": Verb(
        "check a data set or a store for faults; exit status 1 if there are any",
        "eofm.datasets.check:CheckConfig",
        "eofm.datasets.check.run:check_data",
        (
            "eofm data check DIR",
            "eofm data check DIR --limit 0 --json",
            "eofm data check DIR --sensor s2-l1c --unit dn",
        ),
    ),
    "card": Verb(
        "write a data card of a packed store",
        "eofm.store.config:CardConfig",
        "eofm.store.describe:write_card",
        ("eofm card STORE --out data_cards/mine.md --licence CC-BY-4.0",),
    ),
    "data show": Verb(
        "draw a packed store: places, label frequencies, co-occurrence, samples",
        "eofm.store.config:ShowConfig",
        "eofm.store.describe:show_store",
        ("eofm data show stores/mine", "eofm data show stores/mine --out mine.png --samples 21"),
    ),
    "data verify": Verb(
        "read every image of a packed store and compare its checksum",
        "eofm.store.config:VerifyConfig",
        "eofm.store.describe:verify_store",
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
        "eofm.store.edit:relabel_store",
        (
            "eofm data relabel stores/mine --labels labels.parquet --out stores/relabelled",
            "eofm data relabel stores/mine --labels labels.parquet --in_place true",
        ),
    ),
    "data upgrade": Verb(
        "convert a store of eofm 0.1 to the current version, whose rows hold CRS and transform",
        "eofm.store.config:UpgradeConfig",
        "eofm.store.grids:upgrade_store",
        (
            "eofm data upgrade stores/old --images DIR --out stores/new",
            "eofm data upgrade stores/old --images DIR --in_place true",
        ),
    ),
    "data subset": Verb(
        "copy some images of a packed store into a new one",
        "eofm.store.config:SubsetConfig",
        "eofm.store.edit:subset_store",
        (
            "eofm data subset stores/mine --sample 1000 --out stores/small",
            "eofm data subset stores/mine --ids ids.txt --out stores/chosen",
            'eofm data subset stores/mine --where \'["latitude>=40", "class=water"]\' --out OUT',
        ),
    ),
    "data merge": Verb(
        "copy several packed stores of the same kind into one",
        "eofm.store.config:MergeConfig",
        "eofm.store.edit:merge_stores",
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
}


_BENCHMARK: Final[Mapping[str, Verb]] = {
    **_declared("bench"),
    "bench table": Verb(
        "print the records of benchmark runs as tables",
        "eofm.bench.config:TableConfig",
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
        "eofm.bench.config:RecordsExportConfig",
        "eofm.bench.reports.export:plot",
        ("eofm bench plot runs/bench/eurosat.jsonl --probe linear --out figures",),
    ),
    "bench compare": Verb(
        "compare two models on the same test samples, by paired bootstrap",
        "eofm.bench.config:CompareConfig",
        "eofm.bench.reports.compare:compare_models",
        ("eofm bench compare mine imagestats --results runs/bench/eurosat.jsonl",),
    ),
    "bench export": Verb(
        "write records as Markdown, CSV and one HTML page with figures",
        "eofm.bench.config:RecordsExportConfig",
        "eofm.bench.reports.export:export",
        ("eofm bench export runs/bench/eurosat.jsonl --out reports/eurosat",),
    ),
    "bench aggregate": Verb(
        "aggregate scores over tasks: interquartile mean of normalised scores, with intervals",
        "eofm.bench.config:AggregateConfig",
        "eofm.bench.reports.compare:aggregate",
        ("eofm bench aggregate runs/bench/eurosat.jsonl,runs/bench/so2sat.jsonl --probe linear",),
    ),
    "bench validate": Verb(
        "recompute every record from its predictions and say which can be trusted",
        "eofm.bench.config:ValidateConfig",
        "eofm.bench.reports.validate:validate",
        ("eofm bench validate runs/bench/eurosat.jsonl",),
    ),
    "bench plan": Verb(
        "show the steps from a task's images to a model's input, or why there is no valid way",
        "eofm.bench.config:PlanConfig",
        "eofm.bench.candidates:bench_plan",
        (
            "eofm bench plan bigearthnet softcon_vits14_s2",
            "eofm bench plan bigearthnet-v1-s1-43 softcon_vits14_s1",
            "eofm bench plan eurosat croma_base_s2 --force sensor",
        ),
    ),
}


_SCENES: Final[Mapping[str, Verb]] = {
    "embed": Verb(
        "turn whole scenes into vectors: one for each chip (GeoParquet) or patch (GeoTIFF, Zarr)",
        "eofm.geo.embedding.config:EmbedConfig",
        "eofm.geo.embedding.embed:embed",
        (
            "eofm embed S2B_MSIL1C_20210704T...SAFE --model softcon_vits14_s2 --out DIR",
            "eofm embed scene.tif --sensor s2-l2a --unit dn --model runs/mine --patches --out DIR",
            "eofm embed scene.tif --sensor s2-l1c --unit dn --model runs/mine --chips 32 \\",
            "    --where 11.30,48.05,11.40,48.10 --out DIR",
            "eofm embed items.json --model runs/mine --cloud_mask SCL --workers 4 --out DIR",
            "eofm embed series.nc --sensor s2-l2a --time 2021-07-04 --model runs/mine --out DIR",
            "eofm embed scene.tif --sensor s2-l1c --unit dn --model runs/mine --patches \\",
            "    --out DIR --explain",
        ),
        (
            "model",
            "out",
            "sensor",
            "unit",
            "time",
            "item",
            "chips",
            "stride",
            "grid",
            "patches",
            "window",
            "overlap",
            "where",
            "cloud_mask",
            "min_valid",
            "quantization",
            "formats",
            "workers",
            "device",
            "devices",
            "dask",
            "explain",
        ),
    ),
}


_MAPS: Final[Mapping[str, Verb]] = {
    "map": Verb(
        "learn a map of classes from polygons or points, with its accuracy",
        "eofm.geo.maps_config:MapConfig",
        "eofm.geo.class_map_files:run_map",
        (
            "eofm map EMB --labels fields.gpkg --field crop --out maps/crops",
            "eofm map EMB --labels drawn.gpkg visited.geojson --field class --block 2000",
            "eofm map EMB --labels sample.gpkg --field class --design random",
            "eofm map EMB --labels fields.gpkg --field crop --also EMB_2023 EMB_2024",
        ),
    ),
    "search": Verb(
        "find places similar to a place, to polygons, or to polygons and unlike counterexamples",
        "eofm.geo.maps_config:SearchConfig",
        "eofm.geo.search:run_search",
        (
            "eofm search EMB --at 11.35,48.07",
            "eofm search EMB --like solar.gpkg --unlike roofs.gpkg --top 200 --out found",
            "eofm search EMB --like solar.gpkg --scene SCENE --sensor s2-l2a --unit dn",
        ),
    ),
    "change": Verb(
        "find where two dates differ more than unchanged ground does, at a nominal rate of errors",
        "eofm.geo.maps_config:ChangeConfig",
        "eofm.geo.change:run_change",
        (
            "eofm change EMB_2019 EMB_2024 --null EMB_2018 EMB_2017 --rate 0.001",
            "eofm change EMB_2019 EMB_2024 --rate 0.01 --smallest 3 --out changed",
        ),
    ),
    "explore": Verb(
        "write one HTML file in which a click shows similar places; needs no server or network",
        "eofm.geo.maps_config:ExploreConfig",
        "eofm.geo.explore:run_explore",
        (
            "eofm explore EMB --out explore.html",
            "eofm explore EMB --scene SCENE --sensor s2-l2a --unit dn",
        ),
    ),
}


_MODELS: Final[Mapping[str, Verb]] = {
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
        "describe published weights: recipe, source, licence, published scores",
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
        "eofm.weights.catalogue:download_model",
        (
            "eofm models download softcon_vits14_s2",
            "eofm models download softcon_vits14_s2 --to weights",
            "EOFM_WEIGHTS=weights EOFM_OFFLINE=1 eofm models info softcon_vits14_s2",
        ),
    ),
    "models verify": Verb(
        "compare an export, or a folder of downloads, with its hashes",
        "eofm.weights.config:VerifyWeightsConfig",
        "eofm.weights.catalogue:verify",
        ("eofm models verify runs/mine/export/student", "eofm models verify weights"),
    ),
    "models merge": Verb(
        "interpolate between the weights of two encoders, such as the start and end of a run",
        "eofm.weights.config:MergeModelsConfig",
        "eofm.weights.merge:merge_models",
        (
            "eofm models merge runs/mine/export/init runs/mine/export/student \\",
            "    --alpha 0.5 --out encoders/halfway",
        ),
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


_SHELL: Final[Mapping[str, Verb]] = {
    "completion": Verb(
        "print a script with which a shell completes verbs, options and choices",
        "eofm.cli.completion:CompletionConfig",
        "eofm.cli.completion:write_completion",
        (
            "eofm completion bash > ~/.local/share/bash-completion/completions/eofm",
            'eofm completion zsh > "${fpath[1]}/_eofm"',
            "eofm completion fish > ~/.config/fish/completions/eofm.fish",
            'eval "$(eofm completion bash)"  # for this shell only',
        ),
    ),
}

GROUPS: Final[Mapping[str, Mapping[str, Verb]]] = {
    "pretraining": _PRETRAINING,
    "data": _DATA,
    "benchmark": _BENCHMARK,
    "scenes": _SCENES,
    "maps": _MAPS,
    "models": _MODELS,
    "shell": _SHELL,
}
VERBS: Final[Mapping[str, Verb]] = {
    name: verb for group in GROUPS.values() for name, verb in group.items()
}
