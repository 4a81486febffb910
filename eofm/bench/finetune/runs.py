"""Probes of a task that are trained on its images: by whom, on which of them, into which records.

Shapes: M images that are scored, K classes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from eofm.bench.cache import code_sha256
from eofm.bench.config import BenchConfig
from eofm.bench.features import check_layers, nothing_to_read
from eofm.bench.finetune.job import TrainingJob, run_job
from eofm.bench.finetune.trainings import (
    TRAININGS,
    Case,
    Training,
    stratified,
    training_of,
    with_replacement,
)
from eofm.bench.finetune.views import Images
from eofm.bench.label_counts import label_counts
from eofm.bench.models.network import NetworkSource
from eofm.bench.models.sources import Candidate, EncoderSource, Identity, Trainee
from eofm.bench.predictions import Archive, Group
from eofm.bench.probes import Scored, resampled_metrics
from eofm.bench.samples import countries_in, group_fields, groups_in, subsets
from eofm.datasets.base import Task
from eofm.datasets.images.chips import Chip, Chips
from eofm.probes import linear as probe
from eofm.probes import spectrum as spectra
from eofm.probes.metrics import Metric
from eofm.progress import track
from eofm.store.splits import SPLITS, subset_hash

# What the predictions of a trained probe depend on, beside the code that treats pixels.
_CODE: Final = ("classifier.py", "fit.py", "job.py", "runs.py", "trainings.py", "views.py")

# Percent of BigEarthNet that the papers take.
_SHARE: Final = 10


def trained_kinds(config: BenchConfig) -> tuple[str, ...]:
    """Return those probes of the settings that are trained on images."""
    return tuple(kind for kind in config.probes if kind in TRAININGS)


def trainees_of(candidate: Candidate) -> tuple[Trainee, ...]:
    """Return a candidate's networks; none if one of its parts has nothing to train."""
    found = []
    for part in candidate.parts:
        source = part if isinstance(part, EncoderSource | NetworkSource) else None
        trainee = source.trainee if source else None
        if trainee is None:
            return ()
        found.append(trainee)
    return tuple(found)


def score_on_images(
    config: BenchConfig,
    task: Task,
    candidates: Sequence[Candidate],
    chips: Chips,
    archive: Archive,
) -> list[Group]:
    """Train and score the probes of the settings that are trained on images.

    Controls without a network have nothing to train, and no row. What is in the archive is not
    trained again.

    Args:
        config: The settings.
        task: The task.
        candidates: What is scored.
        chips: The images.
        archive: Where predictions are kept; its sample says how the images were divided.

    Raises:
        ConfigError: If there is something to choose and no validation split, a network does not
            show the layers that a probe reads, or no candidate has a network.
        PixelError: If features are not finite or all zero.
        WeightsError: If a network moves where it must not.
        TrainingError: If the loss was finite at no rate.
        DataError: If predictions or journal cannot be kept.
    """
    groups = []
    for kind in trained_kinds(config):
        runs = _runs(kind, config, task, candidates, chips, archive)
        scored = {(run.name, kind): run.score() for run in track(runs, f"training {kind}")}
        place = runs[0].place
        counts = label_counts(place.train.target, len(task.classes))
        groups.append(Group(place.archive.sample, scored, counts))
    return groups


@dataclass(frozen=True)
class _ProbeRun:
    """One probe of one candidate."""

    kind: str
    training: Training
    trainees: tuple[Trainee, ...]
    model: Identity
    place: _Place
    seed: int

    @property
    def name(self) -> str:
        """Name of the candidate in the records."""
        return self.model.name

    def score(self) -> Scored:
        """Return what lies in the archive, else what is trained now; then drop the journal."""
        place, request = self.place, self._request()
        folder = place.archive.records.parent / "training" / request
        scored = place.archive.kept(request, lambda: self._train(folder))
        shutil.rmtree(folder, ignore_errors=True)
        return scored

    def _request(self) -> str:
        archive, model = self.place.archive, self.model
        here = Path(__file__).parent
        content = [
            *(archive.task, asdict(archive.sample.ungrouped), archive.sample.groups_sha256),
            *(model.weights_sha256 or model.about, model.recipe_sha256, model.plan_sha256),
            *model.waivers,
            *(self.training.spelled(self.kind, self.seed), archive.metrics),
            code_sha256(
                *(str(here / name) for name in _CODE), str(probe.__file__), str(spectra.__file__)
            ),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _train(self, folder: Path) -> Scored:
        start, place = time.monotonic(), self.place
        job = TrainingJob(
            self.kind,
            self.training,
            self.trainees,
            train=place.train,
            val=place.val,
            scored=place.scored,
            classes=len(place.archive.classes),
            seed=self.seed,
            folder=folder,
        )
        found, spectrum = run_job(job)
        target, metrics = place.scored.target, place.archive.metrics
        return Scored(
            self.kind,
            found,
            resampled_metrics(found, target, metrics),
            len(target),
            time.monotonic() - start,
            spectrum,
        )


def _runs(
    kind: str,
    config: BenchConfig,
    task: Task,
    candidates: Sequence[Candidate],
    chips: Chips,
    archive: Archive,
) -> list[_ProbeRun]:
    runs: list[_ProbeRun] = []
    for candidate in candidates:
        trainees = trainees_of(candidate)
        if not trainees:
            continue
        convolutional = any(t.trunk is None or not t.trunk.prefix for t in trainees)
        training = training_of(kind, config.train, Case(convolutional, chips.multi_label))
        if any(readout.layers for readout in training.readouts):
            check_layers(candidate)
        place = runs[0].place if runs else _placed(training, task, chips, archive)
        training = training.fitted(len(place.train))
        model = candidate.identity(task)
        runs.append(_ProbeRun(kind, training, trainees, model, place, config.seed))
    if not runs:
        raise nothing_to_read(candidates)
    return runs


# ---------------------------------------------------------------------------- which images


@dataclass(frozen=True)
class _Place:
    """The images of a probe, and the archive of what is said of those it scores."""

    train: Images
    val: Images | None
    scored: Images
    archive: Archive


def _placed(training: Training, task: Task, chips: Chips, archive: Archive) -> _Place:
    train, val, test = (chips.splits[name] for name in SPLITS)
    sample, faults = archive.sample, training.faults
    whole = not sample.labels and "% of train" not in sample.split
    rules = []
    if training.fraction < 1 and whole:
        train, rule = _cut(train, task, faults.replacement)
        rules.append(rule)
    if faults.on_val and task.name.startswith("eurosat"):
        train, val = _again(chips)
        rules.append("divided again 80/20 as scikit-learn does")
    if faults.on_val:
        test = val
        rules.append("val watched and scored")
    named = zip(SPLITS, (train, val, test), strict=True)
    sample = replace(
        sample,
        split=", ".join([sample.split, *rules]),
        ids_sha256=subset_hash(f"{name} {chip.id}" for name, part in named for chip in part),
        n_train=len(train),
        n_val=0 if faults.on_val else len(val),
        n_test=len(test),
        train_sha256=subset_hash(chip.id for chip in train),
        val_sha256="" if faults.on_val else subset_hash(chip.id for chip in val),
        test_sha256=subset_hash(chip.id for chip in test),
        **group_fields(task.grouping, [chip.id for chip in test], groups_in(test)),
    )
    several = chips.multi_label and training.protocol in {"ssl4eo", "softcon"}
    images = [Images(part, len(task.classes)) for part in (train, val, test)]
    archive = replace(
        archive,
        sample=sample,
        ids=tuple(chip.id for chip in test),
        groups=groups_in(test),
        countries=countries_in(test),
        target=images[2].target,
        metrics=(*archive.metrics, *([Metric.AP_MICRO_BATCHES] if several else [])),
    )
    return _Place(images[0], images[1] if val else None, images[2], archive)


def _cut(train: tuple[Chip, ...], task: Task, replacement: bool) -> tuple[tuple[Chip, ...], str]:
    """Return 10 % of train by hash, or as papers draw it: some images twice, others never."""
    if not replacement:
        (subset,) = subsets(str(_SHARE), 1, train, task.name, task.classes)
        return subset.chips, subset.rule("").removeprefix(", ")
    drawn = with_replacement(len(train), _SHARE)
    words = f"{_SHARE} % of train drawn with replacement, {len(set(drawn))} images"
    return tuple(train[place] for place in drawn), words


def _again(chips: Chips) -> tuple[tuple[Chip, ...], tuple[Chip, ...]]:
    """Return all images divided 80/20 as SSL4EO-S12 divides EuroSAT, from its sorted files."""
    every = sorted(chips.all, key=lambda chip: chip.id)
    labels = [chip.label for chip in every if isinstance(chip.label, int)]
    train, test = stratified(labels)
    return tuple(every[place] for place in train), tuple(every[place] for place in test)
