"""Probes of a task that are trained on its images: training jobs, choices, records.

Results so far are stored in a journal on disk with the best state, so a killed run resumes with
the next rate. Rates, factors and read-outs are chosen on val; test is predicted once, by the chosen
model. If a paper's faults are requested, val is predicted instead, and test never.

Shapes: N images of a split, M images that are scored (of heads: M heads), K classes.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from eofm.bench.config import BenchConfig, said_of
from eofm.bench.features import check_layers, code_sha256, nothing_to_read
from eofm.bench.finetune.classifier import Classifier, Head, features, precision_of, predict
from eofm.bench.finetune.trainings import (
    NO_FAULTS,
    Case,
    Images,
    Training,
    stratified,
    training_of,
    with_replacement,
)
from eofm.bench.predictions import Archive, Group
from eofm.bench.probes import Scored, choice_of, resampled_metrics
from eofm.bench.samples import countries_in, group_fields, groups_in, label_counts, subsets
from eofm.bench.sources import (
    NONSTANDARD,
    Candidate,
    EncoderSource,
    Identity,
    NetworkSource,
    Trainee,
)
from eofm.datasets.base import Task
from eofm.datasets.images.chips import Chip, Chips
from eofm.errors import ConfigError, DataError, PixelError, TrainingError, WeightsError
from eofm.formats.arrays import read_torch
from eofm.formats.foreign import advice, foreign, opened, read_bounded, sealed
from eofm.formats.text import JSON_BYTES, parse_json
from eofm.io import replacing
from eofm.networks.state import state_sha256
from eofm.probes import features as probed
from eofm.probes.features import ProbeResult, Spectrum, check_features, spectrum_of
from eofm.probes.metrics import BATCH, Metric, batched_average_precision
from eofm.store.splits import SPLITS, subset_hash
from eofm.terminal import track

__all__ = [
    "SAID",
    "Choice",
    "Fit",
    "RateJournal",
    "TrainingJob",
    "run_job",
    "score_on_images",
    "trainees_of",
]

# ---------------------------------------------------------------------------------------- one probe

# In the file of the best state, if it stores predictions on val instead of the state.
SAID: Final = "said of val"


@dataclass(frozen=True)
class Fit:
    """Result of one run.

    Args:
        scores: Score of each head on val, by the deciding metric; NaN if it diverged.
        epoch: Epoch of these scores.
    """

    scores: tuple[float, ...]
    epoch: int

    @property
    def ranked(self) -> list[float]:
        """The scores, with diverged heads below all others."""
        return [-1.0 if math.isnan(score) else score for score in self.scores]

    @property
    def best(self) -> float:
        """The best of them; -1 if all heads have diverged."""
        return max(self.ranked)


@dataclass(frozen=True)
class Choice:
    """The best of all fits.

    Args:
        factor: Learning rate of the networks relative to that of the head.
        head: Index of the head in that fit.
        epoch: Epoch of that fit.
    """

    factor: float
    head: int
    epoch: int


class RateJournal:
    """Fits so far, on disk: scores of every fit, and state and predictions of the best one.

    Args:
        folder: Folder of the journal, created if needed.

    Raises:
        DataError: If the folder cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tried: dict[float, Fit] = {}
        file = folder / "tried.json"
        if not file.is_file():
            return
        with foreign(DataError, _BROKEN, where=file, remedy=_START_AGAIN):
            tried, whole = opened(parse_json(read_bounded(file, JSON_BYTES), nan=True))
            if not whole or not tried["tried"]:
                raise ValueError("its checksum is not that of its content, or it holds no fit")
            for factor, fit in tried["tried"]:
                self.tried[float(factor)] = _fit_of(fit)

    def add(self, factor: float, fit: Fit, state: dict[str, Tensor]) -> None:
        """Record a fit, and its state if it is the best: the state first.

        A kill between the two repeats the fit, with the same result.
        """
        best = max((known.best for known in self.tried.values()), default=-1.0)
        self.tried[factor] = fit
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if fit.best > best:
                with replacing(self.folder / "best.pt") as temporary:
                    torch.save(state, temporary)
            tried = [[factor, asdict(known)] for factor, known in self.tried.items()]
            text = json.dumps(sealed({"tried": tried}))
            with replacing(self.folder / "tried.json") as temporary:
                temporary.write_text(text, "utf-8")
        except (OSError, RuntimeError) as error:  # torch's writer has no specific error
            raise DataError(
                "what was trained cannot be kept",
                found=error,
                where=self.folder,
                remedy=f"{advice(error, 'free some space')}, and run the same command again",
            ) from error

    def best(self) -> Choice:
        """Return the best head of all fits; for ties, the first.

        Raises:
            TrainingError: If all have diverged.
        """
        ranked = [
            (score, Choice(factor, head, fit.epoch))
            for factor, fit in self.tried.items()
            for head, score in enumerate(fit.ranked)
        ]
        score, choice = max(ranked, key=lambda one: one[0])
        if score < 0:
            raise TrainingError(
                "the loss was finite at no rate",
                found=f"factors {', '.join(f'{factor:g}' for factor in self.tried)}",
                where=self.folder,
                remedy="try smaller --train.factors, or a smaller --train.rate",
            )
        return choice

    def state(self) -> dict[str, Tensor]:
        """Return the state of the best fit."""
        return _read(self.folder / "best.pt")

    def said(self) -> Tensor:
        """Return the predictions of the heads of the best fit on val, (M, N, K)."""
        return _read(self.folder / "best.pt")[SAID]

    def forget(self) -> None:
        """Remove the journal when it is no longer needed."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _fit_of(plain: Mapping[str, Any]) -> Fit:
    scores = tuple(map(float, plain["scores"]))
    if not scores:
        raise ValueError("a fit without a score")
    return Fit(scores, int(plain["epoch"]))


def _read(path: Path) -> dict[str, Tensor]:
    with foreign(DataError, _BROKEN, where=path, remedy=_START_AGAIN):
        content: dict[str, Tensor] = read_torch(path)
        return content


_BROKEN: Final = "the journal of a training cannot be read"
_START_AGAIN: Final = "remove its folder, then run the same command: it starts from the beginning"


# Images of train whose features are checked before training.
_LOOK: Final = 2048


@dataclass(frozen=True)
class TrainingJob:
    """A probe to be trained.

    Args:
        kind: A key of `eofm.bench.finetune.trainings.TRAININGS`.
        training: Settings, with the batch that the split allows: see `Training.fitted`.
        trainees: The candidate's networks, one per sensor.
        train: Training images.
        val: Validation images, or None.
        scored: Images to score: test, unless a paper's fault is to score val.
        classes: K.
        seed: Seed of weights, order and views.
        folder: Folder of the journal.
    """

    kind: str
    training: Training
    trainees: tuple[Trainee, ...]
    train: Images
    val: Images | None
    scored: Images
    classes: int
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """Name of the candidate."""
        return self.trainees[0].name


def run_job(job: TrainingJob) -> tuple[ProbeResult, Spectrum]:
    """Train, choose, and predict the images to score.

    Args:
        job: The job.

    Returns:
        The result, and the spectrum of the features that the heads read at the start.

    Raises:
        ConfigError: If there is something to choose and no validation split.
        PixelError: If features are not finite or all zero.
        WeightsError: If a network changes that must not.
        TrainingError: If the loss was finite at no rate.
        DataError: If the journal cannot be written.
    """
    training = job.training
    _check_choice(job)
    sample = next(job.train.batches([[0]])).imagery

    def fresh() -> Classifier:
        return Classifier(job.trainees, training, job.classes, job.seed, sample)

    spectrum = _first_look(job, fresh())
    journal = RateJournal(job.folder)
    for factor in training.factors:
        if factor not in journal.tried:
            journal.add(factor, *_one_fit(job, fresh(), factor))
    head = journal.best().head
    if training.faults.on_val:
        logits = journal.said()[head]
    else:
        model = fresh()
        model.load_state_dict(journal.state())
        logits = predict(model, job.scored)[head]
    return _outcome(job, journal, logits.double()), spectrum


def _check_choice(job: TrainingJob) -> None:
    training = job.training
    options = len(training.factors) * len(training.rates) * len(training.readouts)
    if job.val is None and (options > 1 or training.faults.on_val):
        raise ConfigError(
            "rates and read-outs can only be chosen on a validation split",
            found=f"{options} of them, no validation split",
            where=f"{job.kind} of {job.name}",
            remedy="use a task with one, or a single rate: --train.factors 0.1",
        )


def _first_look(job: TrainingJob, model: Classifier) -> Spectrum:
    """Return the spectrum of the heads' input, after checking it."""
    found = features(model, job.train, min(len(job.train), _LOOK))
    try:
        check_features(found)
    except PixelError as error:
        error.where = job.name
        raise
    return spectrum_of(found)


# ------------------------------------------------------------------------------- one fit


def _one_fit(job: TrainingJob, model: Classifier, factor: float) -> tuple[Fit, dict[str, Tensor]]:
    """Train at one factor; return the result and the state: the last, or that of a fault."""
    from eofm.bench.finetune.fit import fit

    training, every = job.training, job.training.faults.on_val
    kept: list[tuple[Fit, Tensor]] = []

    def look(epoch: int) -> None:
        last = epoch == training.epochs
        if job.val is None or not (last or (every and epoch % every == 0)):
            return
        said = predict(model, job.val)
        found = Fit(tuple(_decide(job, one) for one in said), epoch)
        if not kept or found.best > kept[0][0].best:
            kept[:] = [(found, said)]

    before = state_sha256(model.networks)
    try:
        fit(model, training, factor, job.train, job.seed, look)
    except (TrainingError, PixelError):
        if factor == 0:
            raise
        return Fit((float("nan"),) * len(model.specs), 0), {}
    if factor == 0 and not training.faults.drift and state_sha256(model.networks) != before:
        raise WeightsError(
            "the network changed while its head was trained, though it was frozen",
            where=job.name,
            remedy="features of a moving network are not comparable: buffers must stay as they are "
            "in evaluation mode",
        )
    if every:
        return kept[0][0], {SAID: kept[0][1]}
    reached = kept[0][0] if kept else Fit((0.0,) * len(model.specs), training.epochs)
    return reached, {name: tensor.cpu() for name, tensor in model.state_dict().items()}


def _decide(job: TrainingJob, logits: Tensor) -> float:
    """Return the deciding score; NaN if a head has diverged."""
    if not torch.isfinite(logits).all() or job.val is None:
        return float("nan")
    logits, target = logits.double(), job.val.target
    several = target.ndim == 2
    if several and job.training.faults.on_val and len(target) >= BATCH:
        return batched_average_precision(logits, target)
    return choice_of(several)(logits, target)


# ------------------------------------------------------------------------------- outcome


def _outcome(job: TrainingJob, journal: RateJournal, logits: Tensor) -> ProbeResult:
    training, chosen = job.training, journal.best()
    several = job.train.target.ndim == 2
    head = Head.of(training)[chosen.head]
    words = [head.name] if len(training.readouts) * len(training.rates) > 1 else []
    words += [f"network {chosen.factor:g}"] if len(training.factors) > 1 else []
    words += [f"epoch {chosen.epoch}"] if training.faults.on_val else []
    return ProbeResult(
        probe=training.spelled(job.kind, job.seed),
        scores=logits,
        probability=logits.sigmoid() if several else logits.softmax(dim=1),
        chosen=", ".join(words),
        notes=_notes(job, journal, chosen),
        details=_details(job, journal),
    )


def _notes(job: TrainingJob, journal: RateJournal, chosen: Choice) -> tuple[str, ...]:
    training, notes = job.training, []
    if training.faults != NO_FAULTS:
        said = "; ".join(training.faults.words)
        notes.append(f"{NONSTANDARD}: faults of {training.protocol}: {said}")
    elif training.protocol:
        notes.append(f"{training.protocol} in part")
    diverged = [f"{f:g}" for f, fit in journal.tried.items() if fit.best < 0]
    if diverged:
        notes.append(f"diverged at {', '.join(diverged)}")
    rate = Head.of(training)[chosen.head].rate
    for value, tried in ((chosen.factor, training.factors), (rate, training.rates)):
        if len(tried) > 2 and value in (min(tried), max(tried)):
            notes.append("rate at the edge of those tried")
    return tuple(notes)


def _details(job: TrainingJob, journal: RateJournal) -> dict[str, str]:
    """Return all hyperparameters, all results tried, and deviations from the paper's protocol."""
    training, heads = job.training, Head.of(job.training)
    details = {name: str(value) for name, value in asdict(training).items()}
    moves = max(training.factors) > 0
    details["precision"] = precision_of(job.trainees[0].device, moves)
    details["tried on val"] = "; ".join(
        f"network {factor:g}, {head.name}: {score:.4f} (epoch {fit.epoch})"
        for factor, fit in journal.tried.items()
        for head, score in zip(heads, fit.scores, strict=True)
        if job.val is not None
    )
    if training.protocol:
        details |= said_of(training.protocol)
    return details


# ----------------------------------------------------------------------------- all probes of a task

# Code that predictions of a trained probe depend on, besides the code that treats pixels.
_CODE: Final = ("classifier.py", "fit.py", "runs.py", "trainings.py")

# Percent of BigEarthNet used in the papers.
_SHARE: Final = 10


def trainees_of(candidate: Candidate) -> tuple[Trainee, ...]:
    """Return a candidate's networks; empty if one of its parts cannot be trained."""
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
    kinds: Sequence[str],
    task: Task,
    candidates: Sequence[Candidate],
    chips: Chips,
    archive: Archive,
) -> list[Group]:
    """Train and score probes on images.

    Controls without a network cannot be trained, and have no row. Probes in the archive are not
    trained again.

    Args:
        config: The settings.
        kinds: The probes, keys of `eofm.bench.finetune.trainings.TRAININGS`.
        task: The task.
        candidates: Models to score.
        chips: The images.
        archive: Archive of predictions; its sample describes the split of the images.

    Raises:
        ConfigError: If there is something to choose and no validation split, a network does not
            expose the layers that a probe reads, or no candidate has a network.
        PixelError: If features are not finite or all zero.
        WeightsError: If a network changes that must not.
        TrainingError: If the loss was finite at no rate.
        DataError: If predictions or journal cannot be stored.
    """
    groups = []
    for kind in kinds:
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
        """Return the scores from the archive, or train now; then remove the journal."""
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
            code_sha256(*(str(here / name) for name in _CODE), str(probed.__file__)),
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
    """The images of a probe, and the archive of predictions for those it scores."""

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
    """Return all images split 80/20 as SSL4EO-S12 splits EuroSAT, from its sorted files."""
    every = sorted(chips.all, key=lambda chip: chip.id)
    labels = [chip.label for chip in every if isinstance(chip.label, int)]
    train, test = stratified(labels)
    return tuple(every[place] for place in train), tuple(every[place] for place in test)
