"""`eofm bench TASK`: models and controls in, records and one table out.

The way of a pixel: images are checked for signs of a wrong declaration, each model takes them
through its own plan, features go to the cache, probes read them, scores become records. The test
split is scored once, after every choice has been made on train and val.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from eofm.bench import cost, provenance
from eofm.bench.cache import FeatureCache, Key, code_sha256
from eofm.bench.canaries import check_pixels, looked_at
from eofm.bench.config import BenchConfig, listed
from eofm.bench.contamination import contamination_flags
from eofm.bench.digests import content_sha256, digests_of
from eofm.bench.features import FeatureSource, extract, key_of
from eofm.bench.labels import Subset, subsets
from eofm.bench.layered import layered_candidates, readout_columns
from eofm.bench.models import Candidate, device_of, resolve_models
from eofm.bench.on_images import Group, score_on_images
from eofm.bench.predictions import Archive
from eofm.bench.recipes import stated
from eofm.bench.results import Made, Result, Sample, append_results, read_results
from eofm.bench.samples import (
    sample_of,
    subsample_of,
)
from eofm.bench.score import KINDS, LAYER_KINDS, Scored, Splits, compare
from eofm.bench.tables import table
from eofm.bench.task import Task
from eofm.bench.tasks import Loaded, load
from eofm.bench.waive import FORCED_FLAG, forced_flags, nonstandard_flags
from eofm.contract.imagery import Imagery, collate
from eofm.datasets.chips import Chip, Chips, Pixels, read_batches, targets_of
from eofm.datasets.copies import contents, copy_remarks
from eofm.probes.linear import Labelled
from eofm.probes.metrics import Metric
from eofm.progress import track
from eofm.store.splits import hash_order


@dataclass(frozen=True)
class BenchReport:
    """What a run of the benchmark gives back.

    Args:
        results: One record per model, probe and metric.
        appended: How many of them the file did not have yet.
        out: The file.
        remarks: What a reader of the scores should know of the task and its images.
    """

    results: tuple[Result, ...]
    appended: int
    out: Path
    remarks: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return the table, and where the records are. Forced rows stand outside of it."""
        known = len(self.results) - self.appended
        tail = f"{self.appended} new records in {self.out}" + f", {known} known" * bool(known)
        kept = [result for result in self.results if not _is_forced(result)]
        forced = [
            f"- left out of the table, {result.flags[0]}: {result.model.name}, `{result.probe}`, "
            f"{result.metric} {100 * result.value:.1f} %"
            for result in self.results
            if _is_forced(result)
        ]
        lines = [table(kept), *(f"- {remark}" for remark in self.remarks), *forced, "", tail]
        return "\n".join(line for line in lines if line or line is not lines[0])


def _is_forced(result: Result) -> bool:
    return any(flag.startswith(FORCED_FLAG) for flag in result.flags)


def bench(config: BenchConfig) -> BenchReport:
    """Score models and controls on the task that the settings name.

    Args:
        config: The settings of a task, as on the command line.

    Raises:
        DataError: If the folder is not the data set, or results cannot be read or written.
        RasterError: If an image is damaged.
        PixelError: If the pixels contradict what the data set is, or features are no numbers.
        SpecMismatch: If a model cannot take its images.
        WeightsError: If a folder holds no encoder, or a network moves.
        ConfigError: If the settings contradict one another.
    """
    out = Path(config.out)
    read_results(out)  # a torn file is noticed before the work, not after
    loaded = load(config)
    task, chips = loaded.task, limited(loaded, config.limit)
    train = chips.splits["train"]
    candidates = resolve_models(
        config, task, lambda sensor, index: train[index].pixels[sensor].read(), len(train)
    )
    return score_candidates(config, loaded, chips, candidates)


def score_candidates(
    config: BenchConfig, loaded: Loaded, chips: Chips, candidates: Sequence[Candidate]
) -> BenchReport:
    """Score candidates on the images of a task, and append the records.

    Args:
        config: The settings of a task, as on the command line.
        loaded: The task.
        chips: Its images, or those of them that the settings keep.
        candidates: What is scored.

    Raises:
        DataError: If results cannot be read or written.
        RasterError: If an image is damaged.
        PixelError: If the pixels contradict what the data set is, or features are no numbers.
        SpecMismatch: If a model cannot take the images.
        WeightsError: If a network moves.
        ConfigError: If so few labels leave a class without a training image.
    """
    out, task = Path(config.out), loaded.task
    parts = subsets(config.shares, config.draws, chips.splits["train"], task.name, task.classes)
    models = {candidate.name: candidate for candidate in candidates}
    for candidate in candidates:
        candidate.identity(task)  # a model that cannot take the images says so now
    cache = FeatureCache.at(config.cache)
    digests = digests_of(chips.root, {c.id: c.pixels for c in chips.all}, cache.root)
    _check_pixels(task, chips, digests, cache)
    values = digests_of(chips.root, contents(chips.all), cache.root)
    # also the first forward pass: what cannot be embedded at this size fails here
    parameters = {c.name: _parameters(c, task, chips, cache) for c in candidates}
    start = time.monotonic()
    plain, grids = _kinds(config)
    layered = layered_candidates(candidates) if grids else []
    features = _features(config, task, candidates if plain else [], chips, digests, cache)
    layers = _features(config, task, layered, chips, digests, cache)
    seconds = time.monotonic() - start
    whole = sample_of(loaded, chips, digests, values)
    results: list[Result] = []
    for subset in parts:
        part = chips.keeping({"train": frozenset(chip.id for chip in subset.chips)})
        sample = subsample_of(whole, subset, part, digests, values)
        archive = _archive(out, task, part, sample)
        scored = {
            (candidate.name, kind): archive.score(
                candidate.identity(task),
                kind,
                candidate.scaling,
                config.k,
                partial(_splits, features[candidate.name], part, task, subset),
            )
            for candidate in track(candidates, f"probing models {subset.words}".strip())
            for kind in plain
        }
        scored |= {
            (candidate.name, kind): archive.score(
                candidate.identity(task),
                kind,
                candidate.scaling,
                config.k,
                partial(_layer_splits, layers[candidate.name], part, task, subset, candidate),
            )
            for candidate in layered
            for kind in grids
        }
        groups = [Group(sample, scored), *score_on_images(config, task, candidates, part, archive)]
        found = (_records(config, task, candidates, g.scored, g.sample, seconds) for g in groups)
        for result in chain.from_iterable(found):
            of, name = models[result.model.name].of, result.model.name
            results.append(replace(result, of=of, parameters=parameters[name]))
    copied = copy_remarks(chips.splits, values, chips.root)
    remarks = (*task.notes, *chips.remarks, *copied)
    return BenchReport(tuple(results), append_results(out, results), out, remarks)


# ------------------------------------------------------------------------------ the data


def limited(loaded: Loaded, limit: int | None) -> Chips:
    """Return the images of a task, of each split at most `limit`, chosen by hash."""
    chips = loaded.chips
    if limit is None:
        return chips
    kept = {
        name: frozenset(hash_order((chip.id for chip in part), loaded.task.name)[:limit])
        for name, part in chips.splits.items()
    }
    return chips.keeping(kept)


def _check_pixels(
    task: Task, chips: Chips, digests: Mapping[str, str], cache: FeatureCache
) -> None:
    some = looked_at(chips.splits["train"])

    def images(sensor: int) -> Imagery:
        return collate(list(read_batches(some, 1, sensor)))

    check_pixels(task.specs, images, content_sha256(some, digests), cache, chips.root)


# -------------------------------------------------------------------- features and probes

# name of the model -> split -> (N, D)
_Features = Mapping[str, Mapping[str, Tensor]]


def _features(
    config: BenchConfig,
    task: Task,
    candidates: Sequence[Candidate],
    chips: Chips,
    digests: Mapping[str, str],
    cache: FeatureCache,
) -> _Features:
    features: dict[str, dict[str, Tensor]] = {c.name: {} for c in candidates}
    for split, part in chips.splits.items():
        if not part:
            continue
        content = content_sha256(part, digests)
        per_sensor = []
        for sensor, spec in enumerate(task.specs):

            def batches(
                part: Sequence[Chip] = part, split: str = split, sensor: int = sensor
            ) -> Iterable[Imagery]:
                total = -(-len(part) // config.batch)
                read = read_batches(part, config.batch, sensor)
                return track(read, f"embedding batches of {split} images", total)

            sources = [candidate.parts[sensor] for candidate in candidates]
            per_sensor.append(extract(sources, spec, content, len(part), batches, cache))
        for name, found in features.items():
            found[split] = torch.cat([part[name] for part in per_sensor], dim=1)
    return features


def _archive(out: Path, task: Task, chips: Chips, sample: Sample) -> Archive:
    test = chips.splits["test"]
    return Archive(
        records=out,
        task=f"{task.name} {task.version}",
        sample=sample,
        ids=tuple(chip.id for chip in test),
        classes=task.classes,
        target=targets_of(test, len(task.classes)),
        metrics=task.metrics,
    )


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


def _kinds(config: BenchConfig) -> tuple[list[str], list[str]]:
    """Return the probes that read embeddings, and those that read several layers."""
    kinds = [kind for kind in config.probes if kind in KINDS]
    return [k for k in kinds if k not in LAYER_KINDS], [k for k in kinds if k in LAYER_KINDS]


def _parameters(candidate: Candidate, task: Task, chips: Chips, cache: FeatureCache) -> int:
    """Return how many parameters a model uses, both sensors together, by embedding one image."""
    images = chips.splits["train"][0].pixels
    total = 0
    for part, spec, image in zip(candidate.parts, task.specs, images, strict=True):
        key = Key({**key_of(part, spec, "").content, "parameters": code_sha256(cost.__file__)})
        total += cache.fact(key, partial(_executed, part, image))
    return total


def _executed(part: FeatureSource, image: Pixels) -> int:
    return cost.executed_parameters(part, image.read())


# ------------------------------------------------------------------------------- records


def _records(
    config: BenchConfig,
    task: Task,
    candidates: Sequence[Candidate],
    scored: Mapping[tuple[str, str], Scored],
    sample: Sample,
    feature_seconds: float,
) -> tuple[Result, ...]:
    models = {candidate.name: candidate.identity(task) for candidate in candidates}
    made = Made(
        command=config.command(),
        utc=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=provenance.library_versions(),
        git=provenance.commit(),
        device=provenance.device_name(device_of(config.device)),
        feature_seconds=round(feature_seconds, 2),
        probe_seconds=0.0,
        peak_memory_mb=provenance.peak_memory_mb(),
    )

    def flags(name: str, kind: str, metric: Metric) -> tuple[str, ...]:
        one = scored[name, kind]
        waivers = models[name].waivers
        found = (*forced_flags(waivers), *nonstandard_flags(waivers), *one.faults())
        found += contamination_flags(models[name], task.name)
        for other, identity in models.items():
            control = scored.get((other, kind))  # a control without a network is not trained
            if identity.control and not models[name].control and control is not None:
                found += compare(one, control, other, metric, config.bootstrap, config.seed)
        return found

    return tuple(
        Result(
            task=task.name,
            version=task.version,
            sample=sample,
            model=models[name],
            probe=one.probe.probe,
            strength=one.probe.strength,
            gradient_norm=one.probe.gradient_norm,
            metric=metric,
            value=one.value(metric),
            interval=one.interval(metric, config.bootstrap, config.seed),
            seed=config.seed,
            flags=flags(name, kind, metric),
            made=replace(made, probe_seconds=round(one.seconds, 2)),
            kind=kind,
            rank=one.rank,
            predictions=one.predictions,
            predictions_sha256=one.predictions_sha256,
            chosen=one.probe.chosen,
            details={**one.probe.details, **stated(listed(config.probe), kind)},
        )
        for (name, kind), one in scored.items()
        for metric in one.metrics
    )
