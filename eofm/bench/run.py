"""`eofm bench TASK`: score models and controls, and write records and tables.

Images are checked for signs of a wrong declaration, each model takes them through its own plan,
features go to the cache, probes read them, and scores become records. The test split is scored
once, after all choices have been made on train and val. A segmentation is processed the same way:
its features are patch tokens, its probe is a linear layer on them (`eofm.bench.patches`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from eofm.bench import records
from eofm.bench.candidates import OF_TRAIN, resolve_models
from eofm.bench.config import AUTO, BenchConfig, ScoringConfig, SegmentationConfig, listed, stated
from eofm.bench.features import (
    FeatureCache,
    Key,
    code_sha256,
    content_sha256,
    digests_of,
    extract,
    key_of,
    layered_candidates,
    readout_columns,
)
from eofm.bench.finetune.runs import score_on_images
from eofm.bench.finetune.trainings import TRAININGS
from eofm.bench.patches import Segmenter, fitted, score_prompts
from eofm.bench.predictions import Archive, Group
from eofm.bench.probes import KINDS, LAYER_KINDS, Scored, Splits, compare
from eofm.bench.records import Made, Result, append_results, read_results, records_file
from eofm.bench.reports.classes import ClassScores
from eofm.bench.reports.tables import table, tables_of
from eofm.bench.samples import (
    Subset,
    check_pixels,
    copy_remarks,
    countries_in,
    groups_in,
    label_counts,
    limited,
    load,
    pixel_counts,
    sample_of,
    subsample_of,
    subsets,
    units_of,
    values_of,
)
from eofm.bench.segmentation import SEGMENTATION
from eofm.bench.sources import (
    FORCED_FLAG,
    Candidate,
    FeatureSource,
    contamination_flags,
    forced_flags,
    nonstandard_flags,
)
from eofm.bench.texts import TEXT_KINDS, score_texts, with_texts
from eofm.contract.imagery import Imagery
from eofm.datasets.base import AnyChips, Loaded, Task
from eofm.datasets.images.chips import (
    Chip,
    Chips,
    Pixels,
    Stored,
    keeping_pixels,
    read_batches,
    targets_of,
)
from eofm.datasets.images.dense import DenseChip
from eofm.environment import commit, device_of, versions_of
from eofm.io import names_own
from eofm.probes.features import Labelled
from eofm.probes.metrics import Metric
from eofm.report.tables import tables_html
from eofm.store.splits import hash_order
from eofm.terminal import track

__all__ = ["BenchReport", "bench"]


@dataclass(frozen=True)
class BenchReport:
    """Result of a run of the benchmark.

    Args:
        results: One record per model, probe and metric.
        appended: Number of them that were new to the file.
        out: The file.
        remarks: Notes for readers of the scores on the task and its images.
        classes: Scores of a segmentation by class; None for whole images.
    """

    results: tuple[Result, ...]
    appended: int
    out: Path
    remarks: tuple[str, ...] = ()
    classes: ClassScores | None = None

    def __repr__(self) -> str:
        """Return a summary in one line; `describe()` returns the tables."""
        models = len({result.model.name for result in self.results})
        tasks = ", ".join(dict.fromkeys(result.task for result in self.results))
        return (
            f"BenchReport({tasks}: {models} models, {len(self.results)} records in {self.out}; "
            "print(report.describe()) shows the tables)"
        )

    def _repr_html_(self) -> str:
        made = tables_of([result for result in self.results if not _is_forced(result)])
        return tables_html(made.tables, (*made.notes, *self.remarks))

    def describe(self) -> str:
        """Return the tables, and the location of the records. Forced rows are listed separately."""
        known = len(self.results) - self.appended
        tail = f"{self.appended} new records in {self.out}" + f", {known} known" * bool(known)
        kept = [result for result in self.results if not _is_forced(result)]
        forced = [
            f"- left out of the table, {result.flags[0]}: {result.model.name}, `{result.probe}`, "
            f"{result.metric} {100 * result.value:.1f} %"
            for result in self.results
            if _is_forced(result)
        ]
        classes = ["", self.classes.describe(), ""] if self.classes else []
        remarks = [f"- {remark}" for remark in self.remarks]
        lines = [*([table(kept)] if kept else []), *classes, *remarks, *forced, "", tail]
        return "\n".join(lines)


def _is_forced(result: Result) -> bool:
    return any(flag.startswith(FORCED_FLAG) for flag in result.flags)


def bench(config: ScoringConfig) -> BenchReport:
    """Score models and controls on the task that the settings name.

    Args:
        config: The settings of a task, as on the command line.

    Raises:
        DataError: If the folder is not the data set, or results cannot be read or written.
        RasterError: If an image or a mask is damaged.
        LabelError: If a mask does not match its image or has an unknown code.
        PixelError: If the pixels contradict the declared data set, or features are not finite.
        SpecMismatch: If a model cannot take its images.
        WeightsError: If a folder has no encoder, or a network changes.
        ConfigError: If the settings contradict one another, or too few labels leave a class without
            a training image.
    """
    out = records_file(config.out)
    read_results(out)  # detect an incomplete file before the work, not after
    loaded = load(config)
    run = _Run.of(config, loaded)
    groups, seconds = run.score()
    made = _made(config, seconds)
    results = tuple(chain.from_iterable(run.records(group, made) for group in groups))
    classes = None
    if isinstance(config, SegmentationConfig) and "linear" in config.probes:
        scored = {n: one for (n, kind), one in groups[0].scored.items() if kind == SEGMENTATION}
        classes = ClassScores.of(scored, results[0], loaded.task.classes, config.figure)
    unseen = classes.unlabelled() if classes else ()
    return BenchReport(
        results=results,
        appended=append_results(out, results),
        out=out,
        remarks=(*loaded.task.notes, *run.chips.remarks, *run.copies(), *unseen),
        classes=classes,
    )


# what computes features and scores
_LIBRARIES: Final = ("eofm", "python", "torch", "timm", "rasterio", "numpy")


def _made(config: ScoringConfig, feature_seconds: float) -> Made:
    return Made(
        command=config.command(),
        utc=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions_of(_LIBRARIES),
        git=commit(),
        device=records.device_name(device_of(config.device)),
        feature_seconds=round(feature_seconds, 2),
        probe_seconds=0.0,
        peak_memory_mb=records.peak_memory_mb(),
    )


@dataclass(frozen=True)
class _Run:
    """One run: its models and images."""

    config: ScoringConfig
    task: Task
    chips: AnyChips
    candidates: tuple[Candidate, ...]
    digests: Mapping[str, str]
    values: Mapping[str, str]
    cache: FeatureCache
    parameters: Mapping[str, int]
    archive: Archive

    @classmethod
    def of(cls, config: ScoringConfig, loaded: Loaded) -> _Run:
        """Resolve the models, and check images and models before anything is computed."""
        task, chips = loaded.task, _kept(config, limited(loaded, config.limit))
        train = chips.splits["train"]
        candidates = resolve_models(
            config, task, lambda sensor, index: train[index].pixels[sensor].read(), len(train)
        )
        for candidate in candidates:
            candidate.identity(task)  # models that cannot take the images fail here
        if isinstance(config, BenchConfig) and isinstance(chips, Chips):
            _subsets(config, task, chips)  # so do too few labels
        cache = FeatureCache.at(config.cache)
        digests = digests_of(chips.root, {c.id: _stored(c) for c in chips.all}, cache.root)
        check_pixels(task, chips, digests, cache)
        values = values_of(chips.all, digests, task.specs, cache.root)
        # also the first forward pass: models that cannot embed at this size fail here
        parameters = {c.name: _parameters(c, task, train[0].pixels, cache) for c in candidates}
        test = chips.splits["test"]
        archive = Archive(
            records=records_file(config.out),
            task=f"{task.name} {task.version}",
            sample=sample_of(loaded, chips, digests, values),
            ids=units_of(test),
            classes=task.classes,
            target=targets_of(chips.splits["test"], len(task.classes))
            if isinstance(chips, Chips)
            else None,
            metrics=task.metrics,
            groups=groups_in(test),
            countries=countries_in(test),
        )
        return cls(
            config, task, chips, tuple(candidates), digests, values, cache, parameters, archive
        )

    def copies(self) -> tuple[str, ...]:
        """Return a note on test images that are copies of training images, if there are any."""
        return copy_remarks(self.chips.splits, self.values, self.chips.root)

    # --------------------------------------------------------------- features and probes

    def score(self) -> tuple[list[Group], float]:
        """Return the scores of all candidates, and the seconds spent on features."""
        if isinstance(self.chips, Chips):
            assert isinstance(self.config, BenchConfig)  # noqa: S101 (as its images are)
            return self._of_whole_images(self.config, self.chips)
        assert isinstance(self.config, SegmentationConfig)  # noqa: S101 (as its images are)
        segmenter = Segmenter(self.config, self.task, self.chips, self.digests, self.cache)
        scored: dict[tuple[str, str], Scored] = {}
        seconds = 0.0
        if "linear" in self.config.probes:
            scored, seconds = segmenter.score(fitted(self.candidates), self.archive)
        if "prompt" in self.config.probes:
            found, more = score_prompts(segmenter, self.candidates, self.archive)
            scored, seconds = scored | found, seconds + more
        classes = len(self.task.classes)
        counts = pixel_counts(self.chips.splits["train"], classes, self.digests, self.cache)
        return [Group(self.archive.sample, scored, counts)], seconds

    def _of_whole_images(self, config: BenchConfig, chips: Chips) -> tuple[list[Group], float]:
        start = time.monotonic()
        plain, grids, trained = _kinds(config)
        layered = layered_candidates(self.candidates) if grids else []
        texts = [kind for kind in config.probes if kind in TEXT_KINDS]
        spoken = with_texts(self.candidates) if texts else []
        features = self._features(chips, self.candidates if plain else spoken)
        layers = self._features(chips, layered)
        seconds = time.monotonic() - start
        groups: list[Group] = []
        classes = len(self.task.classes)
        for subset in _subsets(config, self.task, chips):
            part = chips.keeping({"train": frozenset(chip.id for chip in subset.chips)})
            sample = subsample_of(self.archive.sample, subset, part, self.digests, self.values)
            archive = replace(self.archive, sample=sample)
            scored: dict[tuple[str, str], Scored] = {}
            for candidate in track(self.candidates, f"probing models {subset.words}".strip()):
                opened = partial(_splits, features.get(candidate.name, {}), part, self.task, subset)
                for kind in plain:
                    scored[candidate.name, kind] = self._probe(archive, candidate, kind, opened)
            for candidate in layered:
                opened = partial(
                    _layer_splits, layers[candidate.name], part, self.task, subset, candidate
                )
                for kind in grids:
                    scored[candidate.name, kind] = self._probe(archive, candidate, kind, opened)
            counts = label_counts(targets_of(part.splits["train"], classes), classes)
            groups.append(Group(sample, scored, counts))
            if trained:
                groups += score_on_images(
                    config, trained, self.task, self.candidates, part, archive
                )
        if texts:  # these read no label: one row for all shares
            counts = label_counts(targets_of(chips.splits["train"], classes), classes)
            found = score_texts(texts, spoken, features, self.task, self.archive)
            groups.append(Group(self.archive.sample, found, counts))
        return groups, seconds

    def _probe(
        self, archive: Archive, candidate: Candidate, kind: str, splits: Callable[[], Splits]
    ) -> Scored:
        assert isinstance(self.config, BenchConfig)  # noqa: S101 (as its images are)
        model = candidate.identity(self.task)
        return archive.score(model, kind, candidate.scaling, self.config.k, splits)

    def _features(self, chips: Chips, candidates: Sequence[Candidate]) -> _Features:
        features: dict[str, dict[str, Tensor]] = {c.name: {} for c in candidates}
        size = self.config.batch
        for split, part in chips.splits.items():
            if not part:
                continue
            content = content_sha256(part, self.digests)
            per_sensor = []
            for sensor, spec in enumerate(self.task.specs):

                def batches(
                    part: Sequence[Chip] = part, split: str = split, sensor: int = sensor
                ) -> Iterable[Imagery]:
                    read = read_batches(part, size, sensor)
                    return track(
                        read, f"embedding batches of {split} images", -(-len(part) // size)
                    )

                sources = [candidate.parts[sensor] for candidate in candidates]
                per_sensor.append(extract(sources, spec, content, len(part), batches, self.cache))
            for name, found in features.items():
                found[split] = torch.cat([part[name] for part in per_sensor], dim=1)
        return features

    # --------------------------------------------------------------------------- records

    def records(self, group: Group, made: Made) -> Iterator[Result]:
        """Yield a record per model, probe and metric."""
        models = {candidate.name: candidate for candidate in self.candidates}
        words = listed(self.config.probe) if isinstance(self.config, BenchConfig) else ()
        for (name, kind), one in group.scored.items():
            for metric in one.metrics:
                yield Result(
                    task=self.task.name,
                    version=self.task.version,
                    sample=group.sample,
                    model=models[name].identity(self.task),
                    probe=one.probe.probe,
                    strength=one.probe.strength,
                    gradient_norm=one.probe.gradient_norm,
                    metric=metric,
                    value=one.value(metric),
                    interval=one.interval(metric, self.config.bootstrap, self.config.seed),
                    seed=self.config.seed,
                    flags=self._flags(group, name, kind, metric),
                    made=replace(made, probe_seconds=round(one.seconds, 2)),
                    kind=kind,
                    **({} if one.spectrum is None else asdict(one.spectrum)),
                    predictions=one.predictions,
                    predictions_sha256=one.predictions_sha256,
                    of=models[name].of,
                    normalization=models[name].normalization,
                    parameters=self.parameters[name],
                    chosen=one.probe.chosen,
                    details={**one.probe.details, **stated(words, kind)},
                    train_counts=group.train_counts,
                )

    def _flags(self, group: Group, name: str, kind: str, metric: Metric) -> tuple[str, ...]:
        models = {candidate.name: candidate.identity(self.task) for candidate in self.candidates}
        one, model = group.scored[name, kind], models[name]
        found = (*forced_flags(model.waivers), *nonstandard_flags(model.waivers), *one.faults())
        found += contamination_flags(model, self.task.name)
        for other, identity in models.items():
            control = group.scored.get((other, kind))  # not trained without a network
            if identity.control and not model.control and control is not None:
                repeats, seed = self.config.bootstrap, self.config.seed
                found += compare(one, control, other, metric, repeats, seed)
        return found


# ------------------------------------------------------------------------------ the data


def _kept(config: ScoringConfig, chips: AnyChips) -> AnyChips:
    """Return the images; decoded once and cached if they are read for a normalisation too."""
    rules = config.normalizations if isinstance(config, BenchConfig) else ()
    several = isinstance(chips, Chips) and set(rules) & {AUTO, *OF_TRAIN}
    return keeping_pixels(chips) if isinstance(chips, Chips) and several else chips


def _stored(chip: Chip | DenseChip) -> tuple[Stored, ...]:
    return (*chip.pixels, chip.mask) if isinstance(chip, DenseChip) else chip.pixels


def _subsets(config: BenchConfig, task: Task, chips: Chips) -> list[Subset]:
    train = chips.splits["train"]
    return subsets(config.shares, config.draws, train, task.name, task.classes)


# -------------------------------------------------------------------- features and probes

# name of the model -> split -> (N, D)
_Features = Mapping[str, Mapping[str, Tensor]]


def _splits(features: Mapping[str, Tensor], chips: Chips, task: Task, subset: Subset) -> Splits:
    classes = len(task.classes)
    index = torch.tensor(subset.index)
    train = features["train"][index] if subset.words else features["train"]

    def labelled(name: str) -> Labelled:
        x = train if name == "train" else features[name]
        return Labelled(x, targets_of(chips.splits[name], classes), classes)

    ids = [chip.id for chip in chips.splits["train"]]
    place = {name: rank for rank, name in enumerate(hash_order(ids, task.name))}
    return Splits(
        labelled("train"),
        labelled("val") if chips.splits["val"] else None,
        features["test"],
        targets_of(chips.splits["test"], classes),
        torch.tensor([place[name] for name in ids]),
    )


def _layer_splits(
    features: Mapping[str, Tensor], chips: Chips, task: Task, subset: Subset, candidate: Candidate
) -> Splits:
    splits = _splits(features, chips, task, subset)
    return replace(splits, readouts=readout_columns(candidate))


def _kinds(config: BenchConfig) -> tuple[list[str], list[str], list[str]]:
    """Return the probes of embeddings, those of several layers, and those trained on images."""
    kinds = [kind for kind in config.probes if kind in KINDS or names_own(kind)]
    plain = [kind for kind in kinds if kind not in LAYER_KINDS]
    layered = [kind for kind in kinds if kind in LAYER_KINDS]
    return plain, layered, [kind for kind in config.probes if kind in TRAININGS]


def _parameters(
    candidate: Candidate, task: Task, images: Sequence[Pixels], cache: FeatureCache
) -> int:
    """Return the number of parameters used, over all sensors, measured by embedding one image."""
    total = 0
    for part, spec, image in zip(candidate.parts, task.specs, images, strict=True):
        key = Key({**key_of(part, spec, "").content, "parameters": code_sha256(records.__file__)})
        total += cache.fact(key, partial(_executed, part, image))
    return total


def _executed(part: FeatureSource, image: Pixels) -> int:
    return records.executed_parameters(part, image.read())
