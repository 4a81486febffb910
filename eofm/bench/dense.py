"""`eofm bench dfc2020|sen1floods11|masks`: a class per pixel, by a linear layer on patch tokens.

The way of a pixel: images are checked for signs of a wrong declaration, each encoder takes them
through its own plan, the tokens of patches go to the cache, a linear layer is fitted on those of
train and chosen on val (`eofm.bench.dense_probe`), every test image leaves a confusion matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from eofm.bench import provenance
from eofm.bench.cache import FeatureCache
from eofm.bench.canaries import check_pixels, looked_at
from eofm.bench.contamination import contamination_flags
from eofm.bench.dense_archive import Segmented
from eofm.bench.dense_config import DenseConfig
from eofm.bench.dense_metrics import SEGMENTATION, resampled_segmentation
from eofm.bench.dense_models import resolve_dense
from eofm.bench.dense_report import DenseReport
from eofm.bench.dense_score import Scorer
from eofm.bench.dense_tasks import DenseLoaded, load_dense
from eofm.bench.digests import content_sha256, digests_of
from eofm.bench.features import Identity
from eofm.bench.models import device_of
from eofm.bench.results import Made, Result, Sample, append_results, read_results
from eofm.bench.task import Task
from eofm.bench.waive import forced_flags, nonstandard_flags
from eofm.contract.imagery import Imagery, collate
from eofm.datasets.copies import contents, copies_in_test, copy_remarks
from eofm.datasets.dense_chips import DenseChips
from eofm.probes.bootstrap import bootstrap_interval, once, resampled_difference
from eofm.probes.metrics import Metric
from eofm.store.splits import SPLITS, hash_order, subset_hash

# Of every image so many rows and columns at most take part in the canaries.
_CANARY_SIDE: Final = 64


def bench_dense(config: DenseConfig) -> DenseReport:
    """Score models and controls on the dense task that the settings name.

    Args:
        config: The settings of a task, as on the command line.

    Raises:
        DataError: If the folder is not the data set, or results cannot be read or written.
        RasterError: If an image or a mask is damaged.
        LabelError: If a mask does not fit its image or holds an unknown code.
        PixelError: If the pixels contradict what the data set is, or tokens are no numbers.
        SpecMismatch: If a model cannot take the images.
        WeightsError: If weights cannot be had, or a network moves.
        ConfigError: If the settings contradict one another.
    """
    out = Path(config.out)
    read_results(out)  # a torn file is noticed before the work, not after
    loaded = load_dense(config)
    task, chips = loaded.task, _limited(loaded, config.limit)
    models = resolve_dense(config, task)
    identities = {model.name: model.identity(task) for model in models}
    cache = FeatureCache.at(config.cache)
    digests = digests_of(chips.root, {c.id: (*c.pixels, c.mask) for c in chips.all}, cache.root)
    _check_pixels(loaded, chips, digests, cache)
    values = digests_of(chips.root, contents(chips.all), cache.root)
    sample = _sample(loaded, chips, digests, values)
    segmented = Scorer(config, task, chips, digests).score(models, sample)
    results = _records(config, loaded, sample, identities, segmented)
    report = DenseReport(
        results=results,
        segmented=segmented,
        appended=append_results(out, results),
        out=out,
        remarks=(
            *task.notes,
            *chips.remarks,
            *copy_remarks(chips.splits, values, chips.root),
            *_unlabelled(segmented.values()),
        ),
        figure=config.figure,
    )
    if config.figure:
        report.draw(Path(config.figure))
    return report


# ------------------------------------------------------------------------------ the data


def _limited(loaded: DenseLoaded, limit: int | None) -> DenseChips:
    """Return the images of a task, of each split at most `limit` groups, chosen by hash."""
    if limit is None:
        return loaded.chips
    kept = {}
    for name, part in loaded.chips.splits.items():
        groups = set(hash_order({chip.group for chip in part}, loaded.task.name)[:limit])
        kept[name] = frozenset(chip.id for chip in part if chip.group in groups)
    return loaded.chips.keeping(kept)


def _check_pixels(
    loaded: DenseLoaded, chips: DenseChips, digests: Mapping[str, str], cache: FeatureCache
) -> None:
    """Look at training images, thinned to save memory."""
    some = looked_at(chips.splits["train"])

    def images(sensor: int) -> Imagery:
        return collate([_thinned(chip.pixels[sensor].read()) for chip in some])

    check_pixels(loaded.task.specs, images, content_sha256(some, digests), cache, chips.root)


def _thinned(imagery: Imagery) -> Imagery:
    step = max(1, min(imagery.pixels.shape[2:]) // _CANARY_SIDE)
    pixels = imagery.pixels[:, :, ::step, ::step]
    size = (pixels.shape[2], pixels.shape[3])
    return Imagery(pixels, replace(imagery.spec, size=size), imagery.valid[:, ::step, ::step])


def _sample(
    loaded: DenseLoaded, chips: DenseChips, digests: Mapping[str, str], values: Mapping[str, str]
) -> Sample:
    """Return what is scored on what; the windows of a scene count as one image."""
    found = copies_in_test(chips.splits, values)
    copied = {chip.group for chip in chips.splits["test"] if chip.id in found}
    groups = {name: chips.groups(name) for name in SPLITS}
    whole = len(loaded.chips.groups()) if loaded.published is None else loaded.published
    return Sample(
        dataset=loaded.task.dataset,
        split=chips.rule,
        ids_sha256=subset_hash(f"{name} {group}" for name in SPLITS for group in groups[name]),
        data_sha256=content_sha256(chips.all, digests),
        n_train=len(groups["train"]),
        n_val=len(groups["val"]),
        n_test=len(groups["test"]),
        complete=len(chips.groups()) == whole,
        copies=len(copied),
        train_sha256=subset_hash(groups["train"]),
        val_sha256=subset_hash(groups["val"]),
        test_sha256=subset_hash(groups["test"]),
    )


def _unlabelled(segmented: Iterable[Segmented]) -> tuple[str, ...]:
    """Return a remark if test images have no labelled pixel, whoever looks at them."""
    count = min(int((one.matrices.sum(dim=(1, 2)) == 0).sum()) for one in segmented)
    return (f"{count} test images have no labelled pixel, and count nowhere",) if count else ()


# ------------------------------------------------------------------------------- records


def _records(
    config: DenseConfig,
    loaded: DenseLoaded,
    sample: Sample,
    identities: Mapping[str, Identity],
    segmented: Mapping[str, Segmented],
) -> tuple[Result, ...]:
    task = loaded.task
    made = Made(
        command=config.command(),
        utc=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=provenance.library_versions(),
        git=provenance.commit(),
        device=provenance.device_name(device_of(config.device)),
        feature_seconds=0.0,
        probe_seconds=0.0,
        peak_memory_mb=provenance.peak_memory_mb(),
    )
    results = []
    for name, one in segmented.items():
        for metric in task.metrics:
            score = resampled_segmentation(one.matrices, metric)
            groups = len(one.groups)
            results.append(
                Result(
                    task=task.name,
                    version=task.version,
                    sample=sample,
                    model=identities[name],
                    probe=one.probe,
                    strength=one.strength,
                    gradient_norm=one.gradient_norm,
                    metric=metric,
                    value=float(score(once(groups))),
                    interval=bootstrap_interval(
                        score, groups, repeats=config.bootstrap, seed=config.seed
                    ),
                    seed=config.seed,
                    flags=_flags(config, task, name, metric, identities, segmented),
                    made=replace(
                        made,
                        feature_seconds=round(one.feature_seconds, 2),
                        probe_seconds=round(one.seconds, 2),
                    ),
                    kind=SEGMENTATION,
                    rank=one.rank,
                    predictions=one.predictions,
                    predictions_sha256=one.predictions_sha256,
                )
            )
    return tuple(results)


def _flags(
    config: DenseConfig,
    task: Task,
    name: str,
    metric: Metric,
    identities: Mapping[str, Identity],
    segmented: Mapping[str, Segmented],
) -> tuple[str, ...]:
    waivers = identities[name].waivers
    found = (*forced_flags(waivers), *nonstandard_flags(waivers), *segmented[name].faults)
    found += contamination_flags(identities[name], task.name)
    if identities[name].control:
        return found
    for other, identity in identities.items():
        if identity.control:
            found += _against(config, segmented[name], segmented[other], other, metric)
    return found


def _against(
    config: DenseConfig, one: Segmented, control: Segmented, name: str, metric: Metric
) -> tuple[str, ...]:
    """Return a flag if a model does not beat a control, on the same groups of test images."""
    if one.groups != control.groups:
        return ()
    ahead = resampled_difference(
        resampled_segmentation(one.matrices, metric),
        resampled_segmentation(control.matrices, metric),
    )
    groups = len(one.groups)
    if float(ahead(once(groups))) > 0:
        return ()
    interval = bootstrap_interval(ahead, groups, repeats=config.bootstrap, seed=config.seed)
    return (f"below {name}" if interval.high < 0 else f"not above {name}",)
