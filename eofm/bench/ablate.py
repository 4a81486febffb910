"""`eofm bench ablate`: what another size or normalisation costs a model, in one table.

The table of arXiv 2305.13456 for any encoder: the same weights, images, splits and probe, and only
the input changed. Rows other than the recipe's own are marked nonstandard and stay out of tables
of results; each names what was changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from eofm import charts
from eofm.bench.features import EncoderSource, FeatureSource, Identity
from eofm.bench.models import Candidate, device_of
from eofm.bench.network import NetworkSource
from eofm.bench.report_config import AblateConfig
from eofm.bench.results import Result
from eofm.bench.run import BenchReport, limited, score_candidates
from eofm.bench.tasks import load
from eofm.bench.waive import ABLATION_WHY
from eofm.charts import Point
from eofm.data.chips import Chip, read_batches
from eofm.errors import ConfigError, DataError
from eofm.imagery import Imagery
from eofm.models.encoder import Encoder
from eofm.models.load import load_weights
from eofm.probe import Scaling
from eofm.recipe import Recipe
from eofm.spec import ImageSpec, Normalization, Unit


@dataclass(frozen=True)
class Setting:
    """One input of one model.

    Args:
        model: Name of the model.
        size: Pixels at a side.
        normalization: As on the command line.
        own: Whether both are the recipe's.
    """

    model: str
    size: int
    normalization: str
    own: bool

    @property
    def name(self) -> str:
        """Name of the row."""
        return f"{self.model} {self.size} px {self.normalization}"


class AblatedSource:
    """An encoder whose input is changed on purpose.

    Args:
        name: Name of the row.
        encoder: The network.
        recipe: What it is fed instead of what it was trained on.
        changed: What differs, in words; each becomes a waiver of the record.
    """

    scaling = Scaling.NONE

    def __init__(self, name: str, encoder: Encoder, recipe: Recipe, changed: Sequence[str]) -> None:
        self.name = name
        about = f"{encoder.card.architecture}, {encoder.card.source}"
        self._source = NetworkSource(name, encoder.trunk, recipe, about)
        self._changed = tuple(changed)

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


def bench_ablate(config: AblateConfig) -> Ablation:
    """Score encoders with the sizes and normalisations that the settings name.

    Args:
        config: The settings, as on the command line.

    Raises:
        DataError: If the folder is not the data set, or results cannot be written.
        SpecMismatch: If a model cannot take the images even so.
        WeightsError: If weights cannot be had.
        ConfigError: If a model is a control, or the settings contradict one another.
    """
    loaded = load(config)
    chips = limited(loaded, config.limit)
    spec, device = loaded.task.spec, device_of(config.device)
    statistics = _statistics(chips.splits["train"])
    settings: list[Setting] = []
    sources: list[FeatureSource] = []
    for word in config.models:
        name, equals, target = word.partition("=")
        encoder = load_weights(target if equals else word).to(device)
        model = name if equals else (Path(word).name or word)
        for setting, recipe in _recipes(config, model, encoder, spec, statistics):
            if setting not in settings:
                settings.append(setting)
                sources.append(_source(setting, encoder, recipe))
    candidates = [Candidate(source.name, (source,)) for source in sources]
    report = score_candidates(config, loaded, chips, candidates)
    if config.figure:
        _draw(report, settings, Path(config.figure))
    return Ablation(report, tuple(settings), config.figure)


def _source(setting: Setting, encoder: Encoder, recipe: Recipe) -> FeatureSource:
    if setting.own:
        return EncoderSource(setting.name, encoder)
    own = encoder.recipe
    changed = []
    if recipe.size != own.size:
        changed.append(f"size {recipe.size[0]} for {own.size[0]}")
    if recipe.normalization != own.normalization:
        changed.append(f"normalization {setting.normalization} for the recipe's")
    return AblatedSource(setting.name, encoder, recipe, changed)


def _recipes(
    config: AblateConfig,
    model: str,
    encoder: Encoder,
    spec: ImageSpec,
    statistics: tuple[Tensor, Tensor, str],
) -> list[tuple[Setting, Recipe]]:
    own = encoder.recipe
    missing = [band for band in own.bands if band not in spec.bands]
    if missing or own.sensor is not spec.sensor:
        raise ConfigError(
            "an ablation changes one thing: the model must fit the images otherwise",
            found=f"{own.sensor}, bands {', '.join(own.bands)}",
            expected=f"{spec.sensor}, some of {', '.join(spec.bands)}",
            where=model,
        )
    found = []
    for word in config.sizes:
        step = encoder.trunk.multiple
        size = own.size[0] if word == "own" else max(1, round(int(word) / step)) * step
        for rule in config.normalizations:
            recipe = own if rule == "own" else _normalized(own, rule, spec, statistics)
            standard = rule == "own" and (size, size) == own.size
            recipe = recipe if standard else replace(recipe, size=(size, size))
            found.append((Setting(model, size, rule, standard), recipe))
    return found


def _normalized(
    recipe: Recipe, rule: str, spec: ImageSpec, statistics: tuple[Tensor, Tensor, str]
) -> Recipe:
    mean, std, source = statistics
    index = [spec.bands.index(band) for band in recipe.bands]
    values = mean[index].tolist(), std[index].tolist()
    if rule == "zscore":
        return replace(
            recipe, unit=spec.unit, normalization=Normalization.zscore(*values, source=source)
        )
    if rule == "two-sigma":
        return replace(
            recipe, unit=spec.unit, normalization=Normalization.two_sigma(*values, source=source)
        )
    divided = Normalization.divide(10_000, len(index), "reflectance x 10000 to reflectance")
    return replace(recipe, unit=Unit.DN, normalization=divided)


def _statistics(train: Sequence[Chip]) -> tuple[Tensor, Tensor, str]:
    """Return mean and standard deviation of each band over the training split, with a source."""
    total = square = torch.zeros(0)
    count = torch.zeros(1)
    for imagery in read_batches(train, 64):
        valid = imagery.valid[:, None].double()
        pixels = imagery.pixels.double() * valid
        total = pixels.sum(dim=(0, 2, 3)) + (total if len(total) else 0)
        square = pixels.square().sum(dim=(0, 2, 3)) + (square if len(square) else 0)
        count = count + valid.sum()
    mean = total / count
    std = (square / count - mean.square()).clamp_min(0).sqrt()
    return mean, std, f"the training split, {len(train)} images"


def _draw(report: BenchReport, settings: Sequence[Setting], path: Path) -> None:
    first = report.results[0]
    series: dict[str, list[tuple[float, Point]]] = {}
    for setting in settings:
        for r in report.results:
            same = (r.model.name, r.probe, r.metric) == (setting.name, first.probe, first.metric)
            if same:
                point = Point(r.value, r.interval.low, r.interval.high)
                name = f"{setting.model}, {setting.normalization}"
                series.setdefault(name, []).append((setting.size, point))
    own = {s.size for s in settings if s.own}
    subset = "" if first.sample.complete else ", a subset"
    figure = charts.curves(
        f"{first.task}{subset}: {first.probe}",
        series,
        "input size, pixels (dashed: the recipe's)",
        f"{first.metric}, 95 % interval",
        mark=own.pop() if len(own) == 1 else None,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(charts.png(figure))
    except OSError as error:
        raise DataError(
            "the figure cannot be written", found=error, where=path, remedy="name another --figure"
        ) from error
