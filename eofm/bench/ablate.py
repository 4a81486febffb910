"""`eofm bench ablate`: what another size or normalisation costs a model, in one table.

The table of arXiv 2305.13456 for any encoder and any task: the same weights, images, splits and
probe, and only the input changed. Rows other than the recipe's own are marked nonstandard and stay
out of tables of results; each names what was changed. Every image is decoded once, however many
cells the table has.

Shapes: C bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from eofm.bench.ablate_config import AblateSettings
from eofm.bench.ablate_recipes import OF_TRAIN, Setting, recipes, statistics, suitable
from eofm.bench.config import listed
from eofm.bench.features import EncoderSource, FeatureSource, Identity
from eofm.bench.models import Candidate, device_of, read_recipe
from eofm.bench.network import NetworkSource
from eofm.bench.results import Result
from eofm.bench.run import BenchReport, limited, score_candidates
from eofm.bench.task import Task
from eofm.bench.tasks import load
from eofm.bench.waive import ABLATION_WHY, waivers_for
from eofm.contract.imagery import Imagery
from eofm.contract.recipe import Recipe, Waiver
from eofm.contract.spec import ImageSpec
from eofm.datasets.chips import keeping_pixels
from eofm.errors import ConfigError, MismatchKind, SpecMismatch
from eofm.networks import timm_trunk
from eofm.probes.linear import Scaling
from eofm.report import output, plots
from eofm.report.plots import Estimate
from eofm.weights import torchgeo_names
from eofm.weights.encoder import Encoder
from eofm.weights.load import load_weights
from eofm.weights.timm_pretrained import load_timm


class AblatedSource:
    """An encoder whose input is changed on purpose.

    Args:
        name: Name of the row.
        encoder: The network.
        recipe: What it is fed instead of what it was trained on.
        changed: What differs, in words; each becomes a waiver of the record.
        waivers: Exceptions the encoder is granted on the task in any case.
    """

    scaling = Scaling.NONE

    def __init__(
        self,
        name: str,
        encoder: Encoder,
        recipe: Recipe,
        changed: Sequence[str],
        waivers: Sequence[Waiver] = (),
    ) -> None:
        self.name = name
        about = f"{encoder.card.architecture}, {encoder.card.source}"
        trained = encoder.card.training_data
        self._source = NetworkSource(
            name, encoder.trunk, recipe, about, waivers=waivers, trained_on=trained
        )
        self._changed = tuple(changed)

    @property
    def network(self) -> nn.Module:
        """The network."""
        return self._source.network

    def identity(self, spec: ImageSpec) -> Identity:
        """Return what the network is, with the changes as waivers.

        Raises:
            SpecMismatch: If the network cannot take such images.
        """
        identity = self._source.identity(spec)
        marks = tuple(f"{text}: {ABLATION_WHY}" for text in self._changed)
        return replace(identity, waivers=(*identity.waivers, *marks))

    def embed(self, imagery: Imagery) -> Tensor:
        """Return features: float32 (B, D), on the CPU."""
        return self._source.embed(imagery)

    def check_frozen(self) -> None:
        """Raise if embedding has changed the network."""
        self._source.check_frozen()


@dataclass(frozen=True)
class Ablation:
    """Scores by model, size and normalisation.

    Args:
        report: The records.
        settings: One per row of the table.
        figure: Where the curves are; empty without.
    """

    report: BenchReport
    settings: tuple[Setting, ...]
    figure: str

    def describe(self) -> str:
        """Return one table per probe and metric: sizes down, normalisations across."""
        results = self.report.results
        kinds = dict.fromkeys((r.probe, r.metric) for r in results)
        sample = results[0].sample
        head = (
            f"**{results[0].task}** version {results[0].version}, split `{sample.split}`: "
            f"{sample.n_train} train, {sample.n_test} test"
            + ("" if sample.complete else " (a **subset**)")
        )
        tables = [self._table(probe, metric) for probe, metric in kinds]
        tail = [
            "",
            "In bold: the model's own input. All other rows are nonstandard. In brackets: 95 % "
            "interval.",
            f"`{results[0].made.command}`",
            f"{self.report.appended} new records in {self.report.out}",
            *([f"curves: {self.figure}"] if self.figure else []),
        ]
        return "\n".join([head, *tables, *tail])

    def _table(self, probe: str, metric: str) -> str:
        norms = list(dict.fromkeys(s.normalization for s in self.settings))
        rows = {(s.model, s.size): None for s in self.settings}
        lines = [
            "",
            f"`{probe}`, {metric} %",
            "",
            f"| model | px | {' | '.join(norms)} |",
            f"|---|---:|{'---|' * len(norms)}",
        ]
        for model, size in rows:
            cells = [self._cell(Setting(model, size, n, own=False), probe, metric) for n in norms]
            lines.append(f"| {model} | {size} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def _cell(self, place: Setting, probe: str, metric: str) -> str:
        result = self.result(place, probe, metric)
        if result is None:
            return ""
        own = any(s.own and s.name == place.name for s in self.settings)
        value = f"{100 * result.value:.1f}"
        low, high = 100 * result.interval.low, 100 * result.interval.high
        return f"{f'**{value}**' if own else value} ({low:.1f} – {high:.1f})"

    def result(self, setting: Setting, probe: str, metric: str) -> Result | None:
        """Return the record of a setting."""
        for r in self.report.results:
            if (r.model.name, r.probe, r.metric) == (setting.name, probe, metric):
                return r
        return None


def bench_ablate(config: AblateSettings) -> Ablation:
    """Score encoders with the sizes and normalisations that the settings name.

    Args:
        config: The settings of a task, as on the command line.

    Raises:
        DataError: If the folder is not the data set, or results cannot be written.
        SpecMismatch: If a model cannot take the images even so.
        WeightsError: If weights cannot be had.
        ConfigError: If a model is a control, a normalisation does not suit the images, or the
            task has two sensors.
    """
    loaded = load(config)
    task = loaded.task
    if len(task.specs) > 1:
        raise ConfigError(
            "one sensor is ablated at a time",
            found=", ".join(str(spec.sensor) for spec in task.specs),
            remedy="name one with --sensor",
        )
    rules = suitable(config.normalizations, task.spec)
    chips = keeping_pixels(limited(loaded, config.limit))
    train = chips.splits["train"]
    constants = statistics(train) if set(rules) & set(OF_TRAIN) else None
    settings: list[Setting] = []
    sources: list[FeatureSource] = []
    for word in config.models:
        name, equals, target = word.partition("=")
        encoder = _load(target if equals else word, config).to(device_of(config.device))
        model = name if equals else (Path(word).name or word)
        waivers = _waivers(config, task, model, encoder)
        for setting, recipe in recipes(config.sizes, rules, model, encoder, task.spec, constants):
            if setting not in settings:
                settings.append(setting)
                sources.append(_source(setting, encoder, recipe, waivers))
    candidates = [Candidate(source.name, (source,)) for source in sources]
    report = score_candidates(config, loaded, chips, candidates)
    if config.figure:
        _draw(report, settings, Path(config.figure))
    return Ablation(report, tuple(settings), config.figure)


def _load(target: str, config: AblateSettings) -> Encoder:
    if target.startswith(torchgeo_names.PREFIX):
        return load_weights(torchgeo_names.card_name(target))
    if target.startswith(timm_trunk.PREFIX):
        return load_timm(target, read_recipe(config.recipe))
    return load_weights(target)


def _waivers(
    config: AblateSettings, task: Task, model: str, encoder: Encoder
) -> tuple[Waiver, ...]:
    """Return the exceptions the model needs on the task as it is, so that only one thing changes.

    Raises:
        ConfigError: If it does not fit the images even with them.
    """
    forced = tuple(MismatchKind(word) for word in listed(config.force))
    waivers = waivers_for(task.spec, encoder.recipe, task.waivers, forced)
    try:
        encoder.plan_for(task.spec, waivers)
    except SpecMismatch as error:
        raise ConfigError(
            "an ablation changes one thing: the model must fit the images otherwise",
            found=f"{error.problem}: {error.found}",
            expected=error.expected,
            where=model,
            remedy=error.remedy,
        ) from error
    return waivers


def _source(
    setting: Setting, encoder: Encoder, recipe: Recipe, waivers: Sequence[Waiver]
) -> FeatureSource:
    if setting.own:
        return EncoderSource(setting.name, encoder, waivers=waivers)
    own = encoder.recipe
    changed = []
    if recipe.size != own.size:
        changed.append(f"size {recipe.size[0]} for {own.size[0]}")
    if recipe.normalization != own.normalization:
        changed.append(f"normalization {setting.normalization} for the recipe's")
    return AblatedSource(setting.name, encoder, recipe, changed, waivers)


def _draw(report: BenchReport, settings: Sequence[Setting], path: Path) -> None:
    first = report.results[0]
    series: dict[str, list[tuple[float, Estimate]]] = {}
    for setting in settings:
        for r in report.results:
            same = (r.model.name, r.probe, r.metric) == (setting.name, first.probe, first.metric)
            if same:
                point = Estimate(r.value, r.interval.low, r.interval.high)
                name = f"{setting.model}, {setting.normalization}"
                series.setdefault(name, []).append((setting.size, point))
    own = {s.model: s.size for s in settings if s.own}
    shared = set(own.values()) if len(set(own.values())) == 1 else set()
    subset = "" if first.sample.complete else ", a subset"
    figure = plots.curves(
        f"{first.task}{subset}: {first.probe}",
        series,
        f"input size, pixels ({'dashed' if shared else 'ringed'}: the recipe's)",
        f"{first.metric}, 95 % interval",
        mark=next(iter(shared), None),
        own={f"{model}, own": size for model, size in own.items()},
    )
    output.save(figure, path, "name another --figure")
